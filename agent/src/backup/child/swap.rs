//! Restored databases take the place of what is there, and what was there is kept.
//!
//! By renames, where a rollback with data copies through SQLite's locks: what is there may be damaged, or no
//! database at all, and then nothing can be read or written through SQLite. So nobody may have it open.
//!
//! Several databases come from one instant and go in together: a journal beside the fetched files says what is to
//! be done, and once it is there, a swap that was killed is finished at the next start. Each step may be done
//! again. A log that belongs to the old file would be played into the new one: it goes before the new file gets its
//! name, and is written into the old file first.

use std::{
    fs::{self, File, Permissions},
    io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, OpenFlags};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Refused, fetch::ASIDE, is_plain, refused};
use crate::sys::atomic_write;

/// In the folder of the fetched files.
const JOURNAL: &str = "swap.json";

/// What is to be done: the databases in the order of the fetched files, and what the kept ones are marked with.
#[derive(Serialize, Deserialize)]
struct Journal {
    databases: Vec<String>,
    stamp: String,
}

/// Puts each database in its place. Says what was kept.
pub(super) fn swap(data: &Path, databases: &[String], aside: &str, stamp: &str) -> Result<Value, Refused> {
    if let Some(bad) = databases.iter().find(|database| !is_plain(database)) {
        return Err(Refused::new(format!("{bad:?} is no name below the data folder"), ""));
    }
    let folder = data.join(aside);
    let journal = Journal { databases: databases.to_vec(), stamp: stamp.to_owned() };
    let text = serde_json::to_vec(&journal).map_err(|error| refused(&error))?;
    atomic_write::write(&folder.join(JOURNAL), &text, 0o600, None).map_err(|error| refused(&error))?;
    finish(data, &folder, &journal, &mut || Ok(())).map(|kept| json!(kept))
}

/// Finishes a swap that was killed, and forgets what was only fetched. Says whether there was one, and what was
/// kept.
pub(super) fn recover(data: &Path) -> Result<Value, Refused> {
    let mut found = json!({ "finished": false, "kept": [] });
    for entry in fs::read_dir(data).into_iter().flatten().flatten() {
        if !entry.file_name().to_string_lossy().starts_with(ASIDE) {
            continue;
        }
        let folder = entry.path();
        let journal = fs::read(folder.join(JOURNAL)).ok();
        match journal.and_then(|text| serde_json::from_slice::<Journal>(&text).ok()) {
            Some(journal) if journal.databases.iter().all(|database| is_plain(database)) => {
                let kept = finish(data, &folder, &journal, &mut || Ok(()))?;
                found = json!({ "finished": true, "kept": kept });
            }
            _ => drop(fs::remove_dir_all(&folder)),
        }
    }
    Ok(found)
}

/// What a test ends the work with, at any step.
type Step<'a> = &'a mut dyn FnMut() -> io::Result<()>;

fn finish(data: &Path, folder: &Path, journal: &Journal, step: Step<'_>) -> Result<Vec<String>, Refused> {
    let mut kept = Vec::new();
    for (number, database) in journal.databases.iter().enumerate() {
        let (new, target) = (folder.join(number.to_string()), data.join(database));
        let replaced = one(&new, &target, &journal.stamp, step).map_err(|error| {
            Refused::new(
                format!("cannot put {database} in place: {error}"),
                "what was restored lies in the folder .restoring-… beside it, what was there under .replaced-…; \
                 restore again once the cause is mended",
            )
        })?;
        kept.extend(replaced);
    }
    let _ = fs::remove_dir_all(folder);
    Ok(kept)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// One database; the name under which the old one is kept, if there was one.
fn one(new: &Path, target: &Path, stamp: &str, step: Step<'_>) -> io::Result<Option<String>> {
    let kept = beside(target, &format!(".replaced-{stamp}"));
    if new.try_exists()? {
        exchange(new, target, &kept, step)?;
    }
    let name = kept.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(kept.try_exists()?.then_some(name))
}

fn exchange(new: &Path, target: &Path, kept: &Path, step: Step<'_>) -> io::Result<()> {
    let dir = target.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(dir)?;
    step()?;
    settle(target);
    step()?;
    let old = match fs::symlink_metadata(target) {
        Ok(about) => {
            keep(target, kept, about.ino())?;
            Some(about.permissions())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    for suffix in ["-wal", "-journal"] {
        step()?;
        moved(&beside(target, suffix), &beside(kept, suffix))?;
    }
    step()?;
    match fs::remove_file(beside(target, "-shm")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::set_permissions(new, old.unwrap_or_else(|| Permissions::from_mode(0o640)))?;
    step()?;
    fs::rename(new, target)?;
    File::open(dir)?.sync_all()?;
    step()
}

/// Gives the file a second name, unless it has it since a swap that was killed.
fn keep(target: &Path, kept: &Path, inode: u64) -> io::Result<()> {
    match fs::hard_link(target, kept) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let same = fs::symlink_metadata(kept)?.ino() == inode;
            if same { Ok(()) } else { Err(error) }
        }
        linked => linked,
    }
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

    fn put(path: &Path, bytes: &[u8]) {
        atomic_write::write(path, bytes, 0o600, None).unwrap();
    }

    /// Two databases, each with a log that nobody closed, and beside them what is to take their place.
    fn bed() -> (tempfile::TempDir, Vec<Connection>, Journal) {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path();
        fs::create_dir_all(data.join(".restoring-T")).unwrap();
        let old = ["a", "b"].map(|name| database(&data.join(name), "old")).into();
        drop(database(&data.join(".restoring-T/0"), "new"));
        drop(database(&data.join(".restoring-T/1"), "new"));
        drop(database(&data.join(".restoring-T/2"), "new"));
        let databases = ["a", "b", "sub/gone"].map(str::to_owned).into();
        (folder, old, Journal { databases, stamp: "T".into() })
    }

    fn is_swapped(data: &Path, kept: &Value) {
        assert_eq!(kept, &json!(["a.replaced-T", "b.replaced-T"]));
        for name in ["a", "b", "sub/gone"] {
            assert_eq!(value(&data.join(name)), "new", "{name}");
        }
        for name in ["a.replaced-T", "b.replaced-T"] {
            assert_eq!(value(&data.join(name)), "old", "{name}");
        }
        assert!(!data.join(".restoring-T").exists());
    }

    #[test]
    fn the_old_databases_are_kept_whole_and_their_logs_do_not_spoil_the_new_ones() {
        let (folder, old, journal) = bed();
        let kept = swap(folder.path(), &journal.databases, ".restoring-T", "T").unwrap();
        drop(old);
        is_swapped(folder.path(), &kept);
        assert!(swap(folder.path(), &["../x".to_owned()], "aside", "T").is_err());
    }

    #[test]
    fn a_swap_that_was_killed_anywhere_is_finished_and_a_fetch_is_forgotten() {
        let mut points = 0;
        for end in 0.. {
            let (folder, old, journal) = bed();
            let (data, aside) = (folder.path(), folder.path().join(".restoring-T"));
            let mut left = end;
            let mut step = || {
                let killed = left == 0;
                left -= 1;
                if killed { Err(io::Error::other("killed")) } else { Ok(()) }
            };
            if finish(data, &aside, &journal, &mut step).is_ok() {
                break;
            }
            points += 1;
            drop(old);
            if end == 0 {
                // Killed before the journal was written.
                assert_eq!(recover(data).unwrap()["finished"], false);
                assert_eq!(value(&data.join("a")), "old");
                continue;
            }
            put(&aside.join(JOURNAL), &serde_json::to_vec(&journal).unwrap());
            let found = recover(data).unwrap();
            assert_eq!(found["finished"], true);
            is_swapped(data, &found["kept"]);
            assert_eq!(recover(data).unwrap()["finished"], false);
        }
        assert_eq!(points, 21);
    }

    #[test]
    fn what_is_no_database_can_be_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path();
        fs::create_dir(data.join("aside")).unwrap();
        put(&data.join("a"), b"no database at all");
        drop(database(&data.join("aside/0"), "new"));
        swap(data, &["a".to_owned()], "aside", "T").unwrap();
        assert_eq!(value(&data.join("a")), "new");
        assert_eq!(fs::read(data.join("a.replaced-T")).unwrap(), b"no database at all");
    }
}
