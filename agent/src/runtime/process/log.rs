//! What an app's processes printed since something was begun.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::sys::tail;

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
        tail::since(&self.path, self.at, LINES)
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
