//! Writing files so that nobody ever reads half of one.

use std::{
    fs::{self, File, Permissions},
    io::Write,
    os::unix::fs::PermissionsExt,
    path::Path,
};

use crate::failures::{Result, on};

/// Puts `content` at `path` at once: a temporary file, fsync, rename, fsync of the folder.
pub(crate) fn atomic_write(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file =
        tempfile::Builder::new().prefix(".new-").tempfile_in(folder).map_err(on("write in", folder))?;
    file.write_all(content).map_err(on("write", path))?;
    file.as_file().set_permissions(Permissions::from_mode(mode)).map_err(on("write", path))?;
    file.as_file().sync_all().map_err(on("write", path))?;
    file.persist(path).map_err(|error| crate::failures::io("write", path, &error.error))?;
    sync_folder(folder)
}

/// Makes the names in `folder` durable.
pub(crate) fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(on("sync", folder))
}

/// Makes a folder and those above it, readable by all as Salt's master needs it.
pub(crate) fn public_folder(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        public_folder(parent)?;
    }
    match fs::create_dir(path) {
        Ok(()) => fs::set_permissions(path, Permissions::from_mode(0o755)).map_err(on("open up", path)),
        // Another publisher was quicker.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(crate::failures::io("create", path, &error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_with_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        atomic_write(&path, b"one", 0o600).unwrap();
        atomic_write(&path, b"two", 0o644).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
