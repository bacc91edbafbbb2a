//! The client against a small bus of our own, in both framings and in bad health.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which may panic")]

mod server;

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use rmpv::Value;
use salt_wire::{AskError, Bus, Endpoints, EventStream, FireError, Framing, Incoming, Loss, Options};
use server::{Health, Server};
use tokio::time::timeout;

type Data = BTreeMap<String, Value>;

fn data(pairs: &[(&str, i64)]) -> Data {
    pairs.iter().map(|&(key, value)| (key.to_owned(), Value::from(value))).collect()
}

fn options() -> Options {
    Options {
        prefixes: vec!["mine/".to_owned()],
        echo_every: Duration::from_millis(200),
        echo_timeout: Duration::from_secs(2),
        probe_wait: Duration::from_millis(100),
        watch_every: Duration::from_millis(20),
        rate: 100_000,
        burst: 1000,
        back_off: (Duration::from_millis(5), Duration::from_millis(50)),
        ..Options::default()
    }
}

async fn next(stream: &mut EventStream) -> Incoming {
    timeout(Duration::from_secs(10), stream.next()).await.expect("nothing came").expect("the stream ended")
}

/// Reads on until it is connected; fails on an event.
async fn connected(stream: &mut EventStream) -> Framing {
    loop {
        match next(stream).await {
            Incoming::Connected { framing, .. } => return framing,
            Incoming::Lost(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

async fn lost(stream: &mut EventStream) -> Loss {
    loop {
        match next(stream).await {
            Incoming::Lost(loss) => return loss,
            Incoming::Event(_) | Incoming::Missed(_) => {}
            Incoming::Connected { .. } => {}
        }
    }
}

async fn event(stream: &mut EventStream) -> (String, Data) {
    loop {
        match next(stream).await {
            Incoming::Event(event) => return (event.tag().to_owned(), event.decode().unwrap()),
            Incoming::Connected { .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

struct Place {
    _folder: tempfile::TempDir,
    path: PathBuf,
    endpoints: Endpoints,
}

fn place() -> Place {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    Place { _folder: folder, endpoints: Endpoints::of_master(&path), path }
}

impl Place {
    fn serve(&self, publish: Framing, pull: Framing) -> Server {
        Server::start(&self.path, publish, pull, Health::Well)
    }
}

#[tokio::test]
async fn every_pair_of_framings_is_found() {
    for (publish, pull) in [
        (Framing::Bare, Framing::Bare),
        (Framing::Prefixed, Framing::Prefixed),
        (Framing::Bare, Framing::Prefixed),
    ] {
        let place = place();
        let server = place.serve(publish, pull);
        let (bus, mut stream) = Bus::connect(place.endpoints.clone(), options());
        assert_eq!(connected(&mut stream).await, pull);
        bus.fire("mine/a", &data(&[("n", 7)])).await.unwrap();
        bus.fire("other/a", &data(&[])).await.unwrap();
        bus.fire("mine/b", &data(&[])).await.unwrap();
        let (tag, got) = event(&mut stream).await;
        assert_eq!((tag.as_str(), got["n"].as_i64()), ("mine/a", Some(7)));
        assert!(got.contains_key("_stamp"));
        assert_eq!(event(&mut stream).await.0, "mine/b");
        assert_eq!(server.garbage(), 0, "the probe harmed the server");
    }
}

#[tokio::test]
async fn requests_to_the_master_have_all_four_keys() {
    let place = place();
    let _server = place.serve(Framing::Bare, Framing::Prefixed);
    let (bus, mut stream) =
        Bus::connect(place.endpoints.clone(), Options { prefixes: vec!["fire_master".into()], ..options() });
    connected(&mut stream).await;
    bus.fire_master("mine/one", &data(&[("n", 1)])).await.unwrap();
    let batch = [("mine/x".to_owned(), data(&[("n", 1)])), ("mine/y".to_owned(), data(&[("n", 2)]))];
    bus.fire_master_batch(&batch).await.unwrap();
    let (_, one) = event(&mut stream).await;
    let keys: Vec<_> = one.keys().map(String::as_str).collect();
    assert_eq!(keys, ["_stamp", "data", "events", "pretag", "tag"]);
    assert_eq!(one["tag"].as_str(), Some("mine/one"));
    assert_eq!(one["data"], Value::Map(vec![("n".into(), 1.into())]));
    let (_, batch) = event(&mut stream).await;
    assert!(batch["tag"].is_nil() && batch["data"].is_nil() && batch["pretag"].is_nil());
    assert_eq!(batch["events"].as_array().unwrap().len(), 2);
    assert_eq!(batch["events"][1]["tag"].as_str(), Some("mine/y"));
    assert_eq!(batch["events"][1]["data"]["n"].as_i64(), Some(2));
}

#[tokio::test]
async fn a_server_that_comes_late_and_goes_is_found_again() {
    let place = place();
    let (bus, mut stream) = Bus::connect(place.endpoints.clone(), options());
    assert!(matches!(lost(&mut stream).await, Loss::Io { what: "connect to", .. }));
    for framing in [Framing::Prefixed, Framing::Bare, Framing::Prefixed] {
        let server = place.serve(framing, framing);
        assert_eq!(connected(&mut stream).await, framing);
        bus.fire("mine/a", &data(&[])).await.unwrap();
        assert_eq!(event(&mut stream).await.0, "mine/a");
        drop(server);
        lost(&mut stream).await;
    }
}

#[tokio::test]
async fn an_event_fired_meanwhile_waits_for_the_bus() {
    let place = place();
    let (bus, mut stream) = Bus::connect(place.endpoints.clone(), options());
    lost(&mut stream).await;
    let empty = data(&[]);
    let (fired, _server) = tokio::join!(bus.fire("mine/a", &empty), async {
        // Polled after the first, which has queued its event by now.
        place.serve(Framing::Bare, Framing::Bare)
    });
    fired.unwrap();
    connected(&mut stream).await;
    assert_eq!(event(&mut stream).await.0, "mine/a");
}

#[tokio::test]
async fn without_a_bus_firing_ends_in_time() {
    let place = place();
    let options = Options { echo_timeout: Duration::from_millis(50), ..options() };
    let (bus, stream) = Bus::connect(place.endpoints.clone(), options);
    assert_eq!(bus.fire("mine/a", &data(&[])).await, Err(FireError::Unsent));
    drop(stream);
    // The task ends when the runtime gets to it.
    while bus.fire("mine/a", &data(&[])).await != Err(FireError::Shutdown) {}
}

#[tokio::test]
async fn a_full_queue_refuses_at_once() {
    let place = place();
    let options = Options { queue: 2000, echo_timeout: Duration::from_millis(50), ..options() };
    let (bus, _stream) = Bus::connect(place.endpoints.clone(), options);
    let empty = data(&[]);
    let results = tokio::join!(
        bus.fire("mine/a", &empty),
        bus.fire("mine/b", &empty),
        bus.fire("mine/c", &empty),
        bus.fire("mine/d", &empty)
    );
    assert_eq!(results.3, Err(FireError::Full));
    assert_eq!(results.0, Err(FireError::Unsent));
}

#[tokio::test]
async fn a_replaced_server_is_noticed_without_an_end_of_the_stream() {
    let place = place();
    let old = place.serve(Framing::Bare, Framing::Prefixed);
    let (bus, mut stream) =
        Bus::connect(place.endpoints.clone(), Options { echo_every: Duration::from_secs(3600), ..options() });
    connected(&mut stream).await;
    // The old one's sockets stay open, as in the forked jobs of a killed minion.
    let _new = place.serve(Framing::Bare, Framing::Prefixed);
    assert_eq!(lost(&mut stream).await, Loss::Replaced);
    connected(&mut stream).await;
    bus.fire("mine/a", &data(&[])).await.unwrap();
    assert_eq!(event(&mut stream).await.0, "mine/a");
    drop(old);
}

#[tokio::test]
async fn a_deaf_server_is_noticed_by_the_echo() {
    let place = place();
    let server = place.serve(Framing::Bare, Framing::Bare);
    let options = Options { echo_timeout: Duration::from_millis(100), ..options() };
    let (bus, mut stream) = Bus::connect(place.endpoints.clone(), options);
    connected(&mut stream).await;
    server.set(Health::Deaf);
    assert_eq!(bus.fire("mine/a", &data(&[])).await, Err(FireError::Unheard));
    assert_eq!(lost(&mut stream).await, Loss::Deaf);
    server.set(Health::Well);
    connected(&mut stream).await;
}

#[tokio::test]
async fn a_server_that_stops_reading_does_not_hold_us() {
    let place = place();
    let server = place.serve(Framing::Bare, Framing::Bare);
    let options = Options { echo_timeout: Duration::from_millis(200), ..options() };
    let (bus, mut stream) = Bus::connect(place.endpoints.clone(), options);
    connected(&mut stream).await;
    server.set(Health::Stuck);
    let large = BTreeMap::from([("x", "y".repeat(900_000))]);
    let fired = tokio::join!(bus.fire("mine/a", &large), bus.fire("mine/b", &large));
    assert!(matches!(fired.1, Err(FireError::Unsent | FireError::Unheard)), "{fired:?}");
    assert!(matches!(lost(&mut stream).await, Loss::Stuck | Loss::Deaf));
    server.set(Health::Well);
    connected(&mut stream).await;
}

#[tokio::test]
async fn damage_and_giants_are_passed() {
    for framing in [Framing::Bare, Framing::Prefixed] {
        let place = place();
        let server = place.serve(framing, framing);
        let (bus, mut stream) = Bus::connect(
            place.endpoints.clone(),
            Options { max_frame: 100_000, echo_timeout: Duration::from_millis(500), ..options() },
        );
        connected(&mut stream).await;
        server.publish(b"\xc1\xc1\xc1");
        bus.fire("mine/a", &data(&[])).await.unwrap();
        assert_eq!(event(&mut stream).await.0, "mine/a");
        let giant = BTreeMap::from([("x", "y".repeat(900_000))]);
        assert!(matches!(bus.fire("mine/giant", &giant).await, Err(FireError::Unheard)));
        bus.fire("mine/b", &data(&[])).await.unwrap();
        assert_eq!(event(&mut stream).await.0, "mine/b");
    }
}

#[tokio::test]
async fn endless_damage_ends_in_a_new_connection() {
    let place = place();
    let server = place.serve(Framing::Bare, Framing::Bare);
    let (_bus, mut stream) = Bus::connect(place.endpoints.clone(), options());
    connected(&mut stream).await;
    for _ in 0..20 {
        server.publish(&[0xc1; 5000]);
    }
    let loss = lost(&mut stream).await;
    assert!(matches!(loss, Loss::Damaged(_)), "{loss:?}");
    connected(&mut stream).await;
}

#[tokio::test]
async fn a_slow_reader_misses_events_and_nothing_else_stops() {
    let place = place();
    let _server = place.serve(Framing::Bare, Framing::Prefixed);
    let (bus, mut stream) = Bus::connect(place.endpoints.clone(), Options { queue: 20_000, ..options() });
    connected(&mut stream).await;
    for n in 0..200 {
        bus.fire("mine/a", &data(&[("n", n)])).await.unwrap();
    }
    let Incoming::Missed(missed) = next(&mut stream).await else { panic!("no notice") };
    let mut received = 0;
    while received + missed < 200 {
        let (_, got) = event(&mut stream).await;
        assert_eq!(got["n"].as_u64(), Some(received));
        received += 1;
    }
    assert!(received > 10 && missed > 10, "{received} {missed}");
}

#[tokio::test]
async fn writes_are_paced() {
    let place = place();
    let _server = place.serve(Framing::Bare, Framing::Bare);
    let (bus, mut stream) =
        Bus::connect(place.endpoints.clone(), Options { rate: 200, burst: 1, ..options() });
    connected(&mut stream).await;
    let begin = std::time::Instant::now();
    for _ in 0..41 {
        bus.fire("mine/a", &data(&[])).await.unwrap();
    }
    assert!(begin.elapsed() >= Duration::from_millis(190), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn tcp_works_the_same() {
    let place = place();
    let (server, endpoints) = Server::on_tcp(Framing::Bare, Framing::Prefixed).await;
    let (bus, mut stream) = Bus::connect(endpoints, options());
    assert_eq!(connected(&mut stream).await, Framing::Prefixed);
    bus.fire("mine/a", &data(&[])).await.unwrap();
    assert_eq!(event(&mut stream).await.0, "mine/a");
    drop((server, place));
}

#[tokio::test]
async fn the_master_is_asked_and_its_answer_found() {
    let place = place();
    let _server = place.serve(Framing::Bare, Framing::Prefixed);
    let (bus, mut stream) = Bus::connect(place.endpoints.clone(), options());
    connected(&mut stream).await;
    // A minion that passes questions on.
    let prefixes = vec!["__master_req_channel_payload/".to_owned()];
    let (minion, mut questions) = Bus::connect(place.endpoints.clone(), Options { prefixes, ..options() });
    connected(&mut questions).await;
    let answers = async {
        for answer in [data(&[("ret", 7)]), data(&[("error", 1)])] {
            let (tag, load) = event(&mut questions).await;
            assert_eq!(load["n"].as_i64(), Some(1));
            let id = tag.split('/').nth(1).unwrap();
            assert!(tag.ends_with("/10.0.0.1"), "{tag}");
            minion.fire("__master_req_channel_return/another", &data(&[])).await.unwrap();
            minion.fire(&format!("__master_req_channel_return/{id}"), &answer).await.unwrap();
        }
    };
    let load = data(&[("n", 1)]);
    let within = Duration::from_secs(5);
    let asked = async {
        let first = bus.ask_master("10.0.0.1", &load, within).await;
        (first, bus.ask_master("10.0.0.1", &load, within).await)
    };
    let ((first, second), ()) = tokio::join!(asked, answers);
    assert_eq!(first.unwrap().decode::<Data>().unwrap()["ret"].as_i64(), Some(7));
    assert_eq!(second, Err(AskError::NoMaster));
    let none = bus.ask_master("10.0.0.1", &load, Duration::from_millis(50)).await;
    assert_eq!(none, Err(AskError::Silence));
}
