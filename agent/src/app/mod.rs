//! The domain: what an app is and how a deploy goes. No IO here.

pub mod deployment;
pub mod env;
pub mod health;
pub mod paths;
pub mod plan;
pub mod platform;
pub mod record;
pub mod sample;
pub mod timetable;
