//! What runs beside the web workers, as the status tells it.

use serde_json::{Value, json};

use crate::{
    runtime::holder::protocol::{CrewState, PostState, TimedState},
    sys::clock,
};

/// What a person should know, in sentences.
pub(super) fn problems(crew: &CrewState) -> Vec<String> {
    let down = crew.background.iter().filter(|post| post.pid.is_none()).filter_map(|post| {
        let ended = post.ended.as_ref()?;
        Some(format!("background {}.{} {ended}, {} restarts so far", post.name, post.number, post.restarts))
    });
    let failed = crew.schedule.iter().filter_map(|timed| {
        let last = timed.last.as_ref()?;
        let problem = last.problem.as_ref()?;
        Some(format!("schedule {} {problem} (begun {})", timed.name, clock::rfc3339(last.at)))
    });
    down.chain(failed).collect()
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
    fn what_does_not_run_and_what_failed_is_said() {
        let post = PostState { name: "queue".into(), number: 2, restarts: 3, ..PostState::default() };
        let down = PostState { ended: Some("ended with code 1".into()), ..post.clone() };
        let up = PostState { pid: Some(7), ..down.clone() };
        let last = LastRun { problem: Some("ended with code 5".into()), ..LastRun::default() };
        let nightly = TimedState { name: "nightly".into(), last: Some(last), ..TimedState::default() };
        let crew = CrewState { background: vec![post, down, up], schedule: vec![nightly], tag: None };
        let problems = problems(&crew);
        assert_eq!(problems[0], "background queue.2 ended with code 1, 3 restarts so far");
        assert_eq!(problems[1], "schedule nightly ended with code 5 (begun 1970-01-01T00:00:00.000Z)");
        assert_eq!(problems.len(), 2);
    }
}
