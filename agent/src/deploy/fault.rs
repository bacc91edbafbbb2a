//! `FLIPSIDE_FAULT=<step>:{fail,exit,hang}[:{before,during,after}]`, in builds with the feature `faults` only.
//!
//! Whoever walks the steps of a deploy, killing the agent at each, needs a place to stop at that is exact.

use flipside_api::Failure;

use crate::app::deployment::Step;

/// Where within a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// Before its work.
    Before,
    /// In the middle of it.
    During,
    /// After it, before it is on record as done.
    After,
}

/// Fails, ends the agent or waits for ever, where the environment says so.
#[cfg(not(feature = "faults"))]
pub(crate) async fn point(_step: Step, _moment: Moment) -> Result<(), Failure> {
    Ok(())
}

/// Fails, ends the agent or waits for ever, where the environment says so.
#[cfg(feature = "faults")]
pub(crate) async fn point(step: Step, moment: Moment) -> Result<(), Failure> {
    let Ok(wanted) = std::env::var("FLIPSIDE_FAULT") else { return Ok(()) };
    let mut parts = wanted.split(':');
    let (at, kind, when) = (parts.next(), parts.next(), parts.next().unwrap_or("before"));
    let moment = match moment {
        Moment::Before => "before",
        Moment::During => "during",
        Moment::After => "after",
    };
    if at != Some(step.name()) || when != moment {
        return Ok(());
    }
    tracing::warn!(fault = wanted, "FaultInjected");
    match kind {
        Some("exit") => std::process::exit(86),
        Some("hang") => std::future::pending().await,
        _ => Err(Failure::new(flipside_api::Code::Host, format!("FLIPSIDE_FAULT={wanted}"))),
    }
}
