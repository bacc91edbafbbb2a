//! A store in memory whose failures are ordered in advance, for tests of whatever uses a store.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;

use super::{Entry, ErrorKind, Store, StoreError, check_key, check_prefix, folder::check_put};

/// What the next call of a verb does instead of working.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing happens, and the answer is a 500.
    Unavailable,
    /// It happens, and the answer is lost on the way.
    LostResponse,
    /// It happens after this long.
    Slow(Duration),
    /// Nothing happens: credentials that may not do this.
    Denied,
}

/// The store.
#[derive(Default)]
pub struct Fake(Mutex<State>);

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Bytes>,
    faults: HashMap<&'static str, VecDeque<Fault>>,
    always: HashMap<&'static str, Fault>,
    calls: Vec<(&'static str, String)>,
}

impl Fake {
    /// An empty store without faults.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next calls of `verb` (`put_new`, `put`, `get`, `list`, `delete`) meet these, one each.
    pub fn fail(&self, verb: &'static str, faults: impl IntoIterator<Item = Fault>) {
        self.state().faults.entry(verb).or_default().extend(faults);
    }

    /// Every call of `verb` meets this from now on; `None` ends it.
    pub fn fail_always(&self, verb: &'static str, fault: Option<Fault>) {
        match fault {
            Some(fault) => self.state().always.insert(verb, fault),
            None => self.state().always.remove(verb),
        };
    }

    /// The calls so far, failed ones too: verb and key.
    pub fn calls(&self) -> Vec<(&'static str, String)> {
        self.state().calls.clone()
    }

    /// What is stored.
    pub fn objects(&self) -> BTreeMap<String, Bytes> {
        self.state().objects.clone()
    }

    /// Puts an object there, or takes it away, as somebody with access to the store can.
    pub fn tamper(&self, key: &str, bytes: Option<Bytes>) {
        match bytes {
            Some(bytes) => self.state().objects.insert(key.to_owned(), bytes),
            None => self.state().objects.remove(key),
        };
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does `work` as the next ordered fault would have it.
    async fn call<T>(
        &self,
        verb: &'static str,
        key: &str,
        work: impl FnOnce(&mut BTreeMap<String, Bytes>) -> Result<T, ErrorKind>,
    ) -> Result<T, StoreError> {
        let fault = {
            let mut state = self.state();
            state.calls.push((verb, key.to_owned()));
            let next = state.faults.get_mut(verb).and_then(VecDeque::pop_front);
            next.or_else(|| state.always.get(verb).copied())
        };
        let error = |kind, what: &str| StoreError::new(kind, verb, key, what);
        match fault {
            Some(Fault::Unavailable) => return Err(error(ErrorKind::Retryable, "500, as ordered")),
            Some(Fault::Denied) => return Err(error(ErrorKind::Fatal, "403, as ordered")),
            Some(Fault::Slow(time)) => tokio::time::sleep(time).await,
            Some(Fault::LostResponse) | None => {}
        }
        let done = work(&mut self.state().objects);
        if fault == Some(Fault::LostResponse) {
            return Err(error(ErrorKind::Retryable, "the answer was lost, as ordered"));
        }
        done.map_err(|kind| {
            error(kind, if kind == ErrorKind::Exists { "the name is taken" } else { "not there" })
        })
    }
}

#[async_trait]
impl Store for Fake {
    async fn put_new(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        check_put("put_new", key, &bytes)?;
        let name = key.to_owned();
        let write = |objects: &mut BTreeMap<String, Bytes>| match objects.entry(name) {
            std::collections::btree_map::Entry::Occupied(_) => Err(ErrorKind::Exists),
            std::collections::btree_map::Entry::Vacant(place) => {
                place.insert(bytes);
                Ok(())
            }
        };
        self.call("put_new", key, write).await
    }

    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        check_put("put", key, &bytes)?;
        let name = key.to_owned();
        self.call("put", key, |objects| {
            objects.insert(name, bytes);
            Ok(())
        })
        .await
    }

    async fn get(&self, key: &str) -> Result<Bytes, StoreError> {
        check_key("get", key)?;
        self.call("get", key, |objects| objects.get(key).cloned().ok_or(ErrorKind::NotFound)).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Entry>, StoreError> {
        check_prefix("list", prefix)?;
        self.call("list", prefix, |objects| {
            let matching = objects.iter().filter(|(key, _)| key.starts_with(prefix));
            let entry = |(key, bytes): (&String, &Bytes)| Entry {
                key: key.clone(),
                size: bytes.len() as u64,
                modified_ms: None,
            };
            Ok(matching.map(entry).collect())
        })
        .await
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        check_key("delete", key)?;
        self.call("delete", key, |objects| {
            objects.remove(key);
            Ok(())
        })
        .await
    }
}
