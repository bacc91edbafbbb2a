//! Folders that go at once: renamed aside, and cleared away by a thread of its own.
//!
//! To unlink thousands of files takes a minute on a disk that discards what is freed, and nobody should wait for
//! it. What a killed process leaves in a trash folder is cleared by [`sweep`] at the next start.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        OnceLock,
        mpsc::{SyncSender, sync_channel},
    },
};

use super::beneath::{self, BeneathError};

/// How many trash folders wait to be cleared. One that finds no room is cleared with what comes into it next.
const WAITING: usize = 64;

/// Takes `path` away into the folder `trash`, which lies on the same file system; a path that is not there is no
/// error. Where it cannot be renamed, as on a full disk, it is removed on the spot.
///
/// # Errors
/// When it can be neither renamed nor removed.
pub fn discard(path: &Path, trash: &Path) -> Result<(), BeneathError> {
    if path.symlink_metadata().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
        return Ok(());
    }
    let aside = trash.join(format!("{:016x}", rand::random::<u64>()));
    if beneath::ensure_dir(trash, 0o700, None).is_err() || fs::rename(path, &aside).is_err() {
        return beneath::remove_tree(path);
    }
    sweep(trash.to_owned());
    Ok(())
}

/// Has the folder cleared in the background. One thread does it: two would only be in each other's way.
pub fn sweep(trash: PathBuf) {
    static SWEEPER: OnceLock<Option<SyncSender<PathBuf>>> = OnceLock::new();
    let sweeper = SWEEPER.get_or_init(|| {
        let (sender, heard) = sync_channel::<PathBuf>(WAITING);
        let work = move || {
            while let Ok(trash) = heard.recv() {
                if let Err(error) = clear(&trash) {
                    tracing::warn!(trash = %trash.display(), error = crate::host::chain(&error), "TrashNotCleared");
                }
            }
        };
        // Not one of the runtime's threads: an agent that ends does not wait for it.
        std::thread::Builder::new().name("sweep".into()).spawn(work).is_ok().then_some(sender)
    });
    if let Some(sweeper) = sweeper {
        let _ = sweeper.try_send(trash);
    }
}

/// Clears the folder now.
///
/// # Errors
/// For the first that cannot be removed, once all else is.
pub fn clear(trash: &Path) -> Result<(), BeneathError> {
    let entries = fs::read_dir(trash).into_iter().flatten().flatten();
    entries.map(|entry| beneath::remove_tree(&entry.path())).fold(Ok(()), Result::and)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn what_is_discarded_is_gone_at_once_and_cleared_soon() {
        let folder = tempfile::tempdir().unwrap();
        let (tree, trash) = (folder.path().join("tree"), folder.path().join(".trash"));
        fs::create_dir_all(tree.join("a/b")).unwrap();
        std::os::unix::fs::symlink(folder.path(), tree.join("a/link")).unwrap();
        discard(&tree, &trash).unwrap();
        assert!(!tree.exists());
        let deadline = Instant::now() + Duration::from_secs(20);
        while fs::read_dir(&trash).unwrap().next().is_some() {
            assert!(Instant::now() < deadline, "it is never cleared");
            std::thread::sleep(Duration::from_millis(10));
        }
        discard(&tree, &trash).unwrap();
    }

    #[test]
    fn where_nothing_can_be_renamed_it_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let (tree, no_folder) = (folder.path().join("tree"), folder.path().join("file"));
        fs::create_dir_all(tree.join("a")).unwrap();
        crate::sys::atomic_write::write(&no_folder, b"", 0o644, None).unwrap();
        discard(&tree, &no_folder).unwrap();
        assert!(!tree.exists());
    }
}
