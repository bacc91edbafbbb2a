//! The domain: what an app is and how a deploy goes. No IO here.

pub mod paths;
