//! Reads the fields of a TOML table one by one and keeps every problem, so that all are told at once.

use std::path::PathBuf;

use toml::{Table, Value};

/// A table being read. Each read takes its key out; what is left at the end is unknown.
pub(super) struct Fields<'a> {
    table: Table,
    prefix: &'static str,
    problems: &'a mut Vec<String>,
}

impl<'a> Fields<'a> {
    /// The fields of `table`; `prefix` names it in problems, such as `backup.`.
    pub(super) fn new(table: Table, prefix: &'static str, problems: &'a mut Vec<String>) -> Self {
        Self { table, prefix, problems }
    }

    fn wrong(&mut self, key: &str, wanted: &str, value: &Value) {
        let prefix = self.prefix;
        self.problems.push(format!("{prefix}{key}: must be {wanted}, not a {}", value.type_str()));
    }

    /// A text that may be absent.
    pub(super) fn text(&mut self, key: &str) -> Option<String> {
        match self.table.remove(key)? {
            Value::String(text) if !text.is_empty() && !text.chars().any(char::is_control) => Some(text),
            Value::String(_) => {
                let prefix = self.prefix;
                self.problems.push(format!(
                    "{prefix}{key}: must not be empty nor hold line breaks or control characters"
                ));
                None
            }
            other => {
                self.wrong(key, "a string", &other);
                None
            }
        }
    }

    /// A text that must be there.
    pub(super) fn required(&mut self, key: &str) -> String {
        let missing = !self.table.contains_key(key);
        let text = self.text(key).unwrap_or_default();
        if missing {
            let prefix = self.prefix;
            self.problems.push(format!("{prefix}{key}: is missing"));
        }
        text
    }

    /// A text with a default.
    pub(super) fn text_or(&mut self, key: &str, default: &str) -> String {
        self.text(key).unwrap_or_else(|| default.to_owned())
    }

    /// An absolute path that may be absent.
    pub(super) fn path(&mut self, key: &str) -> Option<PathBuf> {
        let path = PathBuf::from(self.text(key)?);
        if path.is_absolute() {
            return Some(path);
        }
        let prefix = self.prefix;
        self.problems.push(format!("{prefix}{key}: must be an absolute path, not {}", path.display()));
        None
    }

    /// An absolute path with a default.
    pub(super) fn path_or(&mut self, key: &str, default: &str) -> PathBuf {
        self.path(key).unwrap_or_else(|| PathBuf::from(default))
    }

    /// A whole number of at least `least`, with a default.
    pub(super) fn number_or(&mut self, key: &str, least: u32, default: u32) -> u32 {
        match self.table.remove(key) {
            None => default,
            Some(Value::Integer(number)) => match u32::try_from(number) {
                Ok(number) if number >= least => number,
                _ => {
                    let prefix = self.prefix;
                    self.problems.push(format!("{prefix}{key}: must be at least {least}, not {number}"));
                    default
                }
            },
            Some(other) => {
                self.wrong(key, "a whole number", &other);
                default
            }
        }
    }

    /// A switch, off where it is absent.
    pub(super) fn switch(&mut self, key: &str) -> bool {
        match self.table.remove(key) {
            None => false,
            Some(Value::Boolean(on)) => on,
            Some(other) => {
                self.wrong(key, "true or false", &other);
                false
            }
        }
    }

    /// Texts; absent is none.
    pub(super) fn texts(&mut self, key: &str) -> Vec<String> {
        let list = match self.table.remove(key) {
            None => return Vec::new(),
            Some(Value::Array(list)) => list,
            Some(other) => {
                self.wrong(key, "a list of strings", &other);
                return Vec::new();
            }
        };
        let mut texts = Vec::new();
        for value in list {
            match value {
                Value::String(text) => texts.push(text),
                other => self.wrong(key, "a list of strings", &other),
            }
        }
        texts
    }

    /// A table that may be absent.
    pub(super) fn table(&mut self, key: &str) -> Option<Table> {
        match self.table.remove(key)? {
            Value::Table(table) => Some(table),
            other => {
                self.wrong(key, "a table", &other);
                None
            }
        }
    }

    /// Notes every key that nobody asked for.
    pub(super) fn finish(self) {
        for key in self.table.keys() {
            let key: String = key.chars().take(80).collect();
            self.problems.push(format!("{}{key}: is no key of this file", self.prefix));
        }
    }
}
