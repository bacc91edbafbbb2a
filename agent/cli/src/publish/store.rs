//! The package store: `<store>/<app>/<release>/{manifest.json,wheels/}` and `<store>/<app>/tags.json`.
//!
//! A release appears whole (a folder renamed into place), `tags.json` after it and at once. Two publishers of
//! an app take turns. All of it is readable by everyone: a Salt master serves it.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use flipside_api::{AppName, Code, Failure, Package, ReleaseId, Tag};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use super::{package, wheel::Wheel};
use crate::{
    failures::{Result, io, on, usage},
    files,
};

/// A package store.
#[derive(Debug)]
pub(crate) struct Store {
    root: PathBuf,
}

/// `tags.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Tags {
    v: u32,
    tags: BTreeMap<Tag, ReleaseId>,
}

impl Store {
    /// The store in this folder.
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The release that a tag points at.
    pub(crate) fn tagged(&self, app: &AppName, tag: &Tag) -> Result<Package> {
        let tags = self.tags(app)?;
        match tags.get(tag) {
            Some(release) => self.release(app, release),
            None if tags.is_empty() => {
                Err(not_found(format!("{} holds nothing of {app}", self.root.display()))
                    .hint("publish it first: flipside publish DIR --store STORE"))
            }
            None => {
                let known: Vec<&str> = tags.keys().map(Tag::as_str).collect();
                Err(not_found(format!("{app} has no tag {tag}"))
                    .hint(format!("its tags are: {}", known.join(", "))))
            }
        }
    }

    /// A release, its manifest checked against its id.
    pub(crate) fn release(&self, app: &AppName, release: &ReleaseId) -> Result<Package> {
        let dir = self.root.join(app.as_str()).join(release.as_str());
        let path = dir.join("manifest.json");
        let manifest = match fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(not_found(format!(
                    "{} holds no release {release} of {app}",
                    self.root.display()
                )));
            }
            manifest => manifest.map_err(on("read", &path))?,
        };
        match ReleaseId::of(release.version(), &manifest) {
            Ok(id) if id == *release => {
                Ok(Package { release: release.clone(), dir: dir.display().to_string() })
            }
            _ => Err(package(format!(
                "{} is not the manifest that {release} was published with",
                path.display()
            ))
            .hint("publish it again")),
        }
    }

    /// Puts a release into the store and the tags on it; says whether it is new.
    pub(crate) fn place(
        &self,
        app: &AppName,
        release: &ReleaseId,
        manifest: &[u8],
        wheels: &[Wheel],
        tags: &[Tag],
    ) -> Result<bool> {
        let folder = self.root.join(app.as_str());
        files::public_folder(&folder)?;
        let _turn = turn(&folder)?;
        sweep(&folder)?;
        let place = folder.join(release.as_str());
        let new = !place.exists();
        if new {
            let aside = tempfile::Builder::new()
                .prefix(".new-")
                .tempdir_in(&folder)
                .map_err(on("write in", &folder))?;
            fill(aside.path(), manifest, wheels)?;
            fs::rename(aside.path(), &place).map_err(on("write", &place))?;
            // It is no longer where its guard would remove it.
            let _ = aside.keep();
            files::sync_folder(&folder)?;
        } else {
            mend(&place, manifest, wheels)?;
        }
        let mut all = self.tags(app)?;
        let before = all.clone();
        all.extend(tags.iter().map(|tag| (tag.clone(), release.clone())));
        if all != before {
            let text = serde_json::to_string_pretty(&Tags { v: 1, tags: all })
                .map_err(|error| package(format!("tags.json cannot be written: {error}")))?;
            files::atomic_write(&folder.join("tags.json"), (text + "\n").as_bytes(), 0o644)?;
        }
        Ok(new)
    }

    fn tags(&self, app: &AppName) -> Result<BTreeMap<Tag, ReleaseId>> {
        let path = self.root.join(app.as_str()).join("tags.json");
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
            text => text.map_err(on("read", &path))?,
        };
        let tags: Tags = serde_json::from_str(&text).map_err(|error| {
            package(format!("{}: {error}", path.display()))
                .hint("mend the file, or remove it and publish again")
        })?;
        match tags.v {
            1 => Ok(tags.tags),
            v => Err(usage(format!("{} is of version {v}; this command knows version 1", path.display()))),
        }
    }
}

fn not_found(message: String) -> Failure {
    Failure::new(Code::NotFound, message)
}

/// This publisher's turn at the app; it ends when the guard is dropped, or with the process.
fn turn(folder: &Path) -> Result<Flock<File>> {
    let path = folder.join(".lock");
    let file =
        OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(on("open", &path))?;
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| io("lock", &path, &error.into()))
}

/// Removes what a publisher that was killed left half done; whoever has the turn is the only one at work.
fn sweep(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(on("read", folder))? {
        let entry = entry.map_err(on("read", folder))?;
        let path = entry.path();
        if entry.file_name().to_string_lossy().starts_with(".new-") {
            let gone = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            gone.map_err(on("remove", &path))?;
        }
    }
    Ok(())
}

fn fill(dir: &Path, manifest: &[u8], wheels: &[Wheel]) -> Result<()> {
    let inside = dir.join("wheels");
    fs::create_dir(&inside).map_err(on("create", &inside))?;
    for wheel in wheels {
        copy(wheel, &inside)?;
    }
    files::atomic_write(&dir.join("manifest.json"), manifest, 0o644)?;
    for folder in [inside.as_path(), dir] {
        fs::set_permissions(folder, Permissions::from_mode(0o755)).map_err(on("open up", folder))?;
        files::sync_folder(folder)?;
    }
    Ok(())
}

fn copy(wheel: &Wheel, to: &Path) -> Result<()> {
    let mut from = File::open(&wheel.path).map_err(on("read", &wheel.path))?;
    let target = to.join(&wheel.file);
    let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(to).map_err(on("write in", to))?;
    std::io::copy(&mut from, file.as_file_mut()).map_err(on("write", &target))?;
    file.as_file().set_permissions(Permissions::from_mode(0o644)).map_err(on("write", &target))?;
    file.as_file().sync_all().map_err(on("write", &target))?;
    file.persist(&target).map(drop).map_err(|error| io("write", &target, &error.error))
}

/// A release that is there already: what a stray hand removed or cut short is put back.
fn mend(place: &Path, manifest: &[u8], wheels: &[Wheel]) -> Result<()> {
    let inside = place.join("wheels");
    files::public_folder(&inside)?;
    for wheel in wheels {
        let path = inside.join(&wheel.file);
        let stands = Wheel { path: path.clone(), ..wheel.clone() };
        if !path.is_file() || stands.entry()? != wheel.entry()? {
            copy(wheel, &inside)?;
        }
    }
    let path = place.join("manifest.json");
    if fs::read(&path).ok().as_deref() != Some(manifest) {
        files::atomic_write(&path, manifest, 0o644)?;
    }
    Ok(())
}
