//! Asks the app through nginx, as a browser would, until it is healthy or its time is up.

use std::time::Duration;

use flipside_api::{Code, Failure};
use tokio::time::Instant;

use super::{
    super::{
        context::Context,
        fault::{Moment, point},
        probe,
    },
    switch::with_log,
};
use crate::app::{deployment::Step, health};

/// How long between two questions.
const PAUSE: Duration = Duration::from_millis(250);

pub(super) async fn work(ctx: &Context) -> Result<String, Failure> {
    point(Step::Health, Moment::During).await?;
    let spec = &ctx.work.spec;
    let host = health::host(&spec.domains);
    let mut https = spec.public_url.starts_with("https://");
    let deadline = Instant::now() + Duration::from_secs(u64::from(spec.health.timeout.max(1)));
    loop {
        let asked = tokio::time::timeout_at(
            deadline,
            probe::get(&ctx.host.config.nginx, &host, &spec.health.path, https),
        );
        let complaint = match asked.await {
            Err(_) => "did not answer in time".to_owned(),
            Ok(Err(error)) => error.to_string(),
            // A redirect to https says nothing of the page: it is asked as the proxy in front would.
            Ok(Ok(answer)) if !https && health::leads_to_https(&spec.health, &answer, &host) => {
                https = true;
                continue;
            }
            Ok(Ok(answer)) => match health::complaint(&spec.health, &answer) {
                None => return Ok(format!("{} answered {}", spec.health.path, answer.status)),
                Some(complaint) => complaint,
            },
        };
        if Instant::now() + PAUSE >= deadline {
            let scheme = if https { "https" } else { "http" };
            let message = format!("{scheme}://{host}{} through nginx {complaint}", spec.health.path);
            let failure = Failure::new(Code::Health, message).hint(
                "the release starts but is not healthy: see options.health, the vhost and the app's log",
            );
            return Err(with_log(ctx, failure));
        }
        tokio::time::sleep(PAUSE).await;
    }
}
