//! Tries what is kept in the corpus, and random changes of it for a few seconds: FLIPSIDE_FUZZ_SECONDS each.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};

/// Values that lengths and markers turn on.
const INTERESTING: [u8; 12] = [0, 1, 0x7f, 0x80, 0x81, 0x82, 0xc1, 0xc6, 0xdd, 0xdf, 0xfe, 0xff];

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut kept = files(&here.join("corpus").join(target));
    if target == "bus" {
        // Frames as real masters and minions wrote them, in hex beside comments.
        for text in files(&here.join("../salt-wire/tests/vectors")) {
            let text = String::from_utf8(text).unwrap();
            let frames = text.lines().filter_map(|line| {
                (0..line.len() / 2)
                    .map(|at| line.get(2 * at..2 * at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok()))
                    .collect::<Option<Vec<u8>>>()
            });
            kept.extend(frames.map(|frame| [&[60], frame.as_slice()].concat()));
        }
    }
    assert!(kept.len() >= 8, "{target}: the corpus is gone");
    kept
}

fn files(folder: &Path) -> Vec<Vec<u8>> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut paths: Vec<_> =
        entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

fn changed(corpus: &[Vec<u8>], random: &mut StdRng) -> Vec<u8> {
    let mut data = corpus.choose(random).cloned().unwrap_or_default();
    data.truncate(8192);
    for _ in 0..random.random_range(1..8) {
        let at = random.random_range(0..=data.len());
        match random.random_range(0..6) {
            0 if at < data.len() => data[at] = random.random(),
            1 if at < data.len() => data[at] = *INTERESTING.choose(random).unwrap(),
            2 => data.insert(at, random.random()),
            3 => drop(data.drain(at..(at + random.random_range(0..16)).min(data.len()))),
            4 => data.truncate(at),
            _ => {
                let other = corpus.choose(random).unwrap();
                let from = random.random_range(0..=other.len());
                let piece = &other[from..(from + random.random_range(0..64)).min(other.len())];
                data.splice(at..at, piece.iter().copied());
            }
        }
    }
    data
}

fn explore(name: &str, target: fn(&[u8])) {
    let corpus = corpus(name);
    corpus.iter().for_each(|kept| target(kept));
    let seed = std::env::var("FLIPSIDE_FUZZ_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(rand::random::<u64>);
    println!("FLIPSIDE_FUZZ_SEED={seed} tries the same again");
    let seconds = std::env::var("FLIPSIDE_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(4);
    let (begun, mut random, mut tried) = (Instant::now(), StdRng::seed_from_u64(seed), 0_u64);
    while begun.elapsed() < Duration::from_secs(seconds) {
        target(&changed(&corpus, &mut random));
        tried += 1;
    }
    println!("{name}: {} kept, {tried} changed", corpus.len());
}

#[test]
fn any_bytes_on_the_bus() {
    explore("bus", crate::bus);
}

#[test]
fn any_bytes_on_the_api() {
    explore("api", crate::api);
}
