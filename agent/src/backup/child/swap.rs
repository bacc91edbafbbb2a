//! Restored databases take the place of what is there, and what was there is kept.
//!
//! A log that belongs to the old file would be played into the new one: it goes before the new file gets its
//! name. So that a kill in between leaves a whole database, the log is written into the old file first.

use std::{
    fs::{self, File, Permissions},
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};

use super::{Refused, is_plain};

/// Puts each database in its place. Says what was kept.
pub(super) fn swap(data: &Path, databases: &[String], aside: &str, stamp: &str) -> Result<Value, Refused> {
    let folder = data.join(aside);
    let mut kept = Vec::new();
    for (number, database) in databases.iter().enumerate() {
        if !is_plain(database) {
            return Err(Refused::new(format!("{database:?} is no name below the data folder"), ""));
        }
        let (new, target) = (folder.join(number.to_string()), data.join(database));
        let replaced = one(&new, &target, stamp).map_err(|error| {
            Refused::new(
                format!("cannot put {database} in place: {error}"),
                "what was restored lies in the folder .restoring-… beside it, what was there under .replaced-…",
            )
        })?;
        kept.extend(replaced);
    }
    let _ = fs::remove_dir_all(&folder);
    Ok(json!(kept))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// One database; the name under which the old one is kept, if there was one.
fn one(new: &Path, target: &Path, stamp: &str) -> io::Result<Option<String>> {
    let dir = target.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(dir)?;
    settle(target);
    let kept = beside(target, &format!(".replaced-{stamp}"));
    let old = match fs::symlink_metadata(target) {
        Ok(about) => {
            fs::hard_link(target, &kept)?;
            Some(about.permissions())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    for suffix in ["-wal", "-journal"] {
        moved(&beside(target, suffix), &beside(&kept, suffix))?;
    }
    match fs::remove_file(beside(target, "-shm")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::set_permissions(new, old.clone().unwrap_or_else(|| Permissions::from_mode(0o640)))?;
    fs::rename(new, target)?;
    File::open(dir)?.sync_all()?;
    let name = kept.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(old.is_some().then_some(name))
}

/// Writes the log into the file, where both are sound; where not, both are kept as they are.
fn settle(target: &Path) {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    if let Ok(old) = Connection::open_with_flags(target, flags) {
        let _ = old.busy_timeout(Duration::from_secs(2));
        let _ = old.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    }
}

fn moved(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database(path: &Path, value: &str) -> Connection {
        let db = Connection::open(path).unwrap();
        db.execute_batch(&format!(
            "PRAGMA journal_mode=WAL; CREATE TABLE t (x); INSERT INTO t VALUES ('{value}')"
        ))
        .unwrap();
        db
    }

    fn value(path: &Path) -> String {
        Connection::open(path).unwrap().query_row("SELECT x FROM t", [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn the_old_database_is_kept_whole_and_its_log_does_not_spoil_the_new_one() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path();
        fs::create_dir(data.join("aside")).unwrap();
        // A log that nobody closed, as after a crash.
        let old = database(&data.join("db.sqlite3"), "old");
        drop(database(&data.join("aside/0"), "new"));
        drop(database(&data.join("aside/1"), "gone"));
        let names = ["db.sqlite3".to_owned(), "sub/x".to_owned()];
        let kept = swap(data, &names, "aside", "T").unwrap();
        assert_eq!(kept, json!(["db.sqlite3.replaced-T"]));
        assert_eq!(value(&data.join("db.sqlite3")), "new");
        assert_eq!(value(&data.join("sub/x")), "gone");
        drop(old);
        assert_eq!(value(&data.join("db.sqlite3.replaced-T")), "old");
        assert!(!data.join("aside").exists());
        assert!(swap(data, &["../x".to_owned()], "aside", "T").is_err());
    }
}
