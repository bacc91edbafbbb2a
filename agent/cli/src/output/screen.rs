//! The status screen: the host in a line, what is wrong, a row an app.

use serde_json::{Value, json};

use super::{
    clean,
    table::{Row, cell, is_shown, render},
};

const COLUMNS: [&str; 17] = [
    "app", "health", "state", "release", "deployed", "by", "workers", "queue", "req_s", "p50", "p99", "5xx",
    "rss", "restarts", "backup", "db", "url",
];
const BACKGROUND: [&str; 7] = ["app", "background", "pid", "release", "since", "restarts", "ended"];
const SCHEDULE: [&str; 8] = ["app", "schedule", "cron", "next", "now", "last", "at", "ms"];
/// Told in other words, or of no use on a screen.
const HIDDEN: [&str; 6] = ["vhost", "problem", "busy", "maintenance", "runtime", "workers"];

/// The lines of the screen.
pub(crate) fn status(data: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(host) = data.get("host").and_then(Value::as_object) {
        lines.push(host_line(host));
        lines.extend(reasons(host).map(|reason| format!("  ! {reason}")));
    }
    let mut rows = Vec::new();
    for (name, app) in data.get("apps").and_then(Value::as_object).into_iter().flatten() {
        let Some(app) = app.as_object() else { continue };
        lines.extend(reasons(app).map(|reason| format!("  ! {name}: {reason}")));
        rows.push(row(name, app));
    }
    if rows.is_empty() {
        lines.push("no apps".to_owned());
    } else {
        lines.extend(render(&rows, &COLUMNS));
    }
    for (kind, columns) in [("background", &BACKGROUND[..]), ("schedule", &SCHEDULE)] {
        let beside = beside(data, kind);
        if !beside.is_empty() {
            lines.push(String::new());
            lines.extend(render(&beside, columns));
        }
    }
    lines
}

/// What runs beside the web workers of all apps, a row each.
fn beside(data: &Value, kind: &str) -> Vec<Row> {
    let mut rows = Vec::new();
    for (name, app) in data.get("apps").and_then(Value::as_object).into_iter().flatten() {
        for it in app.get(kind).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_object) {
            let mut row = it.clone();
            row.insert("app".to_owned(), json!(name));
            let own = row.remove("name").unwrap_or_default();
            let own = own.as_str().unwrap_or_default();
            let number = row.remove("number").map_or_else(String::new, |number| format!(".{number}"));
            row.insert(kind.to_owned(), json!(format!("{own}{number}")));
            for (key, prefix) in [("running", "now"), ("last", "last")] {
                let Some(Value::Object(run)) = row.remove(key) else { continue };
                let word = match (key, &run["code"]) {
                    ("running", _) => format!("pid {}", run["pid"]),
                    (_, Value::Null) => "failed".to_owned(),
                    (_, code) => format!("code {code}"),
                };
                row.insert(prefix.to_owned(), json!(word));
                if key == "last" {
                    row.extend(run.into_iter().filter(|(key, _)| key == "at" || key == "ms"));
                }
            }
            rows.push(row);
        }
    }
    rows
}

fn row(name: &str, app: &Row) -> Row {
    let mut row = app.clone();
    row.retain(|key, _| !HIDDEN.contains(&key.as_str()));
    row.insert("app".to_owned(), json!(name));
    let Some(workers) = app.get("workers").and_then(Value::as_array) else { return row };
    let ready = workers.iter().filter(|worker| worker["accepting"] == true).count();
    row.insert("workers".to_owned(), json!(format!("{ready}/{}", workers.len())));
    for (column, key) in [("rss", "rss"), ("restarts", "respawns")] {
        let figures = workers.iter().filter_map(|worker| worker[key].as_u64());
        row.entry(column).or_insert(json!(figures.sum::<u64>()));
    }
    row
}

/// What a person should know about it, in sentences.
fn reasons(of: &Row) -> impl Iterator<Item = String> {
    let mut reasons: Vec<String> = ["reasons", "problems", "warnings"]
        .into_iter()
        .filter_map(|key| of.get(key)?.as_array())
        .flatten()
        .filter_map(|reason| Some(clean(reason.as_str()?)))
        .collect();
    reasons.extend(of.get("problem").and_then(Value::as_str).map(clean));
    reasons.extend(of.get("busy").and_then(Value::as_str).map(|holder| format!("held: {}", clean(holder))));
    if of.get("maintenance") == Some(&json!(true)) {
        reasons.push("the maintenance page shows".to_owned());
    }
    let workers = of.get("workers").and_then(Value::as_array).into_iter().flatten();
    let mut releases: Vec<&str> = workers.filter_map(|worker| worker["release"].as_str()).collect();
    releases.sort_unstable();
    releases.dedup();
    if releases.len() > 1 {
        reasons.push(format!("its workers serve several releases: {}", clean(&releases.join(", "))));
    }
    reasons.into_iter()
}

fn host_line(host: &Row) -> String {
    let mut words = Vec::new();
    for key in ["id", "health"] {
        if let Some(text) = host.get(key).and_then(Value::as_str) {
            words.push(if key == "health" { clean(text).to_uppercase() } else { clean(text) });
        }
    }
    for (key, value) in host {
        let told = ["id", "health", "recipient", "isolated", "apps"].contains(&key.as_str());
        if !told && is_shown(value) {
            words.push(format!(
                "{} {}",
                key.trim_end_matches("_seconds").replace('_', " "),
                cell(key, Some(value))
            ));
        }
    }
    words.join("  ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_screen_names_what_is_wrong_first() {
        let worker =
            |release: &str| json!({"accepting": true, "release": release, "rss": 81_788_928, "respawns": 1});
        let data = json!({
            "host": {"id": "web1", "health": "warn", "agent": "0.1.0", "up_seconds": 7300},
            "apps": {"blog": {"state": "running", "release": "2-b", "busy": "deploy of ann by salt", "vhost": "x",
                "problem": null, "workers": [worker("2-b"), worker("1-a")]}}});
        let lines = status(&data);
        assert_eq!(lines[0], "web1  WARN  agent 0.1.0  up 2h");
        assert_eq!(lines[1], "  ! blog: held: deploy of ann by salt");
        assert_eq!(lines[2], "  ! blog: its workers serve several releases: 1-a, 2-b");
        assert_eq!(lines[3], "APP   STATE    RELEASE  WORKERS  RSS   RESTARTS");
        assert_eq!(lines[4], "blog  running  2-b      2/2      156M  2");
        assert_eq!(status(&json!({})), ["no apps"]);
    }

    #[test]
    fn what_runs_beside_the_workers_has_tables_of_its_own() {
        let queue = json!({"name": "queue", "number": 1, "pid": 7, "release": "2-b",
            "since": "2026-11-28T10:00:00.123Z", "restarts": 0, "ended": null});
        let last = json!({"at": "2026-11-28T03:10:00.000Z", "ms": 1500, "code": 3, "problem": "x", "release": "2-b"});
        let nightly = json!({"name": "nightly", "cron": "10 3 * * *", "next": "2026-11-29T03:10:00.000Z",
            "skipped": 0, "running": null, "last": last});
        let app = json!({"state": "running", "background": [queue], "schedule": [nightly]});
        let lines = status(&json!({"apps": {"blog": app}}));
        assert_eq!(lines[3], "APP   BACKGROUND  PID  RELEASE  SINCE                 RESTARTS");
        assert_eq!(lines[4], "blog  queue.1     7    2-b      2026-11-28 10:00:00Z  0");
        assert!(lines[6].starts_with("APP   SCHEDULE  CRON        NEXT "), "{}", lines[6]);
        assert!(
            lines[7].contains("2026-11-29 03:10:00Z  code 3  2026-11-28 03:10:00Z  1.5 s"),
            "{}",
            lines[7]
        );
    }
}
