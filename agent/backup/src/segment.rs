//! The inside of an object: which pages it holds, and from which state to which it leads.
//!
//! Pages come in order, in blocks of 16. A block is one zstd frame; the old images of its pages, where the
//! reader is certain to have them, are the frame's prefix. docs/backup-format.md is the law of the bytes.

use bytes::Bytes;
use zstd::zstd_safe::{CCtx, CParameter, DCtx, get_error_name};

use crate::{
    chain::HEADER,
    pages::{Hash, page_hash},
};

/// Pages in a block.
pub(crate) const BLOCK: usize = 16;
/// Bytes of pages in a part; what a part takes in memory.
pub(crate) const PART: usize = 4 << 20;
const LEVEL: i32 = 3;

/// What an object says of itself, inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// Whether it holds every page.
    pub full: bool,
    /// Bytes of a page; 0 for a database with no pages yet.
    pub page_size: u32,
    /// Pages of the database afterwards.
    pub page_count: u32,
    /// The state that it applies to; 0 when it is full.
    pub base: Hash,
    /// The state that it leads to.
    pub state: Hash,
}

/// An object's inside, taken apart.
#[derive(Debug)]
pub(crate) struct Body {
    pub(crate) meta: Meta,
    /// BLAKE3 of the objects of parts 1, 2…; in part 0 only.
    pub(crate) parts: Vec<[u8; 32]>,
    pub(crate) blocks: Vec<Block>,
}

/// Pages that were compressed together.
#[derive(Debug)]
pub(crate) struct Block {
    /// In order; bit i of `whole` says that page i has no old image.
    pub(crate) pgnos: Vec<u32>,
    pub(crate) whole: u16,
    /// A part of the body's own bytes.
    pub(crate) zstd: Bytes,
}

/// Why an object's inside could not be made or understood.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// It does not follow the format.
    #[error("it does not follow the format: {0}")]
    Malformed(&'static str),
    /// zstd failed.
    #[error("zstd: {0}")]
    Zstd(&'static str),
    /// A page read twice was two different pages.
    #[error("page {0} changed under a read mark, or could not be read")]
    Unstable(u32),
}

/// Where the images of pages come from. Whoever asks checks what comes.
pub(crate) trait Images {
    /// Fills in what may be the page as it is to be stored; false if there is none.
    fn new_image(&mut self, pgno: u32, page: &mut [u8]) -> bool;
    /// Another place where it may be.
    fn elsewhere(&mut self, _pgno: u32, _page: &mut [u8]) -> bool {
        false
    }
    /// What may be the page as it was at the base.
    fn old_image(&mut self, _pgno: u32, _page: &mut [u8]) -> bool {
        false
    }
}

/// Pages that are to be compressed together, each checked, and behind them those old images that the reader is
/// certain to have.
pub(crate) struct Gathered {
    pgnos: Vec<u32>,
    whole: u16,
    content: Vec<u8>,
    prefix: Vec<u8>,
}

/// How many pages go into a part.
pub(crate) fn part_pages(page_size: u32) -> usize {
    (PART / page_size.max(512) as usize).max(BLOCK)
}

/// Reads the pages of `changes`, each of which must have the hash given with it. `base` tells the hash that the
/// reader's old image has.
pub(crate) fn gather(
    page_size: u32,
    changes: &[(u32, Hash)],
    images: &mut dyn Images,
    base: &dyn Fn(u32) -> Option<Hash>,
) -> Result<Vec<Gathered>, SegmentError> {
    changes.chunks(BLOCK).map(|block| gather_block(page_size as usize, block, images, base)).collect()
}

fn gather_block(
    size: usize,
    block: &[(u32, Hash)],
    images: &mut dyn Images,
    base: &dyn Fn(u32) -> Option<Hash>,
) -> Result<Gathered, SegmentError> {
    let mut gathered =
        Gathered { pgnos: Vec::new(), whole: 0, content: vec![0; block.len() * size], prefix: Vec::new() };
    for (i, &(pgno, hash)) in block.iter().enumerate() {
        let page = &mut gathered.content[i * size..][..size];
        let read = images.new_image(pgno, page) && page_hash(pgno, page) == hash
            || images.elsewhere(pgno, page) && page_hash(pgno, page) == hash;
        if !read {
            return Err(SegmentError::Unstable(pgno));
        }
        gathered.pgnos.push(pgno);
        let (on_record, at) = (base(pgno), gathered.prefix.len());
        if on_record.is_some() {
            gathered.prefix.resize(at + size, 0);
            let page = &mut gathered.prefix[at..];
            if images.old_image(pgno, page) && Some(page_hash(pgno, page)) == on_record {
                continue;
            }
            gathered.prefix.truncate(at);
        }
        gathered.whole |= 1 << i;
    }
    Ok(gathered)
}

/// The inside of one part, behind room for its header. Each block's pages are let go once they are packed.
pub(crate) fn encode(
    meta: &Meta,
    parts: &[[u8; 32]],
    mut blocks: Vec<Gathered>,
) -> Result<Vec<u8>, SegmentError> {
    let mut out = vec![0; HEADER];
    out.push(u8::from(meta.full));
    out.extend(meta.page_size.to_be_bytes());
    out.extend(meta.page_count.to_be_bytes());
    out.extend(meta.base.to_be_bytes());
    out.extend(meta.state.to_be_bytes());
    out.extend(count(parts.len())?.to_be_bytes());
    parts.iter().for_each(|hash| out.extend(hash));
    out.extend(count(blocks.len())?.to_be_bytes());
    let named = |code| SegmentError::Zstd(get_error_name(code));
    let mut context = CCtx::try_create().ok_or(SegmentError::Zstd("out of memory"))?;
    context.set_parameter(CParameter::CompressionLevel(LEVEL)).map_err(named)?;
    let mut packed = Vec::new();
    for Gathered { pgnos, whole, content, prefix } in &mut blocks {
        let content = std::mem::take(content);
        packed.clear();
        packed.reserve(zstd::zstd_safe::compress_bound(content.len()));
        if !prefix.is_empty() {
            context.ref_prefix(prefix).map_err(named)?;
        }
        context.compress2(&mut packed, &content).map_err(named)?;
        out.push(u8::try_from(pgnos.len()).map_err(|_| SegmentError::Malformed("a block is too large"))?);
        out.extend(whole.to_be_bytes());
        pgnos.iter().for_each(|pgno| out.extend(pgno.to_be_bytes()));
        out.extend(count(packed.len())?.to_be_bytes());
        out.extend(&packed);
    }
    Ok(out)
}

fn count(n: usize) -> Result<u32, SegmentError> {
    u32::try_from(n).map_err(|_| SegmentError::Malformed("a count is too large"))
}

impl Block {
    /// Puts the pages into `content`, one after the other; `prefix` is the old images of those that have one.
    /// `context` must not have been given another prefix; without one it may be used again.
    pub(crate) fn decode<'p>(
        &self,
        context: &mut DCtx<'p>,
        prefix: &'p [u8],
        page_size: u32,
        content: &mut Vec<u8>,
    ) -> Result<(), SegmentError> {
        let named = |code| SegmentError::Zstd(get_error_name(code));
        let length = self.pgnos.len() * page_size as usize;
        if !prefix.is_empty() {
            context.ref_prefix(prefix).map_err(named)?;
        }
        content.clear();
        content.reserve_exact(length);
        context.decompress(content, &self.zstd).map_err(named)?;
        if content.len() == length {
            Ok(())
        } else {
            Err(SegmentError::Malformed("a block has not the length of its pages"))
        }
    }

    /// Whether page `i` of the block was stored without an old image.
    pub(crate) fn is_whole(&self, i: usize) -> bool {
        self.whole >> i & 1 == 1
    }
}

impl Body {
    /// Takes an object's inside apart.
    pub(crate) fn parse(bytes: &Bytes) -> Result<Self, SegmentError> {
        let mut from = Cursor { all: bytes, rest: bytes };
        let full = match from.u8()? {
            0 => false,
            1 => true,
            _ => return Err(SegmentError::Malformed("a kind that this version does not know")),
        };
        let meta = Meta {
            full,
            page_size: from.u32()?,
            page_count: from.u32()?,
            base: u128::from_be_bytes(from.array()?),
            state: u128::from_be_bytes(from.array()?),
        };
        let size_ok = meta.page_size.is_power_of_two() && (512..=65536).contains(&meta.page_size);
        if !(size_ok || (meta.page_size == 0 && meta.page_count == 0)) {
            return Err(SegmentError::Malformed("no size of a page"));
        }
        let mut parts = Vec::new();
        for _ in 0..from.u32()? {
            parts.push(from.array()?);
        }
        let mut blocks = Vec::new();
        for _ in 0..from.u32()? {
            blocks.push(from.block(&meta)?);
        }
        if from.rest.is_empty() {
            Ok(Self { meta, parts, blocks })
        } else {
            Err(SegmentError::Malformed("bytes follow"))
        }
    }
}

struct Cursor<'a> {
    all: &'a Bytes,
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], SegmentError> {
        let (head, rest) = self.rest.split_at_checked(n).ok_or(SegmentError::Malformed("it is cut short"))?;
        self.rest = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], SegmentError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn u8(&mut self) -> Result<u8, SegmentError> {
        Ok(self.array::<1>()?[0])
    }

    fn u32(&mut self) -> Result<u32, SegmentError> {
        self.array().map(u32::from_be_bytes)
    }

    fn block(&mut self, meta: &Meta) -> Result<Block, SegmentError> {
        let n = usize::from(self.u8()?);
        if n == 0 || n > BLOCK {
            return Err(SegmentError::Malformed("a block of no or of too many pages"));
        }
        let whole = u16::from_be_bytes(self.array()?);
        let mut pgnos = Vec::with_capacity(n);
        for _ in 0..n {
            let pgno = self.u32()?;
            if pgno == 0 || pgno > meta.page_count || pgnos.last().is_some_and(|last| *last >= pgno) {
                return Err(SegmentError::Malformed("page numbers out of order or beyond the end"));
            }
            pgnos.push(pgno);
        }
        let length = self.u32()? as usize;
        let zstd = self.all.slice_ref(self.take(length)?);
        Ok(Block { pgnos, whole, zstd })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Two(Vec<Vec<u8>>, Vec<Vec<u8>>);

    impl Images for Two {
        fn new_image(&mut self, pgno: u32, page: &mut [u8]) -> bool {
            page.copy_from_slice(&self.0[pgno as usize - 1]);
            true
        }
        fn old_image(&mut self, pgno: u32, page: &mut [u8]) -> bool {
            page.copy_from_slice(&self.1[pgno as usize - 1]);
            true
        }
    }

    fn noise(seed: u64, n: usize) -> Vec<u8> {
        let mut state = seed | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        };
        (0..n).map(|_| next()).collect()
    }

    #[test]
    fn a_small_change_of_a_page_is_small_and_a_wrong_old_image_is_not_used() {
        let old: Vec<_> = (0..20).map(|i| noise(i + 1, 4096)).collect();
        let mut new = old.clone();
        new.iter_mut().for_each(|page| page[100] ^= 1);
        let changes: Vec<_> = new.iter().zip(1u32..).map(|(page, n)| (n, page_hash(n, page))).collect();
        let recorded: Vec<_> = old.iter().zip(1u32..).map(|(page, n)| page_hash(n, page)).collect();
        let meta = Meta { full: false, page_size: 4096, page_count: 20, base: 1, state: 2 };
        let mut on_disk = old.clone();
        on_disk[3] = noise(99, 4096);
        let mut images = Two(new.clone(), on_disk);
        let base = |n: u32| Some(recorded[n as usize - 1]);
        let blocks = gather(4096, &changes, &mut images, &base).unwrap();
        let bytes = Bytes::from(encode(&meta, &[[7; 32]], blocks).unwrap()).slice(HEADER..);
        assert!(bytes.len() < 6000, "{}", bytes.len());

        let body = Body::parse(&bytes).unwrap();
        assert_eq!((body.meta, body.parts.len(), body.blocks.len()), (meta, 1, 2));
        for block in &body.blocks {
            let olds = block.pgnos.iter().enumerate().filter(|(i, _)| !block.is_whole(*i));
            let prefix: Vec<u8> = olds.flat_map(|(_, n)| old[*n as usize - 1].clone()).collect();
            let mut content = Vec::new();
            block.decode(&mut DCtx::create(), &prefix, 4096, &mut content).unwrap();
            for (page, n) in content.chunks(4096).zip(&block.pgnos) {
                assert_eq!(page, new[*n as usize - 1]);
            }
        }
        assert!(body.blocks[0].is_whole(3) && !body.blocks[0].is_whole(4));
        for cut in 0..bytes.len() {
            assert!(Body::parse(&bytes.slice(..cut)).is_err());
        }
    }
}
