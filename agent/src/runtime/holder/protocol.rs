//! What the agent and a holder say to each other: one line of JSON each way, on `<run>/<app>/holder.sock`.
//!
//! A holder lives as long as its app and meets agents older and newer than itself. So fields are added, never
//! changed; what is unknown is passed over; what is missing has a default; an unknown request is answered with an
//! error and changes nothing.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::runtime::Account;

/// The protocol that this build speaks.
pub const PROTOCOL: u32 = 2;

/// From this on a holder understands [`Order::contained`].
pub const CONTAINS: u32 = 2;

/// The longest line either side reads.
pub const LONGEST: u64 = 1 << 20;

/// A request to the holder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Ask {
    /// How are things?
    State,
    /// Give the listener its name, in place of what had it.
    Publish,
    /// Run this instance until it is retired, again whenever it ends.
    Start(Box<Order>),
    /// Restart the workers of an instance one by one.
    Reload {
        /// Which.
        name: String,
    },
    /// End an instance: gently, and when its time is up by force. Answered at once.
    Retire {
        /// Which.
        name: String,
        /// Seconds.
        within: u64,
    },
    /// Run these beside the web workers until they are dismissed. Refused while others still run.
    Employ(Box<Crew>),
    /// End what runs beside the web workers: background workers gently, and no schedule begins a run any more.
    /// Answered at once.
    Dismiss {
        /// Seconds.
        within: u64,
        /// Whether runs of schedules end as well, and not in their own time.
        runs: bool,
    },
    /// End all instances so, give the listener up, and end. Answered at once.
    Quit {
        /// Seconds.
        within: u64,
    },
}

/// An instance to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Its name: letters, digits and hyphens; its files are named after it.
    pub name: String,
    /// What to run.
    pub argv: Vec<String>,
    /// The complete environment, which holds no secret: it can be read in `/proc`.
    pub env: BTreeMap<String, String>,
    /// Where it starts.
    pub cwd: PathBuf,
    /// Who it runs as.
    #[serde(default)]
    pub account: Option<Account>,
    /// Whether `argv` only starts it, in a container, and ends; see [`super::life::Word`].
    #[serde(default)]
    pub contained: bool,
    /// A hash of its options, to be told again.
    #[serde(default)]
    pub options: String,
    /// How many workers it has, to be told again.
    #[serde(default)]
    pub workers: u16,
}

impl Order {
    /// Whether the name can be part of a file name.
    pub fn is_sound(&self) -> bool {
        !self.name.is_empty()
            && self.name.len() <= 40
            && self.name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    }
}

/// The holder's answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Answer {
    /// Why not, where something was refused.
    pub error: Option<String>,
    /// How things are now.
    pub state: HolderState,
}

/// How things are with a holder.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HolderState {
    /// The protocol that it speaks.
    pub v: u32,
    /// Its process.
    pub pid: u32,
    /// The version of the agent that it is part of.
    pub build: String,
    /// Whether its listener has the name that nginx knows.
    pub published: bool,
    /// The instances, oldest first.
    pub instances: Vec<Instance>,
    /// What runs beside them.
    pub crew: CrewState,
}

/// What runs beside the web workers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Crew {
    /// A hash of all the rest, to be told again.
    pub tag: String,
    /// The release, to be told again; what the env file says is what runs.
    pub release: String,
    /// The file with the environment, read at each start: it holds secrets, which no order does.
    pub env_file: PathBuf,
    /// Where they start.
    pub cwd: PathBuf,
    /// Who they run as.
    #[serde(default)]
    pub account: Option<Account>,
    /// Background workers.
    #[serde(default)]
    pub background: Vec<Post>,
    /// Scheduled commands.
    #[serde(default)]
    pub schedule: Vec<Timed>,
}

/// A background worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Post {
    /// Its name in the app's options.
    pub name: String,
    /// Its number among those of that name, from 1.
    pub number: u16,
    /// Program and arguments.
    pub command: Vec<String>,
}

/// A scheduled command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timed {
    /// Its name in the app's options.
    pub name: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Five fields of cron.
    pub cron: String,
}

/// How things are beside the web workers. Also what is left on disk of it, for when its holder dies.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CrewState {
    /// The tag of the crew that is employed.
    pub tag: Option<String>,
    /// Background workers.
    pub background: Vec<PostState>,
    /// Scheduled commands.
    pub schedule: Vec<TimedState>,
}

/// How things are with a background worker.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PostState {
    /// Its name.
    pub name: String,
    /// Its number.
    pub number: u16,
    /// The release that it runs.
    pub release: String,
    /// Its process, the leader of its group; none between two starts.
    pub pid: Option<u32>,
    /// When that started, in ticks since boot.
    pub started: u64,
    /// When that started, in milliseconds since 1970.
    pub since: i64,
    /// How often it was started again.
    pub restarts: u32,
    /// How often in a row it ended soon after its start.
    pub brief: u32,
    /// How it ended the last time, or why it could not be started.
    pub ended: Option<String>,
}

/// How things are with a scheduled command.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TimedState {
    /// Its name.
    pub name: String,
    /// Its line of cron.
    pub cron: String,
    /// When it is due, in milliseconds since 1970; none while nothing is employed.
    pub next: Option<i64>,
    /// Until when all that was due was seen to.
    pub seen: i64,
    /// How often a time was passed over because the run before had not ended.
    pub skipped: u32,
    /// The run that goes on.
    pub running: Option<RunState>,
    /// The last run that has ended.
    pub last: Option<LastRun>,
}

/// A run that goes on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunState {
    /// Its process, the leader of its group.
    pub pid: Option<u32>,
    /// When that started, in ticks since boot.
    pub started: u64,
    /// When that started, in milliseconds since 1970.
    pub since: i64,
    /// The release that it runs.
    pub release: String,
}

/// A run that has ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LastRun {
    /// When it began, in milliseconds since 1970.
    pub at: i64,
    /// Milliseconds that it took.
    pub ms: u64,
    /// The release that it ran.
    pub release: String,
    /// Its exit code, unless a signal ended it.
    pub code: Option<i32>,
    /// What was wrong, for people; none when all was well.
    pub problem: Option<String>,
}

/// How things are with an instance. Also what is left on disk of it, for when its holder dies.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Instance {
    /// Its name.
    pub name: String,
    /// Its process, the leader of its group; none between two starts.
    pub pid: Option<u32>,
    /// When that started, in ticks since boot.
    pub started: u64,
    /// How often it was started.
    pub starts: u32,
    /// How often it could not be started at all.
    pub refusals: u32,
    /// Why not, the last time.
    pub refused: Option<String>,
    /// Whether it is being retired.
    pub retiring: bool,
    /// The hash that it was ordered with.
    pub options: String,
    /// The number that it was ordered with.
    pub workers: u16,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_peers_are_understood_as_far_as_possible() {
        let ask: Ask = serde_json::from_str(r#"{"do":"retire","name":"a","within":3,"why":"new"}"#).unwrap();
        assert_eq!(ask, Ask::Retire { name: "a".into(), within: 3 });
        assert!(serde_json::from_str::<Ask>(r#"{"do":"dance"}"#).is_err());
        let answer: Answer = serde_json::from_str(r#"{"state":{"v":9,"instances":[{"name":"x"}]}}"#).unwrap();
        assert_eq!((answer.state.v, answer.state.instances[0].pid), (9, None));
    }

    #[test]
    fn names_are_no_paths() {
        let order = |name: &str| Order {
            name: name.into(),
            argv: vec![],
            env: BTreeMap::new(),
            cwd: "/".into(),
            account: None,
            contained: false,
            options: String::new(),
            workers: 1,
        };
        assert!(order("i-18f2").is_sound());
        for bad in ["", "../x", "a/b", "a.b", "a\n"] {
            assert!(!order(bad).is_sound(), "{bad:?}");
        }
    }
}
