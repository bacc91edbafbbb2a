//! What is and what is wanted, looked at before a deploy begins: all that can be refused is refused here.

use std::{path::PathBuf, sync::Arc};

use flipside_api::{AppSpec, Code, Failure, Hooks, Migrations, ReleaseId};

use super::{
    Ask, ONCE, Private,
    context::Brings,
    manifest::Manifest,
    read_env, schema,
    steps::{DESTRUCTIVE, digest, is_installed},
};
use crate::{
    app::{
        env::{self, Env},
        paths::AppPaths,
        plan::{Facts, Intent, Plan, Wanted, plan},
        platform::{self, Offer},
        record::App,
        timetable::Timetable,
    },
    host::{Host, fault},
    runtime::{Observed, assets::Tree},
    secrets,
};

/// Under what name an app's secret key is kept.
const SECRET_KEY: &str = "secret_key";

/// What was seen.
pub(super) struct Sight {
    pub(super) release: ReleaseId,
    pub(super) current: Option<ReleaseId>,
    pub(super) old: Option<AppSpec>,
    pub(super) was_up: bool,
    pub(super) hooks: Hooks,
    pub(super) brings: Brings,
    pub(super) plan: Plan,
    /// The deployment to whose mark the databases go back.
    pub(super) mark: Option<String>,
    /// The release's migrations, where it is only planned.
    pub(super) migrations: Option<Migrations>,
}

/// Looks.
///
/// # Errors
/// With everything that is wrong with the spec, or with what the host lacks.
pub(super) async fn look(host: &Arc<Host>, ask: &Ask) -> Result<Sight, Failure> {
    let paths = host.paths(&ask.spec.app);
    let installed = is_installed(&paths, &ask.release);
    let merged = merged(ask, &paths, installed)?;
    let account = host.account(&ask.spec)?;
    let runtime = host.runtime(ask.spec.runtime)?;
    let brings = brings(host, ask, &merged, &paths).await?;
    let env = &brings.env;
    let known = host.records.app(&ask.spec.app).await?;
    let observed = observe(host, known.as_ref(), &paths).await?;
    let current = current(&paths);
    let serving = !observed.workers.is_empty()
        && observed.workers.iter().all(|worker| worker.accepting && worker.release == current);
    let migrations = if ask.test { foresee(host, ask, &merged, env, current.as_ref()).await } else { None };
    let known_migrations = migrations.as_ref().filter(|all| all.unknown_why.is_empty());
    let facts = Facts {
        current: current.clone(),
        spec: known.as_ref().map(|app| app.spec.clone()),
        same_env: read_env(&paths.env_file()).is_ok_and(|now| platform::same_but_for_release(&now, env)),
        listening: observed.listening,
        serving,
        options: observed.options,
        installed,
        effect: known_migrations.map(Migrations::effect),
        once_done: host.records.kept(&ask.spec.app, ONCE).await?.is_some(),
    };
    let wanted = Wanted {
        intent: ask.intent,
        release: ask.release.clone(),
        spec: ask.spec.clone(),
        hooks: merged.hooks.clone(),
        options: runtime.options(&host.instance(&ask.spec, account)),
        cold: ask.cold,
        allow_destructive: ask.allows(DESTRUCTIVE),
    };
    let plan = plan(&facts, &wanted);
    Ok(Sight {
        release: ask.release.clone(),
        current,
        old: facts.spec,
        was_up: facts.listening,
        hooks: merged.hooks,
        brings,
        plan,
        mark: None,
        migrations,
    })
}

/// What can be said of the migrations now, where the plan has to do with them. Nothing is installed for it: a
/// release that is not there yet is unpacked aside.
async fn foresee(
    host: &Host,
    ask: &Ask,
    merged: &AppSpec,
    env: &Env,
    current: Option<&ReleaseId>,
) -> Option<Migrations> {
    let migrates = merged.hooks.migrate.as_ref().is_some_and(|list| !list.is_empty());
    let changes = matches!(ask.intent, Intent::Deploy | Intent::Rollback) && current != Some(&ask.release);
    if !migrates || !changes {
        return None;
    }
    let untold = |why: &str| Some(Migrations { unknown_why: why.to_owned(), ..Migrations::default() });
    let paths = host.paths(&ask.spec.app);
    let laid = |variable: &str| {
        let folder = env.get(variable).filter(|path| !path.is_empty());
        folder.is_none_or(|path| std::path::Path::new(path).is_dir())
    };
    let ready = laid("FLIPSIDE_OVERLAY") && laid("FILES_DIR") && paths.data().is_dir();
    if !ready {
        return untold(
            "known once there are the app's folders and its environment; destructive ones are refused then, and \
             what the old code cannot live with is held",
        );
    }
    let venv = paths.release(&ask.release).join("venv");
    let unpacked = match is_installed(&paths, &ask.release) {
        true => None,
        false => match schema::Unpacked::new(host, merged, &ask.release, &ask.package).await {
            Ok(unpacked) => Some(unpacked),
            Err(failure) => return untold(&failure.message),
        },
    };
    let tree = unpacked.as_ref().map_or(Tree::Venv(&venv), |unpacked| unpacked.tree(host));
    match schema::ask(host, merged, tree, env, &[]).await {
        Ok(Some(seen)) => {
            let mut migrations = seen.migrations;
            migrations.unknown = match ask.intent {
                Intent::Rollback => schema::unknown(host, merged, current, env, &migrations).await,
                _ => Vec::new(),
            };
            Some(migrations)
        }
        Ok(None) => untold("not Django's, and not known"),
        Err(failure) => untold(&failure.message),
    }
}

/// The spec with what the release's manifest says, checked as a whole.
fn merged(ask: &Ask, paths: &AppPaths, installed: bool) -> Result<AppSpec, Failure> {
    let folder: PathBuf = if installed { paths.release(&ask.release) } else { ask.package.clone() };
    if ask.intent != Intent::Deploy && !installed {
        return Err(Failure::new(Code::NotFound, format!("the release {} is not on this host", ask.release))
            .hint(format!(
                "deploy it: salt 'THIS-HOST' flipside.deploy {} release={}",
                ask.spec.app, ask.release
            )));
    }
    let (manifest, _) = Manifest::read(&folder, &ask.spec.app, &ask.release)?;
    let mut spec = ask.spec.clone();
    spec.hooks = spec.hooks.overridden_by(manifest.hooks);
    spec.wsgi = spec.wsgi.or(manifest.wsgi);
    spec.settings = spec.settings.or(manifest.settings);
    let Private { env, files } = ask.private.clone();
    (spec.env, spec.files) = (env, files);
    spec.check().map_err(|problems| {
        let all: Vec<String> = problems.iter().map(ToString::to_string).collect();
        Failure::new(Code::Spec, all.join("; ")).hint("mend the app's pillar (or the package's hooks)")
    })?;
    for (name, schedule) in &spec.schedule {
        Timetable::parse(&schedule.cron, jiff::tz::TimeZone::UTC).map_err(|problem| {
            Failure::new(Code::Spec, format!("options.schedule.{name}.cron: {problem}"))
                .hint("write minute, hour, day, month and weekday, such as \"10 3 * * *\"")
        })?;
    }
    if spec.wsgi.is_none() {
        return Err(Failure::new(
            Code::Spec,
            "options.wsgi: neither the pillar nor the package names an entry",
        )
        .hint("say options.wsgi: package.wsgi:application"));
    }
    Ok(spec)
}

async fn brings(host: &Host, ask: &Ask, merged: &AppSpec, paths: &AppPaths) -> Result<Brings, Failure> {
    let wrong = |text: String| Failure::new(Code::Spec, text).hint("mend it in the app's pillar");
    let revealed = |of, texts| host.keyring.reveal(of, texts).map_err(|error| wrong(error.to_string()));
    let pillar = revealed("env", &ask.private.env)?;
    let texts = revealed("files", &ask.private.files)?;
    // Named by what the pillar holds: the name of a folder says nothing of a secret.
    let folder = digest(&ask.private.files).map(|digest| paths.files().join(digest));
    let files = folder.as_ref().map(|folder| folder.display().to_string());
    let secret =
        if pillar.contains_key("SECRET_KEY") { String::new() } else { secret_key(host, ask).await? };
    let overlay = digest(&ask.spec.overlay).map(|digest| paths.overlay(&digest).display().to_string());
    let offer = Offer {
        spec: merged,
        release: &ask.release,
        paths,
        memcached: &host.config.memcached,
        secret_key: &secret,
        wsgi: merged.wsgi.as_deref().unwrap_or_default(),
        settings: merged.settings.as_deref(),
        overlay: overlay.as_deref(),
        files: files.as_deref(),
    };
    let platform = platform::variables(&offer, &pillar);
    let mut all = env::render(&pillar, &platform)
        .map_err(|problems| wrong(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")))?;
    platform::insist(&mut all, &platform);
    Ok(Brings { env: all, files: folder.map(|folder| (folder, texts)) })
}

/// The key that is made once for an app that brings none. A plan makes none for good.
async fn secret_key(host: &Host, ask: &Ask) -> Result<String, Failure> {
    let app = &ask.spec.app;
    let sealed = match host.records.kept(app, SECRET_KEY).await? {
        Some(sealed) => sealed,
        None => {
            let made = secrets::random_key();
            if ask.test {
                return Ok(made.to_string());
            }
            let sealed = host.keyring.seal(made.as_bytes()).map_err(|error| fault("cannot seal", &error))?;
            host.records.keep(app, SECRET_KEY, sealed).await?
        }
    };
    let open =
        host.keyring.open_sealed(&sealed).map_err(|error| fault("cannot open the secret key", &error))?;
    Ok(String::from_utf8_lossy(&open).into_owned())
}

/// What runs now, by the runtime that the app has now.
async fn observe(host: &Host, known: Option<&App>, paths: &AppPaths) -> Result<Observed, Failure> {
    match known {
        Some(app) => host.runtime(app.spec.runtime)?.observe(paths).await,
        None => Ok(Observed::default()),
    }
}

/// The release that `current` points at.
pub(super) fn current(paths: &AppPaths) -> Option<ReleaseId> {
    let target = std::fs::read_link(paths.current()).ok()?;
    target.file_name()?.to_str()?.parse().ok()
}

/// What the pillar gives the app alone, sealed for the record.
pub(super) fn seal(host: &Host, private: &Private) -> Result<Vec<u8>, Failure> {
    let json = zeroize::Zeroizing::new(to_json(private)?);
    host.keyring.seal(json.as_bytes()).map_err(|error| fault("cannot seal the environment", &error))
}

/// What [`seal`] sealed.
pub(crate) fn unseal(host: &Host, sealed: &[u8]) -> Result<Private, Failure> {
    let open =
        host.keyring.open_sealed(sealed).map_err(|error| fault("cannot open the environment", &error))?;
    serde_json::from_slice(&open).map_err(|error| fault("the stored environment is damaged", &error))
}

pub(super) fn to_json(value: &impl serde::Serialize) -> Result<String, Failure> {
    serde_json::to_string(value).map_err(|error| fault("cannot write the record", &error))
}
