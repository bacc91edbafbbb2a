//! The app's folders, the overlay, the configuration files, and the environment that the release will see, as
//! `env.next`.

use std::{collections::BTreeMap, path::Path};

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
    let texts = &ctx.work.spec.overlay;
    if let Some(digest) = digest(texts) {
        lay(texts, &ctx.paths.overlay(&digest), 0o644, None)?;
    }
    if let Some((folder, texts)) = &ctx.brings.files {
        lay(texts, folder, 0o640, ctx.readable())?;
    }
    point(Step::Env, Moment::During).await?;
    // The copy of an earlier switch must not be taken for one of this.
    remove(&ctx.paths.env_previous())?;
    let text = zeroize::Zeroizing::new(env::to_file(&ctx.brings.env));
    atomic_write::write(&ctx.paths.env_next(), text.as_bytes(), 0o640, ctx.readable())
        .map_err(|error| fault("cannot write the environment", &error))?;
    Ok(format!("{} variables", ctx.brings.env.len()))
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
        (paths.files(), 0o755, None),
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

/// Twelve hex digits of what texts hold, with their names; `None` where there is none.
pub(crate) fn digest(texts: &BTreeMap<String, String>) -> Option<String> {
    if texts.is_empty() {
        return None;
    }
    let mut hash = Sha256::new();
    for (name, text) in texts {
        for part in [name, text] {
            hash.update(part.len().to_be_bytes());
            hash.update(part);
        }
    }
    Some(hash.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect())
}

/// Lays texts down in a folder that is named by them, whole or not at all.
fn lay(
    texts: &BTreeMap<String, String>,
    folder: &Path,
    mode: u32,
    owner: Option<(u32, u32)>,
) -> Result<(), Failure> {
    if folder.is_dir() {
        return Ok(());
    }
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let staging = folder.with_file_name(format!(".new-{name}"));
    let failed = |what: &str| format!("cannot {what} {}", folder.display());
    beneath::remove_tree(&staging).map_err(|error| fault(&failed("clear the way to"), &error))?;
    beneath::ensure_dir(&staging, 0o755, None).map_err(|error| fault(&failed("make"), &error))?;
    for (name, text) in texts {
        atomic_write::write(&staging.join(name), text.as_bytes(), mode, owner)
            .map_err(|error| fault(&failed("write in"), &error))?;
    }
    atomic_write::rename(&staging, folder).map_err(|error| fault(&failed("name"), &error))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_folder_is_named_by_its_content() {
        let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
        };
        assert_eq!(digest(&map(&[])), None);
        let one = digest(&map(&[("a.py", "x")])).unwrap();
        assert_eq!(one.len(), 12);
        assert_ne!(Some(one), digest(&map(&[("a.py", "y")])));
        assert_ne!(digest(&map(&[("a.py", "bc")])), digest(&map(&[("a.pyb", "c")])));
    }
}
