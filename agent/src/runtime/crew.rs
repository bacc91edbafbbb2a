//! The agent's side of what runs beside the web workers: what it should be, and how its holder is told.

use std::time::Duration;

use flipside_api::{AppSpec, Code, Failure, ReleaseId};
use sha2::{Digest, Sha256};
use tokio::time::{Instant, sleep};

use super::{
    Account,
    holder::{
        crew::{end_left, left},
        protocol::{Ask, Crew, CrewState, Post, Timed},
    },
    process::client::{self, ClientError},
};
use crate::{app::paths::AppPaths, host::fault};

/// How long a background worker may take to end after its TERM.
const GENTLY: Duration = Duration::from_secs(30);
const TICK: Duration = Duration::from_millis(30);

/// What becomes of runs of schedules that go on when a crew is dismissed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runs {
    /// They end in their own time; none begins.
    GoOn,
    /// They end as background workers do.
    End,
}

impl Crew {
    /// Whether there is nothing to run.
    pub fn is_empty(&self) -> bool {
        self.background.is_empty() && self.schedule.is_empty()
    }
}

/// What should run beside the web workers of `release`.
pub fn wanted(spec: &AppSpec, release: &ReleaseId, paths: &AppPaths, account: Option<Account>) -> Crew {
    let posts = spec.background.iter().flat_map(|(name, background)| {
        (1..=background.count).map(|number| Post {
            name: name.clone(),
            number,
            command: background.command.clone(),
        })
    });
    let timed = spec.schedule.iter().map(|(name, schedule)| Timed {
        name: name.clone(),
        command: schedule.command.clone(),
        cron: schedule.cron.clone(),
    });
    let mut crew = Crew {
        tag: String::new(),
        release: release.to_string(),
        env_file: paths.env_file(),
        cwd: paths.data(),
        account,
        background: posts.collect(),
        schedule: timed.collect(),
    };
    let text = serde_json::to_vec(&crew).unwrap_or_default();
    crew.tag = Sha256::digest(text).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    crew
}

/// What runs; nothing where the app has no holder.
pub(super) async fn state(paths: &AppPaths) -> Result<CrewState, Failure> {
    match client::ask(paths.run(), &Ask::State).await {
        Ok(state) => Ok(state.crew),
        Err(ClientError::Absent) => Ok(CrewState::default()),
        Err(error) => Err(fault("cannot reach the app's holder", &error)),
    }
}

/// Begins a crew.
pub(super) async fn employ(paths: &AppPaths, crew: Crew) -> Result<(), Failure> {
    let asked = client::ask(paths.run(), &Ask::Employ(Box::new(crew))).await;
    asked.map(drop).map_err(|error| fault("cannot start background workers", &error))
}

/// Ends what runs, and waits for that.
pub(super) async fn dismiss(paths: &AppPaths, runs: Runs) -> Result<(), Failure> {
    let ask = Ask::Dismiss { within: GENTLY.as_secs(), runs: runs == Runs::End };
    let deadline = Instant::now() + GENTLY + Duration::from_secs(10);
    let mut asked = client::ask(paths.run(), &ask).await;
    loop {
        match asked {
            Err(ClientError::Absent) => break,
            Err(error) => return Err(fault("cannot end background workers", &error)),
            Ok(state) => {
                let going =
                    runs == Runs::End && state.crew.schedule.iter().any(|timed| timed.running.is_some());
                if state.crew.background.is_empty() && !going {
                    return Ok(());
                }
            }
        }
        if Instant::now() >= deadline {
            let message = format!("background workers of {} do not end, not even by force", paths.app);
            return Err(Failure::new(Code::Host, message));
        }
        sleep(TICK).await;
        asked = client::ask(paths.run(), &Ask::State).await;
    }
    // Its holder was killed, and nobody else would end them.
    for process in left(paths.run()) {
        end_left(process).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_command_count_or_release_is_another_crew() {
        let paths = AppPaths::new(&"blog".parse().unwrap(), "/a".as_ref(), "/r".as_ref(), "/l".as_ref());
        let crew = |release: &str, options: &serde_json::Value| {
            let mut spec = serde_json::json!({
                "app": "blog", "template": "t", "domains": ["b.org"], "public_url": "https://b.org" });
            spec.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
            let release = ReleaseId::of(release, release.as_bytes()).unwrap();
            wanted(&serde_json::from_value(spec).unwrap(), &release, &paths, None)
        };
        let two = serde_json::json!({ "background": { "queue": { "command": ["q"], "count": 2 } } });
        let one = crew("1", &two);
        assert_eq!(one.background.iter().map(|post| post.number).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(one.tag, crew("1", &two).tag);
        let three = serde_json::json!({ "background": { "queue": { "command": ["q"], "count": 3 } } });
        assert_ne!(one.tag, crew("2", &two).tag);
        assert_ne!(one.tag, crew("1", &three).tag);
        let none =
            crew("1", &serde_json::json!({ "background": { "queue": { "command": ["q"], "count": 0 } } }));
        assert!(none.is_empty() && !one.is_empty());
    }
}
