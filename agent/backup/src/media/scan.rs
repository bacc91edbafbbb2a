//! Looking through a folder that belongs to somebody else.
//!
//! Everything is opened beneath the topmost folder, and no link is followed, not even one that takes the
//! place of a folder between two looks.

use std::{
    fs::File,
    os::fd::{AsFd, OwnedFd},
    os::unix::ffi::OsStrExt as _,
    path::Path,
};

use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags},
    io::Errno,
};

use super::{MediaError, list};

/// What a look at a file shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Look {
    pub(super) mode: u32,
    pub(super) size: u64,
    pub(super) mtime_ns: i64,
    pub(super) ctime_ns: i64,
    pub(super) inode: u64,
}

/// What is in the folder.
#[derive(Debug, Default)]
pub(super) struct Scan {
    pub(super) folders: Vec<list::Folder>,
    pub(super) files: Vec<(Vec<u8>, Look)>,
    pub(super) links: Vec<list::Link>,
    /// Paths that cannot be read, with the reason.
    pub(super) unreadable: Vec<(String, String)>,
    /// Sockets, pipes and devices.
    pub(super) skipped: Vec<String>,
}

/// Opens the topmost folder. Its own path may have links in it: it is its owner's.
pub(super) fn open_top(path: &Path) -> Result<OwnedFd, MediaError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
        .map_err(|error| MediaError::local("open", path)(error.into()))
}

/// Opens what is at `path` beneath `top`, without following any link and without waiting for a pipe's writer.
pub(super) fn open_beneath(top: impl AsFd, path: &[u8], flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    rustix::fs::openat2(top, path, flags, mode, resolve)
}

/// Opens a regular file to read it.
pub(super) fn open_file(top: impl AsFd, path: &[u8]) -> Result<(File, Look), Errno> {
    let fd = open_beneath(top, path, OFlags::RDONLY, Mode::empty())?;
    let stat = rustix::fs::fstat(&fd)?;
    // Something else took its name since the scan.
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Errno::NOENT);
    }
    Ok((File::from(fd), look(&stat)))
}

pub(super) fn look(stat: &rustix::fs::Stat) -> Look {
    let nanoseconds = |seconds: i64, rest: i64| seconds.saturating_mul(1_000_000_000).saturating_add(rest);
    Look {
        mode: stat.st_mode & 0o777,
        size: u64::try_from(stat.st_size).unwrap_or(0),
        mtime_ns: nanoseconds(stat.st_mtime, stat.st_mtime_nsec as i64),
        ctime_ns: nanoseconds(stat.st_ctime, stat.st_ctime_nsec as i64),
        inode: stat.st_ino,
    }
}

/// Looks through everything beneath `top`, in the order of the names.
pub(super) fn scan(top: &OwnedFd) -> Scan {
    let mut scan = Scan::default();
    let mut pending: Vec<Vec<u8>> = vec![Vec::new()];
    while let Some(folder) = pending.pop() {
        let here: &[u8] = if folder.is_empty() { b"." } else { &folder };
        let opened = open_beneath(top, here, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty());
        let names = opened.and_then(|fd| Ok((names(&fd)?, fd)));
        let (names, fd) = match names {
            Ok(found) => found,
            Err(error) => {
                scan.unreadable.push((list::encode_path(here), std::io::Error::from(error).to_string()));
                continue;
            }
        };
        for name in names {
            let path = if folder.is_empty() { name.clone() } else { [&folder[..], b"/", &name].concat() };
            if let Some(below) = scan.add(&fd, &name, path) {
                pending.push(below);
            }
        }
    }
    scan.folders.sort_by(|a, b| a.path.cmp(&b.path));
    scan.files.sort_by(|a, b| a.0.cmp(&b.0));
    scan
}

fn names(folder: &OwnedFd) -> Result<Vec<Vec<u8>>, Errno> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(name);
        }
    }
    Ok(names)
}

impl Scan {
    /// Adds one entry; returns its path if it is a folder to look through.
    fn add(&mut self, folder: &OwnedFd, name: &[u8], path: Vec<u8>) -> Option<Vec<u8>> {
        let stat = match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            // It went while we looked.
            Err(_) => return None,
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                self.folders
                    .push(list::Folder { path: list::encode_path(&path), mode: stat.st_mode & 0o777 });
                return Some(path);
            }
            FileType::RegularFile => self.files.push((path, look(&stat))),
            FileType::Symlink => {
                if let Ok(target) = rustix::fs::readlinkat(folder, name, Vec::new()) {
                    let target = list::encode_path(target.as_bytes());
                    self.links.push(list::Link { path: list::encode_path(&path), target });
                }
            }
            _ => self.skipped.push(list::encode_path(&path)),
        }
        None
    }
}

/// A path as people and errors see it.
pub(super) fn shown(path: &[u8]) -> std::path::PathBuf {
    Path::new(std::ffi::OsStr::from_bytes(path)).to_owned()
}
