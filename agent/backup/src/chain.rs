//! The names and the headers of a chain's objects: what is in clear, and what binds each to its place.
//!
//! A chain is the life of one database in one store. A position is a number that grows by one with each
//! segment; an object of level n leads from one position to a later one. Levels 0, 1 and 2 hold changes of
//! ever longer windows, level 3 is a snapshot.

use std::{collections::BTreeMap, fmt, str::FromStr};

use crate::{
    hex,
    store::{Store, StoreError},
};

/// The level of snapshots.
pub const SNAPSHOT: u8 = 3;
/// Bytes of a header.
pub const HEADER: usize = 120;
const MAGIC: &[u8; 8] = b"FLIPBK01";

/// The id of a chain: 16 random bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChainId(pub [u8; 16]);

impl ChainId {
    /// A new one.
    pub fn random() -> Self {
        Self(rand::random())
    }
}

impl fmt::Display for ChainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

impl fmt::Debug for ChainId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Text that names no chain or position.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no position: <32 hex digits of the chain>:<number>, as `backup position` prints it")]
pub struct BadPosition(String);

impl FromStr for ChainId {
    type Err = BadPosition;
    fn from_str(text: &str) -> Result<Self, BadPosition> {
        hex::decode(text).map(Self).ok_or_else(|| BadPosition(text.chars().take(80).collect()))
    }
}

/// A point in the life of a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The chain.
    pub chain: ChainId,
    /// The number in it.
    pub seq: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.chain, self.seq)
    }
}

impl FromStr for Position {
    type Err = BadPosition;
    fn from_str(text: &str) -> Result<Self, BadPosition> {
        let bad = || BadPosition(text.chars().take(80).collect());
        let (chain, seq) = text.split_once(':').ok_or_else(bad)?;
        Ok(Self { chain: chain.parse()?, seq: seq.parse().map_err(|_| bad())? })
    }
}

/// The name of an object within its chain, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// 0 to 3.
    pub level: u8,
    /// Leads from this position (0 for a snapshot)…
    pub from: u64,
    /// …to this.
    pub to: u64,
    /// Part 0 is written last: once it is there, all are.
    pub part: u32,
}

impl Name {
    /// The object's key in the store.
    pub fn key(&self, chain: ChainId) -> String {
        let Self { level, from, to, part } = self;
        let part = if *part == 0 { String::new() } else { format!(".{part:04x}") };
        format!("{chain}/L{level}/{from:016x}-{to:016x}{part}")
    }

    /// The name in a key; `None` if it is no object of a level of this chain.
    pub fn parse(chain: ChainId, key: &str) -> Option<Self> {
        let rest = key.strip_prefix(&chain.to_string())?.strip_prefix("/L")?;
        let (level, range) = rest.split_once('/')?;
        let (range, part) = range.split_once('.').map_or((range, None), |(range, part)| (range, Some(part)));
        let (from, to) = range.split_once('-')?;
        let number = |text: &str| hex::decode(text).map(u64::from_be_bytes);
        let part = part.map_or(Some(0), |part| u32::from_str_radix(part, 16).ok())?;
        let name = Self { level: level.parse().ok()?, from: number(from)?, to: number(to)?, part };
        // What we would not have written is not ours: one object, one key.
        (name.level <= SNAPSHOT && name.from < name.to && name.key(chain) == key).then_some(name)
    }
}

/// The clear head of an object. All of it is authenticated with the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The chain.
    pub chain: ChainId,
    /// Level, range and part.
    pub name: Name,
    /// How many parts there are.
    pub parts: u32,
    /// Which key encrypts the rest.
    pub epoch: u32,
    /// When the state was read, in milliseconds since 1970; never less than that of an earlier position.
    pub time_ms: u64,
    /// BLAKE3 of part 0 of the level's previous object; zeros in its first.
    pub prev: [u8; 32],
    /// For the cipher; random.
    pub nonce: [u8; 24],
}

impl Header {
    /// The bytes.
    pub fn encode(&self) -> [u8; HEADER] {
        let mut bytes = Vec::with_capacity(HEADER);
        bytes.extend(MAGIC);
        bytes.extend([self.name.level, 0, 0, 0]);
        bytes.extend(self.epoch.to_be_bytes());
        bytes.extend(self.chain.0);
        bytes.extend(self.name.from.to_be_bytes());
        bytes.extend(self.name.to.to_be_bytes());
        bytes.extend(self.name.part.to_be_bytes());
        bytes.extend(self.parts.to_be_bytes());
        bytes.extend(self.time_ms.to_be_bytes());
        bytes.extend(self.prev);
        bytes.extend(self.nonce);
        let mut header = [0; HEADER];
        header.copy_from_slice(&bytes);
        header
    }

    /// The header of an object; `None` if it is none.
    pub fn parse(object: &[u8]) -> Option<Self> {
        let bytes = object.get(..HEADER)?;
        let u32_at = |at: usize| bytes[at..at + 4].try_into().map(u32::from_be_bytes).ok();
        let u64_at = |at: usize| bytes[at..at + 8].try_into().map(u64::from_be_bytes).ok();
        if &bytes[..8] != MAGIC || bytes[9..12] != [0; 3] {
            return None;
        }
        Some(Self {
            name: Name { level: bytes[8], from: u64_at(32)?, to: u64_at(40)?, part: u32_at(48)? },
            epoch: u32_at(12)?,
            chain: ChainId(bytes[16..32].try_into().ok()?),
            parts: u32_at(52)?,
            time_ms: u64_at(56)?,
            prev: bytes[64..96].try_into().ok()?,
            nonce: bytes[96..120].try_into().ok()?,
        })
    }
}

/// One complete object of a chain, as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Level and range; part 0.
    pub name: Name,
    /// Bytes of all its parts.
    pub bytes: u64,
    /// The keys of all its parts, part 0 first.
    pub keys: Vec<String>,
    /// When the store took part 0, if it tells.
    pub modified_ms: Option<i64>,
}

/// What a listing shows of a chain.
#[derive(Debug, Clone)]
pub struct Catalog {
    /// The chain.
    pub chain: ChainId,
    /// Its objects, by level and range.
    pub objects: Vec<Object>,
    /// Parts without a part 0: being written, or left by a writer that died.
    pub orphans: Vec<String>,
    /// The numbers of the epochs that have a key file.
    pub epochs: Vec<u32>,
    /// Whether there is a head.
    pub head: bool,
    /// Keys beneath the chain that are none of its own.
    pub strangers: Vec<String>,
}

impl Catalog {
    /// Lists a chain.
    ///
    /// # Errors
    /// When the store cannot list.
    pub async fn load(store: &dyn Store, chain: ChainId) -> Result<Self, StoreError> {
        let mut catalog = Self {
            chain,
            objects: Vec::new(),
            orphans: Vec::new(),
            epochs: Vec::new(),
            head: false,
            strangers: Vec::new(),
        };
        let mut found: BTreeMap<(u8, u64, u64), Object> = BTreeMap::new();
        for entry in store.list(&format!("{chain}/")).await? {
            let Some(name) = Name::parse(chain, &entry.key) else {
                catalog.other(entry.key);
                continue;
            };
            let whole = Name { part: 0, ..name };
            let empty = Object { name: whole, bytes: 0, keys: Vec::new(), modified_ms: None };
            let object = found.entry((name.level, name.from, name.to)).or_insert(empty);
            object.bytes += entry.size;
            if name.part == 0 {
                object.modified_ms = entry.modified_ms;
                object.keys.insert(0, entry.key);
            } else {
                object.keys.push(entry.key);
            }
        }
        for object in found.into_values() {
            if object.keys.first().is_some_and(|key| *key == object.name.key(chain)) {
                catalog.objects.push(object);
            } else {
                catalog.orphans.extend(object.keys);
            }
        }
        Ok(catalog)
    }

    fn other(&mut self, key: String) {
        let rest = key.get(33..).unwrap_or_default();
        let epoch = rest.strip_prefix("epoch/").and_then(|name| name.split_once('.'));
        match (rest, epoch) {
            ("head", _) => self.head = true,
            (_, Some((_, "sig"))) => {}
            (_, Some((number, "age"))) if hex::decode::<4>(number).is_some() => {
                self.epochs.extend(hex::decode(number).map(u32::from_be_bytes));
            }
            _ => self.strangers.push(key),
        }
    }

    /// The objects of one level, in order.
    pub fn level(&self, level: u8) -> impl Iterator<Item = &Object> {
        self.objects.iter().filter(move |object| object.name.level == level)
    }

    /// The last position that any object leads to.
    pub fn last(&self) -> Option<u64> {
        self.objects.iter().map(|object| object.name.to).max()
    }
}

/// The chains in a store.
///
/// # Errors
/// When the store cannot list.
pub async fn chains(store: &dyn Store) -> Result<Vec<ChainId>, StoreError> {
    let mut chains: Vec<ChainId> = Vec::new();
    for entry in store.list("").await? {
        let chain = entry.key.split('/').next().and_then(|first| first.parse().ok());
        if let Some(chain) = chain
            && chains.last() != Some(&chain)
        {
            chains.push(chain);
        }
    }
    Ok(chains)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_headers_come_back() {
        let chain = ChainId([0xab; 16]);
        for part in [0, 1, 0xffff, 0x10000] {
            let name = Name { level: 2, from: 1, to: u64::MAX, part };
            assert_eq!(Name::parse(chain, &name.key(chain)), Some(name));
        }
        let header = Header {
            chain,
            name: Name { level: 1, from: 2, to: 3, part: 4 },
            parts: 5,
            epoch: 6,
            time_ms: 7,
            prev: [8; 32],
            nonce: [9; 24],
        };
        assert_eq!(Header::parse(&header.encode()), Some(header));
        let position = Position { chain, seq: 12 };
        assert_eq!(position.to_string().parse(), Ok(position));
    }

    #[test]
    fn keys_of_others_are_no_names() {
        let chain = ChainId([0xab; 16]);
        let good = Name { level: 0, from: 1, to: 2, part: 0 }.key(chain);
        for bad in [
            "head".to_owned(),
            good.replace("L0", "L4"),
            good.replace("L0", "L00"),
            format!("{good}."),
            format!("{good}.0000"),
            format!("{good}.001"),
            good.replacen("ab", "aa", 1),
            good.to_uppercase(),
        ] {
            assert_eq!(Name::parse(chain, &bad), None, "{bad}");
        }
    }
}
