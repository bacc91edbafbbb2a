//! Builds the release's virtual environment from the verified wheels, as a user who may do nothing else.
//!
//! It is built in the staging folder and renamed: a release folder is whole or not there. uv is told of no index,
//! no sources and no builds, so what it installs is what the manifest lists. Each build has a cache of its own,
//! which goes with it: uv knows local wheels by their paths, so a shared one would never be hit, and only grow.

use std::{collections::BTreeMap, fmt::Write, path::Path, sync::Arc, time::Duration};

use flipside_api::{Code, Failure, ReleaseId};

use super::{
    super::{
        context::{Context, DEPLOYMENT},
        fault::{Moment, point},
        manifest::Manifest,
    },
    tree,
};
use crate::{
    app::{deployment::Step, paths::AppPaths},
    host::{chain, fault},
    runtime::Account,
    sys::{
        atomic_write, beneath,
        exec::{self, Program},
        trash, users,
    },
};

/// A venv of 1 GB on a slow disk.
const TIMEOUT: Duration = Duration::from_secs(900);

/// The folder in staging that is uv's own: its home and its cache.
const BUILD: &str = "build";

/// The file that makes a release folder a release: written last.
const SEAL: &str = "release.json";

/// Whether the release is installed and sealed.
pub(crate) fn is_installed(paths: &AppPaths, release: &ReleaseId) -> bool {
    paths.release(release).join(SEAL).is_file()
}

/// The releases that are installed, each with the time of its seal in milliseconds.
pub(crate) fn installed(paths: &AppPaths) -> Vec<(ReleaseId, i64)> {
    let entries = std::fs::read_dir(paths.releases()).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let release: ReleaseId = entry.file_name().to_str()?.parse().ok()?;
            let sealed = entry.path().join(SEAL).metadata().ok()?.modified().ok()?;
            let at = sealed.duration_since(std::time::UNIX_EPOCH).ok()?.as_millis();
            Some((release, i64::try_from(at).ok()?))
        })
        .collect()
}

pub(super) async fn work(ctx: &Context) -> Result<String, Failure> {
    let staging = ctx.paths.staging(&ctx.work.release);
    let (manifest, _) = Manifest::read(&staging, &ctx.work.spec.app, &ctx.work.release)?;
    let builder = builder(ctx)?;
    beneath::ensure_dir(&staging, 0o755, builder.as_ref().map(|account| (account.uid, account.gid)))
        .map_err(|error| fault("cannot prepare the staging folder", &error))?;
    requirements(&staging, &manifest)?;
    let venv = staging.join("venv").display().to_string();
    let python = ctx.host.config.python.display().to_string();
    let make = ["venv", "--quiet", "--relocatable", "--no-project", "--python", &python, &venv];
    uv(ctx, builder.as_ref(), &make).await?;
    point(Step::Venv, Moment::During).await?;
    let interpreter = format!("{venv}/bin/python");
    let list = staging.join("requirements.txt").display().to_string();
    let install = [
        "pip",
        "install",
        "--quiet",
        "--python",
        &interpreter,
        "--no-index",
        "--no-deps",
        "--require-hashes",
        "--no-build",
        "--link-mode",
        "hardlink",
        "--compile-bytecode",
        "--requirement",
        &list,
    ];
    uv(ctx, builder.as_ref(), &install).await?;
    let (paths, release, root) = (ctx.paths.clone(), ctx.work.release.clone(), builder.is_some());
    let sealed = ctx.work.hooks.prepare.as_ref().is_none_or(Vec::is_empty);
    tokio::task::spawn_blocking(move || finish(&paths, &release, root, sealed))
        .await
        .map_err(|_| Failure::new(Code::Interrupted, "the agent is ending"))??;
    Ok(format!("{} packages", manifest.files.len()))
}

pub(super) fn undo(ctx: &Context) -> Result<(), Failure> {
    let release = &ctx.work.release;
    // The plan builds only what is not installed, so what is there is this deployment's own.
    if ctx.work.previous.as_ref() != Some(release) {
        ctx.discard(&ctx.paths.release(release))?;
    }
    ctx.discard(&ctx.paths.staging(release))
}

fn builder(ctx: &Context) -> Result<Option<Account>, Failure> {
    if !users::am_root() {
        return Ok(None);
    }
    users::account(&ctx.host.config.build_user).map(Some).map_err(|error| {
        fault("releases are built by a user of their own", &error)
            .hint("apply the state flipside.agent, or name another build_user in agent.toml")
    })
}

fn requirements(staging: &Path, manifest: &Manifest) -> Result<(), Failure> {
    let mut text = String::new();
    for wheel in &manifest.files {
        let path = staging.join("wheels").join(&wheel.name);
        // Writing to a String does not fail.
        let _ = writeln!(text, "{} --hash=sha256:{}", path.display(), wheel.sha256);
    }
    atomic_write::write(&staging.join("requirements.txt"), text.as_bytes(), 0o644, None)
        .map_err(|error| fault("cannot write the list of wheels", &error))
}

async fn uv(ctx: &Context, builder: Option<&Account>, arguments: &[&str]) -> Result<(), Failure> {
    let home = ctx.paths.staging(&ctx.work.release).join(BUILD);
    let owner = builder.map(|account| (account.uid, account.gid));
    beneath::ensure_dir(&home, 0o755, owner).map_err(|error| fault("cannot make uv's folder", &error))?;
    let home = home.display().to_string();
    let env = BTreeMap::from([
        (DEPLOYMENT.to_owned(), ctx.work.id.clone()),
        ("HOME".to_owned(), home.clone()),
        ("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin".to_owned()),
        ("UV_CACHE_DIR".to_owned(), format!("{home}/cache")),
        ("UV_OFFLINE".to_owned(), "1".to_owned()),
        ("UV_NO_CONFIG".to_owned(), "1".to_owned()),
        ("UV_NO_PROGRESS".to_owned(), "1".to_owned()),
        ("UV_PYTHON_DOWNLOADS".to_owned(), "never".to_owned()),
    ]);
    let program = ctx.host.config.uv.display().to_string();
    let argv =
        std::iter::once(program.as_str()).chain(arguments.iter().copied()).map(str::to_owned).collect();
    let channel = Arc::clone(&ctx.channel);
    let program = Program {
        argv,
        env,
        cwd: "/".into(),
        account: builder.cloned(),
        stdin: None,
        timeout: TIMEOUT,
        tail: 64 << 10,
    };
    let failed = |message: String| {
        Failure::new(Code::Build, message)
            .hint("the wheels must be complete and fit this host's Python; see the log")
    };
    let ended = exec::run(program, &mut |line| channel.output("", line)).await.map_err(|error| {
        failed(chain(&error)).hint("uv must be where agent.toml says, for the user who builds releases")
    })?;
    if ended.ok() {
        return Ok(());
    }
    let how =
        if ended.timed_out { "took too long".to_owned() } else { format!("ended with {:?}", ended.code) };
    Err(failed(format!("uv {} {how}", arguments.first().copied().unwrap_or_default())).log(ended.lines(40)))
}

/// Clears away, gives the release to root, and names it.
fn finish(paths: &AppPaths, release: &ReleaseId, root: bool, sealed: bool) -> Result<(), Failure> {
    let staging = paths.staging(release);
    for leftover in ["wheels", "requirements.txt", BUILD] {
        trash::discard(&staging.join(leftover), &paths.trash())
            .map_err(|error| fault("cannot clear the staging folder", &error))?;
    }
    if root {
        tree::give(&staging, (0, 0))?;
    }
    if sealed {
        seal(&staging, release)?;
    }
    let target = paths.release(release);
    // What has the name and no seal was cut short in an earlier attempt.
    trash::discard(&target, &paths.trash())
        .map_err(|error| fault("cannot remove an unfinished release", &error))?;
    atomic_write::rename(&staging, &target).map_err(|error| fault("cannot name the release", &error))
}

/// Makes the folder a release: what it holds is on disk before the seal says so, whatever becomes of the power.
pub(super) fn seal(folder: &Path, release: &ReleaseId) -> Result<(), Failure> {
    std::fs::File::open(folder)
        .and_then(|folder| Ok(rustix::fs::syncfs(folder)?))
        .map_err(|error| fault("cannot bring the release to disk", &error))?;
    let text = format!("{{\"v\":1,\"release\":\"{release}\"}}\n");
    atomic_write::write(&folder.join(SEAL), text.as_bytes(), 0o644, None)
        .map_err(|error| fault("cannot seal the release", &error))
}
