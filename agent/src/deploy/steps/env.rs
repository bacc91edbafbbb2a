//! The app's folders, the overlay, and the environment that the release will see, as `env.next`.

use std::path::Path;

use flipside_api::Failure;
use sha2::{Digest, Sha256};

use super::super::{
    context::Context,
    fault::{Moment, point},
};
use crate::{
    app::{deployment::Step, env},
    host::fault,
    sys::{atomic_write, beneath},
};

pub(super) async fn work(ctx: &Context) -> Result<String, Failure> {
    folders(ctx)?;
    overlay(ctx)?;
    point(Step::Env, Moment::During).await?;
    // The copy of an earlier switch must not be taken for one of this.
    remove(&ctx.paths.env_previous())?;
    let text = zeroize::Zeroizing::new(env::to_file(&ctx.env));
    atomic_write::write(&ctx.paths.env_next(), text.as_bytes(), 0o640, ctx.readable())
        .map_err(|error| fault("cannot write the environment", &error))?;
    Ok(format!("{} variables", ctx.env.len()))
}

pub(super) fn undo(ctx: &Context) -> Result<(), Failure> {
    remove(&ctx.paths.env_next())
}

fn remove(path: &Path) -> Result<(), Failure> {
    beneath::remove_tree(path).map_err(|error| fault("cannot remove an old environment", &error))
}

/// Makes what is missing; what is there keeps the owner and mode that Salt gave it.
fn folders(ctx: &Context) -> Result<(), Failure> {
    let paths = &ctx.paths;
    let app = ctx.owner();
    for (folder, mode, owner) in [
        (paths.home().to_owned(), 0o755, None),
        (paths.releases(), 0o755, None),
        (paths.overlays(), 0o755, None),
        (paths.marks(), 0o755, None),
        (paths.data(), 0o750, app),
        (paths.media(), 0o755, app),
        (paths.static_root(), 0o755, app),
        (paths.user_home(), 0o750, app),
    ] {
        if !folder.is_dir() {
            beneath::ensure_dir(&folder, mode, owner)
                .map_err(|error| fault("cannot make a folder of the app", &error))?;
        }
    }
    Ok(())
}

/// Twelve hex digits of an overlay's content; `None` where there is no overlay.
pub(crate) fn overlay_digest(overlay: &std::collections::BTreeMap<String, String>) -> Option<String> {
    if overlay.is_empty() {
        return None;
    }
    let mut hash = Sha256::new();
    for (name, text) in overlay {
        for part in [name, text] {
            hash.update(part.len().to_be_bytes());
            hash.update(part);
        }
    }
    Some(hash.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect())
}

/// Lays the overlay down under the name of its content, whole or not at all.
fn overlay(ctx: &Context) -> Result<(), Failure> {
    let Some(digest) = overlay_digest(&ctx.work.spec.overlay) else { return Ok(()) };
    let folder = ctx.paths.overlay(&digest);
    if folder.is_dir() {
        return Ok(());
    }
    let staging = ctx.paths.overlay(&format!(".new-{digest}"));
    beneath::remove_tree(&staging).map_err(|error| fault("cannot remove an old overlay", &error))?;
    beneath::ensure_dir(&staging, 0o755, None).map_err(|error| fault("cannot make the overlay", &error))?;
    for (name, text) in &ctx.work.spec.overlay {
        atomic_write::write(&staging.join(name), text.as_bytes(), 0o644, None)
            .map_err(|error| fault("cannot write the overlay", &error))?;
    }
    atomic_write::rename(&staging, &folder).map_err(|error| fault("cannot name the overlay", &error))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn an_overlay_is_named_by_its_content() {
        let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
        };
        assert_eq!(overlay_digest(&map(&[])), None);
        let one = overlay_digest(&map(&[("a.py", "x")])).unwrap();
        assert_eq!(one.len(), 12);
        assert_ne!(Some(one), overlay_digest(&map(&[("a.py", "y")])));
        assert_ne!(overlay_digest(&map(&[("a.py", "bc")])), overlay_digest(&map(&[("a.pyb", "c")])));
    }
}
