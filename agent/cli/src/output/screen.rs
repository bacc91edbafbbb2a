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
    lines
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
}
