//! Going on where an earlier follower stood, without comparing all pages; and, later and little by little, the
//! proof that this was right.

use super::{Live, LiveError, Reading, begin_exactly, scan};
use crate::{
    follow::wal::{Index, WalPosition},
    pages::{PageMap, page_hash},
    segment::Images,
    state::LogEnd,
};

impl Live {
    /// Goes on from where an earlier follower stood, if the log proves that nothing of that can have changed: the
    /// same file, the same generation of the log, and every frame up to there still what it was. `None`: the
    /// pages must be compared.
    ///
    /// Whatever was committed meanwhile is behind those frames, as long as nobody wrote to the file past SQLite;
    /// that is what [`Self::differs`] looks for afterwards.
    pub(crate) fn resume(
        &mut self,
        end: LogEnd,
        page_size: u32,
        map: &PageMap,
    ) -> Result<Option<Reading>, LiveError> {
        self.try_resume(end, page_size, map).inspect_err(|_| self.b.end()).or_else(|error| match error {
            LiveError::Gap(why) => {
                tracing::info!(why, "NotResumed");
                Ok(None)
            }
            error => Err(error),
        })
    }

    fn try_resume(
        &mut self,
        end: LogEnd,
        page_size: u32,
        map: &PageMap,
    ) -> Result<Option<Reading>, LiveError> {
        if end.file != self.inode {
            return Err(LiveError::Gap("another file"));
        }
        let (index, _) = begin_exactly(&self.b)?.ok_or(LiveError::Gap("no log"))?;
        if index.salts != end.at.salts || index.page_size != page_size {
            return Err(LiveError::Gap("another log"));
        }
        if end.at.frames == 0 || end.at.frames > index.frames {
            return Err(LiveError::Gap("a shorter log"));
        }
        let then = Index { frames: end.at.frames, cksum: end.at.cksum, page_count: map.count(), ..index };
        self.frames = scan(&self.b, &then, WalPosition { salts: end.at.salts, ..Default::default() })?;
        self.page_size = page_size;
        self.read_frames(end.at, map).map(Some)
    }

    /// Whether one of `count` pages from `first` on is another than the record says, beneath the held mark: then
    /// somebody wrote to the file past SQLite.
    pub(crate) fn differs(&self, first: u32, count: u32, map: &PageMap) -> Result<bool, LiveError> {
        let mut page = vec![0; self.page_size as usize];
        let mut images = self.current();
        for pgno in first..first.saturating_add(count).min(map.count() + 1) {
            let same = |page: &[u8]| map.hash(pgno) == Some(page_hash(pgno, page));
            let found = images.new_image(pgno, &mut page) && same(&page)
                || images.elsewhere(pgno, &mut page) && same(&page);
            if !found {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
