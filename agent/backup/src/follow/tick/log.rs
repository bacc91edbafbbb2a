//! The app's log stays short: what was read goes into the file, and then the log begins anew.

use std::time::{Duration, Instant};

use super::Follower;
use crate::follow::FollowError;

/// Frames after which what was read goes into the file.
const COPY_AFTER: u32 = 500;
/// Frames beyond which the log should restart.
const RESTART_AFTER: u32 = 1000;
/// Bytes of the log beyond which writers are shut out for a moment to let it: a log that grows costs an app that
/// syncs each commit a third of its pace, as the file system has to note its new length.
const SHUT_OUT_AFTER: u64 = 8 << 20;
/// Frames that may be left to copy then.
const SHUT_OUT_BELOW: u32 = 2000;
/// For so long at most do we try to get there.
const COPY_AT_MOST: Duration = Duration::from_millis(100);
/// And shut out writers for so long at most, once all is read.
const SHUT_OUT_AT_MOST: Duration = Duration::from_millis(50);
/// Between two times that writers are shut out in vain.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

impl Follower<'_, '_, '_> {
    /// Lets the log be copied into the file, and restart, before it grows long.
    pub(super) fn bound_the_log(&mut self) -> Result<(), FollowError> {
        let Some(live) = &mut self.live else { return Ok(()) };
        let frames = live.log_frames();
        if frames < self.copied {
            self.copied = 0;
        }
        if frames >= self.copied + COPY_AFTER {
            self.copied = frames;
            live.checkpoint().map_err(FollowError::Live)?;
        }
        let (now, written) = (Instant::now(), live.written_bytes());
        let full = self.control.status().spool_bytes >= self.config.spool_limit;
        let long = written >= SHUT_OUT_AFTER && now >= self.shut_out_at && !full;
        if self.job.is_some() || !long && (frames < RESTART_AFTER || now < self.restart_at) {
            return Ok(());
        }
        self.restart_at = now + Duration::from_millis(100);
        if live.let_log_restart().map_err(FollowError::Live)? {
            self.shut_out_pause = Duration::ZERO;
            return Ok(());
        }
        if long { self.restart_without_writers() } else { Ok(()) }
    }

    fn restart_without_writers(&mut self) -> Result<(), FollowError> {
        let mut began = Instant::now();
        let mut restarted = false;
        match self.copy_most()? {
            Some(true) => {
                let Some(live) = &self.live else { return Ok(()) };
                if !live.shut_out_writers().map_err(FollowError::Live)? {
                    return Ok(());
                }
                began = Instant::now();
                let done = self.restart();
                if let Some(live) = &self.live {
                    live.let_writers_in();
                }
                restarted = done?;
            }
            Some(false) => {}
            None => return Ok(()),
        }
        // Writers wait for a twentieth of the time at most, and in vain only if a reader keeps the log.
        let longer = (self.shut_out_pause * 2).clamp(Duration::from_secs(1), LONGEST_PAUSE);
        self.shut_out_pause = if restarted { self.config.rpo / 4 } else { longer };
        self.shut_out_at = Instant::now() + self.shut_out_pause.max(began.elapsed() * 20);
        Ok(())
    }

    /// Reads and copies with writers about, so that little is left. `Some(false)`: somebody's mark keeps the log as
    /// it is; `None`: they write too fast just now.
    fn copy_most(&mut self) -> Result<Option<bool>, FollowError> {
        let until = Instant::now() + COPY_AT_MOST;
        while let Some(live) = &self.live
            && Instant::now() < until
        {
            let copied = live.checkpoint().map_err(FollowError::Live)?;
            match live.uncopied_frames() {
                (all, _) if all < SHUT_OUT_BELOW => return Ok(Some(true)),
                _ if !copied => std::thread::sleep(Duration::from_millis(1)), // somebody else is at it
                (_, ours) if ours < SHUT_OUT_BELOW => self.read()?,
                _ => return Ok(Some(false)),
            }
        }
        Ok(None)
    }

    /// Reads and copies what is left while writers are shut out; whether the log can restart then.
    fn restart(&mut self) -> Result<bool, FollowError> {
        self.read()?;
        let until = Instant::now() + SHUT_OUT_AT_MOST;
        while let Some(live) = &mut self.live
            && Instant::now() < until
        {
            if live.let_log_restart().map_err(FollowError::Live)? {
                return Ok(true);
            }
            // An app's own checkpoint is still under way.
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(false)
    }
}
