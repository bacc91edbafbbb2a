//! `FLIPSIDE_FAULT=<step>:{fail,exit,hang,pause}[:{before,during,after,undo}]`, in builds with the feature `faults`
//! only; during is what is meant where no moment is named.
//!
//! Whoever walks the steps of a deploy, killing the agent at each, needs a place to stop at that is exact. `exit`
//! ends the agent on the spot, `hang` waits for ever, `pause` until the agent gets SIGUSR1.

use flipside_api::Failure;

use crate::app::deployment::Step;

/// Where within a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// Before its work; it is on record as begun.
    Before,
    /// In the middle of it.
    During,
    /// After it, before it is on record as done.
    After,
    /// After its undo, before that is on record.
    Undo,
}

/// Whether FLIPSIDE_FAULT makes sense: a fault that never comes would be taken for a step that went well.
///
/// # Errors
/// With what it may say, the names of all steps among it.
#[cfg(feature = "faults")]
pub fn check() -> Result<(), String> {
    let Ok(wanted) = std::env::var("FLIPSIDE_FAULT") else { return Ok(()) };
    let parts: Vec<&str> = wanted.split(':').collect();
    let sound = matches!(parts.as_slice(), [_, _] | [_, _, "before" | "during" | "after" | "undo"])
        && parts[0].parse::<Step>().is_ok()
        && ["fail", "exit", "hang", "pause"].contains(&parts[1]);
    let names = Step::ALL.map(Step::name).join(" ");
    sound.then_some(()).ok_or_else(|| {
        format!("FLIPSIDE_FAULT={wanted}: say STEP:{{fail,exit,hang,pause}}[:{{before,during,after,undo}}]; steps: {names}")
    })
}

/// Fails, ends the agent or waits, where the environment says so.
#[cfg(not(feature = "faults"))]
pub(crate) async fn point(_step: Step, _moment: Moment) -> Result<(), Failure> {
    Ok(())
}

/// Fails, ends the agent or waits, where the environment says so.
#[cfg(feature = "faults")]
pub(crate) async fn point(step: Step, moment: Moment) -> Result<(), Failure> {
    let Ok(wanted) = std::env::var("FLIPSIDE_FAULT") else { return Ok(()) };
    let mut parts = wanted.split(':');
    let (at, kind, when) = (parts.next(), parts.next(), parts.next().unwrap_or("during"));
    let moment = match moment {
        Moment::Before => "before",
        Moment::During => "during",
        Moment::After => "after",
        Moment::Undo => "undo",
    };
    if at != Some(step.name()) || when != moment {
        return Ok(());
    }
    let signal = tokio::signal::unix::SignalKind::user_defined1();
    let mut told = tokio::signal::unix::signal(signal)
        .map_err(|error| crate::host::fault("cannot listen for SIGUSR1", &error))?;
    tracing::warn!(fault = wanted, "FaultInjected");
    match kind {
        Some("exit") => std::process::exit(86),
        Some("hang") => std::future::pending().await,
        Some("pause") => {
            told.recv().await;
            Ok(())
        }
        _ => Err(Failure::new(flipside_api::Code::Host, format!("FLIPSIDE_FAULT={wanted}"))),
    }
}
