//! Frames on the bus's stream sockets, in both of Salt's framings.
//!
//! Salt changed the framing inside point releases, and not in both directions at once, so a version says
//! nothing. A frame's first byte does: a length prefix begins below `0x80` (a frame is never 2 GB), a bare
//! msgpack map at or above it. The [`Parser`] decides anew for every frame.
//!
//! Whole job returns pass over the bus, so a frame may be large. One over the parser's limit is skipped as it
//! streams by, and counted; it is neither kept nor an error.

use bytes::{Buf, Bytes, BytesMut};

use crate::scan::{ScanError, Scanner};

/// How frames are told apart on a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Framing {
    /// One msgpack map after the other.
    Bare,
    /// A big-endian `u32` length before each map.
    Prefixed,
}

/// The stream holds what no Salt sends. [`Parser::resync`] looks for the next frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The byte begins neither a length nor a map.
    #[error("a frame cannot begin with the byte {0:#04x}")]
    Start(u8),
    /// A length prefix, but no map behind it.
    #[error("a length prefix of {length} is followed by the byte {byte:#04x}, which begins no map")]
    NoMap {
        /// What the prefix says.
        length: u32,
        /// What follows it.
        byte: u8,
    },
    /// A bare map that is no msgpack.
    #[error("a bare frame is broken")]
    Msgpack(#[source] ScanError),
}

/// The payload with its length prefix where `framing` has one. Payloads come from [`crate::event::encode`],
/// which keeps them far below the 4 GB that a prefix can say.
pub fn framed(payload: &[u8], framing: Framing) -> Bytes {
    let mut frame = BytesMut::with_capacity(payload.len() + 4);
    if framing == Framing::Prefixed {
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        frame.extend_from_slice(&length.to_be_bytes());
    }
    frame.extend_from_slice(payload);
    frame.freeze()
}

/// Takes bytes as they come and gives back the payloads of whole frames.
///
/// ```
/// use salt_wire::frame::Parser;
///
/// let mut parser = Parser::new(1 << 20);
/// parser.feed(b"\x00\x00\x00\x0d\x82\xa4head\x80"); // prefixed, and cut short
/// assert_eq!(parser.next_frame(), Ok(None));
/// parser.feed(b"\xa4body\xa0\x81\xa4body\xa0"); // its end, and a bare frame behind it
/// assert_eq!(parser.next_frame().unwrap().unwrap()[..], b"\x82\xa4head\x80\xa4body\xa0"[..]);
/// assert_eq!(parser.next_frame().unwrap().unwrap()[..], b"\x81\xa4body\xa0"[..]);
/// ```
#[derive(Debug)]
pub struct Parser {
    buffer: BytesMut,
    limit: usize,
    state: State,
    framing: Option<Framing>,
    skipped: u64,
}

#[derive(Debug)]
enum State {
    /// Between frames.
    Start,
    /// In a frame whose length is known; it begins the buffer.
    Sized(usize),
    /// In a bare frame, of which the first so many bytes of the buffer were walked.
    Walking(Scanner, usize),
    /// In a prefixed frame over the limit, with so many bytes to come.
    SkipSized(usize),
    /// In a bare frame over the limit.
    SkipWalking(Scanner),
}

impl Parser {
    /// A parser that keeps frames of up to `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { buffer: BytesMut::new(), limit, state: State::Start, framing: None, skipped: 0 }
    }

    /// Adds what was read. Call [`Parser::next_frame`] until it gives `None` before feeding more.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The buffer to read into, for callers that read without a copy.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// The framing of the latest frame; `None` before the first.
    pub fn framing(&self) -> Option<Framing> {
        self.framing
    }

    /// How many frames were over the limit so far.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// The payload of the next whole frame; `None` when more bytes are needed.
    ///
    /// # Errors
    /// When the stream is damaged. The parser stays where the damage is until [`Parser::resync`].
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, FrameError> {
        loop {
            match &mut self.state {
                State::Start => {
                    if !self.begin()? {
                        return Ok(None);
                    }
                }
                State::Sized(length) => {
                    if self.buffer.len() < *length {
                        return Ok(None);
                    }
                    let payload = self.buffer.split_to(*length).freeze();
                    self.state = State::Start;
                    return Ok(Some(payload));
                }
                State::Walking(scanner, walked) => {
                    let (more, ended) = scanner.feed(&self.buffer[*walked..]).map_err(FrameError::Msgpack)?;
                    *walked += more;
                    let length = *walked;
                    if length > self.limit {
                        self.skipped += 1;
                        self.buffer.advance(length);
                        self.state = if ended { State::Start } else { State::SkipWalking(scanner.clone()) };
                    } else if ended {
                        self.state = State::Sized(length);
                    } else {
                        return Ok(None);
                    }
                }
                State::SkipSized(left) => {
                    let here = self.buffer.len().min(*left);
                    self.buffer.advance(here);
                    *left -= here;
                    if *left > 0 {
                        return Ok(None);
                    }
                    self.state = State::Start;
                }
                State::SkipWalking(scanner) => {
                    let (more, ended) = scanner.feed(&self.buffer).map_err(FrameError::Msgpack)?;
                    self.buffer.advance(more);
                    if !ended {
                        return Ok(None);
                    }
                    self.state = State::Start;
                }
            }
        }
    }

    /// Reads a frame's beginning; false when more bytes are needed.
    fn begin(&mut self) -> Result<bool, FrameError> {
        let Some(&first) = self.buffer.first() else { return Ok(false) };
        if is_map(first) {
            self.framing = Some(Framing::Bare);
            self.state = State::Walking(Scanner::new(), 0);
            return Ok(true);
        }
        if first >= 0x80 {
            return Err(FrameError::Start(first));
        }
        let Some((&prefix, rest)) = self.buffer.split_first_chunk::<4>() else { return Ok(false) };
        // The byte behind the prefix tells damage at once that would else look like a long silence.
        let Some(&byte) = rest.first() else { return Ok(false) };
        let length = u32::from_be_bytes(prefix);
        if length == 0 || !is_map(byte) {
            return Err(FrameError::NoMap { length, byte });
        }
        self.framing = Some(Framing::Prefixed);
        self.buffer.advance(4);
        let length = length as usize;
        self.state = if length > self.limit {
            self.skipped += 1;
            State::SkipSized(length)
        } else {
            State::Sized(length)
        };
        Ok(true)
    }

    /// Goes on at the next thing that looks like Salt's frames (a map that begins with `head` or `body`),
    /// and says how many bytes it threw away. Without such a thing all but a possible beginning goes.
    pub fn resync(&mut self) -> usize {
        // At least one byte goes, or the same damage would be met again; a frame under way begins with it.
        let had = self.buffer.len();
        let found = (1..had).find(|&at| is_beginning(&self.buffer[at..]));
        let mut cut = found.unwrap_or(had.saturating_sub(LONGEST_BEGINNING).max(had.min(1)));
        if let Some(prefix) = cut.checked_sub(4)
            && prefix > 0
            && self.framing == Some(Framing::Prefixed)
            && found.is_some()
            && self.buffer[prefix] < 0x80
        {
            cut = prefix;
        }
        self.buffer.advance(cut);
        self.state = State::Start;
        cut
    }
}

fn is_map(byte: u8) -> bool {
    matches!(byte, 0x80..=0x8f | 0xde | 0xdf)
}

const BEGINNINGS: [&[u8]; 3] = [b"\x82\xa4head", b"\x82\xa4body", b"\x81\xa4body"];
/// A prefix and all but the last byte of a beginning: what must stay when more is to come.
const LONGEST_BEGINNING: usize = 4 + 5;

fn is_beginning(bytes: &[u8]) -> bool {
    BEGINNINGS.iter().any(|beginning| bytes.starts_with(beginning))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn payload(body: &[u8]) -> Vec<u8> {
        let mut payload = b"\x82\xa4head\x80\xa4body\xc5".to_vec();
        payload.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
        payload.extend(body);
        payload
    }

    fn all(parser: &mut Parser) -> Vec<Bytes> {
        std::iter::from_fn(|| parser.next_frame().unwrap()).collect()
    }

    #[test]
    fn a_frame_over_the_limit_is_skipped_and_the_next_one_read() {
        for framing in [Framing::Bare, Framing::Prefixed] {
            let mut stream = framed(&payload(&[7; 5000]), framing).to_vec();
            stream.extend(framed(&payload(b"small"), framing));
            for chunk in [1, 100, 1000, 10_000] {
                let mut parser = Parser::new(1000);
                let mut frames = Vec::new();
                for bytes in stream.chunks(chunk) {
                    parser.feed(bytes);
                    frames.extend(all(&mut parser));
                    assert!(parser.buffer.len() <= 1000 + chunk);
                }
                assert_eq!((frames, parser.skipped()), (vec![Bytes::from(payload(b"small"))], 1));
            }
        }
    }

    #[test]
    fn damage_is_named_and_passed() {
        for (damage, framing) in [
            (&b"\xc1"[..], Framing::Bare),
            (b"\xff\xff", Framing::Prefixed),
            (b"\x00\x00\x00\x00\x80", Framing::Prefixed),
            (b"\x00\x00\x10\x00\x05garbage", Framing::Prefixed),
            (b"\x81\xc1", Framing::Bare),
        ] {
            let mut parser = Parser::new(1000);
            parser.feed(&framed(&payload(b"one"), framing));
            assert_eq!(all(&mut parser).len(), 1);
            parser.feed(damage);
            parser.feed(&framed(&payload(b"two"), framing));
            parser.next_frame().unwrap_err();
            assert!(parser.resync() > 0);
            assert_eq!(all(&mut parser), [Bytes::from(payload(b"two"))], "{damage:02x?}");
        }
    }

    #[test]
    fn damage_alone_leaves_little_behind() {
        let mut parser = Parser::new(1000);
        parser.feed(&[0xc1; 500]);
        parser.next_frame().unwrap_err();
        parser.resync();
        assert_eq!(parser.buffer.len(), LONGEST_BEGINNING);
    }

    proptest! {
        #[test]
        fn cuts_make_no_difference(
            bodies in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..200), any::<bool>()), 0..8),
            cuts in proptest::collection::vec(1usize..60, 1..40),
        ) {
            let mut stream = Vec::new();
            for (body, bare) in &bodies {
                let framing = if *bare { Framing::Bare } else { Framing::Prefixed };
                stream.extend(framed(&payload(body), framing));
            }
            let mut parser = Parser::new(1 << 16);
            let mut frames = Vec::new();
            let (mut at, mut cuts) = (0, cuts.iter().cycle());
            while at < stream.len() {
                let end = stream.len().min(at + cuts.next().unwrap());
                parser.feed(&stream[at..end]);
                frames.extend(all(&mut parser));
                at = end;
            }
            let expected: Vec<_> = bodies.iter().map(|(body, _)| Bytes::from(payload(body))).collect();
            prop_assert_eq!(frames, expected);
        }

        #[test]
        fn any_bytes_end_in_frames_or_errors(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let mut parser = Parser::new(100);
            parser.feed(&bytes);
            // Every turn takes a frame or at least a byte away, so this ends.
            for _ in 0..=2 * bytes.len() {
                match parser.next_frame() {
                    Ok(Some(frame)) => prop_assert!(frame.len() <= 100),
                    Ok(None) => return Ok(()),
                    Err(_) => prop_assert!(parser.resync() > 0),
                }
            }
            prop_assert!(false, "no progress");
        }
    }
}
