//! The ways in: each turns what it hears into a [`flipside_api::Request`] for the router.

pub mod api;
pub mod bus;
mod streams;
