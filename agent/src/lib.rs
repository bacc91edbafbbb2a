//! The agent as a library, so that tests drive its parts; `main` is the boot order and nothing else.

pub mod app;
pub mod runtime;
pub mod sys;
