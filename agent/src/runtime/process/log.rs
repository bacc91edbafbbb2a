//! What an app's processes printed since something was begun.

use std::{
    fs,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use crate::sys::beneath;

/// The most that is read of it.
const MOST: u64 = 32 << 10;
const LINES: usize = 40;

/// A place in an app's log.
pub(super) struct LogMark {
    path: PathBuf,
    at: u64,
}

impl LogMark {
    /// The end of the log as it is now.
    pub(super) fn now(path: &Path) -> Self {
        Self { path: path.to_owned(), at: fs::symlink_metadata(path).map_or(0, |metadata| metadata.len()) }
    }

    /// The last lines that came since.
    pub(super) fn lines(&self) -> Vec<String> {
        self.read().unwrap_or_default()
    }

    fn read(&self) -> Option<Vec<String>> {
        let mut file = beneath::open_read(self.path.parent()?, Path::new(self.path.file_name()?)).ok()?;
        let length = file.metadata().ok()?.len();
        // A log that was rotated meanwhile is read from its start.
        let from = if length < self.at { 0 } else { self.at };
        file.seek(SeekFrom::Start(from.max(length.saturating_sub(MOST)))).ok()?;
        let mut bytes = Vec::new();
        file.take(MOST).read_to_end(&mut bytes).ok()?;
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
        Some(lines[lines.len().saturating_sub(LINES)..].iter().map(|line| (*line).to_owned()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::atomic_write::write;

    #[test]
    fn only_what_came_since_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("blog.log");
        write(&path, b"old\n", 0o640, None).unwrap();
        let mark = LogMark::now(&path);
        assert!(mark.lines().is_empty());
        write(&path, b"old\nnew\n\nnewer\n", 0o640, None).unwrap();
        assert_eq!(mark.lines(), ["new", "newer"]);
        write(&path, b"x\n", 0o640, None).unwrap();
        assert_eq!(mark.lines(), ["x"], "it was rotated");
        assert!(LogMark::now(&folder.path().join("none")).lines().is_empty());
    }
}
