//! uWSGI: how it is installed, told what to do, and asked how it is.

pub mod files;
pub mod ini;
pub mod install;
pub mod stats;

/// The signal that makes uWSGI's master restart its workers one by one. The same as `c` on its fifo, but it needs
/// no file in a folder of the app's user, who could put anything in its place.
pub const CHAIN_SIGNAL: i32 = 40;

/// How long a worker may go on with its requests when it is restarted or retired.
pub const MERCY_SECONDS: u64 = 30;
