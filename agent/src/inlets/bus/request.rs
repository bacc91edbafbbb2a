//! From an event to a command. Whoever fires events is trusted with little: names are checked before anything
//! else, the verbs are few, and what does not fit is refused with an answer or, without a name to answer to,
//! passed over.

use flipside_api::{AppName, Backup, Code, Command, Failure, Metric, Release, Request, Who};
use rmpv::Value;
use salt_wire::Event;

/// Requests begin so.
pub(super) const PREFIX: &str = "flipside/do/";

/// How long a command asked for by an event waits for the app's lock, when the event does not say.
const WAIT: u64 = 60;
const LONGEST_WAIT: u64 = 900;
const LONGEST_ID: usize = 128;

/// Verbs that exist and are not taken from events.
const ELSEWHERE: [&str; 9] =
    ["deploy", "rollback", "restore", "run", "remove", "destroy", "stop", "start", "maintenance"];

/// What an event asks for, as far as an answer needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) verb: &'static str,
    pub(super) app: AppName,
    pub(super) id: Option<String>,
}

/// An event, understood.
#[derive(Debug, PartialEq)]
pub(super) enum Heard {
    Asked(Asked, Request),
    Refused(Asked, Failure),
    /// Nobody to answer to.
    Nonsense(&'static str),
}

/// Understands an event.
pub(super) fn read(event: &Event) -> Heard {
    let Some((verb, app)) = event.tag().strip_prefix(PREFIX).and_then(|rest| rest.split_once('/')) else {
        return Heard::Nonsense("the tag is not flipside/do/<verb>/<app>");
    };
    let Ok(app) = app.parse::<AppName>() else { return Heard::Nonsense("the tag names no app") };
    let known = ["reload", "restart", "backup", "status", "metric", "env"].into_iter().chain(ELSEWHERE);
    let Some(verb) = known.into_iter().find(|known| *known == verb) else {
        return Heard::Nonsense("there is no such verb");
    };
    let Ok(data) = event.value() else { return Heard::Nonsense("the data is no map") };
    let data = Fields(&data);
    let asked = Asked { verb, app, id: None };
    let id = match data.id() {
        Ok(id) => id,
        Err(failure) => return Heard::Refused(asked, failure),
    };
    let asked = Asked { id, ..asked };
    match command(&asked, &data) {
        Ok(command) => {
            let who =
                Who { via: "event".into(), user: String::new(), id: asked.id.clone(), ..Who::default() };
            Heard::Asked(asked, Request::new(who, command))
        }
        Err(failure) => Heard::Refused(asked, failure),
    }
}

fn command(asked: &Asked, data: &Fields<'_>) -> Result<Command, Failure> {
    let app = asked.app.clone();
    let release = |app| Ok::<_, Failure>(Release { app, wait: data.wait()? });
    Ok(match asked.verb {
        "reload" => Command::Reload(release(app)?),
        "restart" => Command::Restart(release(app)?),
        "backup" => Command::Backup(Backup { app }),
        "status" => Command::Status { app: Some(app) },
        "env" if data.get("env").is_some() => {
            return Err(usage("an event carries no values for the environment".to_owned())
                .hint("put them into the app's pillar, then: salt 'THIS-HOST' flipside.env"));
        }
        "env" => Command::Env { app, env: None, files: None, wait: data.wait()? },
        "metric" => {
            let name = data.text("name")?.ok_or_else(|| usage("metric needs a `name`".to_owned()))?;
            let value = data.get("value").and_then(Value::as_f64);
            let value = value.ok_or_else(|| usage("metric needs a number as `value`".to_owned()))?;
            Command::Metric(Metric { app, name, value, unit: data.text("unit")? })
        }
        verb => {
            return Err(Failure::new(Code::Gate, format!("{verb} is not taken from events")).hint(format!(
                "an event proves nothing of who asks; a reactor calls local.flipside.{verb} instead"
            )));
        }
    })
}

fn usage(message: String) -> Failure {
    Failure::new(Code::Usage, message)
}

/// The event's data. Salt adds keys of its own, so unknown ones mean nothing.
struct Fields<'a>(&'a Value);

impl Fields<'_> {
    fn get(&self, key: &str) -> Option<&Value> {
        let pairs = self.0.as_map()?;
        let (_, value) = pairs.iter().find(|(name, _)| name.as_str() == Some(key))?;
        (!value.is_nil()).then_some(value)
    }

    fn text(&self, key: &str) -> Result<Option<String>, Failure> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let text = value.as_str().filter(|text| text.len() <= LONGEST_ID && !text.contains(char::is_control));
        text.map(|text| Some(text.to_owned()))
            .ok_or_else(|| usage(format!("`{key}` must be a short line of text")))
    }

    /// The request's id; YAML makes numbers of ids like Salt's jids, which is as good.
    fn id(&self) -> Result<Option<String>, Failure> {
        match self.get("id") {
            Some(Value::Integer(number)) => Ok(Some(number.to_string())),
            _ => self.text("id"),
        }
    }

    fn wait(&self) -> Result<u64, Failure> {
        let Some(value) = self.get("wait") else { return Ok(WAIT) };
        value
            .as_u64()
            .filter(|wait| *wait <= LONGEST_WAIT)
            .ok_or_else(|| usage(format!("`wait` must be a number of seconds up to {LONGEST_WAIT}")))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn heard(tag: &str, data: &serde_json::Value) -> Heard {
        let payload = salt_wire::event::encode(tag, data, 1 << 20).unwrap();
        read(&Event::parse(&payload).unwrap())
    }

    #[track_caller]
    fn asked(tag: &str, data: &serde_json::Value) -> Request {
        match heard(tag, data) {
            Heard::Asked(_, request) => request,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn refused(tag: &str, data: &serde_json::Value) -> (Asked, Failure) {
        match heard(tag, data) {
            Heard::Refused(asked, failure) => (asked, failure),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_verb_becomes_its_command() {
        let app: AppName = "blog".parse().unwrap();
        let request = asked("flipside/do/reload/blog", &json!({"id": "r1"}));
        assert_eq!(
            request.who,
            Who { via: "event".into(), user: String::new(), id: Some("r1".into()), ..Who::default() }
        );
        assert_eq!(request.command, Command::Reload(Release { app: app.clone(), wait: WAIT }));
        let request =
            asked("flipside/do/restart/blog", &json!({"id": 20_261_128_u64, "wait": 5, "__pub_jid": "x"}));
        assert_eq!(request.who.id.as_deref(), Some("20261128"));
        assert_eq!(request.command, Command::Restart(Release { app: app.clone(), wait: 5 }));
        assert_eq!(
            asked("flipside/do/backup/blog", &json!({})).command,
            Command::Backup(Backup { app: app.clone() })
        );
        assert_eq!(
            asked("flipside/do/status/blog", &json!({})).command,
            Command::Status { app: Some(app.clone()) }
        );
        assert_eq!(
            asked("flipside/do/env/blog", &json!({})).command,
            Command::Env { app: app.clone(), env: None, files: None, wait: WAIT }
        );
        assert_eq!(
            asked("flipside/do/metric/blog", &json!({"name": "orders", "value": 3, "unit": "Count"})).command,
            Command::Metric(Metric { app, name: "orders".into(), value: 3.0, unit: Some("Count".into()) })
        );
    }

    #[test]
    fn what_events_may_not_ask_is_refused_with_the_way() {
        for verb in ELSEWHERE {
            let (asked, failure) = refused(&format!("flipside/do/{verb}/blog"), &json!({"id": "r1"}));
            assert_eq!((asked.verb, asked.id.as_deref(), failure.code), (verb, Some("r1"), Code::Gate));
            assert!(failure.hint.contains(verb));
        }
    }

    #[test]
    fn wrong_data_is_refused() {
        let (_, failure) = refused("flipside/do/env/blog", &json!({"env": {"A": "secret"}}));
        assert!(!failure.message.contains("secret"));
        for data in
            [json!({"id": ["a"]}), json!({"id": "a\nb"}), json!({"id": "x".repeat(200)}), json!({"wait": -1})]
        {
            assert_eq!(refused("flipside/do/reload/blog", &data).1.code, Code::Usage);
        }
        for data in [json!({}), json!({"name": "a"}), json!({"name": "a", "value": "1"})] {
            assert_eq!(refused("flipside/do/metric/blog", &data).1.code, Code::Usage);
        }
    }

    #[test]
    fn what_has_no_sound_name_is_passed_over() {
        for tag in [
            "flipside/do/reload",
            "flipside/do/reload/",
            "flipside/do/reload/Blog",
            "flipside/do/reload/blog/x",
            "flipside/do/reload/../etc",
            "flipside/do/explode/blog",
            "flipside/do//blog",
            "flipside/on/reload/blog/done",
        ] {
            assert!(matches!(heard(tag, &json!({"id": "r1"})), Heard::Nonsense(_)), "{tag}");
        }
    }
}
