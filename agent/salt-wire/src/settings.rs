//! The few settings that we need from Salt's configuration files.
//!
//! This is no YAML parser, on purpose: a handful of top-level scalars, and the list under `include`, do not
//! justify one. It reads `key: value` at the left margin, plain or quoted, and lists in both styles; nested
//! values of other keys are passed over. What it cannot read for sure (block scalars, anchors, a quote that goes
//! on over lines) is refused by name, but only when that very key is asked for. A file that is one JSON object, as
//! programs like to write it, is read as JSON.

use std::collections::BTreeMap;

use serde_json::Value;

/// The top-level settings of one file, or of several merged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    known: BTreeMap<String, Setting>,
    /// A file was no list of keys at all: whatever is asked for may have been in it.
    opaque: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Setting {
    Scalar(String),
    List(Vec<String>),
    /// Not for us to read.
    Other,
}

/// A setting that we need and that is written in a way we cannot read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not written as `{0}: value` on one line")]
pub(crate) struct Unreadable(pub(crate) String);

impl Settings {
    pub(crate) fn parse(text: &str) -> Self {
        let text = text.trim_start_matches('\u{feff}');
        if text.trim_start().starts_with('{') {
            return Self::from_json(text);
        }
        let mut settings = BTreeMap::new();
        let mut lines = text.lines().peekable();
        while let Some(line) = lines.next() {
            let Some((key, rest)) = entry(line) else { continue };
            let mut setting = value(rest);
            // A value below its key, and whatever else is nested there.
            let mut items = Vec::new();
            while let Some(next) = lines.next_if(|next| is_nested(next)) {
                let next = next.trim_start();
                if next.is_empty() || next.starts_with('#') {
                    continue;
                }
                match next.strip_prefix("- ").map(value) {
                    Some(Some(Setting::Scalar(item))) if setting.is_none() => items.push(item),
                    _ => setting = Some(Setting::Other),
                }
            }
            if setting.is_none() && !items.is_empty() {
                setting = Some(Setting::List(items));
            }
            match setting {
                Some(setting) => settings.insert(key, setting),
                None => settings.remove(&key),
            };
        }
        Self { known: settings, opaque: false }
    }

    fn from_json(text: &str) -> Self {
        let Ok(object) = serde_json::from_str::<BTreeMap<String, Value>>(text) else {
            return Self { known: BTreeMap::new(), opaque: true };
        };
        let known = object.into_iter().filter_map(|(key, value)| Some((key, json(value)?)));
        Self { known: known.collect(), opaque: false }
    }

    /// Takes over what `other` says.
    pub(crate) fn update(&mut self, other: Self) {
        self.known.extend(other.known);
        self.opaque |= other.opaque;
    }

    /// A scalar; `None` when it is absent or null.
    pub(crate) fn get(&self, key: &str) -> Result<Option<&str>, Unreadable> {
        match self.known.get(key) {
            _ if self.opaque => Err(Unreadable(key.to_owned())),
            None => Ok(None),
            Some(Setting::Scalar(text)) => Ok(Some(text)),
            Some(_) => Err(Unreadable(key.to_owned())),
        }
    }

    /// A list, or a scalar as a list of one.
    pub(crate) fn list(&self, key: &str) -> Result<Vec<String>, Unreadable> {
        match self.known.get(key) {
            _ if self.opaque => Err(Unreadable(key.to_owned())),
            None => Ok(Vec::new()),
            Some(Setting::Scalar(text)) => Ok(vec![text.clone()]),
            Some(Setting::List(items)) => Ok(items.clone()),
            Some(Setting::Other) => Err(Unreadable(key.to_owned())),
        }
    }
}

/// A value of JSON; `None` for null.
fn json(value: Value) -> Option<Setting> {
    Some(match value {
        Value::Null => return None,
        Value::String(text) => Setting::Scalar(text),
        Value::Number(number) => Setting::Scalar(number.to_string()),
        Value::Bool(yes) => Setting::Scalar(yes.to_string()),
        Value::Array(items) => {
            let texts = items.into_iter().map(|item| match json(item) {
                Some(Setting::Scalar(text)) => Some(text),
                _ => None,
            });
            texts.collect::<Option<_>>().map_or(Setting::Other, Setting::List)
        }
        Value::Object(_) => Setting::Other,
    })
}

/// A `key: rest` at the left margin.
fn entry(line: &str) -> Option<(String, &str)> {
    if line.starts_with([' ', '\t', '#', '-', '%', '{', '[']) {
        return None;
    }
    let (key, rest) = match line.find(": ") {
        Some(at) => (&line[..at], &line[at + 2..]),
        None => (line.trim_end().strip_suffix(':')?, ""),
    };
    let key = key.trim();
    let quoted = ['"', '\''].iter().find_map(|&quote| key.strip_prefix(quote)?.strip_suffix(quote));
    Some((quoted.unwrap_or(key).to_owned(), rest))
}

/// Whether a line belongs to the key above it: indented, a list item at the margin, empty or a comment.
fn is_nested(line: &str) -> bool {
    line.trim().is_empty() || line.starts_with([' ', '\t', '#']) || line.starts_with("- ") || line == "-"
}

/// What stands behind a key or a dash; `None` for nothing and for null.
fn value(text: &str) -> Option<Setting> {
    let text = text.trim();
    match text.chars().next() {
        None | Some('#') => None,
        Some(quote @ ('"' | '\'')) => Some(quoted(&text[1..], quote)),
        Some('[') => Some(flow_list(text)),
        Some('{' | '|' | '>' | '&' | '*' | '!' | '@' | '`' | '%') => Some(Setting::Other),
        Some(_) => match plain(text) {
            "~" | "null" | "Null" | "NULL" => None,
            text => Some(Setting::Scalar(text.to_owned())),
        },
    }
}

fn plain(text: &str) -> &str {
    let end = text.find(" #").or_else(|| text.find("\t#")).unwrap_or(text.len());
    text[..end].trim_end()
}

/// The rest of a quoted scalar, which must end on this line.
fn quoted(text: &str, quote: char) -> Setting {
    let mut value = String::new();
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        match char {
            '\'' if quote == '\'' && chars.as_str().starts_with('\'') => {
                chars.next();
                value.push('\'');
            }
            '\\' if quote == '"' => match chars.next() {
                Some(escaped @ ('\\' | '"' | '/')) => value.push(escaped),
                _ => return Setting::Other,
            },
            _ if char == quote => {
                let rest = chars.as_str().trim_start();
                let ends = rest.is_empty() || rest.starts_with('#');
                return if ends { Setting::Scalar(value) } else { Setting::Other };
            }
            _ => value.push(char),
        }
    }
    Setting::Other
}

/// `[a, b]` of scalars without commas or brackets of their own.
fn flow_list(text: &str) -> Setting {
    let Some(inner) = plain(text).strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) else {
        return Setting::Other;
    };
    let items = inner.split(',').filter(|item| !item.trim().is_empty()).map(value);
    let scalars = items.map(|item| match item {
        Some(Setting::Scalar(text)) => Some(text),
        _ => None,
    });
    scalars.collect::<Option<_>>().map_or(Setting::Other, Setting::List)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn get(text: &str, key: &str) -> Option<String> {
        Settings::parse(text).get(key).unwrap().map(str::to_owned)
    }

    #[test]
    fn scalars_in_every_style() {
        for (text, expected) in [
            ("id: web1", "web1"),
            ("id:    web1   # the shop", "web1"),
            ("\u{feff}id: web1\r", "web1"),
            ("id: 'it''s' # x", "it's"),
            (r#""id": "a \"b\" \\ #1""#, r#"a "b" \ #1"#),
            ("id: a#b", "a#b"),
            ("id: a:b", "a:b"),
            ("grains:\n  id: other\nid: web1\nlog:\n  - id: x", "web1"),
            ("id: first\nid: web1", "web1"),
            ("---\n# id: no\nid: web1\n...", "web1"),
        ] {
            assert_eq!(get(text, "id").as_deref(), Some(expected), "{text:?}");
        }
    }

    #[test]
    fn absent_empty_and_null_are_one() {
        for text in ["", "id:", "id: ~", "id: null # none", "#id: x", "  id: x", "id:\n\n  # nothing\nx: y"] {
            assert_eq!(get(text, "id"), None, "{text:?}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused_only_when_asked_for() {
        for text in [
            "id: |\n  web1",
            "id: \"web\n  1\"",
            "id: &a web1",
            "id:\n  a: b",
            "id: web1\n  more",
            "id: {a: b}",
        ] {
            let settings = Settings::parse(&format!("{text}\nhash_type: md5"));
            assert_eq!(settings.get("id"), Err(Unreadable("id".into())), "{text:?}");
            assert_eq!(settings.get("hash_type"), Ok(Some("md5")));
        }
    }

    #[test]
    fn lists_in_both_styles() {
        for text in
            ["include: a.conf", "include: [a.conf]", "include:\n  - a.conf # x", "include:\n- 'a.conf'\nx: y"]
        {
            assert_eq!(Settings::parse(text).list("include"), Ok(vec!["a.conf".to_owned()]), "{text:?}");
        }
        assert_eq!(Settings::parse("include: [a, 'b']").list("include").unwrap(), ["a", "b"]);
        assert!(Settings::parse("include:\n  - {a: b}").list("include").is_err());
    }

    #[test]
    fn a_json_object_is_read_and_other_flow_maps_are_refused() {
        let settings = Settings::parse(
            "\n{\"id\": \"web1\", \"port\": 7, \"none\": null, \"include\": [\"a\", \"b\"], \"x\": {}}",
        );
        assert_eq!((settings.get("id"), settings.get("port")), (Ok(Some("web1")), Ok(Some("7"))));
        assert_eq!((settings.get("none"), settings.get("absent")), (Ok(None), Ok(None)));
        assert_eq!(settings.list("include").unwrap(), ["a", "b"]);
        settings.get("x").unwrap_err();
        let mut settings = Settings::parse("id: web1");
        settings.update(Settings::parse("{id: web2}"));
        settings.get("id").unwrap_err();
        settings.list("sock_dir").unwrap_err();
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "[a-b:\\-'\"\\[\\]{}|#\\\\ \n\t,]{0,120}|\\PC{0,60}") {
            let settings = Settings::parse(&text);
            let _ = settings.get("a");
            let _ = settings.list("b");
        }
    }
}
