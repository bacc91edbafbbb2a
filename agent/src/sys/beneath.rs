//! Opening, making and removing files where somebody else may swap a folder for a link at any moment.
//!
//! An app's folders belong to its user. The agent, as root, must not be led out of them: no link is followed
//! below a root that was named, and each step is taken from the descriptor of the last. `openat2` does that in
//! one call; where a seccomp filter hides it (systemd's RestrictSUIDSGID does) the same walk goes step by step.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStringExt,
    },
    path::{Component, Path, PathBuf},
};

use rustix::fs::{self, AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Uid};

/// How many folders may nest in a tree that is removed, each costing a descriptor.
const DEEPEST: usize = 256;

/// How many links of root's own may stand on the way to a folder.
const MOST_LINKS: usize = 20;

/// A path that was not opened, made or removed.
#[derive(Debug, thiserror::Error)]
pub enum BeneathError {
    /// The system refused.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was attempted.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A link, a fifo, a device or a way up stands where a file or folder was expected.
    #[error("{} is {found}; a link or special file is not followed here", path.display())]
    Strange {
        /// The path.
        path: PathBuf,
        /// What it is instead.
        found: &'static str,
    },
}

impl BeneathError {
    /// Whether nothing is there.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

fn failed(what: &'static str, path: &Path, error: rustix::io::Errno) -> BeneathError {
    if matches!(error, rustix::io::Errno::LOOP | rustix::io::Errno::XDEV) {
        return strange(path, "a link");
    }
    BeneathError::Io { what, path: path.to_owned(), source: error.into() }
}

fn strange(path: &Path, found: &'static str) -> BeneathError {
    BeneathError::Strange { path: path.to_owned(), found }
}

/// Opens the regular file `relative` below `root` for reading. Never waits, whatever lies there.
///
/// # Errors
/// When it is missing, or a link stands anywhere below `root`, or it is no regular file.
pub fn open_read(root: &Path, relative: &Path) -> Result<File, BeneathError> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    open(root, relative, flags, FileType::RegularFile).map(File::from)
}

/// Opens the socket `relative` below `root` as a mere name, to connect to by its descriptor.
///
/// # Errors
/// When it is missing, or a link stands anywhere below `root`, or it is no socket.
pub fn open_socket(root: &Path, relative: &Path) -> Result<OwnedFd, BeneathError> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    open(root, relative, flags, FileType::Socket)
}

fn open(root: &Path, relative: &Path, flags: OFlags, kind: FileType) -> Result<OwnedFd, BeneathError> {
    let shown = root.join(relative);
    if relative.as_os_str().is_empty() || !relative.components().all(|c| matches!(c, Component::Normal(_))) {
        return Err(strange(&shown, "no plain path below its folder"));
    }
    let folder = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = fs::openat(CWD, root, folder, Mode::empty()).map_err(|e| failed("open", root, e))?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let file = match fs::openat2(&root, relative, flags, Mode::empty(), resolve) {
        Err(rustix::io::Errno::NOSYS | rustix::io::Errno::PERM) => step_by_step(root, relative, flags),
        opened => opened,
    }
    .map_err(|error| failed("open", &shown, error))?;
    let stat = fs::fstat(&file).map_err(|error| failed("look at", &shown, error))?;
    if FileType::from_raw_mode(stat.st_mode) == kind {
        return Ok(file);
    }
    Err(strange(&shown, if kind == FileType::Socket { "no socket" } else { "no regular file" }))
}

fn step_by_step(root: OwnedFd, relative: &Path, last: OFlags) -> rustix::io::Result<OwnedFd> {
    let mut at = root;
    let mut components = relative.components().peekable();
    while let Some(component) = components.next() {
        let flags = if components.peek().is_some() {
            OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
        } else {
            last
        };
        at = fs::openat(&at, component.as_os_str(), flags, Mode::empty())?;
    }
    Ok(at)
}

/// Makes `path` a folder with `mode`, owned by `owner` when given; missing parents are made as 0755.
///
/// # Errors
/// When something else has its name, or a link that is neither root's nor ours stands on the way.
pub fn ensure_dir(path: &Path, mode: u32, owner: Option<(u32, u32)>) -> Result<(), BeneathError> {
    let folder = walk(path, true)?;
    let readable = fs::openat(&folder, ".", OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| failed("open", path, error))?;
    if let Some((uid, gid)) = owner {
        fs::fchown(&readable, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
            .map_err(|error| failed("change the owner of", path, error))?;
    }
    fs::fchmod(&readable, Mode::from_raw_mode(mode))
        .map_err(|error| failed("change the mode of", path, error))
}

/// Removes `path` and all below it; a link is removed, never followed. A path that is not there is no error.
///
/// # Errors
/// When something cannot be removed, or folders nest more than 256 deep.
pub fn remove_tree(path: &Path) -> Result<(), BeneathError> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(strange(path, "no path with a name"));
    };
    let parent = match walk(parent, false) {
        Ok(parent) => parent,
        Err(error) if error.is_missing() => return Ok(()),
        Err(error) => return Err(error),
    };
    remove(&parent, name, path, 0)
}

fn remove(
    parent: &impl AsFd,
    name: impl rustix::path::Arg + Copy,
    shown: &Path,
    depth: usize,
) -> Result<(), BeneathError> {
    use rustix::io::Errno;
    match fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(failed("remove", shown, error)),
    }
    if depth > DEEPEST {
        return Err(strange(shown, "nested too deep to remove"));
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder =
        fs::openat(parent, name, flags, Mode::empty()).map_err(|error| failed("remove", shown, error))?;
    for entry in Dir::read_from(&folder).map_err(|error| failed("list", shown, error))? {
        let entry = entry.map_err(|error| failed("list", shown, error))?;
        let name = entry.file_name();
        if !matches!(name.to_bytes(), b"." | b"..") {
            remove(&folder, name, shown, depth + 1)?;
        }
    }
    match fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(failed("remove", shown, error)),
    }
}

/// The folder `path`, every component looked at. Links that root or we made (`/var/run`) are followed: an
/// app's user can make none of those.
fn walk(path: &Path, make: bool) -> Result<OwnedFd, BeneathError> {
    let path = std::path::absolute(path).map_err(|source| BeneathError::Io {
        what: "find",
        path: path.to_owned(),
        source,
    })?;
    let open = |at: &OwnedFd, name: &Path| {
        fs::openat(at, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
    };
    let root = || {
        fs::openat(CWD, "/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| failed("open", Path::new("/"), error))
    };
    let mut at = root()?;
    let mut left: Vec<PathBuf> = path.components().rev().map(|c| PathBuf::from(c.as_os_str())).collect();
    let mut links = 0;
    while let Some(name) = left.pop() {
        if name == Path::new("/") {
            at = root()?;
            continue;
        }
        let next = match open(&at, &name) {
            Err(rustix::io::Errno::NOENT) if make => {
                match fs::mkdirat(&at, &name, Mode::from_raw_mode(0o755)) {
                    Ok(()) | Err(rustix::io::Errno::EXIST) => open(&at, &name),
                    Err(error) => Err(error),
                }
            }
            opened => opened,
        }
        .map_err(|error| failed("open", &path, error))?;
        let stat = fs::fstat(&next).map_err(|error| failed("look at", &path, error))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => at = next,
            FileType::Symlink if stat.st_uid == 0 || stat.st_uid == rustix::process::geteuid().as_raw() => {
                links += 1;
                if links > MOST_LINKS {
                    return Err(strange(&path, "behind too many links"));
                }
                let target = fs::readlinkat(&next, "", Vec::new()).map_err(|e| failed("read", &path, e))?;
                let target = PathBuf::from(std::ffi::OsString::from_vec(target.into_bytes()));
                left.extend(target.components().rev().map(|c| PathBuf::from(c.as_os_str())));
            }
            FileType::Symlink => return Err(strange(&path, "behind a link of somebody else")),
            _ => return Err(strange(&path, "no folder")),
        }
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use std::{io::Read, os::unix::fs::symlink};

    use super::*;

    fn put(path: &Path, text: &str) {
        crate::sys::atomic_write::write(path, text.as_bytes(), 0o644, None).unwrap();
    }

    #[test]
    fn only_plain_files_below_are_opened() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        std::fs::create_dir_all(root.join("sub")).unwrap();
        put(&folder.path().join("secret"), "s");
        put(&root.join("sub/file"), "hello");
        symlink("../secret", root.join("out")).unwrap();
        symlink("sub", root.join("inside")).unwrap();
        rustix::fs::mknodat(CWD, root.join("fifo"), FileType::Fifo, Mode::from_raw_mode(0o644), 0).unwrap();

        let mut text = String::new();
        open_read(&root, Path::new("sub/file")).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
        for hostile in
            ["out", "inside/file", "../secret", "sub/../../secret", "/etc/passwd", "fifo", "sub", ""]
        {
            assert!(
                matches!(open_read(&root, Path::new(hostile)), Err(BeneathError::Strange { .. })),
                "{hostile}"
            );
        }
        assert!(open_read(&root, Path::new("none")).unwrap_err().is_missing());
    }

    #[test]
    fn the_walk_without_openat2_refuses_the_same() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("sub")).unwrap();
        put(&folder.path().join("sub/file"), "hello");
        symlink("sub", folder.path().join("inside")).unwrap();
        symlink("file", folder.path().join("sub/link")).unwrap();
        let open = |relative: &str| {
            let root =
                fs::openat(CWD, folder.path(), OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
            step_by_step(root, Path::new(relative), OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC)
        };
        assert!(open("sub/file").is_ok());
        assert!(open("inside/file").is_err());
        assert!(open("sub/link").is_err());
    }

    #[test]
    fn a_tree_goes_and_what_its_links_name_stays() {
        let folder = tempfile::tempdir().unwrap();
        let keep = folder.path().join("keep");
        std::fs::create_dir(&keep).unwrap();
        put(&keep.join("file"), "x");
        let tree = folder.path().join("tree");
        std::fs::create_dir_all(tree.join("a/b/c")).unwrap();
        put(&tree.join("a/file"), "x");
        symlink(&keep, tree.join("a/link")).unwrap();
        remove_tree(&tree).unwrap();
        assert!(!tree.exists());
        assert!(keep.join("file").exists());
        let link = folder.path().join("link");
        symlink(&keep, &link).unwrap();
        remove_tree(&link).unwrap();
        assert!(keep.join("file").exists() && !link.is_symlink());
        remove_tree(&tree).unwrap();
        remove_tree(&tree.join("deeper/still")).unwrap();
    }

    #[test]
    fn a_folder_is_made_and_given_its_mode() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        for mode in [0o750, 0o2755] {
            ensure_dir(&path, mode, None).unwrap();
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, mode);
        }
        put(&folder.path().join("file"), "x");
        assert!(matches!(
            ensure_dir(&folder.path().join("file"), 0o755, None),
            Err(BeneathError::Strange { .. })
        ));
    }
}
