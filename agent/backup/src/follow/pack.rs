//! From pages to sealed objects, part by part, so that memory holds one part and no more.

use std::sync::Arc;

use crate::{
    chain::{ChainId, Header, Name},
    crypt::{CryptError, EpochKey},
    pages::Hash,
    segment::{self, Images, Meta, SegmentError},
};

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

impl Making<'_> {
    /// Makes all parts, part 0 last, and gives each to `put`. Returns BLAKE3 of part 0.
    pub(crate) fn make<E: From<PackError>>(
        &self,
        sealer: &Sealer,
        images: &mut dyn Images,
        base: &dyn Fn(u32) -> Option<Hash>,
        put: &mut dyn FnMut(Name, Vec<u8>) -> Result<(), E>,
    ) -> Result<[u8; 32], E> {
        let slices: Vec<_> = self.changes.chunks(segment::part_pages(self.meta.page_size)).collect();
        let parts = u32::try_from(slices.len().max(1)).map_err(|_| too_many())?;
        let mut hashes = Vec::new();
        let mut make = |part: u32, hashes: &[[u8; 32]]| -> Result<[u8; 32], E> {
            let slice = slices.get(part as usize).copied().unwrap_or_default();
            let meta = if part == 0 { self.meta } else { Meta { state: 0, ..self.meta } };
            let body = segment::encode(&meta, hashes, slice, images, base).map_err(PackError::Segment)?;
            let header = self.header(sealer, part, parts);
            let object = sealer.key.seal(&header, &body).map_err(PackError::Crypt)?;
            let hash = *blake3::hash(&object).as_bytes();
            put(header.name, object)?;
            Ok(hash)
        };
        for part in 1..parts {
            hashes.push(make(part, &[])?);
        }
        make(0, &hashes)
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

fn too_many() -> PackError {
    PackError::Segment(SegmentError::Malformed("too many parts"))
}
