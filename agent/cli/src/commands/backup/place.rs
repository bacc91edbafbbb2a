//! Where this host remembers: its signing key, the recipients of each store, the state of each database.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use flipside_api::{Code, Failure};
use flipside_backup::{
    crypt::Recipients,
    store::{self, Store},
};
use serde::{Deserialize, Serialize};

use super::failed;
use crate::{
    args::Repo,
    failures::{Result, on, usage},
    files,
};

/// A store, and this host's memory of it.
pub(super) struct Place {
    /// The store's address, a folder's made absolute: one store, one name.
    pub(super) url: String,
    pub(super) store: Arc<dyn Store>,
    pub(super) state: PathBuf,
}

/// What `init` leaves behind. Never read from the store: who writes there must not choose who reads.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Remembered {
    v: u32,
    repo: String,
    recipients: Vec<String>,
}

impl Place {
    pub(super) fn of(repo: &Repo) -> Result<Self> {
        let url = if repo.repo.contains("://") || repo.repo.is_empty() {
            repo.repo.clone()
        } else {
            let path = Path::new(&repo.repo);
            let path = std::path::absolute(path).map_err(on("find", path))?;
            path.to_str().ok_or_else(|| usage("the repo's path is no UTF-8"))?.to_owned()
        };
        let store = store::open(&url).map_err(|error| {
            let advice = error.advice();
            usage(failed(&error).message).hint(advice)
        })?;
        let state = match &repo.state {
            Some(state) => std::path::absolute(state).map_err(on("find", state))?,
            None => default_state()?,
        };
        Ok(Self { url, store, state })
    }

    pub(super) fn signing_key(&self) -> PathBuf {
        self.state.join("signing.key")
    }

    fn remembered(&self) -> PathBuf {
        // The same naming as of a database's state: by the store's address.
        flipside_backup::follow::state_dir(&self.state, &self.url, Path::new("")).with_extension("json")
    }

    pub(super) fn remember(&self, recipients: &[String]) -> Result<()> {
        Recipients::parse(recipients).map_err(|error| usage(error.to_string()))?;
        let remembered = Remembered { v: 1, repo: self.url.clone(), recipients: recipients.to_vec() };
        let text = serde_json::to_vec_pretty(&remembered)
            .map_err(|error| Failure::new(Code::Backup, error.to_string()))?;
        files::atomic_write(&self.remembered(), &text, 0o600)
    }

    /// Those that were typed, else those of `init`.
    pub(super) fn recipients(&self, typed: &[String]) -> Result<Vec<String>> {
        if !typed.is_empty() {
            Recipients::parse(typed).map_err(|error| usage(error.to_string()))?;
            return Ok(typed.to_vec());
        }
        let path = self.remembered();
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(usage(format!("this host does not know for whom to encrypt in {}", self.url))
                    .hint("name them with --recipient, or once with `flipside backup init`"));
            }
            Err(error) => return Err(crate::failures::io("read", &path, &error)),
        };
        let remembered: Remembered = serde_json::from_slice(&text)
            .map_err(|error| Failure::new(Code::Backup, format!("{}: {error}", path.display())))?;
        Ok(remembered.recipients)
    }
}

/// The database's path without links in it: its folder's may be anything, its own must not be one.
pub(super) fn database(path: &Path) -> Result<PathBuf> {
    if let Ok(path) = fs::canonicalize(path) {
        return Ok(path);
    }
    let name = path.file_name().ok_or_else(|| usage(format!("{} is no file", path.display())))?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(fs::canonicalize(dir).map_err(on("find", dir))?.join(name))
}

fn default_state() -> Result<PathBuf> {
    if nix::unistd::geteuid().is_root() {
        return Ok("/var/lib/flipside/backup".into());
    }
    let from = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = from("XDG_STATE_HOME").or_else(|| from("HOME").map(|home| home.join(".local/state")));
    let state =
        state.ok_or_else(|| usage("there is no HOME to remember in").hint("name a folder with --state"))?;
    Ok(state.join("flipside/backup"))
}
