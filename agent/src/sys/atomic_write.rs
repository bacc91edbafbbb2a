//! Files that are never seen half written, not after a crash either.
//!
//! The new content lies under a name of its own in the same folder, is synced, takes the final name in one
//! step, and then the folder is synced. Whoever opens the path sees the old file or the new one.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt, fchown},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

/// A write that did not happen; what was there before is still there.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {}", path.display())]
pub struct WriteError {
    what: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl WriteError {
    /// The kind of the system's error, to tell a full disk from a missing folder.
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }
}

fn failed<'a>(what: &'static str, path: &'a Path) -> impl Fn(io::Error) -> WriteError + 'a {
    move |source| WriteError { what, path: path.to_owned(), source }
}

/// Puts `bytes` at `path` with `mode` (umask aside), owned by `owner` when given, else by this process.
///
/// # Errors
/// When the folder is missing, full or read-only.
pub fn write(path: &Path, bytes: &[u8], mode: u32, owner: Option<(u32, u32)>) -> Result<(), WriteError> {
    let temporary = beside(path)?;
    let outcome = fill(&temporary, bytes, mode, owner)
        .and_then(|()| fs::rename(&temporary, path))
        .map_err(failed("write", path));
    if outcome.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    outcome?;
    sync_folder_of(path)
}

/// Makes `path` a symbolic link to `target`, in place of what was there.
///
/// # Errors
/// When the folder is missing or read-only, or `path` is a folder.
pub fn symlink(target: &Path, path: &Path) -> Result<(), WriteError> {
    let temporary = beside(path)?;
    let outcome = std::os::unix::fs::symlink(target, &temporary)
        .and_then(|()| fs::rename(&temporary, path))
        .map_err(failed("make the link", path));
    if outcome.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    outcome?;
    sync_folder_of(path)
}

/// Renames `from` to `to`, for good: both folders are synced.
///
/// # Errors
/// When either folder is missing or read-only, or they lie on different file systems.
pub fn rename(from: &Path, to: &Path) -> Result<(), WriteError> {
    fs::rename(from, to).map_err(failed("rename a file to", to))?;
    sync_folder_of(to)?;
    if from.parent() == to.parent() { Ok(()) } else { sync_folder_of(from) }
}

fn fill(temporary: &Path, bytes: &[u8], mode: u32, owner: Option<(u32, u32)>) -> io::Result<()> {
    // Nobody but us may read it before its owner is right: it may hold secrets.
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(temporary)?;
    file.write_all(bytes)?;
    if let Some((uid, gid)) = owner {
        fchown(&file, Some(uid), Some(gid))?;
    }
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.sync_all()
}

/// A name in the folder of `path` that no other write of any process uses now.
fn beside(path: &Path) -> Result<PathBuf, WriteError> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let Some(name) = path.file_name() else {
        return Err(failed("write", path)(io::Error::from(io::ErrorKind::InvalidFilename)));
    };
    let mut temporary = OsString::from(".");
    // A long name must leave room for the rest.
    temporary.push(name.to_string_lossy().chars().take(60).collect::<String>());
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let random: u32 = rand::random();
    temporary.push(format!(".{}-{count}-{random:08x}.tmp", std::process::id()));
    Ok(path.with_file_name(temporary))
}

fn sync_folder_of(path: &Path) -> Result<(), WriteError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed("sync the folder of", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_with_its_mode_and_nothing_is_left_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("env");
        write(&path, b"one", 0o644, None).unwrap();
        write(&path, b"two", 0o640, None).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o640);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_link_in_the_way_is_replaced_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let victim = folder.path().join("victim");
        write(&victim, b"mine", 0o644, None).unwrap();
        let path = folder.path().join("env");
        symlink(&victim, &path).unwrap();
        write(&path, b"new", 0o644, None).unwrap();
        assert_eq!(fs::read(&victim).unwrap(), b"mine");
        assert!(!fs::symlink_metadata(&path).unwrap().is_symlink());
    }

    #[test]
    fn a_link_is_flipped() {
        let folder = tempfile::tempdir().unwrap();
        let current = folder.path().join("current");
        symlink(Path::new("releases/a"), &current).unwrap();
        symlink(Path::new("releases/b"), &current).unwrap();
        assert_eq!(fs::read_link(&current).unwrap(), Path::new("releases/b"));
        let next = folder.path().join("next");
        rename(&current, &next).unwrap();
        assert_eq!(fs::read_link(&next).unwrap(), Path::new("releases/b"));
    }

    #[test]
    fn a_failed_write_leaves_no_trace() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("full");
        fs::create_dir(&path).unwrap();
        let error = write(&path, b"x", 0o644, None).unwrap_err();
        assert!(error.to_string().contains("full"), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(write(&folder.path().join("missing/x"), b"", 0o644, None).is_err());
        assert!(write(Path::new("/"), b"", 0o644, None).is_err());
    }
}
