//! The list of all files at one time: what a restore needs, and what the next run compares with.

use serde::{Deserialize, Serialize};

/// The format's version.
pub(super) const VERSION: u32 = 1;

/// All that was in the folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct List {
    /// The format's version, 1.
    pub v: u32,
    /// The set that it belongs to.
    pub set: String,
    /// What the folder is to people.
    pub name: String,
    /// When the run began, in milliseconds since 1970.
    pub time_ms: u64,
    /// The folders, each after the one that holds it; the topmost is not among them.
    pub folders: Vec<Folder>,
    /// The regular files.
    pub files: Vec<File>,
    /// The symbolic links, as what they say: they were not followed.
    pub links: Vec<Link>,
}

/// A folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Folder {
    /// Relative to the topmost; see [`encode_path`].
    pub path: String,
    /// Its permission bits.
    pub mode: u32,
}

/// A regular file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// Relative to the topmost; see [`encode_path`].
    pub path: String,
    /// Its permission bits.
    pub mode: u32,
    /// Its bytes.
    pub size: u64,
    /// When it was last written, in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// BLAKE3-256 of the content, in hex.
    pub hash: String,
    /// The blob that holds the content; empty for an empty file.
    pub blob: String,
    /// The epoch that the blob is sealed in.
    pub epoch: u32,
    /// How many parts it has; 0 for an empty file.
    pub parts: u32,
    /// With the next, how the writer sees that nothing changed; of no meaning to a reader.
    #[serde(default)]
    pub ctime_ns: i64,
    /// See above.
    #[serde(default)]
    pub inode: u64,
}

/// A symbolic link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Relative to the topmost; see [`encode_path`].
    pub path: String,
    /// What it says; encoded like a path.
    pub target: String,
}

/// A path as text: bytes that are no UTF-8, and `%`, become `%` and two hex digits.
pub(super) fn encode_path(path: &[u8]) -> String {
    let mut text = String::with_capacity(path.len());
    for chunk in path.utf8_chunks() {
        text.push_str(&chunk.valid().replace('%', "%25"));
        for byte in chunk.invalid() {
            text.push_str(&format!("%{byte:02x}"));
        }
    }
    text
}

/// The bytes again.
pub(super) fn decode_path(text: &str) -> Option<Vec<u8>> {
    let mut path = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first == b'%' {
            let digits = rest.get(..2).and_then(|digits| std::str::from_utf8(digits).ok())?;
            path.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &rest[2..];
        } else {
            path.push(first);
        }
    }
    Some(path)
}

/// The bytes of a path that stays beneath where it is used.
pub(super) fn decode_beneath(text: &str) -> Option<Vec<u8>> {
    let path = decode_path(text)?;
    let good = |part: &[u8]| !part.is_empty() && part != b"." && part != b".." && !part.contains(&0);
    path.split(|&byte| byte == b'/').all(good).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_comes_back() {
        for name in [&b"a/b.jpg"[..], "ü/日本 x\n".as_bytes(), b"100%25", b"\xff\xfe%", b"%", b"a\x80b"] {
            assert_eq!(decode_path(&encode_path(name)).as_deref(), Some(name));
        }
    }

    #[test]
    fn a_path_that_leaves_is_refused() {
        for text in
            ["", "/etc", "a//b", "../x", "a/..", ".", "a/./b", "a%00", "%2e%2e/x", "a%2f%2fb", "%4", "%zz"]
        {
            assert_eq!(decode_beneath(text), None, "{text}");
        }
        assert_eq!(decode_beneath("a/..b").as_deref(), Some(&b"a/..b"[..]));
    }
}
