//! The one place of processes, users, time and careful file work.
//!
//! Everything here takes plain values and knows nothing of apps: what a deploy means by a path or a program is
//! decided by its callers.

pub mod atomic_write;
pub mod beneath;
pub mod clock;
pub mod exec;
pub mod proc;
pub mod tail;
pub mod trash;
pub mod users;
