//! Objects of a chain, fetched, checked against their names and opened.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    chain::{Catalog, ChainId, Header, Name},
    crypt::{CryptError, Epoch, HostKey, Identities, Recipients, check_epoch, rewrap_epoch, unwrap_epoch},
    segment::{Body, SegmentError},
    store::{ErrorKind, Store, StoreError},
};

/// Why an object is refused, or could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The store.
    #[error("{0}")]
    Store(#[source] StoreError),
    /// An object is not there.
    #[error("{key} is missing")]
    Missing {
        /// Its key.
        key: String,
    },
    /// An object is not what it must be.
    #[error("{key} is refused: {why}")]
    Refused {
        /// Its key.
        key: String,
        /// What is wrong.
        why: String,
    },
    /// No identity opens it.
    #[error("{key} cannot be opened: {source}")]
    Locked {
        /// Its key.
        key: String,
        /// What age says.
        #[source]
        source: CryptError,
    },
}

impl ReadError {
    pub(crate) fn refused(key: &str, why: impl ToString) -> Self {
        Self::Refused { key: key.to_owned(), why: why.to_string() }
    }
}

/// An object's part that was fetched.
pub(crate) struct Sealed {
    key: String,
    header: Header,
    epoch: Arc<Epoch>,
    bytes: bytes::Bytes,
}

impl Sealed {
    /// Hashes, decrypts and takes it apart: work for a thread of its own.
    pub(crate) fn open(self) -> Result<Part, ReadError> {
        let Self { key, header, epoch, bytes } = self;
        let hash = *blake3::hash(&bytes).as_bytes();
        let body = epoch.key.open(&header, bytes).map_err(|error| ReadError::refused(&key, error))?;
        let body = Body::parse(&body).map_err(|error: SegmentError| ReadError::refused(&key, error))?;
        Ok(Part { key, header, body, hash })
    }
}

/// An object's part, opened.
pub(crate) struct Part {
    pub(crate) key: String,
    pub(crate) header: Header,
    pub(crate) body: Body,
    /// BLAKE3 of the object.
    pub(crate) hash: [u8; 32],
}

/// Reads one chain.
pub(crate) struct Reader {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) chain: ChainId,
    pub(crate) identities: Arc<Identities>,
    pinned: Mutex<Option<HostKey>>,
    epochs: Mutex<HashMap<u32, Arc<Epoch>>>,
}

impl Reader {
    /// A reader that believes only `host`, or whoever signed the first epoch that it meets.
    pub(crate) fn new(
        store: Arc<dyn Store>,
        chain: ChainId,
        identities: Arc<Identities>,
        host: Option<HostKey>,
    ) -> Self {
        Self { store, chain, identities, pinned: Mutex::new(host), epochs: Mutex::default() }
    }

    /// Who signed what was read so far.
    pub(crate) fn host(&self) -> Option<HostKey> {
        *self.pinned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The name of the database, from the newest epoch.
    pub(crate) async fn name(&self, catalog: &Catalog) -> Result<String, ReadError> {
        let Some(last) = catalog.epochs.iter().max() else {
            return Err(ReadError::Missing { key: format!("{}/epoch/", self.chain) });
        };
        Ok(self.epoch(*last).await?.name.clone())
    }

    async fn get(&self, key: &str) -> Result<bytes::Bytes, ReadError> {
        let mut tries = 0;
        loop {
            match self.store.get(key).await {
                Ok(bytes) => return Ok(bytes),
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    return Err(ReadError::Missing { key: key.to_owned() });
                }
                Err(error) if error.kind() == ErrorKind::Retryable && tries < 5 => {
                    tokio::time::sleep(std::time::Duration::from_millis(200 << tries)).await;
                    tries += 1;
                }
                Err(error) => return Err(ReadError::Store(error)),
            }
        }
    }

    pub(crate) async fn epoch(&self, number: u32) -> Result<Arc<Epoch>, ReadError> {
        let known = self.epochs.lock().unwrap_or_else(PoisonError::into_inner).get(&number).cloned();
        if let Some(epoch) = known {
            return Ok(epoch);
        }
        let at = (self.chain, number);
        let key = format!("{}/epoch/{number:08x}.age", self.chain);
        let file = self.get(&key).await?;
        let epoch = match unwrap_epoch(&file, at, &self.identities) {
            Err(CryptError::Refused(why)) => return Err(ReadError::refused(&key, why)),
            Err(source) => return Err(ReadError::Locked { key, source }),
            Ok(epoch) => Arc::new(epoch),
        };
        let key = format!("{}/epoch/{number:08x}.sig", self.chain);
        let signature = self.get(&key).await?;
        let host =
            check_epoch(&signature, at, Some(&epoch)).map_err(|error| ReadError::refused(&key, error))?;
        self.believe(&key, host)?;
        self.epochs.lock().unwrap_or_else(PoisonError::into_inner).insert(number, epoch.clone());
        Ok(epoch)
    }

    /// An epoch's key file for other recipients.
    pub(crate) async fn rewrapped(&self, number: u32, to: &Recipients) -> Result<Vec<u8>, ReadError> {
        // Signature and commitment first: a forged epoch must not be passed on as ours.
        self.epoch(number).await?;
        let key = format!("{}/epoch/{number:08x}.age", self.chain);
        let file = self.get(&key).await?;
        rewrap_epoch(&file, &self.identities, to).map_err(|source| ReadError::Locked { key, source })
    }

    /// Refuses a signer who is not the pinned one, or not the one before.
    pub(crate) fn believe(&self, key: &str, host: HostKey) -> Result<(), ReadError> {
        let mut pinned = self.pinned.lock().unwrap_or_else(PoisonError::into_inner);
        let expected = *pinned.get_or_insert(host);
        if expected == host {
            Ok(())
        } else {
            Err(ReadError::refused(key, format!("it is signed by {host}, not by the host {expected}")))
        }
    }

    /// The header of an object whose key is that of `name`.
    pub(crate) async fn header(&self, name: Name) -> Result<Header, ReadError> {
        let key = name.key(self.chain);
        let bytes = self.get(&key).await?;
        header_of(&key, name, self.chain, &bytes)
    }

    /// The header of an object, and BLAKE3 of all of it.
    pub(crate) async fn header_and_hash(&self, name: Name) -> Result<(Header, [u8; 32]), ReadError> {
        let key = name.key(self.chain);
        let bytes = self.get(&key).await?;
        let header = header_of(&key, name, self.chain, &bytes)?;
        Ok((header, *blake3::hash(&bytes).as_bytes()))
    }

    /// An object's part, as it lies in the store, and the key to it.
    pub(crate) async fn fetch(&self, name: Name) -> Result<Sealed, ReadError> {
        let key = name.key(self.chain);
        let bytes = self.get(&key).await?;
        let header = header_of(&key, name, self.chain, &bytes)?;
        let epoch = self.epoch(header.epoch).await?;
        Ok(Sealed { key, header, epoch, bytes })
    }
}

fn header_of(key: &str, name: Name, chain: ChainId, bytes: &[u8]) -> Result<Header, ReadError> {
    let header = Header::parse(bytes).ok_or_else(|| ReadError::refused(key, "it has no header of ours"))?;
    if header.chain != chain || header.name != name {
        return Err(ReadError::refused(key, "its header is one of another object"));
    }
    if header.parts == 0 || name.part >= header.parts {
        return Err(ReadError::refused(key, "its header counts no such part"));
    }
    Ok(header)
}
