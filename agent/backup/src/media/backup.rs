//! One run: look, store what is new, write the list.

use std::{
    collections::{HashMap, HashSet},
    io::Write as _,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError},
};

use ed25519_dalek::SigningKey;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::{Deserialize, Serialize};

use super::{
    Kind, MediaError,
    content::{Contents, blocking},
    list,
    list::{List, VERSION, encode_path},
    prefix,
    scan::{Look, Scan, open_top, scan},
};
use crate::{
    chain::ChainId,
    clock,
    crypt::Recipients,
    store::{ErrorKind, Store},
};

/// Files that are read and stored at one time; each holds a part or two in memory.
const AT_ONCE: usize = 3;

/// Who backs up one folder.
pub struct Writer<'a> {
    /// Where to.
    pub store: &'a dyn Store,
    /// The set: one folder's life in one store.
    pub set: ChainId,
    /// What the folder is to people; encrypted.
    pub name: String,
    /// Who may read it.
    pub recipients: &'a Recipients,
    /// Who wrote it.
    pub host: &'a SigningKey,
    /// The file that keeps the last list on this host.
    pub state: PathBuf,
}

/// What a run did.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Report {
    /// Files in the folder.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Files whose content was stored.
    pub stored: usize,
    /// Bytes that went to the store for them.
    pub stored_bytes: u64,
    /// The list's id; none if nothing changed since the last.
    pub list: Option<String>,
    /// What could not be read, and why. If it was stored before, the list goes on with that.
    pub unreadable: Vec<(String, String)>,
    /// Files that changed while they were read: stored as read, and read again by the next run.
    pub changing: Vec<String>,
    /// Sockets, pipes and devices, which are no files to keep.
    pub skipped: Vec<String>,
}

/// The set whose state is kept in the folder `dir`: begun at first use, the same ever after.
///
/// # Errors
/// When the folder cannot be made or written, or what is there is no id.
pub fn set_in(dir: &Path) -> Result<ChainId, MediaError> {
    let path = dir.join("set");
    let begin = || -> std::io::Result<String> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let mut temporary = tempfile::NamedTempFile::new_in(dir)?;
        temporary.write_all(ChainId::random().to_string().as_bytes())?;
        temporary.as_file().sync_all()?;
        // Of two first runs one wins, and both read what it wrote.
        let _ = temporary.persist_noclobber(&path);
        std::fs::File::open(dir)?.sync_all()?;
        std::fs::read_to_string(&path)
    };
    let text =
        std::fs::read_to_string(&path).or_else(|_| begin()).map_err(MediaError::local("begin", &path))?;
    text.parse().map_err(|_| MediaError::refused(&path.to_string_lossy(), "it holds no set's id"))
}

/// What this host keeps of its last list.
#[derive(Serialize, Deserialize)]
struct Kept {
    id: String,
    list: List,
}

impl Writer<'_> {
    /// Backs up the folder `top`. Never inside a process that follows a database in that folder: closing a
    /// file of SQLite's drops that process's locks on it.
    ///
    /// # Errors
    /// When the folder cannot be opened, or the store fails; then the next run takes up what is missing.
    pub async fn run(&self, top: &Path) -> Result<Report, MediaError> {
        let fd = Arc::new(open_top(top)?);
        let last = self.kept();
        let looking = Arc::clone(&fd);
        let found = blocking(move || scan(&looking)).await?;
        let (known, listed) = self.still_stored(last.as_ref()).await?;
        let mut report = Report {
            files: found.files.len(),
            unreadable: found.unreadable.clone(),
            skipped: found.skipped.clone(),
            ..Report::default()
        };
        let contents = Contents::new(self, fd, clock::now_ms(), known);
        let last = last.map(|kept| kept.list);
        let list = self.make_list(&contents, found, (last.as_ref(), &mut report)).await?;
        report.bytes = list.files.iter().map(|file| file.size).sum();
        if let Some(id) = listed.filter(|_| last.is_some_and(|last| same_content(&last, &list))) {
            self.keep(&Kept { id, list })?;
        } else {
            let id = contents.store_list(&list).await?;
            report.list = Some(id.clone());
            self.keep(&Kept { id, list })?;
        }
        let tally = contents.tally.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(Report {
            stored: tally.stored,
            stored_bytes: tally.stored_bytes,
            changing: tally.changing,
            ..report
        })
    }

    /// The last run's list, if it is there, whole, and one of this set.
    fn kept(&self) -> Option<Kept> {
        let bytes = std::fs::read(&self.state).ok()?;
        let kept: Kept = serde_json::from_slice(&bytes).ok()?;
        (kept.list.v == VERSION && kept.list.set == self.set.to_string()).then_some(kept)
    }

    /// What the last list holds and the store still has, by hash, and the list's id if that is still there.
    /// Who may only put has to believe the list.
    async fn still_stored(
        &self,
        last: Option<&Kept>,
    ) -> Result<(HashMap<String, list::File>, Option<String>), MediaError> {
        let Some(Kept { id, list }) = last else { return Ok((HashMap::new(), None)) };
        let there = match self.store.list(&format!("media/{}/", self.set)).await {
            Ok(entries) => Some(entries.into_iter().map(|entry| entry.key).collect::<HashSet<_>>()),
            Err(error) if error.kind() == ErrorKind::Fatal => None,
            Err(error) => return Err(error.into()),
        };
        let is_there = |kind, id: &str| {
            let key = format!("{}{id}", prefix(self.set, kind));
            there.as_ref().is_none_or(|there| there.contains(&key))
        };
        let files = list.files.iter().filter(|file| file.parts == 0 || is_there(Kind::Blob, &file.blob));
        let known = files.map(|file| (file.hash.clone(), file.clone())).collect();
        Ok((known, Some(id.clone()).filter(|id| is_there(Kind::List, id))))
    }

    fn keep(&self, kept: &Kept) -> Result<(), MediaError> {
        let folder = self.state.parent().unwrap_or(Path::new("."));
        let write = || -> std::io::Result<()> {
            let mut temporary = tempfile::NamedTempFile::new_in(folder)?;
            serde_json::to_writer(std::io::BufWriter::new(&mut temporary), kept)?;
            temporary.as_file().sync_all()?;
            temporary.persist(&self.state)?;
            std::fs::File::open(folder)?.sync_all()
        };
        write().map_err(MediaError::local("write", &self.state))
    }

    /// The list of what was found, everything in it stored.
    async fn make_list(
        &self,
        contents: &Contents<'_>,
        found: Scan,
        (last, report): (Option<&List>, &mut Report),
    ) -> Result<List, MediaError> {
        let before: HashMap<&str, &list::File> =
            last.iter().flat_map(|list| &list.files).map(|file| (file.path.as_str(), file)).collect();
        let listed = found.files.iter().map(|(path, look)| list_file(contents, path, *look, &before));
        let listed: Vec<Listed> = stream::iter(listed).buffered(AT_ONCE).try_collect().await?;
        let mut files = Vec::with_capacity(listed.len());
        for Listed { file, failed } in listed {
            files.extend(file);
            report.unreadable.extend(failed);
        }
        let (folders, links) = (found.folders, found.links);
        let (set, name) = (self.set.to_string(), self.name.clone());
        Ok(List { v: VERSION, set, name, time_ms: contents.time_ms, folders, files, links })
    }
}

/// How one file comes into the list.
struct Listed {
    file: Option<list::File>,
    /// Path and reason.
    failed: Option<(String, String)>,
}

/// One file: as it was if it looks as it did, else read, and stored if nobody has this content yet.
async fn list_file(
    contents: &Contents<'_>,
    path: &[u8],
    look: Look,
    before: &HashMap<&str, &list::File>,
) -> Result<Listed, MediaError> {
    let text = encode_path(path);
    let old = before.get(text.as_str()).copied().filter(|old| contents.knows(&old.hash));
    if let Some(old) = old.filter(|old| looks_like(old, look)) {
        return Ok(Listed { file: Some(list::File { mode: look.mode, ..old.clone() }), failed: None });
    }
    match contents.file(path).await {
        Ok(file) => Ok(Listed { file: Some(file), failed: None }),
        // It went since the scan.
        Err(MediaError::Local { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            Ok(Listed { file: None, failed: None })
        }
        Err(MediaError::Local { source, .. }) => {
            Ok(Listed { file: old.cloned(), failed: Some((text, source.to_string())) })
        }
        Err(error) => Err(error),
    }
}

fn looks_like(old: &list::File, look: Look) -> bool {
    (old.size, old.mtime_ns, old.ctime_ns, old.inode) == (look.size, look.mtime_ns, look.ctime_ns, look.inode)
}

/// Whether a restore of both gives the same.
fn same_content(a: &List, b: &List) -> bool {
    let shape =
        |file: &list::File| (file.path.clone(), file.mode, file.size, file.mtime_ns, file.hash.clone());
    a.folders == b.folders
        && a.links == b.links
        && a.files.len() == b.files.len()
        && a.files.iter().zip(&b.files).all(|(a, b)| shape(a) == shape(b) && a.blob == b.blob)
}
