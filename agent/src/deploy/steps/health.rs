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
/// An app that answers, and answers wrong each time for so long, is not going to answer right.
const WRONG: Duration = Duration::from_secs(3);
const TIMES: u32 = 4;

pub(super) async fn work(ctx: &Context) -> Result<String, Failure> {
    point(Step::Health, Moment::During).await?;
    let spec = &ctx.work.spec;
    let host = health::host(&spec.domains);
    let mut https = spec.public_url.starts_with("https://");
    let deadline = Instant::now() + Duration::from_secs(u64::from(spec.health.timeout.max(1)));
    let mut wrong: Option<(Instant, u32)> = None;
    let mut last = None;
    loop {
        let begun = Instant::now();
        let asked = tokio::time::timeout_at(
            deadline,
            probe::get(&ctx.host.config.nginx, &host, &spec.health.path, https),
        );
        let (complaint, definite) = match asked.await {
            // What it said until then tells more than that the time is up.
            Err(_) => (last.take().unwrap_or_else(|| "did not answer in time".to_owned()), false),
            Ok(Err(error)) => (error.to_string(), false),
            // A redirect to https says nothing of the page: it is asked as the proxy in front would.
            Ok(Ok(answer)) if !https && health::leads_to_https(&spec.health, &answer, &host) => {
                https = true;
                continue;
            }
            Ok(Ok(answer)) => match health::complaint(&spec.health, &answer) {
                None => return Ok(format!("{} answered {}", spec.health.path, answer.status)),
                Some(complaint) => (complaint, health::is_definite(answer.status)),
            },
        };
        // Every worker is a new one by now, so each answer is the new release's.
        let (since, times) = wrong.unwrap_or((begun, 0));
        wrong = definite.then_some((since, times + 1));
        let is_final = wrong.is_some_and(|(since, times)| since.elapsed() >= WRONG && times >= TIMES);
        if is_final || Instant::now() + PAUSE >= deadline {
            let scheme = if https { "https" } else { "http" };
            let message = format!("{scheme}://{host}{} through nginx {complaint}", spec.health.path);
            let failure = Failure::new(Code::Health, message).hint(
                "the release starts but is not healthy: see options.health, the vhost and the app's log",
            );
            return Err(with_log(ctx, failure));
        }
        last = Some(complaint);
        tokio::time::sleep(PAUSE).await;
    }
}
