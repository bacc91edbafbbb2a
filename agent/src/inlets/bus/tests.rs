//! The inlet between a router without apps and a bus of salt-wire's own tests.

#[path = "../../../salt-wire/tests/server/mod.rs"]
#[expect(dead_code, reason = "it can be ill in more ways than are tried here")]
mod server;

use std::{fs::File, io::Write};

use flipside_api::{Command, Outcome, Release, Request, State, Who};
use salt_wire::{Endpoints, Framing};
use serde_json::{Value, json};
use server::{Health, Server};
use tokio::{task::JoinSet, time::timeout};

use super::*;
use crate::{
    app::record::Begin, backup::NoBackups, config::Config, db::Db, runtime::assets::Assets, secrets::Keyring,
};

/// A host with its minion's bus, and somebody who listens as the master would.
struct Stage {
    folder: tempfile::TempDir,
    host: Arc<Host>,
    router: Arc<Router>,
    stop: CancellationToken,
    tasks: JoinSet<Option<Arc<Herald>>>,
}

const ID: &str = "web1";
const ASK: &str = "__master_req_channel_payload/";

impl Stage {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let write =
            |name: &str, text: String| File::create(at(name)).unwrap().write_all(text.as_bytes()).unwrap();
        write("minion", format!("id: {ID}\nsock_dir: {}\ncachedir: {0}", folder.path().display()));
        write("agent.toml", format!("id = \"{ID}\"\n[salt]\nminion_config = {:?}\n", at("minion")));
        let config = Config::load(&at("agent.toml")).unwrap();
        let db = Db::open(&at("agent.db")).unwrap();
        let keyring = Keyring::open(&at("identity")).unwrap();
        let assets = Assets::write(folder.path()).unwrap();
        let records = Arc::new(db.clone());
        let program = at("none");
        let runtimes = Vec::new();
        let host = Arc::new(Host { config, records, db, keyring, runtimes, assets, program, started: 0 });
        let stop = CancellationToken::new();
        let router = Router::new(Arc::clone(&host), Arc::new(NoBackups), stop.clone());
        Self { folder, host, router, stop, tasks: JoinSet::new() }
    }

    fn start(&mut self) {
        self.tasks.spawn(serve(Arc::clone(&self.host), Arc::clone(&self.router), self.stop.clone()));
    }

    fn endpoints(&self) -> Endpoints {
        Endpoints::of_minion(self.folder.path(), ID, "sha256").unwrap()
    }

    fn minion(&self) -> Server {
        Server::at(&self.endpoints(), Framing::Bare, Framing::Prefixed, Health::Well)
    }

    /// Somebody else on the same bus, once it is there.
    async fn other(&self) -> (Bus, EventStream) {
        let options = Options { prefixes: vec!["fire_master".into(), ASK.into()], ..Options::default() };
        let (bus, mut stream) = Bus::connect(self.endpoints(), options);
        while !matches!(stream.next().await, Some(Incoming::Connected { .. })) {}
        (bus, stream)
    }
}

/// The next `count` events that go to the master. `bus` answers for the minion, unless the master is silent.
async fn to_master((bus, stream): &mut (Bus, EventStream), count: usize) -> Vec<(String, Value)> {
    let mut events = Vec::new();
    while events.len() < count {
        let incoming = timeout(Duration::from_secs(20), stream.next()).await.expect("nothing came").unwrap();
        let Incoming::Event(event) = incoming else { continue };
        let data: Value = event.decode().unwrap();
        if let Some((_, rest)) = event.tag().split_once(ASK) {
            let (id, master) = rest.split_once('/').unwrap();
            assert_eq!(
                (master, data["cmd"].as_str(), data["id"].as_str()),
                ("salt", Some("_minion_event"), Some(ID))
            );
            bus.fire(&format!("__master_req_channel_return/{id}"), &json!({"ret": null})).await.unwrap();
        }
        for event in data["events"].as_array().unwrap() {
            events.push((event["tag"].as_str().unwrap().to_owned(), event["data"].clone()));
        }
    }
    events
}

fn reload() -> Command {
    Command::Reload(Release { app: "blog".parse().unwrap(), wait: 0 })
}

#[tokio::test]
async fn a_request_by_event_is_answered_to_the_master() {
    let mut stage = Stage::new();
    let _minion = stage.minion();
    stage.start();
    let mut other = stage.other().await;
    other.0.fire("flipside/do/reload/blog", &json!({"id": "r1"})).await.unwrap();
    // The inlet may have connected after the event was fired: then it is fired again, as a person would.
    let events = loop {
        match timeout(Duration::from_secs(2), to_master(&mut other, 2)).await {
            Ok(events) => break events,
            Err(_) => other.0.fire("flipside/do/reload/blog", &json!({"id": "r1"})).await.unwrap(),
        }
    };
    assert_eq!(events[0].0, "flipside/on/reload/blog/started");
    assert_eq!(events[1].0, "flipside/on/reload/blog/failed");
    assert_eq!((events[1].1["id"].as_str(), events[1].1["via"].as_str()), (Some("r1"), Some("event")));
    other.0.fire("flipside/do/deploy/blog", &json!({"id": "r2"})).await.unwrap();
    other.0.fire("flipside/do/reload/BLOG", &json!({"id": "r3"})).await.unwrap();
    other.0.fire("flipside/on/reload/blog/done", &json!({"id": "r4"})).await.unwrap();
    let events = to_master(&mut other, 1).await;
    assert_eq!(events[0].0, "flipside/on/deploy/blog/failed");
    assert_eq!(events[0].1["error"]["code"], "gate");
    other.0.fire("flipside/do/status/blog", &json!({"id": "r5"})).await.unwrap();
    assert_eq!(to_master(&mut other, 1).await[0].1["id"], "r5");
}

#[tokio::test]
async fn answers_wait_for_a_minion_that_is_away_and_outlive_the_agent() {
    let mut stage = Stage::new();
    stage.start();
    tokio::task::yield_now().await;
    let who = Who { via: "salt".into(), user: "ann".into(), id: Some("jid1".into()), ..Who::default() };
    let mut heard = stage.router.submit(Request::new(who, reload()));
    while heard.next().await.is_some() {}
    stage.stop.cancel();
    let herald = stage.tasks.join_next().await.unwrap().unwrap().unwrap();
    herald.drain().await;
    assert_eq!(stage.host.db.waiting(9, 9999).await.unwrap().len(), 1);

    stage.stop = CancellationToken::new();
    stage.router = Router::new(Arc::clone(&stage.host), Arc::new(NoBackups), stage.stop.clone());
    let _minion = stage.minion();
    let mut other = stage.other().await;
    stage.start();
    let events = to_master(&mut other, 1).await;
    assert_eq!(events[0].0, "flipside/on/reload/blog/failed");
    assert_eq!((events[0].1["user"].as_str(), events[0].1["minion"].as_str()), (Some("ann"), Some(ID)));
    while !stage.host.db.waiting(9, 9999).await.unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_ended_without_an_answer_is_announced_at_the_next_start() {
    let mut stage = Stage::new();
    let begin = Begin {
        id: "d1".into(),
        app: "blog".parse().unwrap(),
        verb: "deploy".into(),
        release: None,
        previous: None,
        who: Who::default(),
        at: 1,
        work: None,
        env: None,
    };
    stage.host.db.begin(begin).await.unwrap();
    let ended = crate::sys::clock::now_ms() - 60_000;
    stage.host.db.end("d1", &Outcome::good(State::Deployed, "unseen"), ended, None).await.unwrap();
    let _minion = stage.minion();
    let mut other = stage.other().await;
    stage.start();
    let events = to_master(&mut other, 1).await;
    assert_eq!(events[0].0, "flipside/on/deploy/blog/done");
    assert_eq!(events[0].1["deployment"], "d1");
    assert!(stage.host.db.unannounced(0, i64::MAX).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_dead_bus_holds_up_no_command() {
    let mut stage = Stage::new();
    stage.start();
    tokio::task::yield_now().await;
    let begin = std::time::Instant::now();
    for n in 0..400 {
        let who =
            Who { via: "salt".into(), user: String::new(), id: Some(format!("j{n}")), ..Who::default() };
        let mut heard = stage.router.submit(Request::new(who, reload()));
        while heard.next().await.is_some() {}
    }
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
}
