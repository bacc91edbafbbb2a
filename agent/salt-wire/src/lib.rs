//! Salt's event bus, natively: for daemons that live beside a salt-minion or a salt-master and want to hear
//! its events and fire their own, without Python and without loading Salt.
//!
//! - [`discover`] finds the sockets from Salt's own configuration;
//! - [`Bus`] connects, stays connected, and fires events, locally or to the master;
//! - [`EventStream`] gives the events whose tags were asked for, and says when the connection was lost;
//! - [`event`] and [`frame`] are the two layers of the format, for uses of your own.
//!
//! It works with Salt 3006, 3007 and 3008, whose point releases frame their streams differently: what a bus
//! speaks is found out by a probe that harms none of them ([`Bus::connect`]).
//!
//! ```no_run
//! use std::{collections::BTreeMap, path::Path};
//! use salt_wire::{Bus, Incoming, Options, discover};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let minion = discover::minion(Path::new("/etc/salt/minion"))?;
//! let options = Options { prefixes: vec!["mine/".to_owned()], ..Options::default() };
//! let (bus, mut stream) = Bus::connect(minion.endpoints, options);
//! while let Some(incoming) = stream.next().await {
//!     match incoming {
//!         Incoming::Event(event) => {
//!             let data: BTreeMap<String, rmpv::Value> = event.decode()?;
//!             println!("{}: {data:?}", event.tag());
//!             // Forwarded to the master, and heard back on the minion's bus, when this returns.
//!             bus.fire_master("mine/answer", &BTreeMap::from([("ok", true)])).await?;
//!         }
//!         Incoming::Connected { .. } => println!("there"),
//!         Incoming::Lost(why) => println!("gone: {why}; trying again"),
//!         Incoming::Missed(count) => println!("too slow for {count} events"),
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Whoever may write to a bus acts as the minion, and whoever reads it sees every job return in clear: the
//! sockets belong to the minion's user. This crate never logs what passes.

mod bus;
mod clock;
pub mod discover;
pub mod event;
pub mod frame;
mod scan;
mod settings;

pub use bus::{AskError, Bus, EventStream, FireError, Incoming, Loss, Options};
pub use discover::{Address, Endpoints};
pub use event::{EncodeError, Event};
pub use frame::Framing;
pub use scan::ScanError;
