//! What can be proven of a store without restoring it, and more with an identity.
//!
//! Without one: that every object is whole and where it belongs, that each names the one before it, that
//! epochs and heads are signed by one host, that the newest state can be reached, and that nothing is missing
//! that the head knows. With one also that every byte decrypts, that all ways agree on every state, and that
//! the newest state restores into a database that SQLite finds sound.

use std::{collections::HashMap, path::Path, sync::Arc};

use serde::Serialize;

use super::{
    Progress, ReadError, RestoreError, Restored, Routes, Source, Target,
    reader::{Part, Reader},
    rehearse,
};
use crate::{
    chain::{Catalog, ChainId, Header, Name, Object, SNAPSHOT},
    crypt::{HostKey, Identities, Signed, check_epoch},
    pages::Hash,
    store::Store,
};

/// What was found of one chain.
#[derive(Debug, Clone, Serialize)]
pub struct ChainReport {
    /// Its id.
    pub chain: String,
    /// The database's name, where an identity opened it.
    pub name: Option<String>,
    /// Objects that were looked at.
    pub objects: usize,
    /// Bytes of them.
    pub bytes: u64,
    /// The newest position that can be restored.
    pub last: Option<u64>,
    /// When that state was read, in milliseconds since 1970.
    pub last_ms: u64,
    /// The oldest position that can be restored, and its time.
    pub first: Option<u64>,
    /// When that was read.
    pub first_ms: u64,
    /// How old the head says it is: nothing is known after it, in milliseconds since 1970.
    pub head_ms: Option<u64>,
    /// Who signed.
    pub host: Option<String>,
    /// Whether the newest state was restored, and was sound.
    pub restored: bool,
    /// What is wrong, each with its object.
    pub findings: Vec<String>,
}

/// What the head says.
#[derive(serde::Deserialize)]
struct Head {
    kind: String,
    chain: String,
    time_ms: u64,
    safe: u64,
    last: Vec<HeadLast>,
}

#[derive(serde::Deserialize)]
struct HeadLast {
    level: u8,
    to: u64,
    hash: String,
}

/// Checks one chain. With an identity in `source`, restores its newest state into `scratch`.
///
/// # Errors
/// Only when nothing could be looked at; what is wrong with the chain is in the report.
pub fn check_chain(
    store: &Arc<dyn Store>,
    chain: ChainId,
    (identities, host): (Option<&Arc<Identities>>, Option<HostKey>),
    scratch: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<ChainReport, RestoreError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(RestoreError::Runtime)?;
    let catalog = runtime.block_on(Catalog::load(&**store, chain));
    let catalog = catalog.map_err(|error| RestoreError::Read(ReadError::Store(error)))?;
    let keys = identities.cloned().unwrap_or_else(|| Arc::new(Identities::none()));
    let reader = Arc::new(Reader::new(store.clone(), chain, keys, host));
    let mut checking = Checking::new(&catalog, reader, identities.is_some());
    runtime.block_on(checking.epochs());
    let total = catalog.objects.iter().map(|object| object.bytes).sum();
    let mut done = 0;
    for object in &catalog.objects {
        runtime.block_on(checking.object(object));
        done += object.bytes;
        progress(Progress { done, total });
    }
    runtime.block_on(checking.head());
    checking.routes();
    let mut report = checking.report;
    if let (Some(identities), true) = (identities, report.findings.is_empty()) {
        let source = Source {
            store: store.clone(),
            identities: identities.clone(),
            name: None,
            chain: Some(chain),
            host,
        };
        match rehearse(&source, Target::Latest, scratch, progress) {
            Ok(Restored { .. }) => report.restored = true,
            Err(error) => report.findings.push(error.to_string()),
        }
    }
    Ok(report)
}

struct Checking<'a> {
    catalog: &'a Catalog,
    reader: Arc<Reader>,
    open: bool,
    /// Of each object: BLAKE3 of part 0, and its time.
    seen: HashMap<Name, ([u8; 32], u64)>,
    /// The state at each position, and the object that first said so.
    states: HashMap<u64, (Hash, String)>,
    report: ChainReport,
}

impl<'a> Checking<'a> {
    fn new(catalog: &'a Catalog, reader: Arc<Reader>, open: bool) -> Self {
        let report = ChainReport {
            chain: catalog.chain.to_string(),
            name: None,
            objects: 0,
            bytes: 0,
            last: None,
            last_ms: 0,
            first: None,
            first_ms: 0,
            head_ms: None,
            host: None,
            restored: false,
            findings: Vec::new(),
        };
        Self { catalog, reader, open, seen: HashMap::new(), states: HashMap::new(), report }
    }

    fn find(&mut self, what: impl ToString) {
        self.report.findings.push(what.to_string());
    }

    async fn epochs(&mut self) {
        let chain = self.catalog.chain;
        for number in &self.catalog.epochs {
            if self.open {
                match self.reader.epoch(*number).await {
                    Ok(epoch) => self.report.name = Some(epoch.name.clone()),
                    Err(error) => self.find(error),
                }
                continue;
            }
            let key = format!("{chain}/epoch/{number:08x}.sig");
            let signed = match self.reader.store.get(&key).await {
                Ok(bytes) => check_epoch(&bytes, (chain, *number), None),
                Err(error) => {
                    self.find(error);
                    continue;
                }
            };
            let signed = signed.map_err(|error| ReadError::refused(&key, error));
            if let Err(error) = signed.and_then(|host| self.reader.believe(&key, host)) {
                self.find(error);
            }
        }
        self.report.host = self.reader.host().map(|host| host.to_string());
    }

    async fn object(&mut self, object: &Object) {
        self.report.objects += 1;
        self.report.bytes += object.bytes;
        let mut named: Vec<[u8; 32]> = Vec::new();
        for part in 0..u32::try_from(object.keys.len()).unwrap_or(u32::MAX) {
            let name = Name { part, ..object.name };
            let (header, hash) = match self.part(name, &mut named).await {
                Ok(part) => part,
                Err(error) => return self.find(error),
            };
            if header.parts as usize != object.keys.len() {
                let key = name.key(self.catalog.chain);
                return self.find(format!(
                    "{key}: it counts {} parts, the store {}",
                    header.parts,
                    object.keys.len()
                ));
            }
            if !self.catalog.epochs.contains(&header.epoch) {
                let key = name.key(self.catalog.chain);
                self.find(format!("{key}: the key file of its epoch {} is missing", header.epoch));
            }
            if part == 0 {
                self.neighbour(object, &header);
                self.seen.insert(object.name, (hash, header.time_ms));
            }
        }
    }

    async fn part(&mut self, name: Name, named: &mut Vec<[u8; 32]>) -> Result<(Header, [u8; 32]), ReadError> {
        if !self.open {
            return self.reader.header_and_hash(name).await;
        }
        let Part { key, header, body, hash } = self.reader.fetch(name).await?.open()?;
        let refused = |why: &str| Err(ReadError::refused(&key, why));
        if name.part > 0 {
            let good = named.get(name.part as usize - 1) == Some(&hash);
            return if good { Ok((header, hash)) } else { refused("it is not the part that part 0 names") };
        }
        if body.meta.full != (name.level == SNAPSHOT) || body.parts.len() + 1 != header.parts as usize {
            return refused("its inside disagrees with its header");
        }
        *named = body.parts;
        let (before, after) = ((name.from, body.meta.base), (name.to, body.meta.state));
        let ends = if body.meta.full { vec![after] } else { vec![before, after] };
        for (seq, state) in ends {
            let (known, by) = self.states.entry(seq).or_insert_with(|| (state, key.clone()));
            if *known != state {
                return refused(&format!("it disagrees with {by} on the state at {seq}"));
            }
        }
        Ok((header, hash))
    }

    /// Whether an object names the one before it in its level, as far as that is still there.
    fn neighbour(&mut self, object: &Object, header: &Header) {
        let before =
            self.catalog.level(object.name.level).filter(|other| other.name.to < object.name.to).last();
        let Some((hash, time_ms)) = before.and_then(|before| self.seen.get(&before.name)).copied() else {
            return;
        };
        let key = object.name.key(self.catalog.chain);
        // Pruned neighbours are no neighbours: only an object that joins on must be named.
        let joins =
            object.name.level < SNAPSHOT && before.is_some_and(|before| before.name.to == object.name.from);
        if joins && header.prev != hash {
            self.find(format!("{key} does not follow the object before it"));
        }
        if time_ms > header.time_ms {
            self.find(format!("{key} is older than the object before it"));
        }
    }

    async fn head(&mut self) {
        if !self.catalog.head {
            return;
        }
        let key = format!("{}/head", self.catalog.chain);
        let bytes = match self.reader.store.get(&key).await {
            Ok(bytes) => bytes,
            Err(error) => return self.find(error),
        };
        let opened = Signed::open(&bytes).map_err(|error| ReadError::refused(&key, error));
        let (body, host) = match opened {
            Ok(opened) => opened,
            Err(error) => return self.find(error),
        };
        if let Err(error) = self.reader.believe(&key, host) {
            return self.find(error);
        }
        let Ok(head) = serde_json::from_str::<Head>(&body) else {
            return self.find(format!("{key} is not understood"));
        };
        if head.kind != "head" || head.chain != self.catalog.chain.to_string() {
            return self.find(format!("{key} is the head of another chain"));
        }
        self.report.head_ms = Some(head.time_ms);
        if self.catalog.last().is_none_or(|last| last < head.safe) {
            self.find(format!("{key} knows position {}; the store has lost what led there", head.safe));
        }
        for last in head.last {
            let object = self.catalog.level(last.level).find(|object| object.name.to == last.to);
            let seen = object.and_then(|object| self.seen.get(&object.name));
            if seen.is_some_and(|(hash, _)| crate::hex::encode(hash) != last.hash) {
                self.find(format!("{key} names another object of level {} at {}", last.level, last.to));
            }
        }
    }

    fn routes(&mut self) {
        let routes = Routes::new(self.catalog);
        let last = routes.last_until(u64::MAX);
        let time = |seq: Option<u64>| {
            let object = seq.and_then(|seq| routes.last_object(seq));
            object.and_then(|object| self.seen.get(&object.name)).map_or(0, |(_, time)| *time)
        };
        let first = routes.nodes().iter().copied().find(|seq| routes.reaches(*seq));
        (self.report.last, self.report.last_ms) = (last, time(last));
        (self.report.first, self.report.first_ms) = (first, time(first));
        if last != self.catalog.last() {
            let newest = self.catalog.last().unwrap_or(0);
            self.find(match last {
                Some(last) => {
                    format!("position {newest} cannot be reached, only {last}: an object is missing")
                }
                None => "no snapshot is complete: nothing can be restored".to_owned(),
            });
        }
    }
}
