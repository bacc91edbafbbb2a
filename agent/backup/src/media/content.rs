//! The contents of files: known already, or stored now under the run's own epoch.

use std::{
    collections::HashMap,
    io::Read as _,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::OnceCell;

use super::{
    Id, Kind, MediaError, Writer, epoch_key, list,
    list::{List, encode_path},
    object::{PART, Place, seal},
    scan::{Look, look, open_file, shown},
};
use crate::crypt::{Epoch, EpochKey, wrap_epoch};

/// What one run knows and stores.
pub(super) struct Contents<'a> {
    writer: &'a Writer<'a>,
    top: Arc<OwnedFd>,
    pub(super) time_ms: u64,
    /// By hash: what the store holds, from the last list and this run.
    known: Mutex<HashMap<String, list::File>>,
    /// One is held while content is stored, by the first digit of its hash: twins go one after the other, so
    /// that the second finds the first.
    stripes: [tokio::sync::Mutex<()>; 16],
    epoch: OnceCell<(u32, Arc<EpochKey>)>,
    pub(super) tally: Mutex<Tally>,
}

/// What was stored.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) stored: usize,
    pub(super) stored_bytes: u64,
    pub(super) changing: Vec<String>,
}

impl<'a> Contents<'a> {
    pub(super) fn new(
        writer: &'a Writer<'a>,
        top: Arc<OwnedFd>,
        time_ms: u64,
        known: HashMap<String, list::File>,
    ) -> Self {
        let known = Mutex::new(known);
        let stripes = Default::default();
        Self { writer, top, time_ms, known, stripes, epoch: OnceCell::new(), tally: Mutex::default() }
    }

    pub(super) fn knows(&self, hash: &str) -> bool {
        self.known().contains_key(hash)
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, list::File>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads a file, and stores what is in it if nobody has it yet.
    pub(super) async fn file(&self, path: &[u8]) -> Result<list::File, MediaError> {
        let hashed = self.on_file(path, |mut file, look| {
            let mut hasher = blake3::Hasher::new();
            std::io::copy(&mut file, &mut hasher)?;
            Ok((hasher.finalize().to_hex().to_string(), look))
        });
        let (hash, look) = hashed.await?;
        let stripe = usize::from_str_radix(&hash[..1], 16).unwrap_or(0);
        let _turn = self.stripes[stripe].lock().await;
        let known = self.known().get(&hash).cloned();
        let stored = match known {
            Some(known) => known,
            None => self.store(path).await?,
        };
        let Look { mode, mtime_ns, ctime_ns, inode, .. } = look;
        Ok(list::File { path: encode_path(path), mode, mtime_ns, ctime_ns, inode, ..stored })
    }

    /// Stores the content of a file, and says what was stored: size and hash are those of the bytes that went.
    async fn store(&self, path: &[u8]) -> Result<list::File, MediaError> {
        let (epoch, _) = *self.epoch().await?;
        let (file, before) = self.on_file(path, |file, look| Ok((file, look))).await?;
        let file = Arc::new(file);
        let parts = u32::try_from(before.size.div_ceil(PART as u64)).unwrap_or(u32::MAX);
        let place = Place { set: self.writer.set, kind: Kind::Blob, id: Id::random(), part: 0, parts, epoch };
        let (mut hasher, mut size, mut sent) = (blake3::Hasher::new(), 0, 0);
        for part in 0..parts {
            // A file that grows meanwhile is cut at the size that it had: the next run sees the rest.
            let most = (before.size - u64::from(part) * PART as u64).min(PART as u64);
            let (plain, object) = self.seal_part(path, &file, most, Place { part, ..place }).await?;
            hasher.update(&plain);
            size += plain.len() as u64;
            sent += object.len() as u64;
            self.writer.store.put_new(&Place { part, ..place }.key(), object.into()).await?;
        }
        let after = rustix::fs::fstat(&*file);
        let after = after.map_err(|e| MediaError::local("read", shown(path))(e.into()))?;
        let changed = (look(&after) != before).then(|| encode_path(path));
        self.count(sent, changed);
        let hash = hasher.finalize().to_hex().to_string();
        let blob = if parts == 0 { String::new() } else { place.id.to_string() };
        let stored = list::File { size, hash: hash.clone(), blob, epoch, parts, ..list::File::default() };
        self.known().insert(hash, stored.clone());
        Ok(stored)
    }

    fn count(&self, sent: u64, changed: Option<String>) {
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        tally.stored += 1;
        tally.stored_bytes += sent;
        tally.changing.extend(changed);
    }

    /// The next part of a file, plain and sealed.
    async fn seal_part(
        &self,
        path: &[u8],
        file: &Arc<std::fs::File>,
        most: u64,
        place: Place,
    ) -> Result<(Vec<u8>, Vec<u8>), MediaError> {
        let (_, key) = self.epoch().await?.clone();
        let (file, time_ms, shown) = (Arc::clone(file), self.time_ms, shown(path));
        blocking(move || {
            let mut plain = Vec::new();
            (&*file).take(most).read_to_end(&mut plain).map_err(MediaError::local("read", shown))?;
            let object = seal(&key, place, time_ms, &plain)?;
            Ok((plain, object))
        })
        .await?
    }

    /// The epoch of this run, begun with the first content that is new.
    async fn epoch(&self) -> Result<&(u32, Arc<EpochKey>), MediaError> {
        self.epoch.get_or_try_init(|| self.begin_epoch()).await
    }

    async fn begin_epoch(&self) -> Result<(u32, Arc<EpochKey>), MediaError> {
        let (writer, number) = (self.writer, rand::random::<u32>());
        let name = |ending| epoch_key(writer.set, number, ending);
        let epoch = Epoch { key: EpochKey::random(), name: writer.name.clone() };
        let wrapped =
            wrap_epoch(&epoch, (writer.set, number), self.time_ms, (writer.recipients, writer.host));
        let (age, sig) = wrapped.map_err(|source| MediaError::Crypt { key: name("age"), source })?;
        writer.store.put_new(&name("sig"), sig.into()).await?;
        writer.store.put_new(&name("age"), age.into()).await?;
        Ok((number, Arc::new(epoch.key)))
    }

    /// Stores the list and returns its id.
    pub(super) async fn store_list(&self, list: &List) -> Result<String, MediaError> {
        let (epoch, key) = self.epoch().await?;
        let plain =
            serde_json::to_vec(list).map_err(|e| MediaError::local("encode", "the list")(e.into()))?;
        let chunks: Vec<&[u8]> = plain.chunks(PART).collect();
        let parts = u32::try_from(chunks.len()).unwrap_or(u32::MAX);
        let id = Id::at(self.time_ms);
        // Part 0 last: a list without it does not exist.
        for (part, chunk) in (0..parts).zip(chunks).collect::<Vec<_>>().into_iter().rev() {
            let place = Place { set: self.writer.set, kind: Kind::List, id, part, parts, epoch: *epoch };
            let object = seal(key, place, self.time_ms, chunk)?;
            self.writer.store.put_new(&place.key(), object.into()).await?;
        }
        Ok(id.to_string())
    }

    async fn on_file<T: Send + 'static>(
        &self,
        path: &[u8],
        work: impl FnOnce(std::fs::File, Look) -> std::io::Result<T> + Send + 'static,
    ) -> Result<T, MediaError> {
        let (top, path) = (Arc::clone(&self.top), path.to_vec());
        blocking(move || {
            let done = open_file(&*top, &path).map_err(Into::into).and_then(|(file, look)| work(file, look));
            done.map_err(MediaError::local("read", shown(&path)))
        })
        .await?
    }
}

/// Runs what waits for the disk or for the processor on a thread of its own.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, MediaError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|panic| MediaError::local("work on", "a file")(std::io::Error::other(panic)))
}
