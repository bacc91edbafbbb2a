//! Files beside a database (what users uploaded), in the same store and under the same keys.
//!
//! Whole files are the unit: a file whose content is known already is stored no second time, whatever its
//! name. Each run that finds a change writes a list of all files; an unchanged folder writes nothing.
//!
//! ```text
//! media/<set>/epoch/<epoch>.{age,sig}    as in a chain, the set's id in the place of the chain's
//! media/<set>/blob/<id>[.<part>]         a file's content, in parts of 4 MiB
//! media/<set>/list/<id>[.<part>]         a list of all files
//! ```
//! Ids are random, so a store's owner cannot even test whether a known file is there. What is known already
//! is looked up in the host's copy of its last list; losing that costs an upload, not a file.

use std::path::PathBuf;

use crate::{chain::ChainId, crypt::CryptError, hex, store::StoreError};

mod backup;
mod content;
mod list;
mod object;
mod prune;
mod restore;
mod scan;

pub use backup::{Report, Writer, set_in};
pub use list::{File, Folder, Link, List};
pub use prune::Plan;
pub use restore::{ListEntry, Reader, Restored};

/// What went wrong with media.
#[derive(Debug, thiserror::Error)]
pub enum MediaError {
    /// A file or folder of this host.
    #[error("cannot {doing} {path:?}")]
    Local {
        /// The verb.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The store.
    #[error("the store failed")]
    Store(#[from] StoreError),
    /// A key or a signature.
    #[error("{key}: no key for it")]
    Crypt {
        /// The object.
        key: String,
        /// Why not.
        #[source]
        source: CryptError,
    },
    /// An object that is not what it must be.
    #[error("{key}: {what}; nothing of it is restored")]
    Refused {
        /// The object.
        key: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// There is no such list.
    #[error("{0}")]
    NoList(String),
}

impl MediaError {
    fn local(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Local { doing, path, source }
    }

    fn refused(key: &str, what: &'static str) -> Self {
        Self::Refused { key: key.to_owned(), what }
    }
}

/// The kinds of objects, by the level in their headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Blob,
    List,
}

impl Kind {
    fn level(self) -> u8 {
        match self {
            Self::Blob => 16,
            Self::List => 17,
        }
    }

    fn folder(self) -> &'static str {
        match self {
            Self::Blob => "blob",
            Self::List => "list",
        }
    }
}

/// The id of a blob or a list: for a list the time in its first half, all else random.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Id([u8; 16]);

impl Id {
    fn random() -> Self {
        Self(rand::random())
    }

    fn at(time_ms: u64) -> Self {
        Self(((u128::from(time_ms) << 64) | u128::from(rand::random::<u64>())).to_be_bytes())
    }

    fn halves(self) -> (u64, u64) {
        let number = u128::from_be_bytes(self.0);
        ((number >> 64) as u64, number as u64)
    }

    fn parse(text: &str) -> Option<Self> {
        hex::decode(text).map(Self)
    }
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

fn prefix(set: ChainId, kind: Kind) -> String {
    format!("media/{set}/{}/", kind.folder())
}

fn object_key(set: ChainId, kind: Kind, id: Id, part: u32) -> String {
    let part = if part == 0 { String::new() } else { format!(".{part:04x}") };
    format!("{}{id}{part}", prefix(set, kind))
}

fn epoch_key(set: ChainId, epoch: u32, ending: &str) -> String {
    format!("media/{set}/epoch/{epoch:08x}.{ending}")
}
