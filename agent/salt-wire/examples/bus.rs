//! Listens to a minion's bus, or fires an event on it:
//!
//! ```text
//! bus /etc/salt/minion listen PREFIX [COUNT]    prints events, or news of the connection, as they come
//! bus /etc/salt/minion fire TAG [KEY VALUE]…    on the minion's own bus
//! bus /etc/salt/minion master TAG [KEY VALUE]…  on the master's
//! ```

use std::{collections::BTreeMap, path::Path};

use salt_wire::{Bus, Incoming, Options, discover};

#[tokio::main(flavor = "current_thread")]
#[expect(clippy::print_stdout, reason = "an example for the terminal")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [config, verb, tag, rest @ ..] = arguments.as_slice() else {
        return Err("usage: bus CONFIG listen|fire|master TAG …".into());
    };
    let minion = discover::minion(Path::new(config))?;
    let options = Options { prefixes: vec![tag.clone()], ..Options::default() };
    let (bus, mut stream) = Bus::connect(minion.endpoints, options);
    let data: BTreeMap<_, _> = rest.chunks_exact(2).map(|pair| (&pair[0], &pair[1])).collect();
    match verb.as_str() {
        "fire" => bus.fire(tag, &data).await?,
        "master" => bus.fire_master(tag, &data).await?,
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
        _ => return Err(format!("{verb:?} is none of listen, fire, master").into()),
    }
    Ok(())
}
