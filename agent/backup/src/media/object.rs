//! Sealing and opening one part: a chain's header (its range is the id), and a byte that says how the content
//! is packed.

use bytes::Bytes;

use super::{Id, Kind, MediaError};
use crate::{
    chain::{ChainId, HEADER, Header, Name},
    crypt::EpochKey,
};

/// The most plain bytes in a part.
pub(super) const PART: usize = 4 << 20;
const LEVEL: i32 = 3;

/// Which part of which object.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) set: ChainId,
    pub(super) kind: Kind,
    pub(super) id: Id,
    pub(super) part: u32,
    pub(super) parts: u32,
    pub(super) epoch: u32,
}

impl Place {
    pub(super) fn key(&self) -> String {
        super::object_key(self.set, self.kind, self.id, self.part)
    }

    fn name(&self) -> Name {
        let (from, to) = self.id.halves();
        Name { level: self.kind.level(), from, to, part: self.part }
    }
}

/// The object of `plain`, packed if that makes it smaller.
pub(super) fn seal(key: &EpochKey, place: Place, time_ms: u64, plain: &[u8]) -> Result<Vec<u8>, MediaError> {
    let packed = zstd::bulk::compress(plain, LEVEL).ok().filter(|packed| packed.len() < plain.len());
    let (how, content) = packed.as_deref().map_or((0, plain), |packed| (1, packed));
    let mut object = Vec::with_capacity(HEADER + content.len() + 32);
    object.resize(HEADER, 0);
    object.push(how);
    object.extend(content);
    let header = Header {
        chain: place.set,
        name: place.name(),
        parts: place.parts,
        epoch: place.epoch,
        time_ms,
        prev: [0; 32],
        nonce: rand::random(),
    };
    key.seal(&header, object).map_err(|source| MediaError::Crypt { key: place.key(), source })
}

/// The plain bytes of an object that must be at `place`.
pub(super) fn open(key: &EpochKey, place: Place, object: Bytes) -> Result<Vec<u8>, MediaError> {
    let refused = |what| MediaError::refused(&place.key(), what);
    let header = Header::parse(&object).ok_or_else(|| refused("it is no object of a backup"))?;
    let (chain, parts, epoch) = (header.chain, header.parts, header.epoch);
    if (chain, header.name, parts, epoch) != (place.set, place.name(), place.parts, place.epoch) {
        return Err(refused("it belongs elsewhere"));
    }
    let body =
        key.open(&header, object).map_err(|_| refused("it was altered, cut, or sealed under another key"))?;
    match body.split_first() {
        Some((0, content)) if content.len() <= PART => Ok(content.to_vec()),
        Some((1, packed)) => {
            zstd::bulk::decompress(packed, PART).map_err(|_| refused("its content does not unpack"))
        }
        _ => Err(refused("its content is packed in an unknown way")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_opens_in_its_own_place_only() {
        let key = EpochKey::random();
        let place =
            Place { set: ChainId([1; 16]), kind: Kind::Blob, id: Id([2; 16]), part: 0, parts: 2, epoch: 3 };
        for plain in [vec![], vec![7; 100_000], (0..=255).collect()] {
            let object = Bytes::from(seal(&key, place, 1, &plain).unwrap());
            assert!(object.len() < plain.len() + 200);
            assert_eq!(open(&key, place, object.clone()).unwrap(), plain);
            for wrong in [
                Place { set: ChainId([9; 16]), ..place },
                Place { kind: Kind::List, ..place },
                Place { id: Id([9; 16]), ..place },
                Place { part: 1, ..place },
                Place { parts: 1, ..place },
                Place { epoch: 4, ..place },
            ] {
                assert!(open(&key, wrong, object.clone()).is_err(), "{wrong:?}");
            }
            assert!(open(&EpochKey::random(), place, object).is_err());
        }
    }
}
