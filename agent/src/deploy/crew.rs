//! What runs beside the web workers, brought to what the record says.
//!
//! A deploy ends it before the databases or the code change, and never begins it: that is done once the deploy has
//! ended, by what is current then. So no step has to undo it, and none of the old code is left after a switch.

use flipside_api::{AppName, Failure};

use crate::{
    app::record::App,
    host::Host,
    runtime::{crew::Runs, holder::protocol::CrewState},
};

/// Has the app's background workers and schedules run as they should, the app being up.
///
/// # Errors
/// When the app's holder cannot be told.
pub(crate) async fn settle(host: &Host, app: &App) -> Result<(), Failure> {
    let (runtime, paths, wanted) =
        (host.runtime(app.spec.runtime)?, host.paths(&app.spec.app), host.crew(app)?);
    if is_settled(host, app, &runtime.crew(&paths).await?)? {
        return Ok(());
    }
    runtime.dismiss(&paths, Runs::GoOn).await?;
    if wanted.is_empty() { Ok(()) } else { runtime.employ(&paths, wanted).await }
}

/// The same for an app by its name, as far as it should be up. What cannot be done now is done soon: see `keep`.
pub(crate) async fn settle_known(host: &Host, app: &AppName) {
    let settled = match host.records.app(app).await {
        Ok(Some(app)) if !app.stopped => settle(host, &app).await,
        Ok(_) => Ok(()),
        Err(error) => Err(error.into()),
    };
    if let Err(failure) = settled {
        tracing::error!(%app, error = failure.message, "BackgroundNotBegun");
    }
}

/// Whether they run as they should.
///
/// # Errors
/// When the app's user is not on this host.
pub(crate) fn is_settled(host: &Host, app: &App, is: &CrewState) -> Result<bool, Failure> {
    let wanted = host.crew(app)?;
    Ok(match &is.tag {
        Some(tag) => *tag == wanted.tag,
        None => wanted.is_empty() && is.background.is_empty(),
    })
}
