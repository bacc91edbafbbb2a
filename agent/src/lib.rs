//! The agent as a library, so that tests drive its parts; `main` is the boot order and nothing else, and the
//! only place that names concrete adapters.

pub mod app;
pub mod backup;
pub mod config;
pub mod db;
pub mod deploy;
pub mod host;
pub mod inlets;
pub mod progress;
pub mod records;
pub mod router;
pub mod runtime;
pub mod secrets;
pub mod sqlite;
pub mod sys;
