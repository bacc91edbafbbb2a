//! Wheels: reading what one says of itself, and writing one that is the same every time.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read, Write},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};
use zip::{CompressionMethod, DateTime, ZipArchive, ZipWriter, write::SimpleFileOptions};

use super::{manifest, package};
use crate::failures::{Result, on};

/// The largest text that is read out of a wheel.
const MOST_TEXT: u64 = 4 << 20;

/// A wheel on disk.
#[derive(Debug, Clone)]
pub(crate) struct Wheel {
    pub(crate) path: PathBuf,
    /// The file's name.
    pub(crate) file: String,
    /// The distribution's name, normalised.
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) requires_python: Option<String>,
    /// What it holds.
    pub(crate) entries: Vec<String>,
}

/// A distribution's name as indexes compare it.
pub(crate) fn normal(name: &str) -> String {
    let mut normal = String::new();
    for c in name.to_ascii_lowercase().chars() {
        let c = if matches!(c, '_' | '.') { '-' } else { c };
        if !(c == '-' && normal.ends_with('-')) {
            normal.push(c);
        }
    }
    normal
}

/// The wheels of a folder, by name.
pub(crate) fn in_folder(folder: &Path) -> Result<Vec<Wheel>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(on("read", folder))? {
        let path = entry.map_err(on("read", folder))?.path();
        if path.extension().is_some_and(|extension| extension == "whl") {
            paths.push(path);
        }
    }
    paths.sort();
    let wheels = paths.iter().map(|path| Wheel::open(path)).collect::<Result<Vec<_>>>()?;
    let mut names = BTreeMap::new();
    for wheel in &wheels {
        if let Some(other) = names.insert(&wheel.name, &wheel.file) {
            return Err(package(format!("{other} and {} are two wheels of {}", wheel.file, wheel.name))
                .hint("a release holds one wheel of each distribution"));
        }
    }
    Ok(wheels)
}

impl Wheel {
    /// The wheel at `path`, its metadata read.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let safe = |b: u8| b.is_ascii_alphanumeric() || b"._+!-".contains(&b);
        let parts: Vec<&str> = file.trim_end_matches(".whl").split('-').collect();
        if !file.bytes().all(safe)
            || !(5..=6).contains(&parts.len())
            || parts.iter().any(|part| part.is_empty())
        {
            return Err(package(format!("{file:?} is no name of a wheel"))
                .hint("name-version-python-abi-platform.whl"));
        }
        let mut archive = archive(path)?;
        let entries: Vec<String> = archive.file_names().map(str::to_owned).collect();
        let metadata = entries
            .iter()
            .find(|entry| entry.ends_with(".dist-info/METADATA") && entry.matches('/').count() == 1)
            .ok_or_else(|| package(format!("{file} holds no METADATA: it is no wheel")))?;
        let metadata = text_of(&mut archive, metadata, path)?.unwrap_or_default();
        let field = |name: &str| {
            let headers = metadata.lines().take_while(|line| !line.trim().is_empty());
            headers
                .filter_map(|line| line.split_once(": "))
                .find(|(key, _)| key.eq_ignore_ascii_case(name))
                .map(|(_, value)| value.trim().to_owned())
        };
        Ok(Self {
            path: path.to_owned(),
            name: normal(parts[0]),
            version: field("Version").unwrap_or_else(|| parts[1].to_owned()),
            requires_python: field("Requires-Python"),
            file,
            entries,
        })
    }

    /// A copy of it in the folder `to`.
    pub(crate) fn copied(&self, to: &Path) -> Result<Self> {
        let path = to.join(&self.file);
        std::fs::copy(&self.path, &path).map_err(on("copy", &self.path))?;
        Ok(Self { path, ..self.clone() })
    }

    /// What the manifest says of it.
    pub(crate) fn entry(&self) -> Result<manifest::File> {
        let mut file = File::open(&self.path).map_err(on("read", &self.path))?;
        let mut hash = Sha256::new();
        let size = std::io::copy(&mut file, &mut hash).map_err(on("read", &self.path))?;
        Ok(manifest::File { name: self.file.clone(), sha256: hex(&hash.finalize()), size })
    }

    /// The text of one of its files, if it holds it and it is text.
    pub(crate) fn text(&self, entry: &str) -> Result<Option<String>> {
        if !self.entries.iter().any(|path| path == entry) {
            return Ok(None);
        }
        text_of(&mut archive(&self.path)?, entry, &self.path)
    }

    /// Where its modules are: at its top, and in the folders that its `.pth` files put on Python's path.
    pub(crate) fn roots(&self) -> Result<Vec<String>> {
        let mut roots = vec![String::new()];
        for entry in self.entries.iter().filter(|entry| entry.ends_with(".pth") && !entry.contains('/')) {
            let text = self.text(entry)?.unwrap_or_default();
            let folders =
                text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
            roots.extend(folders.filter(|line| !line.contains(' ')).map(|folder| format!("{folder}/")));
        }
        Ok(roots)
    }

    /// How each of its files begins.
    pub(crate) fn heads(&self, most: usize) -> Result<Vec<(String, Vec<u8>)>> {
        let mut archive = archive(&self.path)?;
        let mut heads = Vec::new();
        for index in 0..archive.len() {
            let file = archive.by_index(index).map_err(|error| damaged(&self.path, &error))?;
            let name = file.name().to_owned();
            let mut head = Vec::new();
            file.take(most as u64).read_to_end(&mut head).map_err(on("read", &self.path))?;
            heads.push((name, head));
        }
        Ok(heads)
    }
}

fn archive(path: &Path) -> Result<ZipArchive<File>> {
    let file = File::open(path).map_err(on("read", path))?;
    ZipArchive::new(file).map_err(|error| damaged(path, &error))
}

fn damaged(path: &Path, error: &zip::result::ZipError) -> flipside_api::Failure {
    package(format!("{} is no sound wheel: {error}", path.display()))
}

fn text_of(archive: &mut ZipArchive<File>, entry: &str, path: &Path) -> Result<Option<String>> {
    let file = archive.by_name(entry).map_err(|error| damaged(path, &error))?;
    let mut bytes = Vec::new();
    file.take(MOST_TEXT).read_to_end(&mut bytes).map_err(on("read", path))?;
    Ok(String::from_utf8(bytes).ok())
}

/// A file to put into a wheel.
#[derive(Debug)]
pub(crate) enum Content {
    /// These bytes.
    Bytes(Vec<u8>),
    /// What the file at this path holds.
    File(PathBuf),
}

/// Writes a wheel of `files` with its RECORD: sorted, without times, so that equal content is equal bytes.
pub(crate) fn write(path: &Path, dist_info: &str, files: &BTreeMap<String, Content>) -> Result<()> {
    let mut writer = ZipWriter::new(File::create(path).map_err(on("create", path))?);
    let mut record = String::new();
    for (name, content) in files {
        let bytes = match content {
            Content::Bytes(bytes) => bytes.clone(),
            Content::File(from) => std::fs::read(from).map_err(on("read", from))?,
        };
        add(&mut writer, name, &bytes, 0o644).map_err(|error| damaged(path, &error))?;
        let hash = base64url(&Sha256::digest(&bytes));
        record.push_str(&format!("{},sha256={hash},{}\n", quoted(name), bytes.len()));
    }
    let name = format!("{dist_info}/RECORD");
    record.push_str(&format!("{name},,\n"));
    add(&mut writer, &name, record.as_bytes(), 0o644).map_err(|error| damaged(path, &error))?;
    writer.finish().map_err(|error| damaged(path, &error))?;
    Ok(())
}

/// Writes the wheel at `path` anew with the same files, sorted and without times.
pub(crate) fn normalise(path: &Path) -> Result<()> {
    let mut archive = archive(path)?;
    let mut names: Vec<String> =
        archive.file_names().filter(|name| !name.ends_with('/')).map(str::to_owned).collect();
    names.sort();
    let aside = path.with_extension("new");
    let mut writer = ZipWriter::new(File::create(&aside).map_err(on("create", &aside))?);
    for name in names {
        let mut file = archive.by_name(&name).map_err(|error| damaged(path, &error))?;
        let executable = file.unix_mode().is_some_and(|mode| mode & 0o100 != 0);
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(on("read", path))?;
        let mode = if executable { 0o755 } else { 0o644 };
        add(&mut writer, &name, &bytes, mode).map_err(|error| damaged(path, &error))?;
    }
    writer.finish().map_err(|error| damaged(path, &error))?;
    std::fs::rename(&aside, path).map_err(on("write", path))
}

fn add(writer: &mut ZipWriter<File>, name: &str, bytes: &[u8], mode: u32) -> zip::result::ZipResult<()> {
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Deflated)
        .last_modified_time(DateTime::default())
        .unix_permissions(mode);
    writer.start_file(name, options)?;
    writer.write_all(bytes)?;
    Ok(())
}

/// A field of RECORD, which is CSV.
fn quoted(name: &str) -> String {
    if name.contains([',', '"', '\n']) {
        format!("\"{}\"", name.replace('"', "\"\""))
    } else {
        name.to_owned()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Base64 for URLs, without padding, as RECORD spells hashes.
fn base64url(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word =
            chunk.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for index in 0..=chunk.len() {
            text.push(char::from(LETTERS[(word >> (18 - 6 * index) & 63) as usize]));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        for (bytes, text) in
            [("", ""), ("f", "Zg"), ("fo", "Zm8"), ("foo", "Zm9v"), ("\u{fb}\u{ff}", "w7vDvw")]
        {
            assert_eq!(base64url(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn names_compare_as_indexes_do() {
        assert_eq!(normal("My_App.x__y"), "my-app-x-y");
    }

    #[test]
    fn what_is_no_wheel_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.whl", "a-1-py3-none-any.whl", "a b-1-py3-none-any.whl"] {
            let path = dir.path().join(name);
            crate::files::atomic_write(&path, b"no zip", 0o644).unwrap();
            let failure = Wheel::open(&path).unwrap_err();
            assert!(failure.message.contains(name), "{failure:?}");
        }
    }
}
