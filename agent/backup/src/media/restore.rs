//! The folder as it was: made aside, whole, and then given its name.

use std::{
    collections::{BTreeMap, HashMap},
    io::Write as _,
    os::fd::OwnedFd,
    path::Path,
    sync::{Arc, OnceLock},
};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use rustix::fs::{AtFlags, Mode, OFlags, Timespec, Timestamps};
use tokio::sync::Mutex;

use super::{
    Id, Kind, MediaError,
    content::blocking,
    epoch_key, list,
    list::{List, VERSION, decode_beneath, decode_path},
    object::{Place, open},
    prefix,
    scan::{open_beneath, open_top, shown},
};
use crate::{
    chain::{ChainId, Header},
    crypt::{EpochKey, HostKey, Identities, check_epoch, unwrap_epoch},
    store::Store,
};

const AT_ONCE: usize = 4;

/// Who reads one set.
pub struct Reader<'a> {
    pub(super) store: &'a dyn Store,
    pub(super) set: ChainId,
    identities: &'a Identities,
    epochs: Mutex<HashMap<u32, Arc<EpochKey>>>,
    signer: OnceLock<HostKey>,
}

/// A list in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListEntry {
    /// Its id.
    pub id: String,
    /// When its run began, in milliseconds since 1970.
    pub time_ms: u64,
    /// Its bytes in the store.
    pub bytes: u64,
}

/// What a restore wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// The time of the list.
    pub time_ms: u64,
    /// Files.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
}

impl<'a> Reader<'a> {
    /// A reader of `set`. With `host`, only what that host signed is believed; without, all must be signed by
    /// one host.
    pub fn new(
        store: &'a dyn Store,
        set: ChainId,
        identities: &'a Identities,
        host: Option<HostKey>,
    ) -> Self {
        let signer = OnceLock::new();
        if let Some(host) = host {
            let _ = signer.set(host);
        }
        Self { store, set, identities, epochs: Mutex::default(), signer }
    }

    /// The sets in a store.
    ///
    /// # Errors
    /// When the store cannot list.
    pub async fn sets(store: &dyn Store) -> Result<Vec<ChainId>, MediaError> {
        let entries = store.list("media/").await?;
        let mut sets: Vec<ChainId> =
            entries.iter().filter_map(|entry| entry.key.split('/').nth(1)?.parse().ok()).collect();
        sets.dedup();
        Ok(sets)
    }

    /// The lists of a set, oldest first; needs no key.
    ///
    /// # Errors
    /// When the store cannot list.
    pub async fn lists(store: &dyn Store, set: ChainId) -> Result<Vec<ListEntry>, MediaError> {
        let folder = prefix(set, Kind::List);
        let mut found: BTreeMap<Id, (bool, u64)> = BTreeMap::new();
        for entry in store.list(&folder).await? {
            let name = entry.key.strip_prefix(&folder).unwrap_or_default();
            let (id, part) = name.split_once('.').map_or((name, None), |(id, part)| (id, Some(part)));
            let Some(id) = Id::parse(id) else { continue };
            let place = found.entry(id).or_default();
            *place = (place.0 || part.is_none(), place.1 + entry.size);
        }
        // A list without its part 0 was never finished.
        let whole = found.into_iter().filter(|(_, (whole, _))| *whole);
        Ok(whole
            .map(|(id, (_, bytes))| ListEntry { id: id.to_string(), time_ms: id.halves().0, bytes })
            .collect())
    }

    /// The list with this id.
    ///
    /// # Errors
    /// When it is not there, not for these identities, or not what the host wrote.
    pub async fn list(&self, id: &str) -> Result<List, MediaError> {
        let id = Id::parse(id).ok_or_else(|| MediaError::NoList(format!("{id:?} is no id of a list")))?;
        let key = super::object_key(self.set, Kind::List, id, 0);
        let first = self.store.get(&key).await?;
        let header =
            Header::parse(&first).ok_or_else(|| MediaError::refused(&key, "it is no object of a backup"))?;
        let place =
            Place { set: self.set, kind: Kind::List, id, part: 0, parts: header.parts, epoch: header.epoch };
        let epoch = self.epoch(header.epoch).await?;
        let mut plain = open(&epoch, place, first)?;
        for part in 1..header.parts {
            let place = Place { part, ..place };
            plain.extend(open(&epoch, place, self.store.get(&place.key()).await?)?);
        }
        let list: List = serde_json::from_slice(&plain)
            .map_err(|_| MediaError::refused(&key, "the list is not understood"))?;
        if list.v != VERSION || list.set != self.set.to_string() || list.time_ms != id.halves().0 {
            return Err(MediaError::refused(&key, "the list belongs elsewhere"));
        }
        Ok(list)
    }

    /// Writes the files of `list` whose path begins with one of `only` (all, if there is none) into the new
    /// folder `into`, which must not exist or be empty. It appears when all of it is right.
    ///
    /// # Errors
    /// At the first thing that is not right; then `into` is as it was.
    pub async fn restore(&self, list: &List, only: &[String], into: &Path) -> Result<Restored, MediaError> {
        let target = std::path::absolute(into).map_err(MediaError::local("find", into))?;
        let parent = target.parent().unwrap_or(Path::new("/"));
        let taken = std::fs::read_dir(&target).is_ok_and(|mut entries| entries.next().is_some());
        if taken || target.is_file() {
            let taken = std::io::Error::from(std::io::ErrorKind::AlreadyExists);
            return Err(MediaError::local("restore into", into)(taken));
        }
        let aside = tempfile::Builder::new().prefix(".flipside-media-").tempdir_in(parent);
        let aside = aside.map_err(MediaError::local("make a folder in", parent))?;
        let top = Arc::new(open_top(aside.path())?);
        let chosen = Chosen::new(list, only)?;
        chosen.make_folders(&top)?;
        let files = chosen.files.iter().map(|(path, file)| self.file(&top, path, file));
        let _: Vec<()> = stream::iter(files).buffer_unordered(AT_ONCE).try_collect().await?;
        chosen.make_links(&top)?;
        chosen.set_folder_modes(&top)?;
        rustix::fs::syncfs(&*top).map_err(|e| MediaError::local("write", aside.path())(e.into()))?;
        std::fs::rename(aside.path(), &target).map_err(MediaError::local("restore into", into))?;
        let _ = aside.keep();
        std::fs::File::open(parent).and_then(|f| f.sync_all()).map_err(MediaError::local("write", parent))?;
        let bytes = chosen.files.iter().map(|(_, file)| file.size).sum();
        Ok(Restored { time_ms: list.time_ms, files: chosen.files.len(), bytes })
    }

    async fn file(&self, top: &Arc<OwnedFd>, path: &[u8], file: &list::File) -> Result<(), MediaError> {
        let failed = |e: rustix::io::Errno| MediaError::local("write", shown(path))(e.into());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        let fd = open_beneath(&**top, path, flags, Mode::RUSR | Mode::WUSR).map_err(failed)?;
        let mut out = std::fs::File::from(fd);
        let id = Id::parse(&file.blob).unwrap_or(Id([0; 16]));
        let place =
            Place { set: self.set, kind: Kind::Blob, id, part: 0, parts: file.parts, epoch: file.epoch };
        let (mut hasher, mut size) = (blake3::Hasher::new(), 0);
        for part in 0..file.parts {
            let place = Place { part, ..place };
            let epoch = self.epoch(file.epoch).await?;
            let object = self.store.get(&place.key()).await?;
            let plain = blocking(move || open(&epoch, place, object)).await??;
            hasher.update(&plain);
            size += plain.len() as u64;
            out = blocking(move || out.write_all(&plain).map(|()| out))
                .await?
                .map_err(MediaError::local("write", shown(path)))?;
        }
        if hasher.finalize().to_hex().as_str() != file.hash || size != file.size {
            return Err(MediaError::refused(&place.key(), "it is not the content that the list names"));
        }
        let mtime = Timespec {
            tv_sec: file.mtime_ns.div_euclid(1_000_000_000),
            tv_nsec: file.mtime_ns.rem_euclid(1_000_000_000),
        };
        let times = Timestamps { last_access: mtime, last_modification: mtime };
        rustix::fs::futimens(&out, &times).map_err(failed)?;
        rustix::fs::fchmod(&out, Mode::from_raw_mode(file.mode & 0o777)).map_err(failed)
    }

    /// The key of an epoch, once its signature is believed.
    async fn epoch(&self, number: u32) -> Result<Arc<EpochKey>, MediaError> {
        let mut epochs = self.epochs.lock().await;
        if let Some(key) = epochs.get(&number) {
            return Ok(Arc::clone(key));
        }
        let name = epoch_key(self.set, number, "age");
        let crypt = |source| MediaError::Crypt { key: name.clone(), source };
        let age = self.store.get(&name).await?;
        let sig = self.store.get(&epoch_key(self.set, number, "sig")).await?;
        let epoch = unwrap_epoch(&age, (self.set, number), self.identities).map_err(crypt)?;
        let host = check_epoch(&sig, (self.set, number), Some(&epoch)).map_err(crypt)?;
        if *self.signer.get_or_init(|| host) != host {
            return Err(MediaError::refused(&name, "another host signed it"));
        }
        let key = Arc::new(epoch.key);
        epochs.insert(number, Arc::clone(&key));
        Ok(key)
    }
}

/// What a restore makes, with every path checked before anything is made.
struct Chosen<'a> {
    folders: BTreeMap<Vec<u8>, u32>,
    files: Vec<(Vec<u8>, &'a list::File)>,
    links: Vec<(Vec<u8>, Vec<u8>)>,
}

impl<'a> Chosen<'a> {
    fn new(list: &'a List, only: &[String]) -> Result<Self, MediaError> {
        let beneath = |path: &str| {
            decode_beneath(path).ok_or_else(|| MediaError::refused(path, "the path leaves the folder"))
        };
        let wanted = |path: &str| {
            let under = |only: &String| {
                let only = only.trim_end_matches('/');
                path.strip_prefix(only).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            };
            only.is_empty() || only.iter().any(under)
        };
        let mut chosen = Self { folders: BTreeMap::new(), files: Vec::new(), links: Vec::new() };
        let modes: HashMap<&str, u32> = list.folders.iter().map(|f| (f.path.as_str(), f.mode)).collect();
        for folder in list.folders.iter().filter(|folder| wanted(&folder.path)) {
            chosen.folders.insert(beneath(&folder.path)?, folder.mode);
        }
        for file in list.files.iter().filter(|file| wanted(&file.path)) {
            chosen.files.push((beneath(&file.path)?, file));
        }
        for link in list.links.iter().filter(|link| wanted(&link.path)) {
            let target =
                decode_path(&link.target).filter(|target| !target.is_empty() && !target.contains(&0));
            let target = target.ok_or_else(|| MediaError::refused(&link.path, "the link is malformed"))?;
            chosen.links.push((beneath(&link.path)?, target));
        }
        if chosen.files.is_empty() && chosen.links.is_empty() && chosen.folders.is_empty() && !only.is_empty()
        {
            return Err(MediaError::NoList(format!("the list holds nothing under {only:?}")));
        }
        chosen.add_parents(&modes);
        Ok(chosen)
    }

    /// The folders above what was chosen alone.
    fn add_parents(&mut self, modes: &HashMap<&str, u32>) {
        let paths = self.files.iter().map(|(path, _)| path).chain(self.links.iter().map(|(path, _)| path));
        let all: Vec<Vec<u8>> = paths.chain(self.folders.keys()).cloned().collect();
        for path in all {
            for at in path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at) {
                let mode = modes.get(list::encode_path(&path[..at]).as_str()).copied().unwrap_or(0o700);
                self.folders.entry(path[..at].to_vec()).or_insert(mode);
            }
        }
    }

    fn make_folders(&self, top: &OwnedFd) -> Result<(), MediaError> {
        for path in self.folders.keys() {
            let made = in_parent(top, path, |parent, name| rustix::fs::mkdirat(parent, name, Mode::RWXU));
            made.map_err(|e| MediaError::local("make the folder", shown(path))(e.into()))?;
        }
        Ok(())
    }

    /// Last of all that is made: nothing can be written through a link.
    fn make_links(&self, top: &OwnedFd) -> Result<(), MediaError> {
        for (path, target) in &self.links {
            let made = in_parent(top, path, |parent, name| rustix::fs::symlinkat(&target[..], parent, name));
            made.map_err(|e| MediaError::local("make the link", shown(path))(e.into()))?;
        }
        Ok(())
    }

    /// From the inside out: a folder may end up unwritable.
    fn set_folder_modes(&self, top: &OwnedFd) -> Result<(), MediaError> {
        for (path, mode) in self.folders.iter().rev() {
            let mode = Mode::from_raw_mode(mode & 0o777);
            let set = in_parent(top, path, |parent, name| {
                rustix::fs::chmodat(parent, name, mode, AtFlags::empty())
            });
            set.map_err(|e| MediaError::local("write", shown(path))(e.into()))?;
        }
        Ok(())
    }
}

fn in_parent(
    top: &OwnedFd,
    path: &[u8],
    work: impl FnOnce(OwnedFd, &[u8]) -> rustix::io::Result<()>,
) -> rustix::io::Result<()> {
    let (parent, name) = match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&b"."[..], path),
    };
    work(open_beneath(top, parent, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?, name)
}
