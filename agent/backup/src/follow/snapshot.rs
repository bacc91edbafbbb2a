//! A full copy of one state, read under a mark of its own while the follower goes on.
//!
//! Its parts go straight to the store, not through the spool: a snapshot that is interrupted begins anew at
//! another position, so nothing of it need survive, and the disk holds no second copy of the database.

use std::{fs::File, os::unix::fs::FileExt, thread::ScopedJoinHandle};

use bytes::Bytes;

use super::{
    FollowError,
    handle::Handle,
    images::{Frames, Recorded},
    pack::{Making, Sealer},
    upload::Remote,
};
use crate::{
    chain::SNAPSHOT,
    pages::PageMap,
    segment::{Images, Meta},
};

/// Where a state on record can still be read.
pub(crate) enum Frozen {
    /// A held mark, and the frames that were read under it.
    Mark(Handle, Frames),
    /// A copy without a name; of a database without a log.
    Copy(File),
}

/// A state to be copied.
pub(crate) struct Snapshot {
    pub(crate) frozen: Frozen,
    pub(crate) map: PageMap,
    pub(crate) page_size: u32,
    pub(crate) sealer: Sealer,
    pub(crate) seq: u64,
    pub(crate) time_ms: u64,
    pub(crate) prev: [u8; 32],
}

/// A snapshot that is in the store.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Taken {
    pub(crate) seq: u64,
    pub(crate) time_ms: u64,
    pub(crate) hash: [u8; 32],
}

/// The thread that takes one; `None` when it was told to stop.
pub(crate) type Job<'scope> = ScopedJoinHandle<'scope, Result<Option<Taken>, FollowError>>;

struct Stopped;

impl Snapshot {
    /// Reads and uploads all of it.
    pub(crate) fn take(
        self,
        remote: &Remote,
        keep_on: &(dyn Fn() -> bool + Sync),
    ) -> Result<Option<Taken>, FollowError> {
        let changes = self.map.all();
        let making = Making {
            level: SNAPSHOT,
            from: 0,
            to: self.seq,
            time_ms: self.time_ms,
            prev: self.prev,
            meta: Meta {
                full: true,
                page_size: self.page_size,
                page_count: self.map.count(),
                base: 0,
                state: self.map.state(),
            },
            changes: &changes,
        };
        let mut images: Box<dyn Images + '_> = match &self.frozen {
            Frozen::Mark(from, frames) => Box::new(Recorded { from, frames, page_size: self.page_size }),
            Frozen::Copy(file) => Box::new(Copied { file, page_size: self.page_size }),
        };
        let chain = self.sealer.chain;
        let made = making.make::<Result<Stopped, FollowError>>(
            &self.sealer,
            &mut *images,
            &|_| None,
            &|name, object| {
                if !keep_on() {
                    return Err(Ok(Stopped));
                }
                match remote.put_new(&name.key(chain), &Bytes::from(object), keep_on) {
                    Ok(true) => Ok(()),
                    Ok(false) => Err(Ok(Stopped)),
                    Err(error) => Err(Err(error)),
                }
            },
        );
        match made {
            Ok(hash) => Ok(Some(Taken { seq: self.seq, time_ms: self.time_ms, hash })),
            Err(Ok(Stopped)) => Ok(None),
            Err(Err(error)) => Err(error),
        }
    }
}

impl From<super::pack::PackError> for Result<Stopped, FollowError> {
    fn from(error: super::pack::PackError) -> Self {
        Err(FollowError::Pack(error))
    }
}

struct Copied<'a> {
    file: &'a File,
    page_size: u32,
}

impl Images for Copied<'_> {
    fn new_image(&mut self, pgno: u32, page: &mut [u8]) -> bool {
        self.file.read_exact_at(page, u64::from(pgno - 1) * u64::from(self.page_size)).is_ok()
    }
}
