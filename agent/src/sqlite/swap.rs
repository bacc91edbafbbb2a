//! Puts marked databases back while what they replace is kept beside them.
//!
//! The copies go through SQLite's own locks and land in one transaction each: a kill in the middle leaves either
//! the database of before or the marked one, never half of both.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{CopyError, REPLACED, copy, find};
use crate::sys::atomic_write;

/// How many replaced files of a database are kept.
const KEPT: usize = 2;

/// Copies each database of `mark` over its original, which is kept as `<name>.replaced-<id>`.
///
/// # Errors
/// For the first that cannot be kept or copied, and when the mark holds none.
pub fn swap(data: &Path, mark: &Path, patterns: &[String], id: &str) -> Result<(usize, u64), CopyError> {
    let marked = find(mark, patterns)?;
    if marked.is_empty() {
        return Err(CopyError::Empty { path: mark.to_owned() });
    }
    // All are kept before the first is touched: a full disk is met while nothing has changed.
    for relative in &marked {
        let (original, kept) = (data.join(relative), replaced(&data.join(relative), id));
        if original.exists() && !kept.exists() {
            let part = part_of(&kept);
            remove(&part)?;
            copy(&original, &part)?;
            rename(&part, &kept)?;
        }
    }
    let mut bytes = 0;
    for relative in &marked {
        bytes += copy(&mark.join(relative), &data.join(relative))?;
    }
    Ok((marked.len(), bytes))
}

/// Copies what `swap` kept under `id` back; may be done again and again.
///
/// # Errors
/// For the first that cannot be copied.
pub fn unswap(data: &Path, mark: &Path, patterns: &[String], id: &str) -> Result<(usize, u64), CopyError> {
    let (mut count, mut bytes) = (0, 0);
    for relative in find(mark, patterns)? {
        let (original, kept) = (data.join(&relative), replaced(&data.join(&relative), id));
        remove(&part_of(&kept))?;
        if kept.exists() {
            bytes += copy(&kept, &original)?;
            remove(&kept)?;
            count += 1;
        }
    }
    Ok((count, bytes))
}

/// Removes replaced files beyond the newest of each database. How many.
///
/// # Errors
/// For the first that cannot be removed.
pub fn prune(data: &Path, patterns: &[String]) -> Result<(usize, u64), CopyError> {
    let (mut count, mut bytes) = (0, 0);
    for relative in find(data, patterns)? {
        let path = data.join(&relative);
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { continue };
        let prefix = [name.as_encoded_bytes(), REPLACED.as_bytes()].concat();
        let mut kept: Vec<PathBuf> = fs::read_dir(folder)
            .map_err(|source| CopyError::Io { what: "list", path: folder.to_owned(), source })?
            .flatten()
            .filter(|entry| entry.file_name().as_encoded_bytes().starts_with(&prefix))
            .map(|entry| entry.path())
            .collect();
        // The ids begin with the time.
        kept.sort();
        kept.reverse();
        for old in kept.into_iter().skip(KEPT) {
            bytes += old.symlink_metadata().map_or(0, |about| about.len());
            remove(&old)?;
            count += 1;
        }
    }
    Ok((count, bytes))
}

fn replaced(database: &Path, id: &str) -> PathBuf {
    with(database, &format!("{REPLACED}{id}"))
}

fn part_of(kept: &Path) -> PathBuf {
    with(kept, ".part")
}

pub(super) fn with(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Removes a database with what SQLite may have left beside it.
fn remove(path: &Path) -> Result<(), CopyError> {
    for suffix in ["", "-journal", "-wal", "-shm"] {
        let path = with(path, suffix);
        match fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(CopyError::Io { what: "remove", path, source }),
        }
    }
    Ok(())
}

fn rename(from: &Path, to: &Path) -> Result<(), CopyError> {
    atomic_write::rename(from, to).map_err(|error| CopyError::Io {
        what: "name the kept database",
        path: to.to_owned(),
        source: std::io::Error::other(error),
    })
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::{super::mark, *};

    fn rows_of(path: &Path) -> Option<u32> {
        let db = Connection::open(path).unwrap();
        db.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).ok()
    }

    #[test]
    fn marked_databases_go_back_and_forth_and_two_replaced_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let (data, aside) = (folder.path().join("data"), folder.path().join("mark"));
        fs::create_dir_all(&data).unwrap();
        let path = data.join("db.sqlite3");
        let patterns = ["*".to_owned()];
        let db = Connection::open(&path).unwrap();
        db.execute_batch("PRAGMA journal_mode=WAL; CREATE TABLE t (x); INSERT INTO t VALUES (1)").unwrap();
        mark(&data, &aside, &patterns).unwrap();
        db.execute_batch("INSERT INTO t VALUES (2)").unwrap();
        drop(db);

        // What was cut short while it was kept is not taken for a kept one.
        atomic_write::write(&data.join("db.sqlite3.replaced-1.part"), b"half", 0o600, None).unwrap();
        unswap(&data, &aside, &patterns, "1").unwrap();
        assert_eq!(rows_of(&path), Some(2));
        for id in ["1", "2", "3"] {
            assert_eq!(swap(&data, &aside, &patterns, id).unwrap().0, 1);
            assert_eq!(rows_of(&path), Some(1));
        }
        unswap(&data, &aside, &patterns, "1").unwrap();
        assert_eq!(rows_of(&path), Some(2), "what was replaced first comes back");
        swap(&data, &aside, &patterns, "4").unwrap();
        assert_eq!(prune(&data, &patterns).unwrap().0, 1);
        assert!(!data.join("db.sqlite3.replaced-2").exists() && data.join("db.sqlite3.replaced-4").exists());
        let none = swap(&data, &folder.path().join("none"), &patterns, "5");
        assert!(matches!(none, Err(CopyError::Empty { .. })), "{none:?}");
    }
}
