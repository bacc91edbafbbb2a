//! Every frame that was captured from real masters and minions of four releases, in every way it may arrive.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which may panic")]

use std::path::Path;

use bytes::Bytes;
use rmpv::Value;
use salt_wire::{
    Event, Framing,
    event::encode_stamped,
    frame::{Parser, framed},
};

struct Capture {
    file: String,
    tag: String,
    wire: Vec<u8>,
}

fn captures() -> Vec<Capture> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    let mut captures = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let file = path.file_name().unwrap().to_str().unwrap().to_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        let mut lines = text.lines();
        while let Some(head) = lines.next().filter(|_| file.starts_with('v')) {
            let tag = head.split(' ').nth(2).unwrap().to_owned();
            let hex = lines.next().unwrap();
            let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
            captures.push(Capture {
                file: file.clone(),
                tag,
                wire: (0..hex.len()).step_by(2).map(byte).collect(),
            });
        }
    }
    assert!(captures.len() > 60, "{}", captures.len());
    captures
}

fn drain(parser: &mut Parser) -> Vec<Event> {
    let frames = std::iter::from_fn(|| parser.next_frame().unwrap());
    frames.map(|payload| Event::parse(&payload).unwrap()).collect()
}

fn key<'a>(value: &'a Value, name: &str) -> &'a Value {
    let pairs = value.as_map().unwrap();
    &pairs.iter().find(|(key, _)| key.as_str() == Some(name)).unwrap_or_else(|| panic!("no {name}")).1
}

#[test]
fn each_one_byte_by_byte() {
    for capture in captures() {
        let mut parser = Parser::new(1 << 20);
        let (last, first) = capture.wire.split_last().unwrap();
        for &byte in first {
            parser.feed(&[byte]);
            assert_eq!(parser.next_frame(), Ok(None));
        }
        parser.feed(&[*last]);
        let events = drain(&mut parser);
        assert_eq!(events.len(), 1);
        assert_eq!(events[0].tag(), capture.tag);
        assert!(key(&events[0].value().unwrap(), "_stamp").as_str().unwrap().starts_with("2026-11-23T"));
        let prefixed = capture.file.starts_with("v3006.28");
        assert_eq!(parser.framing(), Some(if prefixed { Framing::Prefixed } else { Framing::Bare }));
    }
}

#[test]
fn all_at_once_and_cut_anywhere() {
    let captures = captures();
    let stream: Vec<u8> = captures.iter().flat_map(|capture| capture.wire.clone()).collect();
    let tags: Vec<_> = captures.iter().map(|capture| capture.tag.as_str()).collect();
    for size in [1, 2, 3, 5, 7, 64, 1000, stream.len()] {
        let mut parser = Parser::new(1 << 20);
        let mut events = Vec::new();
        for chunk in stream.chunks(size) {
            parser.feed(chunk);
            events.extend(drain(&mut parser));
        }
        assert_eq!(events.iter().map(Event::tag).collect::<Vec<_>>(), tags);
    }
}

#[test]
fn one_flipped_byte_is_survived() {
    for capture in captures() {
        for at in 0..capture.wire.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut wire = capture.wire.clone();
                wire[at] ^= flip;
                let mut parser = Parser::new(1 << 20);
                parser.feed(&wire);
                while let Ok(Some(payload)) = parser.next_frame() {
                    if let Ok(event) = Event::parse(&payload) {
                        let _ = event.value();
                    }
                }
            }
        }
    }
}

#[test]
fn what_salt_sent_to_its_master_we_encode_alike() {
    let mut compared = 0;
    for capture in captures().iter().filter(|capture| capture.tag == "fire_master") {
        let mut parser = Parser::new(1 << 20);
        parser.feed(&capture.wire);
        let event = drain(&mut parser).remove(0);
        let value = event.value().unwrap();
        let stamp = key(&value, "_stamp").as_str().unwrap().to_owned();
        let pairs = value.as_map().unwrap().iter().filter(|(key, _)| key.as_str() != Some("_stamp"));
        let data = Value::Map(pairs.cloned().collect());
        let payload = encode_stamped("fire_master", &data, 1 << 20, &stamp).unwrap();
        let ours = Event::parse(&Bytes::copy_from_slice(&payload)).unwrap();
        assert_eq!(ours.value().unwrap(), value);
        // Salt of 3008 uses the shortest form of text, we name the stamp's length in a byte of its own.
        assert!(framed(&payload, Framing::Prefixed).len() <= capture.wire.len() + 5);
        compared += 1;
    }
    assert!(compared >= 6, "{compared}");
}

#[test]
fn what_we_fire_arrives_below_data() {
    let capture = captures()
        .into_iter()
        .find(|capture| capture.file == "v3006.28.master" && capture.tag == "flipside/hello")
        .unwrap();
    let mut parser = Parser::new(1 << 20);
    parser.feed(&capture.wire);
    let value = drain(&mut parser).remove(0).value().unwrap();
    assert_eq!(key(&value, "id").as_str(), Some("flip-v3006.28"));
    assert_eq!(key(key(&value, "data"), "n").as_u64(), Some(1));
}
