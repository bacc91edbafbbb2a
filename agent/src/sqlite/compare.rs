//! What differs between an app's databases and their mark: what a rollback with data would lose.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::{CopyError, find, read_error};

/// Django's list of migrations: that it goes back is the purpose, and no loss.
const MIGRATIONS: &str = "django_migrations";

/// Whether the schema of any database is another than the mark's.
///
/// # Errors
/// For the first database that cannot be read.
pub fn schema_changed(data: &Path, mark: &Path, patterns: &[String]) -> Result<bool, CopyError> {
    for relative in find(mark, patterns)? {
        let (now, then) = (data.join(&relative), mark.join(&relative));
        let schema = |path: &Path| {
            let query = "SELECT coalesce(sql, name) FROM sqlite_master ORDER BY 1";
            texts(&open(path)?, query).map_err(read_error(path))
        };
        if !now.exists() || schema(&now)? != schema(&then)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// How many rows, at least, were written since the mark; a line to `say` for each table that differs.
///
/// Rows are compared in the columns that a table has on both sides. One that was changed is one that is new and
/// one that is gone; a table's larger number of both is what counts.
///
/// # Errors
/// For the first database that cannot be read.
pub fn compare(
    data: &Path,
    mark: &Path,
    patterns: &[String],
    say: &mut dyn FnMut(&str),
) -> Result<u64, CopyError> {
    let mut total = 0;
    for relative in find(mark, patterns)? {
        let (now, then) = (data.join(&relative), mark.join(&relative));
        let name = relative.display().to_string().escape_debug().to_string();
        if !now.exists() {
            say(&format!("{name}: is gone"));
            continue;
        }
        let db = open(&now)?;
        let wrong = read_error(&now);
        let differing = attach(&db, &then).and_then(|()| differing(&db)).map_err(wrong)?;
        for (table, new, gone) in differing {
            total += new.max(gone);
            say(&format!(
                "{name}: {}: {new} rows are new or changed, {gone} gone or changed",
                table.escape_debug()
            ));
        }
    }
    Ok(total)
}

fn open(path: &Path) -> Result<Connection, CopyError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags).map_err(read_error(path))?;
    db.busy_timeout(super::BUSY).map_err(read_error(path))?;
    db.execute_batch("PRAGMA query_only = 1").map_err(read_error(path))?;
    Ok(db)
}

fn attach(db: &Connection, mark: &Path) -> rusqlite::Result<()> {
    db.execute("ATTACH ?1 AS mark", [mark.to_string_lossy()]).map(drop)
}

/// The tables whose rows differ: how many are on this side only, and on the mark's only.
fn differing(db: &Connection) -> rusqlite::Result<Vec<(String, u64, u64)>> {
    // One snapshot of each side, however long it takes.
    let db = db.unchecked_transaction()?;
    let list = "SELECT name FROM {}.sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' \
                AND sql NOT LIKE 'CREATE VIRTUAL%'";
    let tables = format!("{} UNION {} ORDER BY 1", list.replace("{}", "main"), list.replace("{}", "mark"));
    let mut found = Vec::new();
    for table in texts(&db, &tables)?.into_iter().filter(|table| table != MIGRATIONS) {
        let (here, there) = (columns(&db, "main", &table)?, columns(&db, "mark", &table)?);
        let mut common: Vec<String> =
            here.iter().filter(|name| there.contains(name)).map(|name| quoted(name)).collect();
        // Two rows may be equal in all else.
        common.extend(has_rowid(&db, &table)?.then(|| "rowid".to_owned()));
        let rows = |side: &str, other: &str| {
            let (own, foreign) =
                (format!("{side}.{}", quoted(&table)), format!("{other}.{}", quoted(&table)));
            let columns = common.join(", ");
            let rows = if common.is_empty() {
                own
            } else {
                format!("(SELECT {columns} FROM {own} EXCEPT SELECT {columns} FROM {foreign})")
            };
            count(&db, &rows)
        };
        let new = if here.is_empty() { 0 } else { rows("main", "mark")? };
        let gone = if there.is_empty() { 0 } else { rows("mark", "main")? };
        if (new, gone) != (0, 0) {
            found.push((table, new, gone));
        }
    }
    Ok(found)
}

/// The columns of a table; none where there is no such table.
fn columns(db: &Connection, side: &str, table: &str) -> rusqlite::Result<Vec<String>> {
    let mut query = db.prepare("SELECT name FROM pragma_table_info(?1, ?2)")?;
    query.query_map([table, side], |row| row.get(0))?.collect()
}

/// Whether the table has row numbers on both sides.
fn has_rowid(db: &Connection, table: &str) -> rusqlite::Result<bool> {
    let query = "SELECT count(*) FROM pragma_table_list
                 WHERE name = ?1 AND schema IN ('main', 'mark') AND type = 'table' AND NOT wr";
    db.query_row(query, [table], |row| row.get(0)).map(|sides: u8| sides == 2)
}

fn count(db: &Connection, rows: &str) -> rusqlite::Result<u64> {
    let count: i64 = db.query_row(&format!("SELECT count(*) FROM {rows}"), [], |row| row.get(0))?;
    Ok(count.unsigned_abs())
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn texts(db: &Connection, query: &str) -> rusqlite::Result<Vec<String>> {
    db.prepare(query)?.query_map([], |row| row.get(0))?.collect()
}

#[cfg(test)]
mod tests {
    use super::{super::mark, *};

    #[test]
    fn what_was_written_since_the_mark_is_counted_across_a_changed_schema() {
        let folder = tempfile::tempdir().unwrap();
        let (data, aside) = (folder.path().join("data"), folder.path().join("mark"));
        std::fs::create_dir_all(&data).unwrap();
        let patterns = ["*".to_owned()];
        let db = Connection::open(data.join("db.sqlite3")).unwrap();
        db.execute_batch(
            "PRAGMA journal_mode=WAL; CREATE TABLE t (id INTEGER PRIMARY KEY, title, mood);
             INSERT INTO t VALUES (1, 'a', 'x'), (2, 'b', 'x'), (3, 'c', 'x');
             CREATE TABLE django_migrations (x); CREATE TABLE same (x); INSERT INTO same VALUES (1), (1);
             CREATE TABLE bare (k PRIMARY KEY) WITHOUT ROWID",
        )
        .unwrap();
        mark(&data, &aside, &patterns).unwrap();
        let seen = || {
            let mut said = Vec::new();
            let total = compare(&data, &aside, &patterns, &mut |line| said.push(line.to_owned())).unwrap();
            (total, said)
        };
        assert_eq!(seen(), (0, vec![]));
        assert!(!schema_changed(&data, &aside, &patterns).unwrap());
        db.execute_batch(
            "ALTER TABLE t DROP COLUMN mood; ALTER TABLE t ADD COLUMN other; INSERT INTO django_migrations VALUES (1);
             UPDATE t SET title = 'B' WHERE id = 2; INSERT INTO t VALUES (4, 'd', 1); DELETE FROM t WHERE id = 3;
             CREATE TABLE \"a\"\"b\" (y); INSERT INTO \"a\"\"b\" VALUES (1);
             INSERT INTO same VALUES (1); INSERT INTO bare VALUES (1)",
        )
        .unwrap();
        assert!(schema_changed(&data, &aside, &patterns).unwrap());
        let (total, said) = seen();
        assert_eq!(
            said,
            [
                "db.sqlite3: a\\\"b: 1 rows are new or changed, 0 gone or changed",
                "db.sqlite3: bare: 1 rows are new or changed, 0 gone or changed",
                "db.sqlite3: same: 1 rows are new or changed, 0 gone or changed",
                "db.sqlite3: t: 2 rows are new or changed, 2 gone or changed"
            ]
        );
        assert_eq!(total, 5);
    }
}
