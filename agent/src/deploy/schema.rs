//! An installed release asked about its migrations: by plans, and by rollbacks about what they leave behind.

use std::time::Duration;

use flipside_api::{AppSpec, Effect, Failure, Migration, Migrations, ReleaseId, migrations::sentence};

use crate::{
    app::{env::Env, health},
    host::{Host, fault},
    runtime::assets::{Schema, Verdict},
    sys::exec::{self, Program},
};

/// The most output that is kept: the report is one line.
const TAIL: usize = 512 << 10;

/// Asks `release`, in a process of the app's user that ends with its question.
///
/// # Errors
/// When it cannot be asked, or its migrations cannot be loaded.
pub(super) async fn ask(
    host: &Host,
    spec: &AppSpec,
    release: &ReleaseId,
    env: &Env,
    named: &[Migration],
) -> Result<Option<Schema>, Failure> {
    let paths = host.paths(&spec.app);
    let venv = paths.release(release).join("venv");
    let domain = health::host(&spec.domains);
    let mut argv = host.assets.preflight_argv(&venv, &spec.health.path, &domain, false);
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
        cwd: paths.data(),
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
    let told = ask(host, spec, current, env, &seen.unknown).await;
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
