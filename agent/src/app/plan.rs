//! What a deploy would do, decided from what is and what is wanted, before anything is touched.
//!
//! The plan is a value: `test=True` prints it, the engine follows it, and tests compare it.

use flipside_api::{AppSpec, Effect, Hook, Hooks, ReleaseId, Switch};

use super::deployment::Step;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intent {
    /// A release with its spec and environment.
    Deploy,
    /// An earlier release: code only.
    Rollback,
    /// An earlier release, with the databases as its successor found them.
    RollbackData,
    /// Another environment for the release that is current.
    Env,
}

/// How the release takes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Worker by worker.
    Hot,
    /// A fresh instance on the same listener.
    Cold,
    /// Stop gently, migrate, start: requests wait in the listener.
    Held,
    /// Nothing is to do.
    Unchanged,
}

impl Kind {
    /// The kind in a word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hot => "hot",
            Self::Cold => "cold",
            Self::Held => "held",
            Self::Unchanged => "unchanged",
        }
    }

    /// The kind of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Hot, Self::Cold, Self::Held, Self::Unchanged].into_iter().find(|kind| kind.name() == name)
    }
}

/// What is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// The release that is current.
    pub current: Option<ReleaseId>,
    /// The spec that it was deployed with, without its environment.
    pub spec: Option<AppSpec>,
    /// Whether the environment is the wanted one already.
    pub same_env: bool,
    /// Whether the app's listener is held.
    pub listening: bool,
    /// Whether every worker takes requests and serves the current release.
    pub serving: bool,
    /// A hash of the options that the instance was started with.
    pub options: Option<String>,
    /// Whether the wanted release is installed and sealed.
    pub installed: bool,
    /// Whether the hooks of the first deploy were run.
    pub once_done: bool,
    /// What the migrations that wait do; `None` where the step `schema` will find out.
    pub effect: Option<Effect>,
}

/// What is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Why.
    pub intent: Intent,
    /// The release.
    pub release: ReleaseId,
    /// The spec, without its environment.
    pub spec: AppSpec,
    /// The hooks, the manifest's lists over the spec's.
    pub hooks: Hooks,
    /// A hash of the options that an instance would be started with.
    pub options: String,
    /// Whether a fresh instance is asked for in any case.
    pub cold: bool,
    /// Whether migrations may be destructive.
    pub allow_destructive: bool,
}

/// What will be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// How the release takes over.
    pub kind: Kind,
    /// Why so.
    pub reasons: Vec<String>,
    /// The steps that will run.
    pub steps: Vec<Step>,
}

/// Decides.
pub fn plan(is: &Facts, wanted: &Wanted) -> Plan {
    let mut changes = changes(is, wanted);
    if changes.is_empty() && !wanted.cold {
        let reasons = vec!["the release, its options and its environment are so already".to_owned()];
        return Plan { kind: Kind::Unchanged, reasons, steps: Vec::new() };
    }
    let (kind, why) = kind(is, wanted);
    changes.extend(why);
    Plan { kind, reasons: changes, steps: steps(is, wanted, kind) }
}

fn changes(is: &Facts, wanted: &Wanted) -> Vec<String> {
    let mut changes = Vec::new();
    match &is.current {
        None => changes.push("the app was never deployed here".to_owned()),
        Some(current) if *current != wanted.release => {
            changes.push(format!("the release changes from {current} to {}", wanted.release));
        }
        Some(_) => {}
    }
    if wanted.intent == Intent::RollbackData {
        changes.push("the databases are put back".to_owned());
    }
    if let Some(spec) = is.spec.as_ref().filter(|spec| **spec != wanted.spec) {
        changes.push(format!("options change: {}", differences(spec, &wanted.spec).join(", ")));
    }
    if is.current.is_some() && !is.same_env {
        changes.push("the environment changes".to_owned());
    }
    if is.current.is_some() && !is.listening {
        changes.push("the app does not run".to_owned());
    } else if is.current.is_some() && !is.serving {
        changes.push("not every worker serves the current release".to_owned());
    } else if is.listening && is.options.as_ref() != Some(&wanted.options) {
        changes.push("the running instance was started with other options".to_owned());
    }
    changes
}

/// The names of the options that differ. Values stay out: a plan is printed.
fn differences(was: &AppSpec, will: &AppSpec) -> Vec<&'static str> {
    let mut names = Vec::new();
    macro_rules! compare {
        ($($field:ident),* $(,)?) => { $( if was.$field != will.$field { names.push(stringify!($field)); } )* };
    }
    compare!(
        app,
        template,
        runtime,
        user,
        memory,
        domains,
        public_url,
        wsgi,
        settings,
        workers,
        threads,
        request_timeout,
        start_timeout,
        databases,
        static_files,
        media,
        health,
        switch,
        hooks,
        background,
        schedule,
        overlay,
        overlay_settings,
        maintenance_after,
        release_header,
        backup,
        vhost,
    );
    names
}

fn kind(is: &Facts, wanted: &Wanted) -> (Kind, Option<String>) {
    let cold = |why: &str| (Kind::Cold, Some(format!("cold: {why}")));
    if !is.listening {
        return (Kind::Cold, None);
    }
    if wanted.intent == Intent::RollbackData {
        return (Kind::Held, Some("held: nobody may write while the databases are put back".to_owned()));
    }
    if wanted.spec.switch == Switch::Held && wanted.intent != Intent::Env {
        return (Kind::Held, Some("held: the option switch says so".to_owned()));
    }
    let breaks = match is.effect {
        Some(Effect::Destructive) => wanted.allow_destructive,
        effect => effect == Some(Effect::Breaking),
    };
    if migrates(wanted) && breaks {
        return (Kind::Held, Some("held: the old code cannot go on with what the migrations do".to_owned()));
    }
    if wanted.cold {
        return cold("it was asked for");
    }
    if is.options.as_ref() != Some(&wanted.options) {
        return cold("workers, Python or options of uWSGI change, which a reload does not take up");
    }
    if is.spec.as_ref().is_some_and(|spec| spec.runtime != wanted.spec.runtime) {
        return cold("the runtime changes");
    }
    if wanted.spec.switch == Switch::Cold {
        return cold("the option switch says so");
    }
    (Kind::Hot, Some("hot: only code or environment change".to_owned()))
}

fn has(list: Option<&Vec<Hook>>) -> bool {
    list.is_some_and(|list| !list.is_empty())
}

fn migrates(wanted: &Wanted) -> bool {
    wanted.intent == Intent::Deploy && has(wanted.hooks.migrate.as_ref())
}

fn steps(is: &Facts, wanted: &Wanted, kind: Kind) -> Vec<Step> {
    let has = |list: &Option<Vec<Hook>>| has(list.as_ref());
    let deploy = wanted.intent == Intent::Deploy;
    let rewinds = wanted.intent == Intent::RollbackData;
    let code = wanted.intent != Intent::Env;
    let hooks = &wanted.hooks;
    let copied = wanted.spec.static_files.as_ref().is_some_and(|location| location.package.is_some());
    let touching = has(&hooks.check) || has(&hooks.r#static) || has(&hooks.migrate) || has(&hooks.once);
    Step::ALL
        .into_iter()
        .filter(|step| match step {
            Step::Fetch | Step::Venv => !is.installed,
            Step::Prepare => !is.installed && has(&hooks.prepare),
            Step::Env | Step::Preflight | Step::Switch | Step::Health => true,
            Step::Mark => deploy && touching && !wanted.spec.databases.is_empty(),
            Step::Static => code && (has(&hooks.r#static) || copied),
            Step::Schema => !rewinds && code && has(&hooks.migrate),
            // Or where the step `schema` finds out that it is needed.
            Step::Hold => kind == Kind::Held,
            Step::Data => rewinds,
            Step::Migrate => migrates(wanted),
            Step::Once => deploy && has(&hooks.once) && !is.once_done,
            Step::After => code && has(&hooks.after),
            Step::Retire => deploy || rewinds,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(version: &str) -> ReleaseId {
        ReleaseId::of(version, version.as_bytes()).unwrap()
    }

    fn wanted() -> Wanted {
        let spec: AppSpec = serde_json::from_value(serde_json::json!({
            "app": "blog", "template": "t", "domains": ["b.org"], "public_url": "https://b.org",
            "databases": ["db.sqlite3"],
            "hooks": {"static": [["s"]], "migrate": [["m"]], "once": [["o"]]},
        }))
        .unwrap();
        let hooks = spec.hooks.clone();
        Wanted {
            intent: Intent::Deploy,
            release: release("2"),
            spec,
            hooks,
            options: "o".into(),
            cold: false,
            allow_destructive: false,
        }
    }

    /// The host where release 1 runs with the options that `wanted` has.
    fn running() -> Facts {
        Facts {
            current: Some(release("1")),
            spec: Some(wanted().spec),
            same_env: true,
            listening: true,
            serving: true,
            options: Some("o".into()),
            installed: false,
            once_done: true,
            effect: None,
        }
    }

    fn names(plan: &Plan) -> String {
        plan.steps.iter().map(|step| step.name()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn new_code_is_switched_hot() {
        let plan = plan(&running(), &wanted());
        assert_eq!(plan.kind, Kind::Hot);
        assert_eq!(names(&plan), "fetch env venv mark preflight schema static migrate switch health retire");
        assert!(plan.reasons[0].contains("the release changes from"), "{:?}", plan.reasons);
    }

    #[test]
    fn what_is_so_already_is_unchanged() {
        let is = Facts { current: Some(release("2")), installed: true, ..running() };
        let plan = plan(&is, &wanted());
        assert_eq!((plan.kind, plan.steps.len()), (Kind::Unchanged, 0));
    }

    #[test]
    fn the_first_deploy_runs_once_and_starts() {
        let plan = plan(&Facts::default(), &wanted());
        assert_eq!(plan.kind, Kind::Cold);
        assert!(names(&plan).contains("migrate once switch"));
        assert_eq!(plan.reasons, ["the app was never deployed here"]);
    }

    #[test]
    fn held_holds_between_static_and_migrate() {
        let mut wanted = wanted();
        wanted.spec.switch = Switch::Held;
        assert_eq!(plan(&Facts::default(), &wanted).kind, Kind::Cold, "nothing runs that could be held");
        let plan = plan(&running(), &wanted);
        assert_eq!(plan.kind, Kind::Held);
        assert!(names(&plan).contains("static hold migrate switch"));
    }

    #[test]
    fn migrations_that_the_old_code_cannot_live_with_are_held() {
        let allowed = Wanted { allow_destructive: true, ..wanted() };
        for (effect, kind, held) in [
            (None, Kind::Hot, false),
            (Some(Effect::Harmless), Kind::Hot, false),
            (Some(Effect::Breaking), Kind::Held, true),
            (Some(Effect::Destructive), Kind::Held, true),
        ] {
            let plan = plan(&Facts { effect, ..running() }, &allowed);
            assert_eq!((plan.kind, names(&plan).contains("static hold migrate")), (kind, held));
        }
        let breaking = Facts { effect: Some(Effect::Breaking), ..running() };
        assert_eq!(plan(&breaking, &wanted()).kind, Kind::Held, "it needs no leave");
        let is = Facts { effect: Some(Effect::Destructive), ..running() };
        assert_eq!(plan(&is, &wanted()).kind, Kind::Hot, "the gate refuses it before it is switched");
        let stopped = Facts { listening: false, ..is };
        assert!(!names(&plan(&stopped, &allowed)).contains("hold"), "nothing runs that could be held");
    }

    #[test]
    fn what_a_reload_does_not_take_up_is_cold_and_says_why() {
        let mut more = wanted();
        more.options = "other".into();
        more.spec.workers = 4;
        let plan_more = plan(&running(), &more);
        assert_eq!(plan_more.kind, Kind::Cold);
        assert!(plan_more.reasons.iter().any(|reason| reason == "options change: workers"), "{plan_more:?}");
        let asked = Wanted { cold: true, ..wanted() };
        let is = Facts { current: Some(release("2")), installed: true, ..running() };
        assert_eq!(plan(&is, &asked).kind, Kind::Cold);
    }

    #[test]
    fn an_app_that_does_not_serve_is_not_unchanged() {
        let so = Facts { current: Some(release("2")), installed: true, ..running() };
        let stopped = Facts { listening: false, serving: false, options: None, ..so.clone() };
        assert_eq!(plan(&stopped, &wanted()).kind, Kind::Cold);
        let sick = Facts { serving: false, ..so };
        assert_eq!(plan(&sick, &wanted()).kind, Kind::Hot);
    }

    #[test]
    fn a_rollback_is_code_only() {
        let wanted = Wanted { intent: Intent::Rollback, ..wanted() };
        let plan = plan(&Facts { installed: true, ..running() }, &wanted);
        assert_eq!(names(&plan), "env preflight schema static switch health");
    }

    #[test]
    fn a_rollback_with_data_holds_the_app_even_where_nothing_else_changes() {
        let wanted = Wanted { intent: Intent::RollbackData, release: release("1"), ..wanted() };
        let is = Facts { installed: true, ..running() };
        let held = plan(&is, &wanted);
        assert_eq!((held.kind, held.reasons[0].as_str()), (Kind::Held, "the databases are put back"));
        assert_eq!(names(&held), "env preflight static hold data switch health retire");
        let stopped = plan(&Facts { listening: false, ..is }, &wanted);
        assert_eq!(names(&stopped), "env preflight static data switch health retire");
    }

    #[test]
    fn another_environment_only_reloads() {
        let wanted = Wanted { intent: Intent::Env, release: release("1"), ..wanted() };
        let plan = plan(&Facts { installed: true, same_env: false, ..running() }, &wanted);
        assert_eq!((plan.kind, names(&plan).as_str()), (Kind::Hot, "env preflight switch health"));
    }
}
