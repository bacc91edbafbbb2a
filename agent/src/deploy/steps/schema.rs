//! The gate of migrations that lose data, and what a rollback leaves behind that the older code does not know.
//!
//! It judges what the pre-flight has seen; nothing has been touched yet.

use std::{
    path::{Path, PathBuf},
    sync::atomic::Ordering,
};

use flipside_api::{Code, Effect, Failure};

use super::super::{
    context::Context,
    fault::{Moment, point},
    schema,
};
use crate::{app::deployment::Step, sqlite};

/// The name by which an operator allows it.
pub(crate) const DESTRUCTIVE: &str = "destructive";

pub(super) async fn work(ctx: &Context) -> Result<String, Failure> {
    point(Step::Schema, Moment::During).await?;
    let Some(found) = ctx.found.schema.get() else {
        return Ok("nothing is known of its migrations: they are not Django's, or cannot be told".to_owned());
    };
    if !ctx.will(Step::Migrate) {
        return behind(ctx).await;
    }
    if let Some(note) = unnamed(&found.files, &ctx.paths.data(), &ctx.work.spec.databases) {
        let _ = ctx.found.note.set(note);
    }
    let migrations = &found.migrations;
    let waiting = schema::waiting(migrations);
    let Some(what) = schema::doing(migrations, Effect::Breaking) else {
        return Ok(format!("{waiting}, none destructive"));
    };
    let destructive = schema::doing(migrations, Effect::Destructive);
    if let Some(destructive) = &destructive
        && !ctx.work.allow.iter().any(|risk| risk == DESTRUCTIVE)
    {
        return Err(refused(ctx, destructive));
    }
    // Where nothing runs there is nobody whose requests could be held.
    if ctx.work.was_up && !ctx.is_held() {
        ctx.hold_instead().await?;
    }
    let why =
        if destructive.is_some() { "destructive and allowed" } else { "the old code cannot write with" };
    Ok(format!("{waiting}; {why}: {what}"))
}

fn refused(ctx: &Context, what: &str) -> Failure {
    let (app, release) = (&ctx.work.spec.app, &ctx.work.release);
    let host = &ctx.host.config.id;
    Failure::new(
        Code::Gate,
        format!("{release} brings migrations that lose data or break the code of before: {what}"),
    )
    .hint(format!(
        "look at them, then allow it: salt '{host}' flipside.deploy {app} release={release} allow={DESTRUCTIVE} \
         (on the host: flipside deploy {app} --release {release} --allow {DESTRUCTIVE}); requests wait while \
         they run, and a mark to go back to is made before"
    ))
}

/// The databases of the project that no pattern names, in a sentence. Without patterns none is meant to be.
fn unnamed(files: &[PathBuf], data: &Path, patterns: &[String]) -> Option<String> {
    let is_named = |file: &PathBuf| {
        let relative = file.strip_prefix(data).ok().and_then(Path::to_str);
        relative.is_some_and(|relative| sqlite::is_named(patterns, relative))
    };
    let lost: Vec<String> =
        files.iter().filter(|file| !is_named(file)).map(|file| file.display().to_string()).collect();
    (!patterns.is_empty() && !lost.is_empty()).then(|| {
        let lost = lost.join(", ");
        format!("{lost}: named by none of options.databases, so neither backed up nor put back by a rollback")
    })
}

/// What the databases have that this older release does not know.
async fn behind(ctx: &Context) -> Result<String, Failure> {
    let work = &ctx.work;
    let Some(found) = ctx.found.schema.get() else { return Ok(String::new()) };
    let env = ctx.current_env()?;
    let unknown =
        schema::unknown(&ctx.host, &work.spec, work.previous.as_ref(), &env, &found.migrations).await;
    let Some(note) = schema::warning(&work.release, &unknown) else {
        return Ok("it knows every migration of the databases".to_owned());
    };
    let _ = ctx.found.note.set(note.clone());
    if ctx.found.sick.load(Ordering::Relaxed) {
        return Ok(format!("{note}; it answers badly, and is asked once more before the switch"));
    }
    Ok(note)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_that_no_pattern_names_is_told() {
        let files = ["/d/db.sqlite3", "/d/sub/x.db", "/elsewhere/y.db"].map(PathBuf::from);
        let told = |patterns: &[&str]| {
            let patterns: Vec<String> = patterns.iter().map(ToString::to_string).collect();
            unnamed(&files, Path::new("/d"), &patterns)
        };
        let note = told(&["*.sqlite3", "*.db"]).unwrap();
        assert!(note.starts_with("/d/sub/x.db, /elsewhere/y.db: "), "{note}");
        assert!(told(&["*.sqlite3", "*/*.db"]).unwrap().starts_with("/elsewhere/y.db: "));
        assert_eq!(told(&[]), None);
    }
}
