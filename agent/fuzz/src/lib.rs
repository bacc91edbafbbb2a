//! What must hold of any bytes that a peer sends. Each function panics where it does not.
//!
//! Every test run tries what is kept in `corpus/`, and changes of it for a few seconds (`explore`). What once failed
//! goes there.

#[cfg(test)]
mod explore;

use bytes::Bytes;
use flipside_api::{AppName, ReleaseId, Reply, Request, Tag, codec};
use salt_wire::{
    Event,
    event::encode,
    frame::{Framing, Parser, framed},
};

/// Frames over this are skipped.
const LIMIT: usize = 4096;

/// A stream of the event bus, read in pieces of the size that the first byte says.
pub fn bus(data: &[u8]) {
    let Some((&first, stream)) = data.split_first() else { return };
    let mut parser = Parser::new(LIMIT);
    let mut frames = Vec::new();
    for piece in stream.chunks(1 + usize::from(first)) {
        parser.feed(piece);
        read(&mut parser, &mut frames);
    }
    let mut events = Vec::new();
    for frame in &frames {
        assert!(frame.len() <= LIMIT, "a frame over the limit");
        if let Ok(event) = Event::parse(frame)
            && let Ok(value) = event.value()
            && let Ok(again) = encode(event.tag(), &value, LIMIT)
        {
            let read = Event::parse(&again).expect("what we wrote is an event");
            assert_eq!(read.tag(), event.tag());
            events.push(again);
        }
    }
    // What we write ourselves is read back in either framing, whatever came before it.
    for framing in [Framing::Bare, Framing::Prefixed] {
        let mut parser = Parser::new(LIMIT);
        let mut back = Vec::new();
        for event in &events {
            parser.feed(&framed(event, framing));
            read(&mut parser, &mut back);
        }
        assert_eq!(back, events);
    }
}

/// Takes what is there; a damaged stream costs at least a byte a turn.
fn read(parser: &mut Parser, frames: &mut Vec<Bytes>) {
    loop {
        match parser.next_frame() {
            Ok(Some(frame)) => frames.push(frame),
            Ok(None) => return,
            Err(_) => assert!(parser.resync() > 0, "no progress"),
        }
    }
}

/// The payload of a frame of the local API: a request, a reply, or neither.
pub fn api(data: &[u8]) {
    if let Ok(request) = codec::decode::<Request>(data) {
        let again = codec::encode(&request).expect("what was read can be written");
        let read = codec::decode::<Request>(&again).expect("what was written is read");
        // Not the values: one that is not a number is never equal to itself.
        assert_eq!(codec::encode(&read).expect("it can be written once more"), again);
        if let flipside_api::Command::Deploy(deploy) = &request.command
            && deploy.spec.check().is_ok()
        {
            for domain in &deploy.spec.domains {
                assert!(
                    !domain.contains([' ', ';', '{', '}', '\n', '"', '\'']),
                    "{domain:?} ends in nginx's file"
                );
            }
        }
    }
    if let Ok(reply) = codec::decode::<Reply>(data) {
        codec::encode(&reply).expect("what was read can be written");
    }
    if let Ok(text) = std::str::from_utf8(data) {
        names(text);
    }
}

/// What passes for a name is one harmless part of a path.
fn names(text: &str) {
    let accepted = [
        text.parse::<AppName>().map(|name| name.to_string()).ok(),
        text.parse::<ReleaseId>().map(|name| name.to_string()).ok(),
        text.parse::<Tag>().map(|name| name.to_string()).ok(),
    ];
    for name in accepted.into_iter().flatten() {
        assert_eq!(name, text);
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._+!-".contains(&b);
        assert!(name.bytes().all(plain) && !name.starts_with(['.', '-']) && name.len() <= 120, "{name:?}");
    }
}
