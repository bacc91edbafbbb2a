//! `flipside-agent sqlite`: copies an app's databases, run as the app's user and by nobody else.
//!
//! The agent itself never opens them: as root it would leave files that the app cannot write, and the schema of
//! somebody else's database is not for root to read.

mod compare;
mod swap;

use std::{
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, OpenFlags, backup::Backup};

pub use compare::{compare, schema_changed};
pub use swap::{prune, swap, unswap};

/// What stands in the names of databases that were replaced; no pattern names them.
const REPLACED: &str = ".replaced-";
/// How long a locked database is waited for.
const BUSY: Duration = Duration::from_secs(60);
/// Pages copied at once, and the pause after them.
const PAGES: i32 = 4096;
const PAUSE: Duration = Duration::from_millis(1);

/// What could not be copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// A file or folder.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was attempted.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A disk that is too full for the copies.
    #[error("the disk of {} has {free} MB free; the copies of the databases need {need} MB", path.display())]
    Space {
        /// Where.
        path: PathBuf,
        /// What is free.
        free: u64,
        /// What is needed.
        need: u64,
    },
    /// A mark without databases.
    #[error("the mark {} holds no database", path.display())]
    Empty {
        /// The mark.
        path: PathBuf,
    },
    /// A database.
    #[error("cannot copy the database {}", path.display())]
    Sql {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: rusqlite::Error,
    },
}

/// Copies each database of `data` that a pattern names into `mark`. How many, and their bytes.
///
/// # Errors
/// For the first that cannot be copied.
pub fn mark(data: &Path, mark: &Path, patterns: &[String]) -> Result<(usize, u64), CopyError> {
    let (mut count, mut bytes) = (0, 0);
    let found = find(data, patterns)?;
    make_folder(mark)?;
    enough_space(data, mark, &found)?;
    for relative in found {
        bytes += copy(&data.join(&relative), &mark.join(&relative))?;
        count += 1;
    }
    Ok((count, bytes))
}

/// What stays free besides the copies.
const RESERVE: u64 = 64 << 20;

/// Better said than met: a full disk is everybody's trouble.
fn enough_space(data: &Path, mark: &Path, found: &[PathBuf]) -> Result<(), CopyError> {
    let size = |path: PathBuf| path.symlink_metadata().map_or(0, |about| about.len());
    let logs = found.iter().map(|relative| swap::with(&data.join(relative), "-wal"));
    let databases = found.iter().map(|relative| data.join(relative));
    let need = databases.chain(logs).map(size).sum::<u64>() + RESERVE;
    let disk = rustix::fs::statvfs(mark).map_err(|error| CopyError::Io {
        what: "look at the disk of",
        path: mark.to_owned(),
        source: error.into(),
    })?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if need == RESERVE || free >= need {
        return Ok(());
    }
    Err(CopyError::Space { path: mark.to_owned(), free: free >> 20, need: need >> 20 })
}

/// Copies each database of `mark` back over its original.
///
/// # Errors
/// For the first that cannot be copied.
pub fn unmark(data: &Path, mark: &Path, patterns: &[String]) -> Result<(usize, u64), CopyError> {
    let (mut count, mut bytes) = (0, 0);
    for relative in find(mark, patterns)? {
        bytes += copy(&mark.join(&relative), &data.join(&relative))?;
        count += 1;
    }
    Ok((count, bytes))
}

fn make_folder(path: &Path) -> Result<(), CopyError> {
    fs::create_dir_all(path).map_err(|source| CopyError::Io {
        what: "make the folder",
        path: path.to_owned(),
        source,
    })
}

/// SQLite's own online backup: consistent beside writers, through its own locks.
fn copy(from: &Path, to: &Path) -> Result<u64, CopyError> {
    let sql = |source| CopyError::Sql { path: from.to_owned(), source };
    if let Some(folder) = to.parent() {
        make_folder(folder)?;
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let source = Connection::open_with_flags(from, flags).map_err(sql)?;
    source.busy_timeout(BUSY).map_err(sql)?;
    let mut target = Connection::open(to).map_err(sql)?;
    target.busy_timeout(BUSY).map_err(sql)?;
    // One read transaction: a writer in between would make the copy begin again and again.
    source.execute_batch("BEGIN; SELECT count(*) FROM sqlite_master;").map_err(sql)?;
    let backup = Backup::new(&source, &mut target).map_err(sql)?;
    backup.run_to_completion(PAGES, PAUSE, None).map_err(sql)?;
    drop(backup);
    source.execute_batch("COMMIT").map_err(sql)?;
    target.close().map_err(|(_, source)| CopyError::Sql { path: to.to_owned(), source })?;
    fs::metadata(to).map(|about| about.len()).map_err(|source| CopyError::Io {
        what: "look at",
        path: to.to_owned(),
        source,
    })
}

/// The SQLite files below `root` that a pattern names, relative to it. Links are not followed.
fn find(root: &Path, patterns: &[String]) -> Result<Vec<PathBuf>, CopyError> {
    let mut found = named(root, patterns)?;
    found.retain(|relative| is_database(&root.join(relative)));
    Ok(found)
}

/// The regular files below `root` that a pattern names, relative to it, by their names alone: none is opened.
///
/// # Errors
/// For the first folder that cannot be listed.
pub fn named(root: &Path, patterns: &[String]) -> Result<Vec<PathBuf>, CopyError> {
    let mut found = Vec::new();
    for pattern in patterns {
        let mut at = vec![PathBuf::new()];
        let mut parts = pattern.split('/').filter(|part| !part.is_empty()).peekable();
        while let Some(part) = parts.next() {
            let mut next = Vec::new();
            for folder in &at {
                for entry in entries(&root.join(folder))? {
                    let kind = entry.file_type();
                    let fits =
                        kind.is_ok_and(
                            |kind| if parts.peek().is_some() { kind.is_dir() } else { kind.is_file() },
                        );
                    if fits && matches(part.as_bytes(), name_bytes(&entry.file_name())) {
                        next.push(folder.join(entry.file_name()));
                    }
                }
            }
            at = next;
        }
        found.extend(at.into_iter().filter(|path| !path.as_os_str().is_empty()));
    }
    found.sort();
    found.dedup();
    found.retain(|relative| !relative.to_string_lossy().contains(REPLACED));
    Ok(found)
}

fn entries(folder: &Path) -> Result<Vec<fs::DirEntry>, CopyError> {
    use io::ErrorKind::{NotADirectory, NotFound};
    match fs::read_dir(folder) {
        Ok(entries) => Ok(entries.flatten().collect()),
        Err(error) if matches!(error.kind(), NotFound | NotADirectory) => Ok(Vec::new()),
        Err(source) => Err(CopyError::Io { what: "list", path: folder.to_owned(), source }),
    }
}

/// Whether a pattern names the file `relative`.
pub fn is_named(patterns: &[String], relative: &str) -> bool {
    patterns.iter().any(|pattern| {
        let parts: Vec<&str> = pattern.split('/').filter(|part| !part.is_empty()).collect();
        let names: Vec<&str> = relative.split('/').collect();
        parts.len() == names.len()
            && parts.iter().zip(&names).all(|(p, n)| matches(p.as_bytes(), n.as_bytes()))
    })
}

fn read_error(path: &Path) -> impl FnOnce(rusqlite::Error) -> CopyError {
    let path = path.to_owned();
    |source| CopyError::Sql { path, source }
}

fn name_bytes(name: &OsStr) -> &[u8] {
    name.as_encoded_bytes()
}

fn is_database(path: &Path) -> bool {
    use std::io::Read;
    if !path.symlink_metadata().is_ok_and(|about| about.is_file()) {
        return false;
    }
    let mut head = [0; 16];
    // Read before SQLite opens it and closed at once: no lock of ours is held yet that closing could drop.
    fs::File::open(path).is_ok_and(|mut file| file.read_exact(&mut head).is_ok())
        && &head == b"SQLite format 3\0"
}

/// Whether `name` is matched by `pattern`: `*` is any text, `?` any byte; a leading dot is matched by a dot only.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    if name.first() == Some(&b'.') && pattern.first() != Some(&b'.') {
        return false;
    }
    let (mut p, mut n, mut star) = (0, 0, None);
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(&c) if c == b'?' || c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    p = at + 1;
                    n = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|b| *b == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(patterns: &[&str]) -> Vec<String> {
        patterns.iter().map(|pattern| (*pattern).to_owned()).collect()
    }

    fn database(path: &Path, rows: u32) -> Connection {
        let db = Connection::open(path).unwrap();
        db.execute_batch("PRAGMA journal_mode=WAL; CREATE TABLE IF NOT EXISTS t (x); DELETE FROM t;")
            .unwrap();
        for _ in 0..rows {
            db.execute("INSERT INTO t VALUES (1)", []).unwrap();
        }
        db
    }

    fn rows(path: &Path) -> u32 {
        Connection::open(path).unwrap().query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn globs_match_as_in_a_shell() {
        for (pattern, name, yes) in [
            ("*.sqlite3", "db.sqlite3", true),
            ("*.sqlite3", ".sqlite3", false),
            ("db.*", "db.sqlite3", true),
            ("d?.x", "db.x", true),
            ("d?.x", "d.x", false),
            ("a*b*c", "aXbYbc", true),
            ("a*b*c", "aXbY", false),
            ("*", "x", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), yes, "{pattern} {name}");
        }
    }

    #[test]
    fn databases_are_copied_beside_a_writer_and_back() {
        let folder = tempfile::tempdir().unwrap();
        let (data, aside) = (folder.path().join("data"), folder.path().join("mark"));
        fs::create_dir_all(data.join("sub")).unwrap();
        let open = database(&data.join("db.sqlite3"), 3);
        drop(database(&data.join("sub/more.sqlite3"), 1));
        fs::copy(data.join("sub/more.sqlite3"), data.join("elsewhere")).unwrap();
        std::os::unix::fs::symlink("elsewhere", data.join("link.sqlite3")).unwrap();
        crate::sys::atomic_write::write(&data.join("none.sqlite3"), b"text", 0o644, None).unwrap();

        let every = texts(&["*.sqlite3", "sub/*"]);
        let names = ["db.sqlite3", "none.sqlite3", "sub/more.sqlite3"].map(PathBuf::from);
        assert_eq!(named(&data, &every).unwrap(), names);
        for (name, yes) in [("db.sqlite3", true), ("sub/x", true), ("x", false), ("sub/a/b", false)] {
            assert_eq!(is_named(&every, name), yes, "{name}");
        }
        let patterns = texts(&["*.sqlite3", "sub/*.sqlite3", "db.sqlite3", "missing/*"]);
        assert_eq!(mark(&data, &aside, &patterns).unwrap().0, 2);
        open.execute("INSERT INTO t VALUES (1)", []).unwrap();
        assert_eq!((rows(&aside.join("db.sqlite3")), rows(&data.join("db.sqlite3"))), (3, 4));
        drop(open);
        unmark(&data, &aside, &patterns).unwrap();
        assert_eq!(rows(&data.join("db.sqlite3")), 3);
    }
}
