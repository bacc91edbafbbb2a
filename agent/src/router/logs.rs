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
use jiff::Timestamp;
use serde_json::json;

use super::{Call, Router};
use crate::{host::fault, sys::beneath};

/// The most lines that one answer carries.
const MOST: usize = 10_000;
/// Bytes read at once, from the end backwards.
const BLOCK: u64 = 256 << 10;
/// How often a log is looked at for new lines.
const LOOK: Duration = Duration::from_millis(200);

pub(super) async fn logs(router: &Router, call: &Call<'_>, asked: &Logs) -> Result<Outcome, Failure> {
    router.known(&asked.app).await?;
    let path = router.host.paths(&asked.app).log().to_owned();
    let since = asked.since.as_deref().map(when).transpose()?;
    let wanted = Wanted { grep: asked.grep.clone(), since, most: (asked.lines as usize).min(MOST) };
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
        call.channel.output("", &line);
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
    grep: Option<String>,
    since: Option<Timestamp>,
    most: usize,
}

impl Wanted {
    fn takes(&self, line: &str) -> bool {
        self.grep.as_deref().is_none_or(|text| line.contains(text))
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

/// The newest lines that are wanted, oldest first, and where the file ended. Read backwards, block by block, so
/// that the size of the log does not matter.
fn newest(mut file: File, wanted: &Wanted) -> std::io::Result<(VecDeque<String>, u64)> {
    let end = file.metadata()?.len();
    let (mut at, mut rest, mut lines) = (end, Vec::new(), VecDeque::new());
    'blocks: while at > 0 && lines.len() < wanted.most {
        let from = at.saturating_sub(BLOCK);
        let mut block = vec![0; usize::try_from(at - from).unwrap_or(0)];
        file.seek(SeekFrom::Start(from))?;
        file.read_exact(&mut block)?;
        block.append(&mut rest);
        at = from;
        // The first line of a block may have begun in the block before.
        let first =
            if at == 0 { 0 } else { block.iter().position(|b| *b == b'\n').map_or(block.len(), |at| at + 1) };
        rest = block[..first].to_vec();
        if first == block.len() && at > 0 && rest.len() < 64 * usize::try_from(BLOCK).unwrap_or(usize::MAX) {
            continue;
        }
        for line in String::from_utf8_lossy(&block[first..]).lines().rev() {
            if wanted.since.is_some_and(|since| time(line).is_some_and(|time| time < since)) {
                break 'blocks;
            }
            if wanted.takes(line) {
                lines.push_front(line.to_owned());
            }
            if lines.len() == wanted.most {
                break 'blocks;
            }
        }
    }
    Ok((lines, end))
}

/// The time at the beginning of a line, where it has one.
fn time(line: &str) -> Option<Timestamp> {
    line.trim_start_matches('[').split([' ', ']']).next()?.parse().ok()
}

/// Goes on with new lines, also when the log was rotated.
async fn follow(path: &Path, mut at: u64, wanted: &Wanted, call: &Call<'_>) -> Result<(), Failure> {
    let unreadable = |error: std::io::Error| fault("cannot follow the log", &error);
    let mut file = open(path)?;
    let mut rest = Vec::new();
    loop {
        tokio::time::sleep(LOOK).await;
        let about = file.metadata().map_err(unreadable)?;
        if about.len() < at {
            at = 0;
        }
        if about.len() > at {
            file.seek(SeekFrom::Start(at)).map_err(unreadable)?;
            at += (&file).take(BLOCK).read_to_end(&mut rest).map_err(unreadable)? as u64;
            let whole = rest.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
            for line in String::from_utf8_lossy(&rest[..whole]).lines().filter(|line| wanted.takes(line)) {
                call.channel.output("", line);
            }
            rest.drain(..whole);
            rest.truncate(usize::try_from(BLOCK).unwrap_or(usize::MAX));
        } else if std::fs::metadata(path).is_ok_and(|now| now.ino() != about.ino())
            && let Ok(fresh) = open(path)
        {
            (file, at) = (fresh, 0);
        }
    }
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
        let (lines, _) = newest(log, &Wanted { grep: Some("o".into()), ..wanted(2) }).unwrap();
        assert_eq!(lines, ["2026-01-02T00:00:00Z one", "2026-01-03T00:00:00Z two"]);
    }

    #[test]
    fn no_time_is_refused() {
        assert!(when("yesterday").unwrap_err().message.contains("no time"));
    }
}
