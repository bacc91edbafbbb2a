//! The files of the state: each written whole, durable, and for its owner only.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::{fd::AsFd, unix::fs::OpenOptionsExt},
    path::Path,
};

use ed25519_dalek::SigningKey;
use zeroize::Zeroizing;

use super::StateError;
use crate::hex;

/// The host's signing key in `path`, made at first use.
///
/// # Errors
/// When it cannot be read or made.
pub fn signing_key(path: &Path) -> Result<SigningKey, StateError> {
    match fs::read(path) {
        Ok(bytes) => {
            let seed = Zeroizing::new(bytes);
            let seed: [u8; 32] = seed.as_slice().try_into().map_err(|_| StateError::Broken {
                path: path.to_owned(),
                what: "a signing key has 32 bytes",
            })?;
            Ok(SigningKey::from_bytes(&seed))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(dir) = path.parent() {
                make_dir(dir)?;
            }
            let seed: Zeroizing<[u8; 32]> = Zeroizing::new(rand::random());
            // Linked into place whole: two that start at once end with one key.
            let temporary = path.with_extension(hex::encode(&rand::random::<[u8; 8]>()));
            write_new(&temporary, seed.as_slice())?;
            let linked = fs::hard_link(&temporary, path);
            let _ = fs::remove_file(&temporary);
            match linked {
                Ok(()) => path.parent().map_or(Ok(()), sync_dir)?,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(source) => return Err(file("making", path, source)),
            }
            signing_key(path)
        }
        Err(source) => Err(file("reading", path, source)),
    }
}

pub(super) fn lock(path: &Path) -> Result<nix::fcntl::Flock<File>, StateError> {
    let opened = File::options().create(true).truncate(false).write(true).mode(0o600).open(path);
    let opened = opened.map_err(|source| file("opening", path, source))?;
    nix::fcntl::Flock::lock(opened, nix::fcntl::FlockArg::LockExclusiveNonblock)
        .map_err(|_| StateError::Locked { path: path.to_owned() })
}

pub(super) fn make_dir(dir: &Path) -> Result<(), StateError> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|source| file("making the folder", dir, source))
}

pub(super) fn write_new(path: &Path, bytes: &[u8]) -> Result<(), StateError> {
    let write = || {
        let mut new = File::options().create_new(true).write(true).mode(0o600).open(path)?;
        new.write_all(bytes)?;
        new.sync_all()
    };
    write().map_err(|source| {
        let _ = fs::remove_file(path);
        file("writing", path, source)
    })
}

pub(super) fn sync_dir(dir: &Path) -> Result<(), StateError> {
    let sync = || rustix::fs::fsync(File::open(dir)?.as_fd()).map_err(io::Error::from);
    sync().map_err(|source| file("syncing the folder", dir, source))
}

pub(super) fn file(what: &'static str, path: &Path, source: io::Error) -> StateError {
    StateError::File { what, path: path.to_owned(), source }
}
