//! Pages as they were when a window began, so that its object of level 1 or 2 holds differences too.
//!
//! At a page's first change in a window its old image is at hand: it goes into a file without a name, in no
//! hurry, for its hash is checked before it is used. What is missing, after a restart say, costs bytes only.

use std::{collections::HashMap, fs::File, io, os::unix::fs::FileExt, path::Path};

use super::images::Recorded;
use crate::{pages::Hash, segment::Images};

/// More than this is not worth the disk; further pages go whole.
const MOST: u64 = 256 << 20;

#[derive(Default)]
pub(crate) struct Stash {
    file: Option<File>,
    pages: HashMap<u32, (u64, Hash)>,
    end: u64,
}

impl Stash {
    /// Whether a page is wanted that is not there.
    pub(crate) fn lacks(&self, pgno: u32) -> bool {
        self.end < MOST && !self.pages.contains_key(&pgno)
    }

    /// Keeps a page, whose hash is on record.
    pub(crate) fn keep(&mut self, dir: &Path, (pgno, hash): (u32, Hash), page: &[u8]) -> io::Result<()> {
        let file = match &self.file {
            Some(file) => file,
            None => self.file.insert(tempfile::tempfile_in(dir)?),
        };
        file.write_all_at(page, self.end)?;
        self.pages.insert(pgno, (self.end, hash));
        self.end += page.len() as u64;
        Ok(())
    }

    /// The hash that a page had.
    pub(crate) fn hash(&self, pgno: u32) -> Option<Hash> {
        self.pages.get(&pgno).map(|(_, hash)| *hash)
    }

    fn page(&self, pgno: u32, page: &mut [u8]) -> bool {
        let (Some((offset, _)), Some(file)) = (self.pages.get(&pgno), &self.file) else { return false };
        file.read_exact_at(page, *offset).is_ok()
    }
}

/// Pages as they are on record now, and as they were when the window began.
pub(crate) struct Window<'a> {
    pub(crate) now: Recorded<'a>,
    pub(crate) then: &'a Stash,
}

impl Images for Window<'_> {
    fn new_image(&mut self, pgno: u32, page: &mut [u8]) -> bool {
        self.now.new_image(pgno, page)
    }

    fn elsewhere(&mut self, pgno: u32, page: &mut [u8]) -> bool {
        self.now.elsewhere(pgno, page)
    }

    fn old_image(&mut self, pgno: u32, page: &mut [u8]) -> bool {
        self.then.page(pgno, page)
    }
}
