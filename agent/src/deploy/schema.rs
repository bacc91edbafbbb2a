//! A release asked about its migrations: by plans, and by rollbacks about what they leave behind. One that is not
//! installed is unpacked aside for that.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use flipside_api::{AppSpec, Code, Effect, Failure, Migration, Migrations, ReleaseId, migrations::sentence};

use super::{manifest::Manifest, steps::take};
use crate::{
    app::{env::Env, health},
    host::{Host, chain, fault},
    runtime::assets::{Schema, Tree, Verdict},
    sys::{
        beneath,
        exec::{self, Program},
        trash,
    },
};

/// The most output that is kept: the report is one line.
const TAIL: usize = 512 << 10;

/// The wheels of a release that is not installed, in a folder of their own until this is dropped.
pub(super) struct Unpacked {
    folder: PathBuf,
    trash: PathBuf,
}

impl Unpacked {
    /// Copies and checks the wheels; the question itself unpacks them, as the app's user.
    ///
    /// # Errors
    /// When the package is not what its manifest says, or there is no room.
    pub(super) async fn new(
        host: &Host,
        spec: &AppSpec,
        release: &ReleaseId,
        package: &Path,
    ) -> Result<Self, Failure> {
        let (paths, app, release, package) =
            (host.paths(&spec.app), spec.app.clone(), release.clone(), package.to_owned());
        // The next deploy clears away what an agent that was killed left of it.
        let folder = paths.releases().join(format!(".new-plan-{:016x}", rand::random::<u64>()));
        let unpacked = Self { folder, trash: paths.trash() };
        let owner = host.account(spec)?.map(|account| (account.uid, account.gid));
        let work = move || {
            let (manifest, _) = Manifest::read(&package, &app, &release)?;
            let site = unpacked.folder.join("site");
            take(&manifest, &package, &unpacked.folder.join("wheels"), &unpacked.trash)?;
            beneath::ensure_dir(&site, 0o700, owner)
                .map_err(|error| fault("cannot make room for the package", &error))?;
            Ok(unpacked)
        };
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|_| Failure::new(Code::Interrupted, "the agent is ending"))?
    }

    /// What is asked of it.
    pub(super) fn tree<'a>(&'a self, host: &'a Host) -> Tree<'a> {
        Tree::Wheels { python: &host.config.python, folder: &self.folder }
    }
}

impl Drop for Unpacked {
    fn drop(&mut self) {
        if let Err(error) = trash::discard(&self.folder, &self.trash) {
            tracing::warn!(folder = %self.folder.display(), error = chain(&error), "UnpackedNotRemoved");
        }
    }
}

/// Asks a release, in a process of the app's user that ends with its question.
///
/// # Errors
/// When it cannot be asked, or its migrations cannot be loaded.
pub(super) async fn ask(
    host: &Host,
    spec: &AppSpec,
    tree: Tree<'_>,
    env: &Env,
    named: &[Migration],
) -> Result<Option<Schema>, Failure> {
    let domain = health::host(&spec.domains);
    let mut argv = host.assets.preflight_argv(tree, &spec.health.path, &domain, false);
    argv.extend(host.assets.schema_arguments());
    argv.push("--schema-only".to_owned());
    if !named.is_empty() {
        argv.push("--named".to_owned());
        argv.extend(named.iter().map(|migration| format!("{}.{}", migration.app, migration.name)));
    }
    let timeout = Duration::from_secs(u64::from(spec.start_timeout));
    let program = Program {
        argv,
        env: env.clone(),
        cwd: host.paths(&spec.app).data(),
        account: host.account(spec)?,
        stdin: None,
        timeout,
        tail: TAIL,
    };
    let ended = exec::run(program, &mut |_| {})
        .await
        .map_err(|error| fault("cannot look at the migrations", &error))?;
    Ok(Verdict::of(&ended, timeout)?.schema)
}

/// The migrations that the databases have and that an older release does not know, each with what it does, as
/// the release that is current tells. What neither of them knows is left out: it has not come with an upgrade.
pub(super) async fn unknown(
    host: &Host,
    spec: &AppSpec,
    current: Option<&ReleaseId>,
    env: &Env,
    seen: &Migrations,
) -> Vec<Migration> {
    if seen.unknown.is_empty() {
        return Vec::new();
    }
    let Some(current) = current else { return seen.unknown.clone() };
    let venv = host.paths(&spec.app).release(current).join("venv");
    let told = ask(host, spec, Tree::Venv(&venv), env, &seen.unknown).await;
    let named = told.map(|schema| schema.unwrap_or_default().named).unwrap_or_else(|failure| {
        tracing::warn!(app = %spec.app, release = %current, error = failure.message, "MigrationsNotDescribed");
        seen.unknown.clone()
    });
    // It describes each for every database; only where it was applied does it count.
    let is_applied = |migration: &Migration| {
        seen.unknown.iter().any(|one| {
            (&one.database, &one.app, &one.name) == (&migration.database, &migration.app, &migration.name)
        })
    };
    named.into_iter().filter(is_applied).collect()
}

/// How many wait, in words.
pub(super) fn waiting(migrations: &Migrations) -> String {
    match migrations.pending.len() {
        0 => "no migration waits".to_owned(),
        1 => "1 migration waits".to_owned(),
        n => format!("{n} migrations wait"),
    }
}

/// Those that wait and do at least this, in a sentence.
pub(super) fn doing(migrations: &Migrations, effect: Effect) -> Option<String> {
    let text = sentence(migrations.doing(effect));
    (!text.is_empty()).then_some(text)
}

/// What whoever rolls back should know of them.
pub(super) fn warning(release: &ReleaseId, unknown: &[Migration]) -> Option<String> {
    if unknown.is_empty() {
        return None;
    }
    let what = sentence(unknown);
    let fate = if unknown.iter().any(|one| one.effect() > Effect::Harmless) {
        "it will likely fail with them: with_data=True (--with-data) puts the databases back too"
    } else {
        "it goes on with them"
    };
    Some(format!("code only: the databases keep migrations that {release} does not know: {what}; {fate}"))
}
