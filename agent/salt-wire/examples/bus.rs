//! Listens to a minion's bus, fires an event on it, or asks the minion's master something:
//!
//! ```text
//! bus /etc/salt/minion listen PREFIX [COUNT]    prints events, and news of the connection, as they come
//! bus /etc/salt/minion fire TAG [KEY VALUE]…    on the minion's own bus
//! bus /etc/salt/minion master TAG [KEY VALUE]…  on the master's
//! bus /etc/salt/minion ask COMMAND [KEY VALUE]… one of the master's, such as _file_hash
//! bus /etc/salt/minion measure PREFIX           see below
//! ```
//!
//! `measure` says `ready` when it is connected, takes events whose data says when they were fired (`t`, in
//! nanoseconds since 1970) until `PREFIXend`, and then prints as JSON how many came and how long each took.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, SystemTime},
};

use salt_wire::{Bus, EventStream, Incoming, Options, discover};
use tokio::task::JoinSet;

type Failed = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main(flavor = "current_thread")]
#[expect(clippy::print_stdout, reason = "an example for the terminal")]
async fn main() -> Result<(), Failed> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [config, verb, tag, rest @ ..] = arguments.as_slice() else {
        return Err("usage: bus CONFIG listen|fire|master|ask|measure TAG …".into());
    };
    let minion = discover::minion(Path::new(config))?;
    let options = Options { prefixes: vec![tag.clone()], queue: 64 << 20, ..Options::default() };
    let (bus, mut stream) = Bus::connect(minion.endpoints, options);
    let mut data: BTreeMap<_, _> = rest.chunks_exact(2).map(|pair| (&*pair[0], &*pair[1])).collect();
    match verb.as_str() {
        "fire" => bus.fire(tag, &data).await?,
        "master" => bus.fire_master(tag, &data).await?,
        "ask" => {
            data.insert("cmd", tag);
            let answer = bus.ask_master(&minion.masters[0], &data, Duration::from_secs(60)).await?;
            println!("{}", answer.value()?);
        }
        "listen" => {
            let mut left = rest.first().map_or(Ok(u64::MAX), |count| count.parse())?;
            while left > 0 {
                match stream.next().await {
                    Some(Incoming::Event(event)) => {
                        println!("{} {}", event.tag(), event.value()?);
                        left -= 1;
                    }
                    Some(other) => println!("{other:?}"),
                    None => break,
                }
            }
        }
        // In a task, as events are handled in earnest: waking the main future costs two calls of the kernel more.
        "measure" => {
            let mut tasks = JoinSet::from_iter([measure(stream, format!("{tag}end"))]);
            println!("{}", tasks.join_next().await.ok_or("no task")???);
        }
        _ => return Err(format!("{verb:?} is none of listen, fire, master, ask, measure").into()),
    }
    Ok(())
}

/// Takes events until the last one; the microseconds that each took, as JSON.
#[expect(clippy::print_stdout, reason = "an example for the terminal")]
async fn measure(mut stream: EventStream, last: String) -> Result<String, Failed> {
    let mut took = Vec::new();
    while let Some(incoming) = stream.next().await {
        match incoming {
            Incoming::Event(event) if event.tag() == last => break,
            Incoming::Event(event) => {
                let data = event.value()?;
                #[expect(clippy::disallowed_methods, reason = "compared with the clock of another process")]
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_nanos();
                let fired = data["t"].as_u64().ok_or("an event without a time")?;
                took.push(now.saturating_sub(u128::from(fired)) / 1000);
            }
            Incoming::Connected { .. } => println!("ready"),
            other => return Err(format!("{other:?}").into()),
        }
    }
    Ok(format!("{{\"us\":{took:?}}}"))
}
