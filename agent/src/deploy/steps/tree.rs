//! Owners and modes of a whole tree.

use std::{
    fs::Permissions,
    os::unix::fs::{PermissionsExt, lchown},
    path::Path,
};

use flipside_api::Failure;

use crate::host::fault;

/// Gives a tree to `owner`, and takes the right to write from everybody else. Links are given, not followed.
///
/// Nobody else works in the tree meanwhile: whoever did has ended, with all that it started.
pub(super) fn give(root: &Path, owner: (u32, u32)) -> Result<(), Failure> {
    let wrong = |path: &Path, error: std::io::Error| {
        fault(&format!("cannot give {} to user {}", path.display(), owner.0), &error)
    };
    let mut left = vec![root.to_owned()];
    while let Some(path) = left.pop() {
        lchown(&path, Some(owner.0), Some(owner.1)).map_err(|error| wrong(&path, error))?;
        let about = path.symlink_metadata().map_err(|error| wrong(&path, error))?;
        if about.is_symlink() {
            continue;
        }
        let mode = about.permissions().mode();
        if mode & 0o7022 != 0 {
            let strict = Permissions::from_mode(mode & 0o755);
            std::fs::set_permissions(&path, strict).map_err(|error| wrong(&path, error))?;
        }
        if about.is_dir() {
            for entry in std::fs::read_dir(&path).map_err(|error| wrong(&path, error))? {
                left.push(entry.map_err(|error| wrong(&path, error))?.path());
            }
        }
    }
    Ok(())
}
