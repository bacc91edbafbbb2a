//! Tables of what the agent tells: known columns first and in a fixed order, unknown ones after them, so
//! that a newer agent's figures show without a newer command line.

use serde_json::{Map, Value};

use super::clean;
use crate::when;

pub(super) type Row = Map<String, Value>;

/// The rows in an answer: a list of maps, or the first list in a map.
pub(crate) fn rows(data: &Value) -> Vec<Row> {
    match data {
        Value::Array(list) => list.iter().filter_map(Value::as_object).cloned().collect(),
        Value::Object(map) => map.values().find(|value| value.is_array()).map(rows).unwrap_or_default(),
        _ => Vec::new(),
    }
}

/// Lines of a table: those of `known` that any row has, then what else the rows hold.
pub(crate) fn render(rows: &[Row], known: &[&str]) -> Vec<String> {
    let mut columns: Vec<String> = known.iter().map(ToString::to_string).collect();
    for key in rows.iter().flat_map(Row::keys) {
        if !columns.contains(key) {
            columns.push(key.clone());
        }
    }
    columns.retain(|column| rows.iter().any(|row| row.get(column).is_some_and(is_shown)));
    let mut lines = vec![columns.iter().map(|column| heading(column)).collect()];
    for row in rows {
        lines.push(columns.iter().map(|column| cell(column, row.get(column))).collect());
    }
    align(&lines)
}

pub(super) fn is_shown(value: &Value) -> bool {
    !matches!(value, Value::Null | Value::Array(_) | Value::Object(_)) || who(value).is_some()
}

fn align(lines: &[Vec<String>]) -> Vec<String> {
    let columns = lines.first().map_or(0, Vec::len);
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let pad = |(text, width): (&String, &usize)| format!("{text:<width$}");
    lines
        .iter()
        .map(|line| line.iter().zip(&widths).map(pad).collect::<Vec<_>>().join("  ").trim_end().to_owned())
        .collect()
}

fn heading(column: &str) -> String {
    match column {
        "ms" => "TOOK".to_owned(),
        "at" => "WHEN".to_owned(),
        _ => column.to_uppercase().replace('_', " "),
    }
}

/// A value for people; the column's name says its unit.
pub(super) fn cell(column: &str, value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::Bool(true)) if column == "current" => "*".to_owned(),
        Some(Value::Bool(false)) if column == "current" => String::new(),
        Some(Value::Bool(yes)) => if *yes { "yes" } else { "no" }.to_owned(),
        Some(Value::String(text)) if ["at", "since", "next"].contains(&column) => when::second(text),
        Some(Value::String(text)) => clean(text),
        Some(Value::Number(number)) => figure(column, number.as_f64().unwrap_or(f64::NAN)),
        Some(value) => who(value).unwrap_or_else(|| "…".to_owned()),
    }
}

/// Who asked, as the history has it: `{user, via, id, uid}`. Where there is no job or event the user id counts.
fn who(value: &Value) -> Option<String> {
    let text = |key: &str| value.get(key).and_then(Value::as_str).filter(|text| !text.is_empty()).map(clean);
    let uid = value.get("uid").and_then(Value::as_u64).map(|uid| format!("uid {uid}"));
    let way: Vec<String> = text("via").into_iter().chain(text("id").or(uid)).collect();
    match (text("user"), way.join(" ")) {
        (Some(user), way) if way.is_empty() => Some(user),
        (Some(user), way) => Some(format!("{user} ({way})")),
        (None, way) => Some(way).filter(|way| !way.is_empty()),
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "figures for a screen")]
fn figure(column: &str, number: f64) -> String {
    match column {
        "ms" => when::took(number.max(0.0) as u64),
        _ if column == "age" || column.ends_with("_age") || column.ends_with("_seconds") => {
            when::age(number.max(0.0) as u64)
        }
        "rss" | "db" | "memory" | "disk_free" | "size" | "bytes" => bytes(number),
        _ if column.ends_with("_bytes") || column.ends_with("_size") => bytes(number),
        _ if number.fract() == 0.0 => format!("{number:.0}"),
        _ => format!("{number:.1}"),
    }
}

fn bytes(mut number: f64) -> String {
    for unit in ["B", "K", "M", "G"] {
        if number < 1000.0 {
            return if number < 10.0 && unit != "B" {
                format!("{number:.1}{unit}")
            } else {
                format!("{number:.0}{unit}")
            };
        }
        number /= 1024.0;
    }
    format!("{number:.1}T")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn known_columns_come_first_and_unknown_ones_show() {
        let data = json!([{"who": "ann", "release": "2-b", "current": true, "new": 7, "steps": [1]},
                          {"who": "bob\n", "release": "1-a", "current": false, "new": null}]);
        let lines = render(&rows(&data), &["current", "release", "who"]);
        assert_eq!(
            lines,
            ["CURRENT  RELEASE  WHO   NEW", "*        2-b      ann   7", "         1-a      bob\u{fffd}  -"]
        );
        assert_eq!(rows(&json!({"releases": data})).len(), 2);
        let data = json!([{"who": {"user": "ann", "via": "salt", "id": "2026", "uid": 0}, "ms": 1500}]);
        assert_eq!(render(&rows(&data), &["who"]), ["WHO              TOOK", "ann (salt 2026)  1.5 s"]);
        for (said, shown) in [
            (json!({"user": "bob", "via": "cli", "id": null, "uid": 7}), Some("bob (cli uid 7)")),
            (json!({"user": "", "via": "event", "id": "r1"}), Some("event r1")),
            (json!({"user": "bob", "via": ""}), Some("bob")),
            (json!({"lines": 3}), None),
        ] {
            assert_eq!(who(&said).as_deref(), shown);
        }
    }
}
