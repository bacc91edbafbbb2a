//! What runs beside the web workers, as the status tells it.

use serde_json::{Value, json};

use super::health::Problem;
use crate::{
    runtime::holder::{
        pauses::WELL,
        protocol::{CrewState, PostState, TimedState},
    },
    sys::clock,
};

/// What is wrong `now`: workers that end again and again, and schedules whose last run failed.
pub(super) fn problems(crew: &CrewState, now: i64) -> Vec<Problem> {
    let is_well =
        |post: &PostState| post.pid.is_some() && u128::from(now.abs_diff(post.since)) >= WELL.as_millis();
    let looping = crew.background.iter().filter(|post| post.brief > 0 && !is_well(post));
    let looping = looping.filter_map(|post| {
        let (ended, restarts) = (post.ended.as_ref()?, post.restarts);
        let whose = format!("background {}.{}", post.name, post.number);
        Some(Problem { text: format!("{whose} {ended}, {restarts} restarts so far"), what: whose })
    });
    let failed = crew.schedule.iter().filter_map(|timed| {
        let last = timed.last.as_ref()?;
        let (whose, problem) = (format!("schedule {}", timed.name), last.problem.as_ref()?);
        let text = format!("{whose} {problem} (begun {})", clock::rfc3339(last.at));
        // Each run that fails is another.
        Some(Problem { text, what: format!("{whose} {}", last.at) })
    });
    looping.chain(failed).collect()
}

/// A background worker.
pub(super) fn post(post: &PostState) -> Value {
    json!({
        "name": post.name,
        "number": post.number,
        "pid": post.pid,
        "release": post.release,
        "since": post.pid.map(|_| clock::rfc3339(post.since)),
        "restarts": post.restarts,
        "ended": post.ended,
    })
}

/// A scheduled command.
pub(super) fn timed(timed: &TimedState) -> Value {
    json!({
        "name": timed.name,
        "cron": timed.cron,
        "next": timed.next.map(clock::rfc3339),
        "skipped": timed.skipped,
        "running": timed.running.as_ref().map(|run| json!({
            "pid": run.pid,
            "since": clock::rfc3339(run.since),
            "release": run.release,
        })),
        "last": timed.last.as_ref().map(|last| json!({
            "at": clock::rfc3339(last.at),
            "ms": last.ms,
            "code": last.code,
            "release": last.release,
            "problem": last.problem,
        })),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::holder::protocol::LastRun;

    #[test]
    fn what_does_not_stay_and_what_failed_is_said() {
        let post = PostState { name: "queue".into(), number: 2, restarts: 3, ..PostState::default() };
        let down = PostState { ended: Some("ended with code 1".into()), brief: 2, ..post.clone() };
        let again = PostState { pid: Some(7), number: 3, since: 99_000, ..down.clone() };
        let up = PostState { since: 40_000, ..again.clone() };
        // It is started again in an instant.
        let once = PostState { brief: 0, ..down.clone() };
        let last = LastRun { problem: Some("ended with code 5".into()), ..LastRun::default() };
        let nightly = TimedState { name: "nightly".into(), last: Some(last), ..TimedState::default() };
        let background = vec![post, down, again, up, once];
        let crew = CrewState { background, schedule: vec![nightly], tag: None };
        let said: Vec<String> = problems(&crew, 100_000).into_iter().map(|problem| problem.text).collect();
        assert_eq!(
            said,
            [
                "background queue.2 ended with code 1, 3 restarts so far",
                "background queue.3 ended with code 1, 3 restarts so far",
                "schedule nightly ended with code 5 (begun 1970-01-01T00:00:00.000Z)",
            ]
        );
    }
}
