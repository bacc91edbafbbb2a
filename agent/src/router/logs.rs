//! Lines of an app's log: the newest, those since a time, those that hold a text, and those still to come.

use std::{
    collections::VecDeque,
    fs::File,
    io::{Read, Seek, SeekFrom},
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
    let wanted = Wanted {
        grep: asked.grep.as_deref().map(|text| Finder::new(text).into_owned()),
        since,
        most: (asked.lines as usize).min(MOST),
    };
    let file = open(&path)?;
    let (lines, end) = {
        let wanted = wanted.clone();
        tokio::task::spawn_blocking(move || newest(file, &wanted))
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
fn newest(file: File, wanted: &Wanted) -> std::io::Result<(VecDeque<String>, u64)> {
    let end = file.metadata()?.len();
    let (mut back, mut lines) = (Backwards::new(file, 0)?, VecDeque::new());
    // Lines without a time, as of a traceback, belong to the line with one that comes before them.
    let mut belong = Vec::new();
    while lines.len() < wanted.most {
        let Some(line) = back.previous()? else {
            lines = belong.drain(..).fold(lines, put);
            break;
        };
        let time = wanted.since.and_then(|since| Some((since, time(line)?)));
        match time {
            Some((since, time)) if time < since - DISORDER => break,
            Some((since, time)) if time < since => belong.clear(),
            Some(_) => {
                lines = belong.drain(..).fold(lines, put);
                lines = take(lines, wanted, line);
            }
            None if wanted.since.is_some() && belong.len() < wanted.most => {
                belong.extend(wanted.takes(line).then(|| shown(line)));
            }
            None if wanted.since.is_some() => {}
            None => lines = take(lines, wanted, line),
        }
    }
    while lines.len() > wanted.most {
        lines.pop_front();
    }
    Ok((lines, end))
}

fn take(lines: VecDeque<String>, wanted: &Wanted, line: &[u8]) -> VecDeque<String> {
    if wanted.takes(line) { put(lines, shown(line)) } else { lines }
}

fn put(mut lines: VecDeque<String>, line: String) -> VecDeque<String> {
    lines.push_front(line);
    lines
}

fn shown(line: &[u8]) -> String {
    String::from_utf8_lossy(&line[..line.len().min(LONGEST)]).into_owned()
}

/// The time at the beginning of a line, where it has one: RFC 3339, or as Python's logging writes it, which is this
/// host's.
fn time(line: &[u8]) -> Option<Timestamp> {
    let head = std::str::from_utf8(line.get(..40).unwrap_or(line)).ok().or_else(|| {
        let valid = line.utf8_chunks().next()?.valid();
        Some(valid.get(..40).unwrap_or(valid))
    })?;
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
        let (lines, end) = newest(log, &wanted(3)).unwrap();
        assert_eq!(
            (lines, end),
            (["line 99997", "line 99998", "line 99999"].map(String::from).into(), text.len() as u64)
        );
        let (_folder, log) = file(&text);
        let (lines, _) = newest(log, &wanted(usize::MAX)).unwrap();
        assert_eq!(lines.len(), 100_000);
        assert!(lines.iter().enumerate().all(|(n, line)| *line == format!("line {n}")));
    }

    #[test]
    fn lines_are_chosen_by_text_and_time() {
        let (_folder, log) = file(
            "2026-01-01T00:00:00Z old\n2026-01-02T00:00:00Z one\n  traceback\n2026-01-03T00:00:00Z two\n",
        );
        let since = Some("2026-01-02T00:00:00Z".parse().unwrap());
        let (lines, _) = newest(log.try_clone().unwrap(), &Wanted { since, ..wanted(9) }).unwrap();
        assert_eq!(lines.len(), 3);
        let (lines, _) = newest(log, &Wanted { grep: Some(Finder::new("o")), ..wanted(2) }).unwrap();
        assert_eq!(lines, ["2026-01-02T00:00:00Z one", "2026-01-03T00:00:00Z two"]);
    }

    #[test]
    fn a_traceback_is_as_old_as_the_line_before_it() {
        let text = "2026-01-01T00:00:00Z old\n  of the old\n2026-01-01 12:00:00,5 new\n  of the new\n";
        let (_folder, log) = file(text);
        let since = Some(time(b"2026-01-01 11:59:59,0 x").unwrap());
        let (lines, _) = newest(log, &Wanted { since, ..wanted(9) }).unwrap();
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
    fn no_time_is_refused() {
        assert!(when("yesterday").unwrap_err().message.contains("no time"));
    }
}
