//! A folder as a store: a disk beside the host's own, or a mounted share.
//!
//! An object appears whole or not at all: it is written under a hidden name, fsynced, given its name
//! without replacing (put_new) or by replacing (put), and the folder is fsynced before the put returns.
//! Hidden names that a crash left behind are never listed, and the next put into their folder removes
//! them: a writer holds a `flock` on its file, so one that nobody holds has no writer any more.

use std::{
    collections::HashSet,
    ffi::OsStr,
    fs::{DirBuilder, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use bytes::Bytes;
use rustix::fs::{CWD, FlockOperation, RenameFlags};

use super::{Entry, ErrorKind, MAX_OBJECT, Store, StoreError, check_key, check_prefix, key::is_key};

const HIDDEN: &str = ".tmp-";

/// A store in a folder.
#[derive(Clone)]
pub struct Folder(Arc<Root>);

struct Root {
    path: PathBuf,
    /// Folders that this process has made sure of: made, fsynced, and swept once.
    ready: Mutex<HashSet<PathBuf>>,
}

impl Folder {
    /// The store in the folder at `path`, which the first put makes.
    pub fn new(path: &Path) -> Self {
        Self(Arc::new(Root { path: path.to_owned(), ready: Mutex::default() }))
    }

    /// Runs `work`, which waits for the disk, on a thread that may wait.
    async fn blocking<T: Send + 'static>(
        &self,
        operation: &'static str,
        key: &str,
        work: impl FnOnce(&Root) -> io::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let root = Arc::clone(&self.0);
        let done = tokio::task::spawn_blocking(move || work(&root)).await;
        let done = done.unwrap_or_else(|panic| Err(io::Error::other(panic)));
        done.map_err(|error| explain(operation, key, error))
    }
}

#[async_trait]
impl Store for Folder {
    async fn put_new(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        check_put("put_new", key, &bytes)?;
        let name = key.to_owned();
        self.blocking("put_new", key, move |root| root.write(&name, &bytes, RenameFlags::NOREPLACE)).await
    }

    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        check_put("put", key, &bytes)?;
        let name = key.to_owned();
        self.blocking("put", key, move |root| root.write(&name, &bytes, RenameFlags::empty())).await
    }

    async fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        check_key("get", key)?;
        let name = key.to_owned();
        self.blocking("get", key, move |root| read(&root.path.join(name))).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Entry>, StoreError> {
        check_prefix("list", prefix)?;
        let prefix_owned = prefix.to_owned();
        self.blocking("list", prefix, move |root| root.list(&prefix_owned)).await
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        check_key("delete", key)?;
        let name = key.to_owned();
        self.blocking("delete", key, move |root| remove(&root.path.join(name))).await
    }
}

/// What every store asks of a put before it begins.
pub(super) fn check_put(operation: &'static str, key: &str, bytes: &Bytes) -> Result<(), StoreError> {
    check_key(operation, key)?;
    if bytes.len() as u64 > MAX_OBJECT {
        let what = format!("{} bytes are more than an object may have ({MAX_OBJECT})", bytes.len());
        return Err(StoreError::new(ErrorKind::Fatal, operation, key, what));
    }
    Ok(())
}

impl Root {
    fn write(&self, key: &str, bytes: &[u8], how: RenameFlags) -> io::Result<()> {
        let target = self.path.join(key);
        let parent = target.parent().unwrap_or(&self.path);
        self.make_ready(parent)?;
        let hidden = match Hidden::create(parent) {
            // Somebody removed the folder since we made it; once more, from the top.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.ready().clear();
                self.make_ready(parent)?;
                Hidden::create(parent)?
            }
            other => other?,
        };
        (&hidden.file).write_all(bytes)?;
        hidden.file.sync_all()?;
        hidden.give_name(&target, how)?;
        sync_folder(parent)
    }

    fn ready(&self) -> std::sync::MutexGuard<'_, HashSet<PathBuf>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn make_ready(&self, folder: &Path) -> io::Result<()> {
        if self.ready().contains(folder) {
            return Ok(());
        }
        make_folders(folder)?;
        sweep(folder)?;
        self.ready().insert(folder.to_owned());
        Ok(())
    }

    fn list(&self, prefix: &str) -> io::Result<Vec<Entry>> {
        let start = prefix.rsplit_once('/').map_or("", |(folder, _)| folder);
        let mut found = Vec::new();
        let mut pending = vec![start.to_owned()];
        while let Some(folder) = pending.pop() {
            let entries = match std::fs::read_dir(self.path.join(&folder)) {
                Err(error) if is_absent(&error) => continue,
                other => other?,
            };
            for entry in entries {
                let entry = entry?;
                let Some(name) = entry.file_name().to_str().map(ToOwned::to_owned) else { continue };
                let key = if folder.is_empty() { name } else { format!("{folder}/{name}") };
                let length = key.len().min(prefix.len());
                if !is_key(&key) || key.as_bytes()[..length] != prefix.as_bytes()[..length] {
                    continue;
                }
                let meta = match entry.metadata() {
                    // Deleted between the two looks: prune runs beside readers.
                    Err(error) if is_absent(&error) => continue,
                    other => other?,
                };
                if meta.is_dir() {
                    pending.push(key);
                } else if meta.is_file() && key.starts_with(prefix) {
                    let modified_ms = Some(meta.mtime() * 1000 + meta.mtime_nsec() / 1_000_000);
                    found.push(Entry { key, size: meta.len(), modified_ms });
                }
            }
        }
        found.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(found)
    }
}

/// A file with no name yet that counts; removed unless it gets one.
struct Hidden {
    file: File,
    path: PathBuf,
    named: bool,
}

impl Hidden {
    fn create(folder: &Path) -> io::Result<Self> {
        loop {
            let path = folder.join(format!("{HIDDEN}{:016x}", rand::random::<u64>()));
            let mut options = OpenOptions::new();
            let file = options.write(true).create_new(true).mode(0o600).open(&path)?;
            let hidden = Self { file, path, named: false };
            // A sweep may have come between the two calls and taken the lock, or even the name.
            let locked = rustix::fs::flock(&hidden.file, FlockOperation::NonBlockingLockExclusive);
            if locked.is_ok() && hidden.file.metadata()?.nlink() == 1 {
                return Ok(hidden);
            }
        }
    }

    fn give_name(mut self, target: &Path, how: RenameFlags) -> io::Result<()> {
        if how.is_empty() {
            std::fs::rename(&self.path, target)?;
            self.named = true;
            return Ok(());
        }
        match rustix::fs::renameat_with(CWD, &self.path, CWD, target, how) {
            Ok(()) => self.named = true,
            // Network file systems know no rename without replacing; a second link does not replace either,
            // and the hidden name goes when `self` is dropped.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::NOTSUP) => {
                std::fs::hard_link(&self.path, target)?;
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        if !self.named {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn read(path: &Path) -> io::Result<Bytes> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let meta = file.metadata()?;
    if meta.is_dir() {
        return Err(io::ErrorKind::NotFound.into());
    }
    if !meta.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(meta.len().min(MAX_OBJECT)).unwrap_or(0) + 1);
    file.take(MAX_OBJECT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_OBJECT {
        return Err(io::Error::other("it is larger than any object of a backup"));
    }
    Ok(bytes.into())
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if is_absent(&error) => return Ok(()),
        other => other?,
    }
    path.parent().map_or(Ok(()), sync_folder)
}

/// Makes `folder` and what is missing above it, and makes each new name durable.
fn make_folders(folder: &Path) -> io::Result<()> {
    if folder.as_os_str().is_empty() || folder.is_dir() {
        return Ok(());
    }
    let parent = folder.parent().unwrap_or(Path::new(""));
    make_folders(parent)?;
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    sync_folder(if parent.as_os_str().is_empty() { Path::new(".") } else { parent })
}

fn sweep(folder: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let hidden = path.file_name().and_then(OsStr::to_str).is_some_and(|n| n.starts_with(HIDDEN));
        if !hidden {
            continue;
        }
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
        let Ok(file) = OpenOptions::new().read(true).custom_flags(flags).open(&path) else { continue };
        if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
            let _ = std::fs::remove_file(&path);
        }
    }
    Ok(())
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn explain(operation: &'static str, key: &str, error: io::Error) -> StoreError {
    use io::ErrorKind as Io;
    // O_NOFOLLOW met a link; its ErrorKind has no stable name.
    let class = if error.raw_os_error() == Some(libc::ELOOP) { Io::Other } else { error.kind() };
    let (kind, what, hint) = match class {
        Io::AlreadyExists => (ErrorKind::Exists, "the name is taken", ""),
        Io::NotFound | Io::NotADirectory if operation == "get" => {
            (ErrorKind::NotFound, "there is no such object", "")
        }
        Io::NotFound | Io::NotADirectory => {
            (ErrorKind::Fatal, "no folder can be here", "a part of the path is not a folder, or is not there")
        }
        Io::StorageFull | Io::QuotaExceeded => {
            (ErrorKind::Retryable, "the disk is full", "make room where the backups are, or prune them")
        }
        Io::PermissionDenied => (
            ErrorKind::Fatal,
            "not permitted",
            "the folder must belong to the user who makes the backups, or be writable for it",
        ),
        Io::ReadOnlyFilesystem => (ErrorKind::Fatal, "the file system is read-only", "mount it writable"),
        Io::Other | Io::InvalidInput => {
            (ErrorKind::Fatal, "no object of a backup", "something else writes into this folder")
        }
        _ => (ErrorKind::Retryable, "the file system refused", ""),
    };
    StoreError::new(kind, operation, key, what).because(error).hint(hint)
}
