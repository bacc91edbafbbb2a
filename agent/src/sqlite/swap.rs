//! Puts marked databases back while what they replace is kept beside them, and says beforehand what differs.
//!
//! The copies go through SQLite's own locks and land in one transaction each: a kill in the middle leaves either
//! the database of before or the marked one, never half of both.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rusqlite::{Connection, OpenFlags};

use super::{CopyError, REPLACED, copy, find, read_error};
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

/// Whether the schema is another than the mark's, then each table whose number of rows is, a line each to `say`.
///
/// # Errors
/// For the first database that cannot be read.
pub fn compare(
    data: &Path,
    mark: &Path,
    patterns: &[String],
    say: &mut dyn FnMut(&str),
) -> Result<(), CopyError> {
    let marked = find(mark, patterns)?;
    let mut pairs = Vec::new();
    for relative in marked {
        let (now, then) = (open(&data.join(&relative))?, open(&mark.join(&relative))?);
        let schema = |db: &Connection, at: &Path| -> Result<Vec<String>, CopyError> {
            texts(db, "SELECT coalesce(sql, name) FROM sqlite_master ORDER BY 1").map_err(read_error(at))
        };
        if schema(&now, &data.join(&relative))? != schema(&then, &mark.join(&relative))? {
            say(SCHEMA_CHANGED);
        }
        pairs.push((relative, now, then));
    }
    for (relative, now, then) in &pairs {
        let tables = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' \
                      ESCAPE '\\' AND sql NOT LIKE 'CREATE VIRTUAL%' ORDER BY 1";
        let mut names = texts(now, tables).map_err(read_error(&data.join(relative)))?;
        names.extend(texts(then, tables).map_err(read_error(&mark.join(relative)))?);
        names.sort();
        names.dedup();
        for name in names {
            let (is, was) = (rows(now, &name), rows(then, &name));
            if is != was {
                let text = |count: Option<u64>| count.map_or_else(|| "no".to_owned(), |n| n.to_string());
                say(&format!(
                    "{}: {} has {} rows now, {} in the mark",
                    relative.display().to_string().escape_debug(),
                    name.escape_debug(),
                    text(is),
                    text(was)
                ));
            }
        }
    }
    Ok(())
}

/// The line of [`compare`] that says that the schema is another.
pub const SCHEMA_CHANGED: &str = "schema changed";

fn open(path: &Path) -> Result<Connection, CopyError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags).map_err(read_error(path))?;
    db.busy_timeout(super::BUSY).map_err(read_error(path))?;
    db.execute_batch("PRAGMA query_only = 1").map_err(read_error(path))?;
    Ok(db)
}

fn texts(db: &Connection, query: &str) -> rusqlite::Result<Vec<String>> {
    db.prepare(query)?.query_map([], |row| row.get(0))?.collect()
}

/// How many rows the table has; `None` where there is no such table.
fn rows(db: &Connection, table: &str) -> Option<u64> {
    let name = table.replace('"', "\"\"");
    let count: i64 = db.query_row(&format!("SELECT count(*) FROM \"{name}\""), [], |row| row.get(0)).ok()?;
    u64::try_from(count).ok()
}

fn replaced(database: &Path, id: &str) -> PathBuf {
    with(database, &format!("{REPLACED}{id}"))
}

fn part_of(kept: &Path) -> PathBuf {
    with(kept, ".part")
}

fn with(path: &Path, suffix: &str) -> PathBuf {
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
    use super::{super::mark, *};

    fn rows_of(path: &Path) -> Option<u64> {
        rows(&Connection::open(path).unwrap(), "t")
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
        db.execute_batch("INSERT INTO t VALUES (2); CREATE TABLE \"a\"\"b\" (y)").unwrap();
        drop(db);
        let mut said = Vec::new();
        compare(&data, &aside, &patterns, &mut |line| said.push(line.to_owned())).unwrap();
        assert_eq!(said[0], SCHEMA_CHANGED);
        assert_eq!(said[1], "db.sqlite3: a\\\"b has 0 rows now, no in the mark");
        assert_eq!(said[2], "db.sqlite3: t has 2 rows now, 1 in the mark");

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
