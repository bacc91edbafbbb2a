//! Segments, applied one after the other to a file that nobody uses yet. Every step is checked: the state
//! before, each frame, the state after.

use std::{fs::File, io, os::unix::fs::FileExt};

use super::reader::{Part, ReadError};
use crate::{
    chain::SNAPSHOT,
    pages::{Page, PageMap, page_hash},
    segment::{Block, Meta},
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
pub(crate) struct Applier<'a> {
    file: &'a File,
    page_size: u32,
    map: PageMap,
    /// The object whose parts are being applied: its inside's head, parts that are to come.
    open: Option<(Meta, Vec<[u8; 32]>)>,
}

impl<'a> Applier<'a> {
    pub(crate) fn new(file: &'a File) -> Self {
        Self { file, page_size: 0, map: PageMap::default(), open: None }
    }

    /// Bytes of the database so far.
    pub(crate) fn bytes(&self) -> u64 {
        u64::from(self.page_size) * u64::from(self.map.count())
    }

    /// Applies the next part; part 0 of an object comes first, then the others in order.
    pub(crate) fn apply(&mut self, part: &Part) -> Result<(), ApplyError> {
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
        for block in &body.blocks {
            self.block(part, block)?;
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

    fn block(&mut self, part: &Part, block: &Block) -> Result<(), ApplyError> {
        let size = self.page_size as usize;
        let offset = |pgno: u32| u64::from(pgno - 1) * size as u64;
        let mut prefix = Vec::new();
        for (_, pgno) in block.pgnos.iter().enumerate().filter(|(i, _)| !block.is_whole(*i)) {
            let at = prefix.len();
            prefix.resize(at + size, 0);
            self.file.read_exact_at(&mut prefix[at..], offset(*pgno)).map_err(ApplyError::File)?;
        }
        let content = block
            .decode(&prefix, self.page_size)
            .map_err(|error| ApplyError::Read(ReadError::refused(&part.key, error)))?;
        for (pgno, page) in block.pgnos.iter().zip(content.chunks_exact(size)) {
            let page_of = Page { hash: page_hash(*pgno, page), changed: part.header.name.to };
            self.map.set(*pgno, page_of);
        }
        // Neighbours in one write: a snapshot's blocks are sixteen pages in a row.
        let in_a_row = block.pgnos.windows(2).all(|pair| pair[0] + 1 == pair[1]);
        if in_a_row {
            let first = block.pgnos.first().copied().unwrap_or(1);
            return self.file.write_all_at(&content, offset(first)).map_err(ApplyError::File);
        }
        for (pgno, page) in block.pgnos.iter().zip(content.chunks_exact(size)) {
            self.file.write_all_at(page, offset(*pgno)).map_err(ApplyError::File)?;
        }
        Ok(())
    }
}
