//! Segments, applied one after the other to a file that nobody uses yet. Every step is checked: the state
//! before, each frame, the state after.

use std::{fs::File, io, os::unix::fs::FileExt, sync::Arc};

use zstd::zstd_safe::DCtx;

use super::reader::{Part, ReadError};
use crate::{
    chain::SNAPSHOT,
    pages::{Hash, Page, PageMap, page_hash},
    segment::{Block, Meta, SegmentError},
};

/// Why a part could not be applied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApplyError {
    #[error("{0}")]
    Read(#[source] ReadError),
    #[error("the file being restored could not be read or written")]
    File(#[source] io::Error),
}

/// The database that is being put together.
pub(crate) struct Applier {
    file: Arc<File>,
    page_size: u32,
    map: PageMap,
    /// The object whose parts are being applied: its inside's head, parts that are to come.
    open: Option<(Meta, Vec<[u8; 32]>)>,
}

impl Applier {
    pub(crate) fn new(file: Arc<File>) -> Self {
        Self { file, page_size: 0, map: PageMap::default(), open: None }
    }

    /// Bytes of the database so far.
    pub(crate) fn bytes(&self) -> u64 {
        u64::from(self.page_size) * u64::from(self.map.count())
    }

    /// Applies the next part; part 0 of an object comes first, then the others in order. `written` is given if
    /// its pages are in the file already.
    pub(crate) fn apply(&mut self, part: &Part, written: Option<Written>) -> Result<(), ApplyError> {
        let refused = |why: &str| ApplyError::Read(ReadError::refused(&part.key, why));
        let Part { header, body, .. } = part;
        if header.name.part == 0 {
            self.begin(part)?;
        } else {
            let due = self.open.as_mut().filter(|(_, due)| !due.is_empty()).map(|(_, due)| due.remove(0));
            if due != Some(part.hash) {
                return Err(refused("it is not the part that its object's first part names"));
            }
        }
        let Some((meta, due)) = &self.open else { return Err(refused("its first part is missing")) };
        let (meta, ended) = (*meta, due.is_empty());
        if (body.meta.full, body.meta.page_size, body.meta.page_count, body.meta.base)
            != (meta.full, meta.page_size, meta.page_count, meta.base)
        {
            return Err(refused("it disagrees with its object's first part"));
        }
        let written = written.map_or_else(|| write(&self.file, part), Ok)?;
        for (pgno, hash) in written {
            self.map.set(pgno, Page { hash, changed: header.name.to });
        }
        if ended {
            self.open = None;
            if self.map.state() != meta.state {
                return Err(refused("it does not lead to the state that it names"));
            }
            self.file.set_len(self.bytes()).map_err(ApplyError::File)?;
        }
        Ok(())
    }

    fn begin(&mut self, part: &Part) -> Result<(), ApplyError> {
        let refused = |why: &str| ApplyError::Read(ReadError::refused(&part.key, why));
        let Part { header, body, .. } = part;
        let meta = body.meta;
        if self.open.is_some() {
            return Err(refused("the object before it lacks parts"));
        }
        if meta.full != (header.name.level == SNAPSHOT) || body.parts.len() + 1 != header.parts as usize {
            return Err(refused("its inside disagrees with its header"));
        }
        if meta.full {
            self.map = PageMap::default();
            self.page_size = meta.page_size;
        } else if meta.base != self.map.state() || meta.page_size != self.page_size {
            return Err(refused("it applies to another state than the one before it"));
        }
        self.map.resize(meta.page_count);
        self.open = Some((meta, body.parts.clone()));
        Ok(())
    }
}

/// The pages that were written, with their hashes.
pub(crate) type Written = Vec<(u32, Hash)>;

/// Writes a part's pages. Those of a snapshot need nothing of what is in the file, so its parts may be written
/// in any order; those of other objects are made of old images that are read there.
pub(crate) fn write(file: &File, part: &Part) -> Result<Written, ApplyError> {
    let size = part.body.meta.page_size as usize;
    let (mut context, mut content) = (DCtx::create(), Vec::new());
    let mut written = Vec::new();
    for block in &part.body.blocks {
        read_block(file, block, part, &mut context, &mut content)?;
        let pages = block.pgnos.iter().zip(content.chunks_exact(size));
        written.extend(pages.clone().map(|(pgno, page)| (*pgno, page_hash(*pgno, page))));
        // Neighbours in one write: a snapshot's blocks are sixteen pages in a row.
        if block.pgnos.windows(2).all(|pair| pair[0] + 1 == pair[1]) {
            let first = block.pgnos.first().copied().unwrap_or(1);
            file.write_all_at(&content, offset(first, size)).map_err(ApplyError::File)?;
        } else {
            for (pgno, page) in pages {
                file.write_all_at(page, offset(*pgno, size)).map_err(ApplyError::File)?;
            }
        }
    }
    Ok(written)
}

fn read_block(
    file: &File,
    block: &Block,
    part: &Part,
    context: &mut DCtx<'_>,
    content: &mut Vec<u8>,
) -> Result<(), ApplyError> {
    let page_size = part.body.meta.page_size;
    let refused = |error: SegmentError| ApplyError::Read(ReadError::refused(&part.key, error));
    let mut prefix = Vec::new();
    for (_, pgno) in block.pgnos.iter().enumerate().filter(|(i, _)| !block.is_whole(*i)) {
        let at = prefix.len();
        prefix.resize(at + page_size as usize, 0);
        let from = offset(*pgno, page_size as usize);
        file.read_exact_at(&mut prefix[at..], from).map_err(ApplyError::File)?;
    }
    if prefix.is_empty() {
        return block.decode(context, &[], page_size, content).map_err(refused);
    }
    block.decode(&mut DCtx::create(), &prefix, page_size, content).map_err(refused)
}

fn offset(pgno: u32, page_size: usize) -> u64 {
    u64::from(pgno - 1) * page_size as u64
}
