//! The process runtime against real uWSGI: what must not lose a request is done under load, and every request
//! is counted.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may panic, and says so when it is skipped"
)]

mod bad_releases;
mod client;
mod crew;
mod fixture;
mod hostile;
mod kills;
mod switching;
