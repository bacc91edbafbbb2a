//! Where a msgpack value ends, without decoding it.
//!
//! A bare frame has no length: its end is where its map ends. The scanner walks the value's headers as the
//! bytes arrive, skips payloads by their length, allocates at most [`MAX_DEPTH`] counters and keeps nothing
//! of what it has passed. So a frame of any size costs a few steps, and a hostile one no more than it sent.

/// How deep maps and arrays may nest. What Salt sends stays far below.
pub(crate) const MAX_DEPTH: usize = 64;

/// The bytes are no msgpack that we accept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ScanError {
    /// `0xc1` begins no value.
    #[error("the byte 0xc1 begins no msgpack value")]
    Reserved,
    /// Maps and arrays nest deeper than anything Salt sends.
    #[error("nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
}

/// What a value's first byte says about the rest of it.
enum Marker {
    /// So many bytes follow.
    Bytes(u64),
    /// So many values follow.
    Values(u64),
    /// A length of `width` bytes comes first; then what `after` says.
    Length { width: u8, after: After },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    Bytes,
    /// One byte of type, then the bytes.
    Ext,
    Array,
    Map,
}

fn marker(byte: u8) -> Result<Marker, ScanError> {
    Ok(match byte {
        0x00..=0x7f | 0xe0..=0xff | 0xc0 | 0xc2 | 0xc3 => Marker::Bytes(0),
        0x80..=0x8f => Marker::Values(2 * u64::from(byte & 0x0f)),
        0x90..=0x9f => Marker::Values(u64::from(byte & 0x0f)),
        0xa0..=0xbf => Marker::Bytes(u64::from(byte & 0x1f)),
        0xc1 => return Err(ScanError::Reserved),
        0xc4 | 0xd9 => Marker::Length { width: 1, after: After::Bytes },
        0xc5 | 0xda => Marker::Length { width: 2, after: After::Bytes },
        0xc6 | 0xdb => Marker::Length { width: 4, after: After::Bytes },
        0xc7 => Marker::Length { width: 1, after: After::Ext },
        0xc8 => Marker::Length { width: 2, after: After::Ext },
        0xc9 => Marker::Length { width: 4, after: After::Ext },
        0xcc | 0xd0 => Marker::Bytes(1),
        0xcd | 0xd1 => Marker::Bytes(2),
        0xca | 0xce | 0xd2 => Marker::Bytes(4),
        0xcb | 0xcf | 0xd3 => Marker::Bytes(8),
        // Fixed extensions: a byte of type, then 1, 2, 4, 8 or 16 bytes.
        0xd4..=0xd8 => Marker::Bytes(1 + (1 << (byte - 0xd4))),
        0xdc => Marker::Length { width: 2, after: After::Array },
        0xdd => Marker::Length { width: 4, after: After::Array },
        0xde => Marker::Length { width: 2, after: After::Map },
        0xdf => Marker::Length { width: 4, after: After::Map },
    })
}

/// Walks one value, fed in pieces of any size.
#[derive(Debug, Clone)]
pub(crate) struct Scanner {
    /// Values still to come, outermost first; the walk is over when it is empty.
    open: Vec<u64>,
    state: State,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Marker,
    Length { left: u8, value: u64, after: After },
    Skip(u64),
}

impl Scanner {
    pub(crate) fn new() -> Self {
        Self { open: vec![1], state: State::Marker }
    }

    /// Walks on through `bytes`; says how many belong to the value, and whether it ends there.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<(usize, bool), ScanError> {
        let mut at = 0;
        loop {
            if self.open.is_empty() {
                return Ok((at, true));
            }
            let State::Skip(left) = self.state else {
                let Some(&byte) = bytes.get(at) else { return Ok((at, false)) };
                at += 1;
                self.header(byte)?;
                continue;
            };
            let here = left.min((bytes.len() - at) as u64);
            // `here` is at most the length of a slice.
            at += usize::try_from(here).unwrap_or(usize::MAX);
            if here < left {
                self.state = State::Skip(left - here);
                return Ok((at, false));
            }
            self.state = State::Marker;
            self.value_ended();
        }
    }

    /// Takes a byte of a value's marker or of the length behind it.
    fn header(&mut self, byte: u8) -> Result<(), ScanError> {
        let State::Length { left, value, after } = self.state else {
            match marker(byte)? {
                Marker::Bytes(count) => self.state = State::Skip(count),
                Marker::Values(count) => self.enter(count)?,
                Marker::Length { width, after } => {
                    self.state = State::Length { left: width, value: 0, after };
                }
            }
            return Ok(());
        };
        let value = (value << 8) | u64::from(byte);
        if left > 1 {
            self.state = State::Length { left: left - 1, value, after };
            return Ok(());
        }
        match after {
            After::Bytes => self.state = State::Skip(value),
            After::Ext => self.state = State::Skip(value + 1),
            After::Array => self.enter(value)?,
            After::Map => self.enter(2 * value)?,
        }
        Ok(())
    }

    fn enter(&mut self, count: u64) -> Result<(), ScanError> {
        self.state = State::Marker;
        if count == 0 {
            self.value_ended();
        } else if self.open.len() > MAX_DEPTH {
            return Err(ScanError::TooDeep);
        } else {
            self.open.push(count);
        }
        Ok(())
    }

    /// Counts a value off, and every container that ends with it.
    fn value_ended(&mut self) {
        while let Some(left) = self.open.last_mut() {
            *left -= 1;
            if *left > 0 {
                return;
            }
            self.open.pop();
        }
    }
}

/// The length of the value that `bytes` begin with; `None` when they end before it.
pub(crate) fn value_length(bytes: &[u8]) -> Result<Option<usize>, ScanError> {
    let (length, ended) = Scanner::new().feed(bytes)?;
    Ok(ended.then_some(length))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rmpv::Value;

    use super::*;

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Nil),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,40}".prop_map(Value::from),
            proptest::collection::vec(any::<u8>(), 0..300).prop_map(Value::from),
            (any::<i8>(), proptest::collection::vec(any::<u8>(), 0..20)).prop_map(|(t, b)| Value::Ext(t, b)),
        ];
        leaf.prop_recursive(4, 64, 20, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..20).prop_map(Value::Array),
                proptest::collection::vec((inner.clone(), inner), 0..20).prop_map(Value::Map),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_end_is_where_the_encoder_put_it(value in value(), tail in proptest::collection::vec(any::<u8>(), 0..9)) {
            let mut bytes = Vec::new();
            rmpv::encode::write_value(&mut bytes, &value).unwrap();
            let length = bytes.len();
            prop_assert_eq!(value_length(&bytes[..length - 1]), Ok(None));
            bytes.extend(tail);
            prop_assert_eq!(value_length(&bytes), Ok(Some(length)));
        }

        #[test]
        fn pieces_make_no_difference(bytes in proptest::collection::vec(any::<u8>(), 1..300), cut in 0usize..300) {
            let cut = cut.min(bytes.len());
            let whole = value_length(&bytes);
            let mut scanner = Scanner::new();
            let pieces = match scanner.feed(&bytes[..cut]) {
                Ok((length, true)) => Ok(Some(length)),
                Ok((_, false)) => scanner.feed(&bytes[cut..]).map(|(length, end)| end.then_some(cut + length)),
                Err(error) => Err(error),
            };
            prop_assert_eq!(whole, pieces);
        }
    }

    #[test]
    fn depth_is_bounded() {
        assert_eq!(value_length(&[0x91; 1000]), Err(ScanError::TooDeep));
        let mut deepest = vec![0x91; MAX_DEPTH];
        deepest.push(0xc0);
        assert_eq!(value_length(&deepest), Ok(Some(MAX_DEPTH + 1)));
    }

    #[test]
    fn a_declared_giant_allocates_nothing() {
        let mut scanner = Scanner::new();
        assert_eq!(scanner.feed(&[0xdf, 0xff, 0xff, 0xff, 0xff]), Ok((5, false)));
        assert_eq!(scanner.feed(&[0xc6, 0xff, 0xff, 0xff, 0xff, 1, 2]), Ok((7, false)));
        assert_eq!(value_length(&[0xc1]), Err(ScanError::Reserved));
    }
}
