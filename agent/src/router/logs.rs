//! Lines of an app's log: the newest, those since a time, those that hold a text, and those still to come.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
    os::unix::fs::MetadataExt,
    path::Path,
    time::Duration,
};

use flipside_api::{Code, Failure, Logs, Outcome};
use jiff::{SignedDuration, Timestamp};
use memchr::memmem::Finder;
use serde_json::json;

use super::{Call, Router};
use crate::{
    host::fault,
    sys::{beneath, tail::Backwards},
};

/// The most lines that one answer carries.
const MOST: usize = 10_000;
/// Bytes read at once of what comes.
const BLOCK: u64 = 256 << 10;
/// Bytes in which a time is looked for line by line.
const STRETCH: u64 = 8 << 10;
/// How much of a line is looked at for its time.
const HEAD: u64 = 40;
/// Where a line is cut that is longer than a message may be.
const LONGEST: usize = 64 << 10;
/// By how much the lines of several processes may be out of order.
const DISORDER: SignedDuration = SignedDuration::from_secs(60);
/// How many lines may wait for whoever reads them, and how long for one that does not.
const WAITING: usize = 256;
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a log is looked at for new lines.
const LOOK: Duration = Duration::from_millis(200);

pub(super) async fn logs(router: &Router, call: &Call<'_>, asked: &Logs) -> Result<Outcome, Failure> {
    router.known(&asked.app).await?;
    let path = router.host.paths(&asked.app).log().to_owned();
    let since = asked.since.as_deref().map(when).transpose()?;
    let grep = asked.grep.as_deref().filter(|text| !text.is_empty());
    if grep.is_some_and(|text| text.contains('\n')) {
        return Err(Failure::new(Code::Usage, "grep: what is looked for in lines cannot have two of them"));
    }
    let wanted = Wanted {
        grep: grep.map(|text| Finder::new(text).into_owned()),
        since,
        most: (asked.lines as usize).min(MOST),
    };
    let file = open(&path)?;
    let (lines, end) = {
        let wanted = wanted.clone();
        tokio::task::spawn_blocking(move || newest(&file, &wanted))
            .await
            .map_err(|_| Failure::new(Code::Interrupted, "the agent is ending"))?
            .map_err(|error| fault("cannot read the log", &error))?
    };
    let count = lines.len();
    for line in lines {
        say(call, &line).await;
    }
    if asked.follow {
        tokio::select! {
            followed = follow(&path, end, &wanted, call) => followed?,
            () = call.channel.abandoned() => {}
            () = router.stop.cancelled() => {}
        }
    }
    Ok(Outcome::answer(json!({ "lines": count })))
}

#[derive(Debug, Clone)]
struct Wanted {
    grep: Option<Finder<'static>>,
    since: Option<Timestamp>,
    most: usize,
}

impl Wanted {
    fn takes(&self, line: &[u8]) -> bool {
        self.grep.as_ref().is_none_or(|text| text.find(line).is_some())
    }
}

fn when(text: &str) -> Result<Timestamp, Failure> {
    text.parse().map_err(|_| {
        Failure::new(Code::Usage, format!("since: {text:?} is no time"))
            .hint("write it as RFC 3339, such as 2026-01-31T12:00:00Z")
    })
}

fn open(path: &Path) -> Result<File, Failure> {
    let (folder, name) = path.parent().zip(path.file_name()).unwrap_or((path, path.as_os_str()));
    beneath::open_read(folder, Path::new(name)).map_err(|error| {
        if error.is_missing() {
            Failure::new(Code::NotFound, format!("there is no log {} yet", path.display()))
        } else {
            fault("cannot open the log", &error)
        }
    })
}

/// The newest lines that are wanted, oldest first, and where the file ended. Read backwards: the size of the log does
/// not matter, nor what is older than `since`.
fn newest(file: &File, wanted: &Wanted) -> io::Result<(VecDeque<String>, u64)> {
    let end = file.metadata()?.len();
    let (floor, sure) = match wanted.since {
        None => (0, 0),
        Some(since) => (
            begin(file, since.checked_sub(DISORDER).unwrap_or(since), end)?,
            begin(file, since.checked_add(DISORDER).unwrap_or(since), end)?,
        ),
    };
    let (mut back, mut lines) = (Backwards::new(file.try_clone()?, sure, end), VecDeque::new());
    while lines.len() < wanted.most {
        let line = match &wanted.grep {
            Some(text) => back.previous_with(text)?,
            None => back.previous()?,
        };
        let Some(line) = line else { break };
        lines.push_front(shown(line));
    }
    if let Some(since) = wanted.since {
        near(Backwards::new(file.try_clone()?, floor, sure), since, wanted, &mut lines)?;
    }
    Ok((lines, end))
}

/// Adds the lines around `since`, each by its own time.
fn near(
    mut back: Backwards,
    since: Timestamp,
    wanted: &Wanted,
    lines: &mut VecDeque<String>,
) -> io::Result<()> {
    // Lines without a time, as of a traceback, belong to the line with one that comes before them.
    let mut belong = Vec::new();
    let put = |lines: &mut VecDeque<String>, belong: &mut Vec<String>| {
        belong.drain(..).for_each(|line| lines.push_front(line));
    };
    while lines.len() < wanted.most {
        let Some(line) = back.previous()? else {
            put(lines, &mut belong);
            break;
        };
        match time(line) {
            Some(time) if time < since => belong.clear(),
            time => {
                if wanted.takes(line) && belong.len() < wanted.most {
                    belong.push(shown(line));
                }
                if time.is_some() {
                    put(lines, &mut belong);
                }
            }
        }
    }
    while lines.len() > wanted.most {
        lines.pop_front();
    }
    Ok(())
}

/// Where the lines begin that are not older than `since`, in a file whose lines are in order: found by halves. Lines
/// before all that have a time count as not older.
fn begin(file: &File, since: Timestamp, end: u64) -> io::Result<u64> {
    let (mut low, mut high, mut found) = (0, end, None);
    while high - low > STRETCH {
        let middle = low + (high - low) / 2;
        match next_timed(file, middle, high)? {
            Some((at, time)) if time < since => low = at,
            Some((at, _)) => (high, found) = (middle, Some(at)),
            None => high = middle,
        }
    }
    let mut older = low > 0;
    while let Some((at, time)) = next_timed(file, low, high)? {
        if time >= since {
            found = Some(at);
            break;
        }
        (low, older) = (at + 1, true);
    }
    Ok(if older { found.unwrap_or(end) } else { 0 })
}

/// The first line that has a time and begins at `from` or later, and before `until`: where, and its time.
fn next_timed(file: &File, from: u64, until: u64) -> io::Result<Option<(u64, Timestamp)>> {
    let mut reader = BufReader::with_capacity(usize::try_from(STRETCH).unwrap_or(usize::MAX), file);
    let mut at = from.saturating_sub(1);
    reader.seek(SeekFrom::Start(at))?;
    if from > 0 {
        at += reader.skip_until(b'\n')? as u64;
    }
    while at < until {
        let mut head = Vec::new();
        (&mut reader).take(HEAD).read_until(b'\n', &mut head)?;
        if head.is_empty() {
            break;
        }
        if let Some(time) = time(head.strip_suffix(b"\n").unwrap_or(&head)) {
            return Ok(Some((at, time)));
        }
        let rest = if head.ends_with(b"\n") { 0 } else { reader.skip_until(b'\n')? };
        at += (head.len() + rest) as u64;
    }
    Ok(None)
}

fn shown(line: &[u8]) -> String {
    String::from_utf8_lossy(&line[..line.len().min(LONGEST)]).into_owned()
}

/// The time at the beginning of a line, where it has one: RFC 3339, or as Python's logging writes it, which is this
/// host's.
fn time(line: &[u8]) -> Option<Timestamp> {
    line.first().filter(|first| first.is_ascii_digit() || **first == b'[')?;
    let head = line.get(..usize::try_from(HEAD).ok()?).unwrap_or(line).utf8_chunks().next()?.valid();
    let head = head.trim_start_matches('[');
    let mut words = head.split([' ', ']']);
    let (first, second) = (words.next()?, words.next());
    if let Ok(time) = first.parse() {
        return Some(time);
    }
    let local: jiff::civil::DateTime = format!("{first}T{}", second?).parse().ok()?;
    local.to_zoned(jiff::tz::TimeZone::system()).ok().map(|time| time.timestamp())
}

/// Goes on with new lines, also when the log was rotated.
async fn follow(path: &Path, mut at: u64, wanted: &Wanted, call: &Call<'_>) -> Result<(), Failure> {
    let unreadable = |error: std::io::Error| fault("cannot follow the log", &error);
    let mut file = open(path)?;
    let mut rest = Vec::new();
    loop {
        let about = file.metadata().map_err(unreadable)?;
        if about.len() < at {
            at = 0;
        }
        if about.len() > at {
            file.seek(SeekFrom::Start(at)).map_err(unreadable)?;
            at += (&file).take(BLOCK).read_to_end(&mut rest).map_err(unreadable)? as u64;
            let whole = rest.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
            for line in rest[..whole].split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
                if wanted.takes(line) {
                    say(call, &shown(line)).await;
                }
            }
            rest.drain(..whole);
            rest.truncate(usize::try_from(BLOCK).unwrap_or(usize::MAX));
            continue;
        }
        if std::fs::metadata(path).is_ok_and(|now| now.ino() != about.ino())
            && let Ok(fresh) = open(path)
        {
            (file, at) = (fresh, 0);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Tells a line. A log is longer than what may wait for a slow reader: it is read as fast as that one reads.
async fn say(call: &Call<'_>, line: &str) {
    let begun = tokio::time::Instant::now();
    while call.channel.waiting() >= WAITING && begun.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    call.channel.output("", line);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, File) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        crate::sys::atomic_write::write(&path, text.as_bytes(), 0o644, None).unwrap();
        (folder, File::open(path).unwrap())
    }

    fn wanted(most: usize) -> Wanted {
        Wanted { grep: None, since: None, most }
    }

    #[test]
    fn the_newest_come_whole_whatever_the_size() {
        let text: String = (0..100_000).map(|n| format!("line {n}\n")).collect();
        let (_folder, log) = file(&text);
        let (lines, end) = newest(&log, &wanted(3)).unwrap();
        assert_eq!(
            (lines, end),
            (["line 99997", "line 99998", "line 99999"].map(String::from).into(), text.len() as u64)
        );
        let (_folder, log) = file(&text);
        let (lines, _) = newest(&log, &wanted(usize::MAX)).unwrap();
        assert_eq!(lines.len(), 100_000);
        assert!(lines.iter().enumerate().all(|(n, line)| *line == format!("line {n}")));
    }

    #[test]
    fn lines_are_chosen_by_text_and_time() {
        let (_folder, log) = file(
            "2026-01-01T00:00:00Z old\n2026-01-02T00:00:00Z one\n  traceback\n2026-01-03T00:00:00Z two\n",
        );
        let since = Some("2026-01-02T00:00:00Z".parse().unwrap());
        let (lines, _) = newest(&log, &Wanted { since, ..wanted(9) }).unwrap();
        assert_eq!(lines.len(), 3);
        let (lines, _) = newest(&log, &Wanted { grep: Some(Finder::new("o")), ..wanted(2) }).unwrap();
        assert_eq!(lines, ["2026-01-02T00:00:00Z one", "2026-01-03T00:00:00Z two"]);
    }

    #[test]
    fn a_traceback_is_as_old_as_the_line_before_it() {
        let text = "2026-01-01T00:00:00Z old\n  of the old\n2026-01-01 12:00:00,5 new\n  of the new\n";
        let (_folder, log) = file(text);
        let since = Some(time(b"2026-01-01 11:59:59,0 x").unwrap());
        let (lines, _) = newest(&log, &Wanted { since, ..wanted(9) }).unwrap();
        assert_eq!(lines, ["2026-01-01 12:00:00,5 new", "  of the new"]);
        assert_eq!(time(b"[2026-01-01T00:00:00+01:00] x"), time(b"2025-12-31T23:00:00Z"));
        assert_eq!(time(b"2026-01-01T00:00:00+0100 x"), time(b"2025-12-31T23:00:00Z"));
        for none in
            [&b""[..], b"\xff\xfe", b"  File x", b"Sat Nov 28 10:00:00 2026", "ä".repeat(30).as_bytes()]
        {
            assert_eq!(time(none), None);
        }
    }

    #[test]
    fn lines_since_a_time_are_found_in_a_long_file() {
        let line = |n: i64| {
            // Some are out of order, and some bring a traceback.
            let time = Timestamp::from_second(1_000_000 + n + if n % 7 == 0 { -30 } else { 0 }).unwrap();
            let more = if n % 5 == 0 { "  traceback\n".repeat(3) } else { String::new() };
            format!("{time} line {n}\n{more}")
        };
        let (_folder, log) = file(&(0..20_000).map(line).collect::<String>());
        for n in [0, 1, 5, 9_999, 15_000, 19_990] {
            let since = Some(Timestamp::from_second(1_000_000 + n).unwrap());
            let (lines, _) = newest(&log, &Wanted { since, ..wanted(usize::MAX) }).unwrap();
            let expected: Vec<String> = (0..20_000)
                .filter(|m| m + if m % 7 == 0 { -30 } else { 0 } >= n)
                .flat_map(|m| line(m).lines().map(str::to_owned).collect::<Vec<_>>())
                .collect();
            assert_eq!(Vec::from(lines), expected, "since line {n}");
        }
        let since = Some(Timestamp::from_second(1_000_000).unwrap());
        let rare = Wanted { since, grep: Some(Finder::new("line 77")), most: 2 };
        assert_eq!(newest(&log, &rare).unwrap().0.len(), 2);
        assert!(newest(&log, &rare).unwrap().0[1].ends_with("line 7799"));
        let none = Some(Timestamp::from_second(2_000_000).unwrap());
        assert!(newest(&log, &Wanted { since: none, ..wanted(9) }).unwrap().0.is_empty());
    }

    #[test]
    fn no_time_is_refused() {
        assert!(when("yesterday").unwrap_err().message.contains("no time"));
    }
}
