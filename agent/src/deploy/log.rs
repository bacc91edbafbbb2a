//! The end of a log, however long the log is.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::Path,
};

/// The most bytes that are looked at for the last lines.
const WINDOW: u64 = 256 << 10;

/// The last `n` lines of the file at `path`; none when it cannot be read.
pub(crate) fn tail(path: &Path, n: usize) -> Vec<String> {
    let Some((folder, name)) = path.parent().zip(path.file_name()) else { return Vec::new() };
    let Ok(file) = crate::sys::beneath::open_read(folder, Path::new(name)) else { return Vec::new() };
    let text = last_bytes(file, WINDOW);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(n)..].iter().map(|line| (*line).to_owned()).collect()
}

/// The last bytes of a file, from the beginning of a line on.
fn last_bytes(mut file: File, most: u64) -> String {
    let length = file.metadata().map_or(0, |about| about.len());
    let from = length.saturating_sub(most);
    let mut bytes = Vec::new();
    if file.seek(SeekFrom::Start(from)).and_then(|_| file.take(most).read_to_end(&mut bytes)).is_err() {
        return String::new();
    }
    let whole = if from == 0 { 0 } else { bytes.iter().position(|b| *b == b'\n').map_or(0, |at| at + 1) };
    String::from_utf8_lossy(&bytes[whole..]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_of_a_long_file_come_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let text: String = (0..60_000).map(|n| format!("line {n}\n")).collect();
        crate::sys::atomic_write::write(&path, text.as_bytes(), 0o644, None).unwrap();
        assert_eq!(tail(&path, 2), ["line 59998", "line 59999"]);
        assert!(tail(&path, 1_000_000).iter().all(|line| line.starts_with("line ")));
        assert!(tail(&folder.path().join("none"), 2).is_empty());
    }
}
