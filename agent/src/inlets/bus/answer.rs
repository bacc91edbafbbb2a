//! How a command goes, as events. They cross the master in clear and end in its logs, so they hold what happened
//! and no line of anybody's output: a traceback may quote a password.

use flipside_api::{AppName, Command, Outcome, Progress, Who};
use serde_json::{Map, Value, json};

/// The most that the data of an answer may take, in bytes.
const LARGEST: usize = 64 << 10;

/// What all answers to one command have in common.
#[derive(Debug, Clone)]
pub(super) struct Subject {
    pub(super) minion: String,
    pub(super) verb: String,
    pub(super) app: String,
    pub(super) who: Who,
}

impl Subject {
    /// The subject of a command, if its going is news to the master: questions are not, unless an event asked.
    pub(super) fn of(minion: &str, who: &Who, command: &Command) -> Option<Self> {
        let app = command.app()?.to_string();
        let question = matches!(
            command,
            Command::Ping
                | Command::Version
                | Command::Status { .. }
                | Command::History(_)
                | Command::Releases(_)
                | Command::EnvNames(_)
                | Command::Logs(_)
                | Command::Metric(_)
                | Command::Backups(_)
        ) || command.verb() == "plan";
        let news = !question || who.via == "event";
        news.then(|| Self {
            minion: minion.to_owned(),
            verb: command.verb().to_owned(),
            app,
            who: who.clone(),
        })
    }

    /// Whether the beginning and the way are told too, and not only the end.
    pub(super) fn takes_time(&self) -> bool {
        !matches!(self.verb.as_str(), "status" | "metric")
    }

    /// Whether this outcome is told: a sample that was taken is not, there may be many.
    pub(super) fn tells(&self, outcome: &Outcome) -> bool {
        self.verb != "metric" || !outcome.result
    }

    fn tag(&self, event: &str) -> String {
        format!("flipside/on/{}/{}/{event}", self.verb, self.app)
    }

    fn data(&self) -> Map<String, Value> {
        let about = json!({
            "v": 1,
            "id": self.who.id,
            "minion": self.minion,
            "app": self.app,
            "verb": self.verb,
            "via": self.who.via,
            "user": self.who.user,
        });
        match about {
            Value::Object(map) => map,
            _ => Map::new(),
        }
    }

    /// It begins.
    pub(super) fn started(&self) -> (String, Value) {
        (self.tag("started"), self.data().into())
    }

    /// A step begins or ends; lines of output stay here.
    pub(super) fn progress(&self, progress: &Progress) -> Option<(String, Value)> {
        if progress.event == "output" || progress.step.is_empty() {
            return None;
        }
        let mut data = self.data();
        data.insert("step".into(), json!(progress.step));
        data.insert("event".into(), json!(progress.event));
        data.insert("ms".into(), json!(progress.ms));
        Some((self.tag("progress"), data.into()))
    }

    /// How it ended.
    pub(super) fn ended(&self, outcome: &Outcome) -> (String, Value) {
        let mut data = self.data();
        let mut put = |key: &str, value: Value| data.insert(key.to_owned(), value);
        put("result", json!(outcome.result));
        put("state", json!(outcome.state));
        put("release", json!(outcome.release));
        put("previous", json!(outcome.previous));
        put("deployment", json!(outcome.id));
        put("ms", json!(outcome.ms));
        put("comment", json!(outcome.comment));
        let error = outcome
            .error
            .as_ref()
            .map(|error| json!({ "code": error.code, "message": error.message, "hint": error.hint }));
        put("error", error.unwrap_or_default());
        // Only what an event asked for, and only if it is not a book.
        if self.verb == "status"
            && let Some(answer) = &outcome.data
        {
            let fits = answer.to_string().len() <= LARGEST / 2;
            put("data", if fits { answer.clone() } else { Value::Null });
        }
        let tag = self.tag(if outcome.result { "done" } else { "failed" });
        if Value::from(data.clone()).to_string().len() > LARGEST {
            // A failure's message may quote what a program wrote.
            data.insert("comment".into(), json!("the answer was too long for an event"));
            data.insert("error".into(), Value::Null);
        }
        (tag, data.into())
    }
}

/// How an app is has changed: what is wrong with it now.
pub(super) fn health(minion: &str, app: &AppName, problems: &[String]) -> (String, Value) {
    let text = |problem: &String| problem.chars().take(1000).collect::<String>();
    let problems: Vec<String> = problems.iter().take(20).map(text).collect();
    let data =
        json!({ "v": 1, "minion": minion, "app": app, "ok": problems.is_empty(), "problems": problems });
    (format!("flipside/on/health/{app}"), data)
}

#[cfg(test)]
mod tests {
    use flipside_api::{Backup, Code, Failure, Release, State};

    use super::*;

    fn subject() -> Subject {
        let command = Command::Reload(Release { app: "blog".parse().unwrap(), wait: 0 });
        let who = Who { via: "event".into(), user: String::new(), id: Some("r1".into()), ..Who::default() };
        Subject::of("web1", &who, &command).unwrap()
    }

    #[test]
    fn tags_never_look_like_requests() {
        let subject = subject();
        let outcome = Outcome::good(State::Ok, "reloaded");
        for (tag, data) in [subject.started(), subject.ended(&outcome)] {
            assert!(tag.starts_with("flipside/on/reload/blog/") && !tag.contains("flipside/do"));
            assert_eq!((data["id"].as_str(), data["minion"].as_str()), (Some("r1"), Some("web1")));
        }
        assert_eq!(subject.ended(&outcome).0, "flipside/on/reload/blog/done");
    }

    #[test]
    fn no_output_leaves_the_host() {
        let failure = Failure::new(Code::Hook, "migrate failed").hint("look").log(vec!["canary".into()]);
        let mut outcome = Outcome::bad(State::RolledBack, failure);
        outcome.data = Some(json!({"x": "canary"}));
        outcome.steps.push(flipside_api::StepReport {
            name: "migrate".into(),
            ok: false,
            ms: 1,
            message: "canary".into(),
        });
        let subject = subject();
        let (tag, data) = subject.ended(&outcome);
        assert_eq!(tag, "flipside/on/reload/blog/failed");
        assert_eq!(data["error"]["message"], "migrate failed");
        assert!(!data.to_string().contains("canary"));
        let progress = |event: &str| Progress {
            step: "migrate".into(),
            event: event.into(),
            message: "canary".into(),
            ms: 7,
        };
        assert_eq!(subject.progress(&progress("output")), None);
        let (_, data) = subject.progress(&progress("done")).unwrap();
        assert_eq!((data["step"].as_str(), data["ms"].as_u64()), (Some("migrate"), Some(7)));
        assert!(!data.to_string().contains("canary"));
    }

    #[test]
    fn questions_are_news_only_to_the_event_that_asked() {
        let app: flipside_api::AppName = "blog".parse().unwrap();
        let who = |via: &str| Who { via: via.into(), ..Who::default() };
        let status = Command::Status { app: Some(app.clone()) };
        assert!(Subject::of("web1", &who("salt"), &status).is_none());
        assert!(Subject::of("web1", &who("event"), &status).is_some());
        assert!(Subject::of("web1", &who("cli"), &Command::Backup(Backup { app })).is_some());
        assert!(Subject::of("web1", &who("event"), &Command::Ping).is_none());
    }

    #[test]
    fn an_answer_is_never_too_large() {
        let long = "x".repeat(2 * LARGEST);
        let outcome = Outcome::bad(State::Failed, Failure::new(Code::Host, long.clone()));
        assert!(subject().ended(&outcome).1.to_string().len() < LARGEST);
        let mut status = subject();
        status.verb = "status".into();
        assert!(status.ended(&Outcome::answer(json!({"x": long}))).1["data"].is_null());
        assert_eq!(status.ended(&Outcome::answer(json!({"x": 1}))).1["data"]["x"], 1);
    }
}
