//! Events: a tag, and data that is a map.
//!
//! A frame's payload is a msgpack map `{"head": {}, "body": bin}`; the body is the tag, two newlines and the
//! data as a second msgpack map. The tag can be read without touching the data, so a listener pays for the
//! few events it wants, not for the job returns that pass by.

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use crate::scan::{ScanError, value_length};

/// What Salt itself accepts from a writer by default (`max_event_size`), in bytes of data.
pub const MAX_EVENT_SIZE: usize = 1 << 20;

const SEPARATOR: &[u8] = b"\n\n";

/// A payload that is no event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// Not one whole msgpack map.
    #[error("the payload is no msgpack map")]
    NoMap,
    /// The msgpack is broken.
    #[error("the payload is broken")]
    Msgpack(#[source] ScanError),
    /// A map without a `body` of bytes.
    #[error("the payload has no body")]
    NoBody,
    /// A body without the two newlines that end the tag.
    #[error("no tag: the body has no empty line")]
    NoTag,
    /// The tag is no text.
    #[error("the tag is not UTF-8")]
    TagEncoding,
    /// The data is no msgpack map, or not of the type asked for.
    #[error("the data of {tag:?} is not as expected: {problem}")]
    Data {
        /// The event's tag.
        tag: String,
        /// What was wrong with it.
        problem: String,
    },
}

/// An event that cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A tag is at least one byte and holds no newline.
    #[error("{0:?} is no tag: it must be a line of text")]
    Tag(String),
    /// Data must serialize as a map.
    #[error("the data of {0:?} is no map, and Salt accepts nothing else")]
    NotAMap(String),
    /// Data that msgpack cannot carry.
    #[error("the data of {tag:?} cannot be encoded: {problem}")]
    Unencodable {
        /// The event's tag.
        tag: String,
        /// The serializer's words.
        problem: String,
    },
    /// Over the limit: Salt would drop it, or the master would trim its values.
    #[error("the data of {tag:?} takes {size} bytes; the most is {limit}")]
    TooLarge {
        /// The event's tag.
        tag: String,
        /// The size in bytes.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
}

/// An event as it came: the data still packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    tag: String,
    data: Bytes,
}

impl Event {
    /// The event in a frame's payload.
    ///
    /// # Errors
    /// When the payload is no event.
    pub fn parse(payload: &Bytes) -> Result<Self, EventError> {
        let body = body(payload)?;
        let (tag, data) = split(body)?;
        Ok(Self { tag: tag.to_owned(), data: payload.slice_ref(data) })
    }

    /// The tag.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// The data as msgpack.
    pub fn packed(&self) -> &Bytes {
        &self.data
    }

    /// The data as a type of yours. Unknown keys, such as Salt's `_stamp`, are the type's business.
    ///
    /// # Errors
    /// When the data is no msgpack map, or none of that type.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, EventError> {
        self.check()?;
        rmp_serde::from_slice(&self.data).map_err(|error| self.problem(error.to_string()))
    }

    /// The data as a tree, for data of no fixed shape. Text that is no UTF-8, as a master sends binary, is kept.
    ///
    /// # Errors
    /// When the data is no msgpack map.
    pub fn value(&self) -> Result<rmpv::Value, EventError> {
        self.check()?;
        rmpv::decode::read_value(&mut &self.data[..]).map_err(|error| self.problem(error.to_string()))
    }

    /// One map, nothing behind it, nested no deeper than decoders can bear.
    fn check(&self) -> Result<(), EventError> {
        if !self.data.first().copied().is_some_and(is_map) {
            return Err(self.problem("no map"));
        }
        match value_length(&self.data) {
            Ok(Some(length)) if length == self.data.len() => Ok(()),
            Ok(Some(_)) => Err(self.problem("bytes behind the map")),
            Ok(None) => Err(self.problem("cut short")),
            Err(error) => Err(self.problem(error.to_string())),
        }
    }

    fn problem(&self, problem: impl Into<String>) -> EventError {
        EventError::Data { tag: self.tag.clone(), problem: problem.into() }
    }
}

/// The body in a frame's payload, found without decoding what stands before it.
///
/// # Errors
/// When the payload is no map with a body.
pub fn body(payload: &[u8]) -> Result<&[u8], EventError> {
    let (&first, mut rest) = payload.split_first().ok_or(EventError::NoMap)?;
    let pairs = match first {
        0x80..=0x8f => usize::from(first & 0x0f),
        // Salt's payloads have one or two keys: a map with a wide header is none of its own.
        _ => return Err(EventError::NoMap),
    };
    for _ in 0..pairs {
        let key = take(&mut rest)?;
        let value = take(&mut rest)?;
        if text(key) == Some(b"body") {
            return text(value).ok_or(EventError::NoBody);
        }
    }
    Err(EventError::NoBody)
}

/// The tag and the packed data of a body.
///
/// # Errors
/// When the body has no tag, or one that is no text.
pub fn split(body: &[u8]) -> Result<(&str, &[u8]), EventError> {
    let end = body.windows(SEPARATOR.len()).position(|two| two == SEPARATOR).ok_or(EventError::NoTag)?;
    let tag = std::str::from_utf8(&body[..end]).map_err(|_| EventError::TagEncoding)?;
    Ok((tag, &body[end + SEPARATOR.len()..]))
}

/// Takes the next whole value.
fn take<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], EventError> {
    let length = value_length(rest).map_err(EventError::Msgpack)?.ok_or(EventError::NoMap)?;
    let (value, behind) = rest.split_at(length);
    *rest = behind;
    Ok(value)
}

/// The bytes of a whole str or bin value.
fn text(value: &[u8]) -> Option<&[u8]> {
    let header = match *value.first()? {
        0xa0..=0xbf => 1,
        0xc4 | 0xd9 => 2,
        0xc5 | 0xda => 3,
        0xc6 | 0xdb => 5,
        _ => return None,
    };
    value.get(header..)
}

fn is_map(byte: u8) -> bool {
    matches!(byte, 0x80..=0x8f | 0xde | 0xdf)
}

/// An event as a frame's payload: `head` first, the body as bin, stamped with the time `_stamp`.
///
/// # Errors
/// When the tag is none, or the data is no map of at most `limit` bytes.
pub fn encode(tag: &str, data: &impl Serialize, limit: usize) -> Result<Bytes, EncodeError> {
    encode_stamped(tag, data, limit, &crate::clock::stamp())
}

/// The same with a time of your own.
///
/// # Errors
/// As [`encode`].
pub fn encode_stamped(
    tag: &str,
    data: &impl Serialize,
    limit: usize,
    stamp: &str,
) -> Result<Bytes, EncodeError> {
    if tag.is_empty() || tag.contains('\n') {
        return Err(EncodeError::Tag(tag.chars().take(80).collect()));
    }
    let packed = rmp_serde::to_vec_named(data)
        .map_err(|error| EncodeError::Unencodable { tag: tag.to_owned(), problem: error.to_string() })?;
    if packed.len() > limit {
        return Err(EncodeError::TooLarge { tag: tag.to_owned(), size: packed.len(), limit });
    }
    let data = with_stamp(&packed, stamp).ok_or_else(|| EncodeError::NotAMap(tag.to_owned()))?;
    let length = tag.len() + SEPARATOR.len() + data.len();
    let mut payload = Vec::with_capacity(length + 20);
    payload.extend(b"\x82\xa4head\x80\xa4body");
    match (u8::try_from(length), u16::try_from(length), u32::try_from(length)) {
        (Ok(length), ..) => payload.extend([0xc4, length]),
        (_, Ok(length), _) => {
            payload.push(0xc5);
            payload.extend(length.to_be_bytes());
        }
        (.., Ok(length)) => {
            payload.push(0xc6);
            payload.extend(length.to_be_bytes());
        }
        _ => return Err(EncodeError::TooLarge { tag: tag.to_owned(), size: length, limit }),
    }
    payload.extend(tag.as_bytes());
    payload.extend(SEPARATOR);
    payload.extend(data);
    Ok(payload.into())
}

/// The packed map with one more pair; `None` when it is no map.
fn with_stamp(map: &[u8], stamp: &str) -> Option<Vec<u8>> {
    let (pairs, header) = match *map.first()? {
        first @ 0x80..=0x8f => (u32::from(first & 0x0f), 1),
        0xde => (u32::from(u16::from_be_bytes([*map.get(1)?, *map.get(2)?])), 3),
        0xdf => (u32::from_be_bytes(*map.get(1..)?.first_chunk()?), 5),
        _ => return None,
    };
    let pairs = pairs.checked_add(1)?;
    let mut out = Vec::with_capacity(map.len() + stamp.len() + 12);
    match (u8::try_from(pairs), u16::try_from(pairs)) {
        (Ok(few), _) if few < 16 => out.push(0x80 | few),
        (_, Ok(pairs)) => {
            out.push(0xde);
            out.extend(pairs.to_be_bytes());
        }
        _ => {
            out.push(0xdf);
            out.extend(pairs.to_be_bytes());
        }
    }
    out.extend(map.get(header..)?);
    out.extend(b"\xa6_stamp\xd9");
    out.push(u8::try_from(stamp.len()).ok()?);
    out.extend(stamp.as_bytes());
    Some(out)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use rmpv::Value;

    use super::*;

    fn map(pairs: usize) -> BTreeMap<String, usize> {
        (0..pairs).map(|n| (format!("k{n}"), n)).collect()
    }

    #[test]
    fn what_is_encoded_is_parsed() {
        for pairs in [0, 1, 14, 15, 16, 65_534, 65_535, 65_536] {
            let payload = encode_stamped("a/b", &map(pairs), 1 << 21, "now").unwrap();
            let event = Event::parse(&payload).unwrap();
            assert_eq!(event.tag(), "a/b");
            let Value::Map(read) = event.value().unwrap() else { panic!("no map") };
            assert_eq!(read.len(), pairs + 1);
            assert_eq!(read.last().unwrap(), &(Value::from("_stamp"), Value::from("now")));
        }
    }

    #[test]
    fn what_salt_would_drop_is_refused() {
        assert!(matches!(encode("", &map(1), 99), Err(EncodeError::Tag(_))));
        assert!(matches!(encode("a\n\nb", &map(1), 99), Err(EncodeError::Tag(_))));
        assert!(matches!(encode("a", &[1, 2], 99), Err(EncodeError::NotAMap(_))));
        assert!(matches!(encode("a", &map(99), 99), Err(EncodeError::TooLarge { .. })));
    }

    #[test]
    fn broken_payloads_are_named() {
        let parse = |bytes: &'static [u8]| Event::parse(&Bytes::from_static(bytes));
        assert_eq!(parse(b""), Err(EventError::NoMap));
        assert_eq!(parse(b"\x93abc"), Err(EventError::NoMap));
        assert_eq!(parse(b"\x81\xa4head\x80"), Err(EventError::NoBody));
        assert_eq!(parse(b"\x81\xa4body\x07"), Err(EventError::NoBody));
        assert_eq!(parse(b"\x81\xa4body\xa3tag"), Err(EventError::NoTag));
        assert_eq!(parse(b"\x81\xa4body\xa4\xff\n\n\x80"), Err(EventError::TagEncoding));
        for data in [
            &b"\x81\xa4body\xa4a\n\n\x90"[..],
            b"\x81\xa4body\xa4a\n\n\x81",
            b"\x81\xa4body\xa5a\n\n\x80\x80",
        ] {
            let event = Event::parse(&Bytes::copy_from_slice(data)).unwrap();
            assert!(matches!(event.value(), Err(EventError::Data { .. })), "{data:02x?}");
            assert!(event.decode::<BTreeMap<String, Value>>().is_err());
        }
    }

    #[test]
    fn a_body_before_the_head_or_as_text_is_found() {
        let event = Event::parse(&Bytes::from_static(b"\x82\xa4body\xa4a\n\n\x80\xa4head\x80")).unwrap();
        assert_eq!((event.tag(), &event.packed()[..]), ("a", &b"\x80"[..]));
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_event_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            for prefix in [&b""[..], b"\x81\xa4body", b"\x82\xa4head\x80\xa4body\xc4\x20a\n\n"] {
                let mut payload = prefix.to_vec();
                payload.extend(&bytes);
                if let Ok(event) = Event::parse(&payload.into()) {
                    let _ = event.value();
                    let _ = event.decode::<BTreeMap<String, Value>>();
                }
            }
        }
    }
}
