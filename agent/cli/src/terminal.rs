//! A terminal of the command's own, joined to the one that the user sits at.
//!
//! The command gets the far end of a fresh pair, never the user's own terminal: an app could type into that. While
//! the pair lives the user's terminal is raw, so that every key goes to the command; it is put back at the end.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    pty::{Winsize, openpty},
    sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr},
};

/// How often is looked whether the user's terminal has another size, in milliseconds.
const LOOK: u8 = 100;
/// How long the last output may take.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// The pair, and the user's terminal as it was.
pub(crate) struct Terminal {
    before: Option<Termios>,
    output: Option<JoinHandle<()>>,
}

impl Terminal {
    /// Joins them; gives the end that the command gets.
    pub(crate) fn open() -> io::Result<(Self, OwnedFd)> {
        let size = size();
        let pair = openpty(size.as_ref(), None)?;
        let before = tcgetattr(io::stdin()).ok();
        if let Some(before) = &before {
            let mut raw = before.clone();
            cfmakeraw(&mut raw);
            tcsetattr(io::stdin(), SetArg::TCSADRAIN, &raw)?;
        }
        let (keys, screen) = (File::from(pair.master.try_clone()?), File::from(pair.master));
        // Not Rust's own, which reads ahead.
        let typed = File::from(io::stdin().as_fd().try_clone_to_owned()?);
        // It ends with the program: nobody waits for a key that was not pressed.
        std::thread::spawn(move || type_in(typed, keys, size));
        let output = std::thread::spawn(move || show(screen));
        Ok((Self { before, output: Some(output) }, pair.slave))
    }

    /// Shows what the command said last, and puts the user's terminal back.
    pub(crate) fn close(mut self) {
        if let Some(output) = self.output.take() {
            let deadline = Instant::now() + LAST_WORDS;
            while !output.is_finished() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = tcsetattr(io::stdin(), SetArg::TCSADRAIN, before);
        }
    }
}

/// Passes keys on, and the size of the window.
fn type_in(mut from: File, mut to: File, mut size: Option<Winsize>) {
    let mut keys = [0; 4096];
    loop {
        let mut waiting = [PollFd::new(from.as_fd(), PollFlags::POLLIN)];
        let ready = poll(&mut waiting, PollTimeout::from(LOOK));
        let now = self::size();
        let shape = |size: &Winsize| (size.ws_row, size.ws_col);
        if let Some(now) = now.filter(|now| Some(shape(now)) != size.as_ref().map(shape)) {
            // SAFETY: reads one struct of the size that the call knows.
            unsafe { libc::ioctl(to.as_raw_fd(), libc::TIOCSWINSZ, &raw const now) };
            size = Some(now);
        }
        if !ready.is_ok_and(|ready| ready > 0) {
            continue;
        }
        match from.read(&mut keys) {
            // The end of what was piped in is a Ctrl-D on a terminal.
            Ok(0) => return drop(to.write_all(&[4])),
            Ok(n) if to.write_all(&keys[..n]).is_ok() => {}
            _ => return,
        }
    }
}

/// Shows what comes, until the command and all that it started have let go of their end.
fn show(mut from: File) {
    let (mut to, mut bytes) = (io::stdout(), [0; 16 << 10]);
    while let Ok(n @ 1..) = from.read(&mut bytes) {
        if to.write_all(&bytes[..n]).and_then(|()| to.flush()).is_err() {
            return;
        }
    }
}

/// The size of the user's window.
fn size() -> Option<Winsize> {
    let mut size = Winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: fills one struct of the size that the call knows.
    let asked = unsafe { libc::ioctl(io::stdin().as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    (asked == 0 && size.ws_row > 0).then_some(size)
}
