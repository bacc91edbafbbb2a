//! Continuous, incremental, encrypted backups of SQLite databases, and of the files beside them.
//!
//! The crate knows nothing of Flipside: it takes the path of a database, recipients and a store.

pub mod chain;
pub mod clock;
pub mod crypt;
mod fault;
pub mod follow;
mod hex;
pub mod media;
pub mod memory;
pub mod pages;
pub mod restore;
pub mod retain;
pub mod segment;
pub mod state;
pub mod store;
