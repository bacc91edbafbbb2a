//! Logs read from their end, so that their size does not matter.

use std::{fs::File, io, os::unix::fs::FileExt, path::Path};

use memchr::memmem::Finder;

use super::beneath;

/// Bytes read at once.
const BLOCK: u64 = 256 << 10;
/// Where a line is cut that does not end, and one that is told with others.
const LONGEST: usize = 4 << 20;
const SHOWN: usize = 4 << 10;

/// The lines of a file, the last one first.
#[derive(Debug)]
pub struct Backwards {
    file: File,
    floor: u64,
    /// Where in the file the block begins.
    at: u64,
    block: Vec<u8>,
    /// Where in the block the first line begins of which all is there.
    first: usize,
    /// Where in the block what is not yet told ends.
    until: usize,
    /// Where in the block the text is that is looked for; none while nobody has looked.
    hits: Option<Vec<usize>>,
}

impl Backwards {
    /// The lines of `file` that begin at `floor` or later and end at `end`.
    pub fn new(file: File, floor: u64, end: u64) -> Self {
        Self { file, floor, at: end, block: Vec::new(), first: 0, until: 0, hits: None }
    }

    /// The line before those told so far, without its end.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn previous(&mut self) -> io::Result<Option<&[u8]>> {
        while self.until <= self.first {
            if self.at <= self.floor {
                return Ok(None);
            }
            self.fill()?;
        }
        let part = &self.block[self.first..self.until];
        let body = part.strip_suffix(b"\n").unwrap_or(part).len();
        let begin = memchr::memrchr(b'\n', &part[..body]).map_or(0, |at| at + 1);
        let (from, to) = (self.first + begin, self.first + body);
        self.until = from;
        Ok(Some(&self.block[from..to]))
    }

    /// The same of the lines that hold `text`, which is always the same and within a line. Blocks without it are
    /// passed over as a whole.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn previous_with(&mut self, text: &Finder<'_>) -> io::Result<Option<&[u8]>> {
        let hit = loop {
            let (first, until) = (self.first, self.until);
            let hits = self.hits.get_or_insert_with(|| {
                text.find_iter(&self.block[first..until]).map(|at| first + at).collect()
            });
            match hits.pop() {
                Some(hit) if hit < until => break hit,
                Some(_) => {}
                None if self.at <= self.floor => return Ok(None),
                None => {
                    self.until = first;
                    self.fill()?;
                }
            }
        };
        let begin =
            memchr::memrchr(b'\n', &self.block[self.first..hit]).map_or(self.first, |at| self.first + at + 1);
        let end = memchr::memchr(b'\n', &self.block[hit..self.until]).map_or(self.until, |at| hit + at);
        self.until = begin;
        Ok(Some(&self.block[begin..end]))
    }

    fn fill(&mut self) -> io::Result<()> {
        self.hits = None;
        let from = self.at.saturating_sub(BLOCK).max(self.floor);
        let count = usize::try_from(self.at - from).unwrap_or(0);
        // The line that the last block began in.
        let rest = self.block[..self.first].to_vec();
        let mut block = std::mem::take(&mut self.block);
        block.resize(count + rest.len(), 0);
        block[count..].copy_from_slice(&rest);
        match self.file.read_exact_at(&mut block[..count], from) {
            Ok(()) => {}
            // It was cut short while we read: what was there is gone.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                (self.at, self.first, self.until) = (self.floor, 0, 0);
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        self.at = from;
        self.first = match memchr::memchr(b'\n', &block) {
            _ if from == self.floor => 0,
            Some(end) => end + 1,
            None if block.len() < LONGEST => block.len(),
            None => 0,
        };
        self.until = block.len();
        self.block = block;
        Ok(())
    }
}

/// The last `n` lines of the file at `path` that are not empty; none when it cannot be read.
pub fn tail(path: &Path, n: usize) -> Vec<String> {
    since(path, 0, n)
}

/// The last `n` lines that begin at `floor` or later; in a file that has become shorter, of all of it.
pub fn since(path: &Path, floor: u64, n: usize) -> Vec<String> {
    let Some((folder, name)) = path.parent().zip(path.file_name()) else { return Vec::new() };
    let Ok(file) = beneath::open_read(folder, Path::new(name)) else { return Vec::new() };
    let Ok(end) = file.metadata().map(|about| about.len()) else { return Vec::new() };
    let mut lines = Backwards::new(file, if end < floor { 0 } else { floor }, end);
    let mut found = Vec::new();
    while found.len() < n
        && let Ok(Some(line)) = lines.previous()
    {
        let line = String::from_utf8_lossy(&line[..line.len().min(SHOWN)]);
        if !line.trim().is_empty() {
            found.push(line.trim_end().to_owned());
        }
    }
    found.reverse();
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sys::atomic_write::write;

    fn open(text: &[u8]) -> (tempfile::TempDir, Backwards) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        write(&path, text, 0o644, None).unwrap();
        let lines = Backwards::new(File::open(path).unwrap(), 0, text.len() as u64);
        (folder, lines)
    }

    fn all(text: &[u8]) -> Vec<Vec<u8>> {
        let (_folder, mut lines) = open(text);
        let mut found = Vec::new();
        while let Some(line) = lines.previous().unwrap() {
            found.push(line.to_vec());
        }
        found.reverse();
        found
    }

    fn with(text: &[u8], wanted: &str) -> Vec<Vec<u8>> {
        let (_folder, mut lines) = open(text);
        let mut found = Vec::new();
        while let Some(line) = lines.previous_with(&Finder::new(wanted)).unwrap() {
            found.push(line.to_vec());
        }
        found.reverse();
        found
    }

    #[test]
    fn the_last_lines_of_a_long_file_come_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let text: String = (0..60_000).map(|n| format!("line {n}\n")).collect();
        write(&path, text.as_bytes(), 0o644, None).unwrap();
        assert_eq!(tail(&path, 2), ["line 59998", "line 59999"]);
        let every = tail(&path, 1_000_000);
        assert!(
            every.len() == 60_000 && every.iter().enumerate().all(|(n, line)| *line == format!("line {n}"))
        );
        assert!(tail(&folder.path().join("none"), 2).is_empty());
        let floor = text.len() as u64 - 11;
        assert_eq!(since(&path, floor, 9), ["line 59999"]);
        assert_eq!(since(&path, text.len() as u64 + 1, 1), ["line 59999"], "it was rotated");
    }

    #[test]
    fn a_line_longer_than_a_block_comes_whole() {
        let long = vec![b'x'; 600 << 10];
        let text = [b"a\n".as_slice(), &long, b"\nb\n"].concat();
        assert_eq!(all(&text), [b"a".to_vec(), long.clone(), b"b".to_vec()]);
        assert_eq!(with(&text, "x"), [long]);
        assert!(with(&text, "y").is_empty() && with(b"", "y").is_empty());
    }

    #[test]
    fn a_line_that_two_blocks_share_is_found() {
        let text: String = (0..100_000).map(|n| format!("line {n}\n")).collect();
        let found = with(text.as_bytes(), "77");
        let expected: Vec<_> =
            text.lines().filter(|line| line.contains("77")).map(|it| it.as_bytes().to_vec()).collect();
        assert_eq!(found, expected);
    }

    proptest! {
        #[test]
        fn they_are_the_lines_of_the_file(text in "[ab\n]{0,200}") {
            let lines: Vec<Vec<u8>> = text.lines().map(|line| line.as_bytes().to_vec()).collect();
            let held: Vec<Vec<u8>> =
                lines.iter().filter(|line| line.windows(2).any(|two| two == b"ab")).cloned().collect();
            prop_assert_eq!(with(text.as_bytes(), "ab"), held);
            prop_assert_eq!(all(text.as_bytes()), lines);
        }
    }
}
