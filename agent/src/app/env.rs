//! The environment of an app's processes: what the pillar says, what the platform adds, and the file they share.

use std::{collections::BTreeMap, fmt::Write};

/// The variables of a process.
pub type Env = BTreeMap<String, String>;

/// A value that names what the platform does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("env.{name}: {problem}")]
pub struct EnvError {
    /// The variable.
    pub name: String,
    /// What is wrong with its value; never the value itself, it may be a secret.
    pub problem: String,
}

/// Joins the pillar's values with the platform's: `${NAME}` takes the platform's value, `$$` is a dollar, any
/// other dollar stays, and an empty value stays set. The pillar wins, but for names that start with `FLIPSIDE_`.
///
/// # Errors
/// All names that the platform does not know.
pub fn render(pillar: &Env, platform: &Env) -> Result<Env, Vec<EnvError>> {
    let mut problems = Vec::new();
    let mut env = platform.clone();
    for (name, value) in pillar {
        if name.starts_with("FLIPSIDE_") {
            problems.push(EnvError {
                name: name.clone(),
                problem: "names that start with FLIPSIDE_ are the platform's".into(),
            });
            continue;
        }
        match substitute(value, platform) {
            Ok(value) => {
                env.insert(name.clone(), value);
            }
            Err(problem) => problems.push(EnvError { name: name.clone(), problem }),
        }
    }
    if problems.is_empty() { Ok(env) } else { Err(problems) }
}

/// `text` with `${NAME}` replaced from `values` and `$$` made a dollar.
///
/// # Errors
/// When a name is unknown or a brace is not closed.
pub fn substitute(text: &str, values: &Env) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some(after) = after.strip_prefix('{') {
            let end = after.find('}').ok_or("a ${ has no }; write $$ for a dollar")?;
            let name = &after[..end];
            let value = values.get(name).ok_or_else(|| {
                let name: String = name.chars().take(40).collect();
                format!("${{{name}}} is unknown; known are {}; write $${{ for a literal", known(values))
            })?;
            out.push_str(value);
            rest = &after[end + 1..];
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    Ok(out)
}

fn known(values: &Env) -> String {
    let names: Vec<&str> =
        values.keys().map(String::as_str).filter(|n| !n.starts_with("FLIPSIDE_")).collect();
    names.join(", ")
}

/// Parts of names whose values are taken for secrets.
const SECRET: [&str; 7] = ["SECRET", "PASSWORD", "PASSWD", "TOKEN", "KEY", "CREDENTIAL", "DSN"];

/// A shorter value would blacken too much of a log.
const SHORTEST_SECRET: usize = 6;

/// `text` with the values blackened that are secrets, as far as the names of their variables tell, or with a
/// user before an `@` as URLs have it.
pub fn blacken(text: &str, env: &Env) -> String {
    let mut text = text.to_owned();
    for (name, value) in env.iter().filter(|(_, value)| value.len() >= SHORTEST_SECRET) {
        let named = SECRET.iter().any(|part| name.to_uppercase().contains(part));
        let login = value.contains("://") && value.contains('@');
        if (named || login) && text.contains(value.as_str()) {
            text = text.replace(value.as_str(), "***");
        }
    }
    text
}

/// The env file: one `NAME='value'` a line, single-quoted as POSIX has it, so that a value may hold anything.
pub fn to_file(env: &Env) -> String {
    let mut text = String::new();
    for (name, value) in env {
        // Writing to a String does not fail.
        let _ = writeln!(text, "{name}='{}'", value.replace('\'', r"'\''"));
    }
    text
}

/// What [`to_file`] wrote.
///
/// # Errors
/// With the number of the line that is not of that form.
pub fn from_file(text: &str) -> Result<Env, String> {
    let mut env = Env::new();
    let mut rest = text;
    while !rest.is_empty() {
        let line = 1 + text[..text.len() - rest.len()].matches('\n').count();
        let wrong = || format!("line {line} of the env file is not NAME='value'");
        let (name, after) = rest.split_once("='").ok_or_else(wrong)?;
        let mut value = String::new();
        let mut after = after;
        loop {
            let end = after.find('\'').ok_or_else(wrong)?;
            value.push_str(&after[..end]);
            after = &after[end + 1..];
            match after.strip_prefix(r"\''") {
                Some(more) => {
                    value.push('\'');
                    after = more;
                }
                None => break,
            }
        }
        rest = after.strip_prefix('\n').ok_or_else(wrong)?;
        env.insert(name.to_owned(), value);
    }
    Ok(env)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn env(pairs: &[(&str, &str)]) -> Env {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn names_are_replaced_and_dollars_survive() {
        let platform = env(&[("DATA_DIR", "/srv/blog/data"), ("FLIPSIDE_APP", "blog")]);
        let pillar = env(&[
            ("DB", "${DATA_DIR}/db.sqlite3"),
            ("PRICE", "5$ or $5 or $$5"),
            ("LITERAL", "$${DATA_DIR}"),
            ("EMPTY", ""),
        ]);
        let all = render(&pillar, &platform).unwrap();
        assert_eq!(all["DB"], "/srv/blog/data/db.sqlite3");
        assert_eq!(all["PRICE"], "5$ or $5 or $5");
        assert_eq!(all["LITERAL"], "${DATA_DIR}");
        assert_eq!(all["EMPTY"], "");
        assert_eq!(all["FLIPSIDE_APP"], "blog");
    }

    #[test]
    fn the_pillar_wins() {
        let all = render(&env(&[("SECRET_KEY", "mine")]), &env(&[("SECRET_KEY", "made")])).unwrap();
        assert_eq!(all["SECRET_KEY"], "mine");
    }

    #[test]
    fn what_is_unknown_is_refused_by_name_and_without_the_value() {
        let pillar = env(&[
            ("A", "canary ${NOPE}"),
            ("B", "canary ${DATA_DIR"),
            ("FLIPSIDE_RELEASE", "x"),
            ("C", "ok"),
        ]);
        let problems = render(&pillar, &env(&[("DATA_DIR", "/d")])).unwrap_err();
        let text: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(text.len(), 3, "{text:?}");
        assert!(text[0].contains("env.A: ${NOPE} is unknown; known are DATA_DIR"), "{text:?}");
        assert!(!text.concat().contains("canary"));
    }

    #[test]
    fn secrets_are_blackened_by_name() {
        let all = env(&[
            ("API_TOKEN", "canary-1"),
            ("DATABASE_URL", "mysql://u:canary-2@h/d"),
            ("LEVEL", "information"),
            ("PIN_KEY", "x"),
        ]);
        let text = "information: canary-1 at mysql://u:canary-2@h/d x";
        assert_eq!(blacken(text, &all), "information: *** at *** x");
    }

    #[test]
    fn the_file_is_quoted() {
        let file = to_file(&env(&[("A", "it's"), ("B", "two\nlines = 'x' $HOME \\"), ("C", "")]));
        assert_eq!(file, "A='it'\\''s'\nB='two\nlines = '\\''x'\\'' $HOME \\'\nC=''\n");
    }

    #[test]
    fn a_damaged_file_is_refused_with_its_line() {
        for (text, line) in [("A='x'\nB=y\n", 2), ("A='x", 1), ("A='x' \n", 1), ("A='1\n2'\nnonsense\n", 3)] {
            let error = from_file(text).unwrap_err();
            assert!(error.contains(&format!("line {line} ")), "{text:?}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_value_comes_back(values in proptest::collection::btree_map("[A-Z_][A-Z0-9_]{0,5}", any::<String>(), 0..6)) {
            prop_assert_eq!(from_file(&to_file(&values)).unwrap(), values);
        }

        #[test]
        fn substitution_never_panics(text in ".{0,40}") {
            let _ = substitute(&text, &env(&[("A", "b")]));
        }
    }
}
