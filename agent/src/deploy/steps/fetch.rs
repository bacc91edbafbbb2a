//! Copies the package out of the minion's cache into the release's staging folder, and verifies every byte.
//!
//! The hash is taken of the bytes that are written, not of the file that lay there: nobody can swap it in between.

use std::{
    fs::File,
    io::{Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use flipside_api::{Code, Failure};
use sha2::{Digest, Sha256};

use super::super::{
    context::Context,
    fault::{Moment, point},
    manifest::{Manifest, Wheel},
};
use crate::{
    app::deployment::Step,
    host::{chain, fault},
    sys::{atomic_write, beneath, trash},
};

/// What a wheel becomes when it is unpacked and compiled, with the wheel itself, at most.
const GROWTH: u64 = 6;
/// What stays free besides.
const RESERVE: u64 = 64 << 20;

pub(super) async fn work(ctx: &Context) -> Result<String, Failure> {
    let (app, release) = (ctx.work.spec.app.clone(), ctx.work.release.clone());
    let (package, staging) = (ctx.work.package.clone(), ctx.paths.staging(&release));
    let trash = ctx.paths.trash();
    point(Step::Fetch, Moment::During).await?;
    tokio::task::spawn_blocking(move || {
        let (manifest, bytes) = Manifest::read(&package, &app, &release)?;
        beneath::remove_tree(&staging).map_err(|error| fault("cannot remove the staging folder", &error))?;
        let wheels = staging.join("wheels");
        take(&manifest, &package, &wheels, &trash)?;
        atomic_write::write(&staging.join("manifest.json"), &bytes, 0o644, None)
            .map_err(|error| fault("cannot keep the manifest", &error))?;
        Ok(format!("{} wheels, {} bytes", manifest.files.len(), manifest.size()))
    })
    .await
    .map_err(|_| Failure::new(Code::Interrupted, "the agent is ending"))?
}

pub(super) fn undo(ctx: &Context) -> Result<(), Failure> {
    ctx.discard(&ctx.paths.staging(&ctx.work.release))
}

/// Copies the wheels of a package into a new folder, each checked against the manifest. Blocks.
pub(crate) fn take(manifest: &Manifest, package: &Path, to: &Path, trash: &Path) -> Result<(), Failure> {
    beneath::ensure_dir(to, 0o755, None)
        .map_err(|error| fault("cannot make room for the package", &error))?;
    enough_space(to, manifest.size(), trash)?;
    manifest.files.iter().try_for_each(|wheel| copy(&package.join("wheels"), to, wheel))
}

fn enough_space(at: &Path, size: u64, trash: &Path) -> Result<(), Failure> {
    let free = || {
        let disk = rustix::fs::statvfs(at).map_err(|error| fault("cannot look at the disk", &error))?;
        Ok::<_, Failure>(disk.f_bavail.saturating_mul(disk.f_frsize))
    };
    let need = size.saturating_mul(GROWTH).saturating_add(RESERVE);
    if free()? >= need {
        return Ok(());
    }
    // What waits to be cleared away is free as well.
    trash::clear(trash).map_err(|error| fault("cannot make room", &error))?;
    let free = free()?;
    if free >= need {
        return Ok(());
    }
    let mega = |bytes: u64| bytes >> 20;
    Err(Failure::new(
        Code::Host,
        format!(
            "the disk of {} has {} MB free; this release may need {} MB",
            at.display(),
            mega(free),
            mega(need)
        ),
    )
    .hint("make room, or keep fewer releases (keep_releases in agent.toml)"))
}

fn copy(from: &Path, to: &Path, wheel: &Wheel) -> Result<(), Failure> {
    let name = &wheel.name;
    let wrong = |problem: String| {
        Failure::new(Code::Package, format!("{name}: {problem}"))
            .hint("the file on this host is not the one that was published: fetch it again, or publish again")
    };
    let mut source = beneath::open_read(from, Path::new(name)).map_err(|error| wrong(chain(&error)))?;
    let broken = |error: std::io::Error| fault(&format!("cannot copy {name}"), &error);
    let mut target =
        File::options().write(true).create_new(true).mode(0o644).open(to.join(name)).map_err(broken)?;
    let (mut hash, mut size, mut chunk) = (Sha256::new(), 0_u64, vec![0; 256 << 10]);
    loop {
        let n = source.read(&mut chunk).map_err(broken)?;
        if n == 0 {
            break;
        }
        size += n as u64;
        if size > wheel.size {
            return Err(wrong(format!("is larger than the {} bytes of the manifest", wheel.size)));
        }
        hash.update(&chunk[..n]);
        target.write_all(&chunk[..n]).map_err(broken)?;
    }
    let found: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    if size != wheel.size || found != wheel.sha256 {
        return Err(wrong(format!(
            "has {size} bytes with sha256 {found}; the manifest says {} with {}",
            wheel.size, wheel.sha256
        )));
    }
    Ok(())
}
