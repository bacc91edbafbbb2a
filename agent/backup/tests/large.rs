//! A database of more than 1 GiB: SQLite locks bytes there, and never uses the page that holds them.
#![expect(
    clippy::unwrap_used,
    reason = "a test that may panic, in functions that clippy does not take for tests"
)]

mod bed;

use std::{fs::OpenOptions, os::unix::fs::FileExt, path::Path};

use bed::{Bed, insert};
use flipside_backup::restore::Target;

const PAGE: u32 = 65_536;
/// The page at 1 GiB, `PENDING_BYTE` of SQLite's file format.
const LOCKED: u32 = (1 << 30) / PAGE + 1;

#[test]
fn the_page_that_sqlite_locks_is_passed_over() {
    let bed = Bed::new();
    bed.sized(PAGE, 100).close().unwrap();
    grow(&bed.db());

    let app = bed.open();
    bed.once();
    insert(&app, 2000);
    let beyond: u32 =
        app.query_row("SELECT max(pageno) FROM dbstat WHERE name='t'", [], |row| row.get(0)).unwrap();
    assert!(beyond > LOCKED, "page {beyond} is before the locked one");
    bed.once();
    bed.same(Target::Latest);
}

/// Makes the database larger than 1 GiB by free pages, as if what stood in them had been deleted; on disk they
/// are a hole. Those just behind the locked page come first in the list of free pages.
fn grow(path: &Path) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let used = u32::try_from(file.metadata().unwrap().len()).unwrap() / PAGE;
    let count = LOCKED + 100;
    let [first, second] = [used + 1, used + 2];
    let near: Vec<u32> = (LOCKED + 1..=count).collect();
    let far: Vec<u32> = (second + 1..LOCKED).collect();
    file.set_len(u64::from(count) * u64::from(PAGE)).unwrap();
    for (trunk, next, leaves) in [(first, second, &near), (second, 0, &far)] {
        let words = [next, u32::try_from(leaves.len()).unwrap()].into_iter().chain(leaves.iter().copied());
        let bytes: Vec<u8> = words.flat_map(u32::to_be_bytes).collect();
        file.write_all_at(&bytes, u64::from(trunk - 1) * u64::from(PAGE)).unwrap();
    }
    let free = u32::try_from(near.len() + far.len()).unwrap() + 2;
    for (at, value) in [(28, count), (32, first), (36, free)] {
        file.write_all_at(&value.to_be_bytes(), at).unwrap();
    }
}
