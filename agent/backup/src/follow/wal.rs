//! The write-ahead log and its index, as SQLite writes them: pure functions over bytes.

use serde::{Deserialize, Serialize};

/// Bytes before the first frame.
pub(crate) const WAL_HEADER: u64 = 32;
/// Bytes before a frame's page.
pub(crate) const FRAME_HEADER: u64 = 24;
/// Bytes of the wal-index that we read: two headers, then the checkpoint's progress.
pub(crate) const INDEX_BYTES: usize = 136;

/// The wal-index's header: what is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Index {
    pub(crate) page_size: u32,
    pub(crate) frames: u32,
    pub(crate) page_count: u32,
    pub(crate) cksum: [u32; 2],
    pub(crate) salts: [u8; 8],
}

/// How far into which generation of the log we have captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct WalPosition {
    pub(crate) salts: [u8; 8],
    pub(crate) frames: u32,
    pub(crate) cksum: [u32; 2],
}

impl Index {
    /// The position at the end of what is committed.
    pub(crate) fn position(&self) -> WalPosition {
        WalPosition { salts: self.salts, frames: self.frames, cksum: self.cksum }
    }

    /// Parses a copy of the wal-index's first bytes; also says how many frames are in the file already.
    /// `None` while a writer is changing it.
    pub(crate) fn parse(bytes: &[u8; INDEX_BYTES]) -> Option<(Self, u32)> {
        let header = &bytes[..48];
        let word = |at: usize| native(&bytes[at..at + 4]);
        if header != &bytes[48..96] || header[12] != 1 {
            return None;
        }
        if checksum(cfg!(target_endian = "big"), &header[..40], [0; 2]) != [word(40), word(44)] {
            return None;
        }
        let packed = u32::from(u16::from_ne_bytes([header[14], header[15]]));
        let mut salts = [0; 8];
        salts.copy_from_slice(&header[32..40]);
        let index = Self {
            page_size: (packed & 0xfe00) + ((packed & 1) << 16),
            frames: word(16),
            page_count: word(20),
            cksum: [word(24), word(28)],
            salts,
        };
        Some((index, word(96)))
    }
}

/// The log's own header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WalHeader {
    pub(crate) big_endian: bool,
    pub(crate) page_size: u32,
    pub(crate) salts: [u8; 8],
    pub(crate) cksum: [u32; 2],
}

impl WalHeader {
    /// Parses it; `None` if it is none.
    pub(crate) fn parse(bytes: &[u8; 32]) -> Option<Self> {
        let word = |at: usize| big(&bytes[at..at + 4]);
        let magic = word(0);
        if magic & !1 != 0x377f_0682 {
            return None;
        }
        let big_endian = magic & 1 == 1;
        let cksum = checksum(big_endian, &bytes[..24], [0; 2]);
        let mut salts = [0; 8];
        salts.copy_from_slice(&bytes[16..24]);
        (cksum == [word(24), word(28)]).then_some(Self { big_endian, page_size: word(8), salts, cksum })
    }
}

/// A frame's head, checked against the running checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) pgno: u32,
    /// Not 0: the frame commits, and the database has so many pages.
    pub(crate) commit: u32,
    /// The running checksum behind it.
    pub(crate) cksum: [u32; 2],
}

impl Frame {
    /// Parses a whole frame; `None` if it does not continue the log.
    pub(crate) fn parse(frame: &[u8], header: &WalHeader, before: [u32; 2]) -> Option<Self> {
        let (head, page) = frame.split_at_checked(24)?;
        let cksum = checksum(header.big_endian, &head[..8], before);
        let cksum = checksum(header.big_endian, page, cksum);
        let good = head[8..16] == header.salts && cksum == [big(&head[16..20]), big(&head[20..24])];
        good.then(|| Self { pgno: big(&head[..4]), commit: big(&head[4..8]), cksum })
    }
}

/// Where a frame (counted from 1) begins in the log.
pub(crate) fn frame_offset(frame: u32, page_size: u32) -> u64 {
    WAL_HEADER + u64::from(frame - 1) * (FRAME_HEADER + u64::from(page_size))
}

fn big(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |word, byte| word << 8 | u32::from(*byte))
}

fn native(bytes: &[u8]) -> u32 {
    if cfg!(target_endian = "big") { big(bytes) } else { big(bytes).swap_bytes() }
}

fn checksum(big_endian: bool, bytes: &[u8], before: [u32; 2]) -> [u32; 2] {
    let word = |bytes: &[u8]| if big_endian { big(bytes) } else { big(bytes).swap_bytes() };
    let [mut one, mut two] = before;
    for pair in bytes.chunks_exact(8) {
        one = one.wrapping_add(word(&pair[..4])).wrapping_add(two);
        two = two.wrapping_add(word(&pair[4..])).wrapping_add(one);
    }
    [one, two]
}
