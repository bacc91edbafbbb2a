//! Pages and frames of a live database, read beneath its marks.

use std::collections::HashMap;

use super::{
    handle::Handle,
    live::{LiveError, handle},
    wal::{Frame, Index, WalHeader, WalPosition, frame_offset},
};
use crate::{pages::lock_page, segment::Images};

/// The latest frame of each page.
pub(crate) type Frames = HashMap<u32, u32>;

/// The pages of a reading, and what they may have been before.
pub(super) struct LiveImages<'a> {
    pub(super) handle: &'a Handle,
    pub(super) page_size: u32,
    pub(super) new: &'a Frames,
    pub(super) old: &'a Frames,
}

impl LiveImages<'_> {
    fn read(&self, pgno: u32, frame: Option<&u32>, page: &mut [u8]) -> bool {
        read_page(self.handle, self.page_size, (pgno, frame), page).is_ok()
    }
}

impl Images for LiveImages<'_> {
    fn new_image(&mut self, pgno: u32, page: &mut [u8]) -> bool {
        self.read(pgno, self.new.get(&pgno), page)
    }

    fn old_image(&mut self, pgno: u32, page: &mut [u8]) -> bool {
        self.read(pgno, self.old.get(&pgno), page)
    }
}

/// Pages of a state on record: from the log or the file, wherever the recorded content is.
pub(crate) struct Recorded<'a> {
    pub(crate) from: &'a Handle,
    pub(crate) frames: &'a Frames,
    pub(crate) page_size: u32,
}

impl Images for Recorded<'_> {
    fn new_image(&mut self, pgno: u32, page: &mut [u8]) -> bool {
        read_page(self.from, self.page_size, (pgno, self.frames.get(&pgno)), page).is_ok()
    }

    /// On lock 0 the log may have been overwritten, and then all is in the file.
    fn elsewhere(&mut self, pgno: u32, page: &mut [u8]) -> bool {
        read_page(self.from, self.page_size, (pgno, None), page).is_ok()
    }
}

/// Reads the frames from `start` to the index's end, each checked, and the end too.
pub(super) fn scan(from: &Handle, index: &Index, start: WalPosition) -> Result<Frames, LiveError> {
    let mut frames = Frames::new();
    if index.frames == start.frames {
        return Ok(frames);
    }
    let mut head = [0; 32];
    from.read_wal(0, &mut head).map_err(handle)?;
    let header = WalHeader::parse(&head).filter(|header| header.salts == index.salts);
    let header = header.ok_or(LiveError::Gap("the log's header is another"))?;
    let mut cksum = if start.frames == 0 { header.cksum } else { start.cksum };
    let mut bytes = vec![0; 24 + index.page_size as usize];
    let mut commit = 0;
    for frame in start.frames + 1..=index.frames {
        from.read_wal(frame_offset(frame, index.page_size), &mut bytes).map_err(handle)?;
        let parsed = Frame::parse(&bytes, &header, cksum).ok_or(LiveError::Gap("a frame is another"))?;
        cksum = parsed.cksum;
        commit = parsed.commit;
        frames.insert(parsed.pgno, frame);
    }
    if cksum == index.cksum && commit == index.page_count {
        Ok(frames)
    } else {
        Err(LiveError::Gap("the log's end is another"))
    }
}

/// Reads a page from its frame, or from the file if it has none.
pub(super) fn read_page(
    from: &Handle,
    page_size: u32,
    (pgno, frame): (u32, Option<&u32>),
    page: &mut [u8],
) -> Result<(), LiveError> {
    match frame {
        // Nobody reads or writes the lock page; whatever is there is not the database's.
        None if pgno == lock_page(page_size) => {
            page.fill(0);
            Ok(())
        }
        None => from.read_db(u64::from(pgno - 1) * u64::from(page_size), page).map_err(handle),
        Some(frame) => from.read_wal(frame_offset(*frame, page_size) + 24, page).map_err(handle),
    }
}
