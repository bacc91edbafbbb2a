//! A live database under our read marks: what changed since the last reading, and the images of its pages.
//!
//! Connection A holds a mark (a read transaction), B takes the next one before A lets go, C shuts out writers. As
//! long as some mark is held without a gap, the log cannot be restarted past frames that we have not read,
//! and the database file changes only in pages whose newer images we have: so the file, or the last frame
//! that we read, *is* the old image of a page. Nobody waits for anybody.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    handle::{Handle, HandleError},
    images::{Frames, LiveImages, Recorded, read_page, scan},
    wal::{Index, WAL_HEADER, WalPosition},
};
use crate::{
    fault,
    pages::{Hash, PageMap, page_hash},
    segment::Images,
    state::LogEnd,
};

mod resume;

/// Why a reading failed.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// SQLite refused.
    #[error("the database cannot be read")]
    Handle(#[source] HandleError),
    /// There is no database at the path.
    #[error("there is no database at {0}")]
    Missing(PathBuf),
    /// The path cannot be looked at.
    #[error("{path} cannot be looked at")]
    Path {
        /// The path.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// What was read does not continue what was read before: the pages must be compared.
    #[error("the log does not continue: {0}")]
    Gap(&'static str),
    /// Writers came between each time.
    #[error("the database did not stand still for a moment")]
    Unsettled,
}

impl LiveError {
    /// Whether it may do in a moment.
    pub(crate) fn is_busy(&self) -> bool {
        matches!(self, Self::Unsettled) || matches!(self, Self::Handle(error) if error.is_busy())
    }
}

/// What a reading found; its mark is held until it is accepted or rejected.
pub(crate) struct Reading {
    pub(crate) page_size: u32,
    pub(crate) page_count: u32,
    /// The pages whose content is not the one on record, in order.
    pub(crate) changes: Vec<(u32, Hash)>,
    /// In which frames they are; a page without one is in the file.
    frames: Frames,
    position: Option<WalPosition>,
    /// Device and inode of the database.
    file: (u64, u64),
    /// Whether `frames` replaces what was known, or extends it.
    replaces: bool,
    /// Whether all pages were compared, and not only those that the log names.
    pub(crate) compared: bool,
    data_version: i64,
}

impl Reading {
    /// One that found nothing new.
    pub(crate) fn unchanged(page_size: u32, page_count: u32) -> Self {
        Self {
            page_size,
            page_count,
            changes: Vec::new(),
            frames: Frames::new(),
            position: None,
            file: (0, 0),
            replaces: false,
            compared: false,
            data_version: 0,
        }
    }

    /// Where the next start can go on without a comparison.
    pub(crate) fn log_end(&self) -> Option<LogEnd> {
        self.position.map(|at| LogEnd { file: self.file, at })
    }
}

/// A live database.
pub(crate) struct Live {
    path: PathBuf,
    inode: (u64, u64),
    a: Handle,
    b: Handle,
    c: Handle,
    page_size: u32,
    /// `None`: it has a rollback journal, and we hold nothing between readings.
    position: Option<WalPosition>,
    frames: Frames,
    data_version: i64,
    /// A is known to hold lock 0: the log restarts with the next commit, or goes on.
    on_zero: bool,
}

pub(super) fn handle(error: HandleError) -> LiveError {
    LiveError::Handle(error)
}

impl Live {
    /// Opens the database; [`Self::read_all`] comes next.
    pub(crate) fn open(path: &Path) -> Result<Self, LiveError> {
        let inode = inode(path)?;
        let open = || Handle::open(path).map_err(handle);
        let mut c = open()?;
        c.wait_eagerly().map_err(handle)?;
        Ok(Self {
            path: path.to_owned(),
            inode,
            a: open()?,
            b: open()?,
            c,
            page_size: 0,
            position: None,
            frames: Frames::new(),
            data_version: i64::MIN,
            on_zero: false,
        })
    }

    /// Whether another file stands at the path now, or none.
    pub(crate) fn is_replaced(&self) -> Result<bool, LiveError> {
        match inode(&self.path) {
            Ok(inode) => Ok(inode != self.inode),
            Err(LiveError::Missing(_)) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Whether something was committed since the last reading. Takes no lock.
    pub(crate) fn is_dirty(&self) -> Result<bool, LiveError> {
        match self.position {
            // A torn header is a writer at work.
            Some(position) => Ok(self.a.index().is_none_or(|(index, _)| index.position() != position)),
            None => self.a.data_version().map(|version| version != self.data_version).map_err(handle),
        }
    }

    /// Whether we hold lock 0. Then the app's own checkpoints fail after much work, with each commit once its log
    /// is long: what it commits is to be read soon.
    pub(crate) fn is_on_zero(&self) -> bool {
        self.on_zero
    }

    /// Whether the database has a log.
    pub(crate) fn has_log(&self) -> bool {
        self.position.is_some()
    }

    /// The frames of the log that have been read.
    pub(crate) fn log_frames(&self) -> u32 {
        self.position.map_or(0, |position| position.frames)
    }

    /// The bytes of the log that have been read.
    pub(crate) fn log_bytes(&self) -> u64 {
        self.bytes_of(self.log_frames())
    }

    /// The bytes of the log by now, read or not.
    pub(crate) fn written_bytes(&self) -> u64 {
        if self.has_log() { self.bytes_of(self.a.index().map_or(0, |(index, _)| index.frames)) } else { 0 }
    }

    fn bytes_of(&self, frames: u32) -> u64 {
        WAL_HEADER + u64::from(frames) * (24 + u64::from(self.page_size))
    }

    /// The frames of the log that are not in the file yet, and how many of them we have read.
    pub(crate) fn uncopied_frames(&self) -> (u32, u32) {
        let Some((index, copied)) = self.a.index() else { return (0, 0) };
        (index.frames.saturating_sub(copied), self.log_frames().saturating_sub(copied))
    }

    /// Reads what the log holds beyond the last reading.
    pub(crate) fn read_on(&mut self, map: &PageMap) -> Result<Reading, LiveError> {
        let Some(from) = self.position else { return self.read_all(map) };
        self.b.begin().map_err(handle)?;
        self.read_frames(from, map).inspect_err(|_| self.b.end())
    }

    fn read_frames(&self, from: WalPosition, map: &PageMap) -> Result<Reading, LiveError> {
        let index = (0..100).find_map(|_| self.b.index().or_else(pause)).ok_or(LiveError::Unsettled)?.0;
        let restarted = index.salts != from.salts;
        if index.frames > 0 && index.page_size != self.page_size {
            return Err(LiveError::Gap("another page size"));
        }
        if !restarted && index.frames < from.frames {
            return Err(LiveError::Gap("the log is shorter"));
        }
        let start = if restarted { WalPosition { salts: index.salts, ..Default::default() } } else { from };
        let frames = scan(&self.b, &index, start)?;
        // A restarted log without a commit says nothing of the database's size.
        let page_count = if index.frames == 0 || frames.is_empty() { map.count() } else { index.page_count };
        let mut reading = Reading {
            page_size: self.page_size,
            page_count,
            changes: Vec::new(),
            frames,
            position: Some(index.position()),
            file: self.inode,
            replaces: restarted,
            compared: false,
            data_version: 0,
        };
        // SQLite need not write a new page that it freed in the same breath.
        let new = (map.count() + 1..=page_count).filter(|pgno| !reading.frames.contains_key(pgno));
        let mut pages: Vec<u32> = reading.frames.keys().copied().chain(new).collect();
        pages.sort_unstable();
        reading.changes = self.differing(pages.into_iter(), &reading, map)?;
        Ok(reading)
    }

    /// Compares every page with what is on record, under one snapshot.
    pub(crate) fn read_all(&mut self, map: &PageMap) -> Result<Reading, LiveError> {
        self.compare(map).inspect_err(|_| self.b.end())
    }

    fn compare(&self, map: &PageMap) -> Result<Reading, LiveError> {
        let exact = begin_exactly(&self.b)?;
        let data_version = if exact.is_some() { 0 } else { self.a.data_version().map_err(handle)? };
        let size = self.b.db_size().map_err(handle)?;
        let mut head = [0; 100];
        self.b.read_db(0, &mut head).map_err(handle)?;
        let packed = u32::from(u16::from_be_bytes([head[16], head[17]]));
        let mut page_size = if packed == 1 { 65536 } else { packed };
        let mut page_count = u32::try_from(size / u64::from(page_size.max(512))).unwrap_or(u32::MAX);
        let mut frames = Frames::new();
        if let Some((index, copied)) = &exact {
            if index.frames > 0 {
                page_size = index.page_size;
            }
            if index.page_count > 0 {
                page_count = index.page_count;
            }
            // All in the file: it stands still for us, while the log may be overwritten.
            if *copied < index.frames {
                let start = WalPosition { salts: index.salts, ..Default::default() };
                frames = scan(&self.b, index, start)?;
            }
        }
        if size == 0 && frames.is_empty() {
            (page_size, page_count) = (0, 0);
        } else if !page_size.is_power_of_two() || !(512..=65536).contains(&page_size) {
            return Err(LiveError::Gap("the file is no SQLite database"));
        }
        let mut reading = Reading {
            page_size,
            page_count,
            changes: Vec::new(),
            frames,
            position: exact.map(|(index, _)| index.position()),
            file: self.inode,
            replaces: true,
            compared: true,
            data_version,
        };
        reading.changes = self.differing(1..=page_count, &reading, map)?;
        Ok(reading)
    }

    fn differing(
        &self,
        pages: impl Iterator<Item = u32>,
        reading: &Reading,
        map: &PageMap,
    ) -> Result<Vec<(u32, Hash)>, LiveError> {
        let mut changes = Vec::new();
        let mut page = vec![0; reading.page_size as usize];
        for pgno in pages.filter(|pgno| *pgno <= reading.page_count) {
            read_page(&self.b, reading.page_size, (pgno, reading.frames.get(&pgno)), &mut page)?;
            let hash = page_hash(pgno, &page);
            if map.hash(pgno) != Some(hash) {
                changes.push((pgno, hash));
            }
        }
        Ok(changes)
    }

    /// The images of a reading's pages: as it found them, and as they were before.
    pub(crate) fn images<'a>(&'a self, reading: &'a Reading) -> impl Images + 'a {
        static NONE: std::sync::LazyLock<Frames> = std::sync::LazyLock::new(Frames::new);
        let old = if reading.replaces { &*NONE } else { &self.frames };
        LiveImages { handle: &self.b, page_size: reading.page_size, new: &reading.frames, old }
    }

    /// The images of all pages as of the last accepted reading.
    pub(crate) fn current(&self) -> Recorded<'_> {
        Recorded { from: &self.a, frames: &self.frames, page_size: self.page_size }
    }

    /// Takes a reading as the state from here on: its mark replaces the one before.
    pub(crate) fn accept(&mut self, reading: Reading) {
        fault::point("accept");
        if reading.position.is_some() {
            std::mem::swap(&mut self.a, &mut self.b);
        }
        self.b.end();
        if reading.position.is_none() {
            self.a.end();
        }
        if reading.replaces {
            self.frames = reading.frames;
        } else {
            self.frames.extend(reading.frames);
        }
        self.on_zero = false;
        self.position = reading.position;
        self.page_size = reading.page_size;
        self.data_version = reading.data_version;
    }

    /// Lets go of a reading that came to nothing; the mark before it is still held.
    pub(crate) fn reject(&mut self) {
        self.b.end();
    }

    /// Copies what was read from the log into the file; false if somebody else is at it.
    pub(crate) fn checkpoint(&self) -> Result<bool, LiveError> {
        self.copy().map(|progress| progress.is_some())
    }

    /// How many frames the log has, and how many of them are in the file now. By B, which has the log open; C may
    /// be the one that shuts out writers, and none can checkpoint in its transaction.
    fn copy(&self) -> Result<Option<(u32, u32)>, LiveError> {
        match self.b.checkpoint() {
            Ok(progress) => Ok(Some(progress)),
            Err(error) if error.is_busy() => Ok(None),
            Err(error) => Err(handle(error)),
        }
    }

    /// Copies all into the file, and moves to lock 0 if nobody wrote meanwhile: then the next commit can
    /// restart the log. Whether we are there.
    pub(crate) fn let_log_restart(&mut self) -> Result<bool, LiveError> {
        let Some(position) = self.position else { return Ok(false) };
        if self.on_zero {
            return Ok(true);
        }
        if self.copy()? != Some((position.frames, position.frames)) {
            return Ok(false);
        }
        self.b.begin().map_err(handle)?;
        if self.b.index().is_some_and(|(index, _)| index.position() == position) {
            std::mem::swap(&mut self.a, &mut self.b);
            fault::point("lock-zero");
            // All of it is in the file now, and the frames may be overwritten.
            self.frames.clear();
            self.on_zero = true;
        }
        self.b.end();
        Ok(self.on_zero)
    }

    /// Shuts out writers; false if somebody else does.
    pub(crate) fn shut_out_writers(&self) -> Result<bool, LiveError> {
        match self.c.begin_immediate() {
            Ok(()) => Ok(true),
            Err(error) if error.is_busy() => Ok(false),
            Err(error) => Err(handle(error)),
        }
    }

    /// Lets writers in again.
    pub(crate) fn let_writers_in(&self) {
        self.c.end();
    }

    /// Gives away the held mark with all that is needed to read the last accepted state; a mark of our own
    /// takes its place first. `None` for a database without a log, which holds none.
    pub(crate) fn freeze(&mut self) -> Result<Option<(Handle, Frames)>, LiveError> {
        if self.position.is_none() {
            return Ok(None);
        }
        let next = Handle::open(&self.path).map_err(handle)?;
        next.begin().map_err(handle)?;
        self.on_zero = false;
        Ok(Some((std::mem::replace(&mut self.a, next), self.frames.clone())))
    }

    /// Copies a database without a log, which must not have changed since the last reading; writers wait.
    pub(crate) fn copy_to(&mut self, to: &mut dyn io::Write, map: &PageMap) -> Result<(), LiveError> {
        self.b.begin().map_err(handle)?;
        let mut copy = || {
            let mut page = vec![0; self.page_size as usize];
            for pgno in 1..=map.count() {
                read_page(&self.b, self.page_size, (pgno, None), &mut page)?;
                to.write_all(&page).map_err(|source| LiveError::Path { path: self.path.clone(), source })?;
            }
            Ok(())
        };
        let copied = copy();
        self.b.end();
        copied
    }
}

/// Begins a transaction on exactly the state of the index that it returns; `None` without a log.
fn begin_exactly(on: &Handle) -> Result<Option<(Index, u32)>, LiveError> {
    on.begin().map_err(handle)?;
    for _ in 0..500 {
        if !has_log(on)? {
            return Ok(None);
        }
        let before = on.index();
        on.begin().map_err(handle)?;
        if let (Some((before, _)), Some((after, copied))) = (before, on.index())
            && before == after
            && has_log(on)?
        {
            return Ok(Some((after, copied)));
        }
        pause::<()>();
    }
    Err(LiveError::Unsettled)
}

fn has_log(on: &Handle) -> Result<bool, LiveError> {
    let mut head = [0; 20];
    on.read_db(0, &mut head).map_err(handle)?;
    Ok(&head[..15] == b"SQLite format 3" && head[18] == 2)
}

fn inode(path: &Path) -> Result<(u64, u64), LiveError> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok((metadata.dev(), metadata.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(LiveError::Missing(path.to_owned())),
        Err(source) => Err(LiveError::Path { path: path.to_owned(), source }),
    }
}

fn pause<T>() -> Option<T> {
    std::thread::sleep(Duration::from_micros(200));
    None
}
