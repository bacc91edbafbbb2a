//! From pages to sealed objects, part by part, so that memory holds a few parts and no more.

use std::{
    num::NonZero,
    ops::Range,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, sync_channel},
    },
    thread::ScopedJoinHandle,
};

use crate::{
    chain::{ChainId, Header, Name},
    crypt::{CryptError, EpochKey},
    pages::Hash,
    segment::{self, Gathered, Images, Meta, SegmentError},
};

/// More threads than this gain little, and each holds a part in memory.
const MOST_WORKERS: usize = 4;

/// What seals the objects of an epoch.
#[derive(Clone)]
pub(crate) struct Sealer {
    pub(crate) chain: ChainId,
    pub(crate) epoch: u32,
    pub(crate) key: Arc<EpochKey>,
}

/// An object to be made.
pub(crate) struct Making<'a> {
    pub(crate) level: u8,
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) time_ms: u64,
    /// BLAKE3 of the level's previous object.
    pub(crate) prev: [u8; 32],
    pub(crate) meta: Meta,
    pub(crate) changes: &'a [(u32, Hash)],
}

/// Why an object could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// Its inside.
    #[error("a segment could not be made")]
    Segment(#[source] SegmentError),
    /// Its encryption.
    #[error("a segment could not be encrypted")]
    Crypt(#[source] CryptError),
}

impl PackError {
    /// Whether the pages were not those that they should be.
    pub(crate) fn is_unstable(&self) -> bool {
        matches!(self, Self::Segment(SegmentError::Unstable(_)))
    }
}

/// Gives an object's part to whoever keeps it; from several threads at once.
pub(crate) type Put<'a, E> = dyn Fn(Name, Vec<u8>) -> Result<(), E> + Sync + 'a;

impl Making<'_> {
    /// Makes all parts, part 0 last, and gives each to `put`. Returns BLAKE3 of part 0.
    pub(crate) fn make<E: From<PackError> + Send>(
        &self,
        sealer: &Sealer,
        images: &mut dyn Images,
        base: &dyn Fn(u32) -> Option<Hash>,
        put: &Put<'_, E>,
    ) -> Result<[u8; 32], E> {
        let slices: Vec<_> = self.changes.chunks(segment::part_pages(self.meta.page_size)).collect();
        let mut gather = |part: usize| -> Result<Vec<Gathered>, E> {
            let slice = slices.get(part).copied().unwrap_or_default();
            segment::gather(self.meta.page_size, slice, images, base)
                .map_err(|error| PackError::Segment(error).into())
        };
        let finish = |part: usize, hashes: &[[u8; 32]], blocks: Vec<Gathered>| -> Result<[u8; 32], E> {
            let number = |n: usize| u32::try_from(n).map_err(|_| too_many());
            let header = self.header(sealer, number(part)?, number(slices.len().max(1))?);
            let meta = if part == 0 { self.meta } else { Meta { state: 0, ..self.meta } };
            let object = segment::encode(&meta, hashes, blocks).map_err(PackError::Segment)?;
            let object = sealer.key.seal(&header, object).map_err(PackError::Crypt)?;
            let hash = *blake3::hash(&object).as_bytes();
            put(header.name, object)?;
            Ok(hash)
        };
        let mut hashes = Vec::new();
        if slices.len() > 1 {
            let finish = |part: usize, blocks: Vec<Gathered>| finish(part, &[], blocks);
            hashes = in_parallel(1..slices.len(), &mut gather, &finish)?;
        }
        finish(0, &hashes, gather(0)?)
    }

    fn header(&self, sealer: &Sealer, part: u32, parts: u32) -> Header {
        Header {
            chain: sealer.chain,
            name: Name { level: self.level, from: self.from, to: self.to, part },
            parts,
            epoch: sealer.epoch,
            time_ms: self.time_ms,
            prev: self.prev,
            nonce: rand::random(),
        }
    }
}

/// A part's number and pages.
type Numbered = (usize, Vec<Gathered>);

/// Makes a part of its pages, and has it kept.
type Finish<'a, E> = dyn Fn(usize, Vec<Gathered>) -> Result<[u8; 32], E> + Sync + 'a;

/// Gathers part after part here, and finishes them on all cores; their results in order.
///
/// As many parts as there are cores are in memory, and one more.
fn in_parallel<E: Send>(
    parts: Range<usize>,
    gather: &mut dyn FnMut(usize) -> Result<Vec<Gathered>, E>,
    finish: &Finish<'_, E>,
) -> Result<Vec<[u8; 32]>, E> {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get).min(MOST_WORKERS);
    let (send, receive) = sync_channel::<Numbered>(0);
    let receive = Arc::new(Mutex::new(receive));
    std::thread::scope(|scope| {
        let mut workers = Vec::new();
        for _ in 0..cores.min(parts.len()) {
            let receive = Arc::clone(&receive);
            workers.push(scope.spawn(move || work(&receive, finish)));
        }
        drop(receive);
        let gathered = parts.into_iter().try_for_each(|part| {
            // A worker that is gone has met an error, which is told below.
            if !workers.iter().any(ScopedJoinHandle::is_finished) {
                let _ = send.send((part, gather(part)?));
            }
            Ok(())
        });
        drop(send);
        let mut finished = Vec::new();
        for worker in workers {
            finished.extend(worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        gathered?;
        finished.sort_unstable();
        Ok(finished.into_iter().map(|(_, hash)| hash).collect())
    })
}

/// Finishes parts until there are no more.
fn work<E>(receive: &Mutex<Receiver<Numbered>>, finish: &Finish<'_, E>) -> Result<Vec<(usize, [u8; 32])>, E> {
    let mut finished = Vec::new();
    loop {
        let next = receive.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((part, blocks)) = next else { return Ok(finished) };
        finished.push((part, finish(part, blocks)?));
    }
}

fn too_many() -> PackError {
    PackError::Segment(SegmentError::Malformed("too many parts"))
}
