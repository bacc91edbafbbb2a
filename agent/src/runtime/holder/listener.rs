//! The socket that nginx passes an app's requests to.

use std::{
    fs,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::fs::{MetadataExt, PermissionsExt, chown},
    },
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use nix::{
    fcntl::OFlag,
    sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket},
    unistd::dup3,
};

use super::{HoldError, failed};
use crate::sys::exec::LISTENER;

/// So many connections wait while no worker accepts; the kernel may allow fewer.
pub(crate) const BACKLOG: i32 = 1024;

/// The listener, first under a name of its own, then under the one that nginx knows.
pub(super) struct Listener {
    fd: OwnedFd,
    inode: u64,
    unpublished: PathBuf,
    name: PathBuf,
    published: AtomicBool,
}

impl Listener {
    pub(super) fn bind(run: &Path, owner: Option<(u32, u32)>) -> Result<Self, HoldError> {
        let (name, unpublished) = (run.join("app.sock"), run.join("app.sock.new"));
        let fd = bound(&unpublished, 0o660, owner, BACKLOG)?;
        let inode = fs::symlink_metadata(&unpublished).map_err(failed("look at", &unpublished))?.ino();
        Ok(Self {
            fd: as_descriptor_three(fd, &unpublished)?,
            inode,
            unpublished,
            name,
            published: AtomicBool::new(false),
        })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Gives the listener its name in one step: each connection reaches the old listener or this one.
    pub(super) fn publish(&self) -> Result<(), HoldError> {
        if !self.is_published() {
            fs::rename(&self.unpublished, &self.name).map_err(failed("rename a socket to", &self.name))?;
            self.published.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    pub(super) fn is_published(&self) -> bool {
        self.published.load(Ordering::Relaxed)
    }

    /// Removes the names, unless a successor has them by now.
    pub(super) fn remove(&self) {
        for path in [&self.unpublished, &self.name] {
            if fs::symlink_metadata(path).is_ok_and(|metadata| metadata.ino() == self.inode) {
                let _ = fs::remove_file(path);
            }
        }
    }
}

/// A UNIX socket that listens at `path`; one that was left there is replaced.
pub(crate) fn bound(
    path: &Path,
    mode: u32,
    owner: Option<(u32, u32)>,
    backlog: i32,
) -> Result<OwnedFd, HoldError> {
    let fail = |error: nix::Error| failed("listen at", path)(error.into());
    let _ = fs::remove_file(path);
    let fd = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).map_err(fail)?;
    bind(fd.as_raw_fd(), &UnixAddr::new(path).map_err(fail)?).map_err(fail)?;
    // Its owner and mode are right before anybody can connect: until `listen` nobody can.
    if let Some((uid, gid)) = owner {
        chown(path, Some(uid), Some(gid)).map_err(failed("change the owner of", path))?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(failed("change the mode of", path))?;
    listen(&fd, Backlog::new(backlog).map_err(fail)?).map_err(fail)?;
    Ok(fd)
}

/// Children find it as number 3; with the same number here nothing else can be in its place.
fn as_descriptor_three(fd: OwnedFd, path: &Path) -> Result<OwnedFd, HoldError> {
    if fd.as_raw_fd() == LISTENER {
        return Ok(fd);
    }
    if fs::symlink_metadata(format!("/proc/self/fd/{LISTENER}")).is_ok() {
        return Err(failed("make descriptor 3 of", path)(std::io::Error::other("it is taken")));
    }
    // SAFETY: number 3 is free, as was just seen, and becomes ours alone.
    let mut three = unsafe { OwnedFd::from_raw_fd(LISTENER) };
    match dup3(&fd, &mut three, OFlag::O_CLOEXEC) {
        Ok(()) => Ok(three),
        Err(error) => {
            std::mem::forget(three);
            Err(failed("make descriptor 3 of", path)(error.into()))
        }
    }
}
