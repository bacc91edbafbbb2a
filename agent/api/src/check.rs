//! What a spec must hold beyond its types: nothing in it may break out of an ini, a vhost, an environment or a
//! path.

use crate::{AppName, AppSpec, SpecError};

impl AppSpec {
    /// Checks what types cannot: nothing in here may break out of an ini, a vhost, an environment or a path.
    ///
    /// # Errors
    /// All problems, each with its option.
    pub fn check(&self) -> Result<(), Vec<SpecError>> {
        let mut problems = Vec::new();
        let mut refuse = |option: &str, problem: &str| {
            problems.push(SpecError { option: option.to_owned(), problem: problem.to_owned() });
        };
        if self.domains.is_empty() {
            refuse("options.domains", "needs at least one domain");
        }
        for domain in &self.domains {
            if !is_domain(domain) {
                refuse("options.domains", &format!("{:?} is no domain name", shortened(domain)));
            }
        }
        if !(self.public_url.starts_with("http://") || self.public_url.starts_with("https://"))
            || has_control(&self.public_url)
        {
            refuse("options.public_url", "must start with http:// or https://");
        }
        if self.workers == 0 || self.workers > 256 {
            refuse("options.workers", "must be between 1 and 256");
        }
        if self.threads < 2 || self.threads > 256 {
            refuse(
                "options.threads",
                "must be between 2 and 256: with one thread a graceful restart loses requests",
            );
        }
        if self.start_timeout == 0 {
            refuse("options.start_timeout", "must be at least a second");
        }
        if self.maintenance_after > 86_400 {
            refuse("options.maintenance_after", "must be between 0 and 86400 seconds");
        }
        if self.wsgi.as_deref().is_some_and(|entry| !is_entry(entry)) {
            refuse("options.wsgi", "must be module:attribute");
        }
        for (option, module) in
            [("options.settings", &self.settings), ("overlay_settings", &self.overlay_settings)]
        {
            if module.as_deref().is_some_and(|module| !is_module(module)) {
                refuse(option, "must be a dotted Python module");
            }
        }
        for pattern in &self.databases {
            if pattern.is_empty()
                || pattern.starts_with('/')
                || pattern.split('/').any(|part| part == "..")
                || has_control(pattern)
            {
                refuse("options.databases", &format!("{:?} must lie in the data folder", shortened(pattern)));
            }
        }
        for (option, location) in [("options.static", &self.static_files), ("options.media", &self.media)] {
            let Some(location) = location else { continue };
            if !is_url_prefix(&location.url) {
                refuse(option, "url must start and end with a slash and hold only letters, digits and -._~/");
            }
            if has_control(&location.root) || location.root.split('/').any(|part| part == "..") {
                refuse(option, "root must be a folder of the app, without ..");
            }
        }
        if !self.health.path.starts_with('/')
            || has_control(&self.health.path)
            || self.health.path.contains(' ')
        {
            refuse("options.health.path", "must start with a slash and hold no space");
        }
        for (list, hooks) in self.hooks.lists() {
            for hook in hooks.iter().flatten() {
                if !is_argv(&hook.command) {
                    refuse(
                        &format!("options.hooks.{list}"),
                        "each hook is a list of arguments, the first not empty",
                    );
                }
            }
        }
        for (name, background) in &self.background {
            if name.parse::<AppName>().is_err() || !is_argv(&background.command) || background.count > 64 {
                refuse(
                    &format!("options.background.{}", shortened(name)),
                    "needs a name like an app's, a command and a count of at most 64",
                );
            }
        }
        for (name, schedule) in &self.schedule {
            if name.parse::<AppName>().is_err() || !is_argv(&schedule.command) {
                refuse(
                    &format!("options.schedule.{}", shortened(name)),
                    "needs a name like an app's and a command",
                );
            }
        }
        for name in self.overlay.keys() {
            if !name.strip_suffix(".py").is_some_and(is_module) || name.len() > 100 {
                refuse("overlay", &format!("{:?} is no file name of a Python module", shortened(name)));
            }
        }
        for (name, value) in &self.env {
            if !is_variable(name) {
                refuse("env", &format!("{:?} is no name of a variable", shortened(name)));
            }
            if value.contains('\0') {
                refuse(
                    &format!("env.{}", shortened(name)),
                    "holds a NUL character, which no environment can",
                );
            }
        }
        for name in self.files.keys() {
            if !is_plain_name(name) {
                refuse("files", &format!("{:?} is no plain name of a file", shortened(name)));
            }
        }
        if self.user.as_deref().is_some_and(|user| !is_user(user)) {
            refuse("user", "is no name of a system user");
        }
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

fn has_control(text: &str) -> bool {
    text.chars().any(char::is_control)
}

fn is_domain(text: &str) -> bool {
    let text = text.strip_prefix("*.").unwrap_or(text);
    !text.is_empty()
        && text.len() <= 253
        && text.split('.').all(|label| {
            !label.is_empty()
                && label.len() <= 63
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        })
}

fn is_module(text: &str) -> bool {
    text.len() <= 200
        && text.split('.').all(|part| {
            part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        })
}

fn is_entry(text: &str) -> bool {
    text.split_once(':').is_some_and(|(module, attribute)| is_module(module) && is_module(attribute))
}

fn is_url_prefix(text: &str) -> bool {
    text.starts_with('/')
        && text.ends_with('/')
        && text.len() <= 200
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~/".contains(&b))
        && !text.split('/').any(|part| part == ".." || part == ".")
}

fn is_argv(command: &[String]) -> bool {
    command.first().is_some_and(|program| !program.is_empty())
        && !command.iter().any(|argument| argument.contains('\0'))
}

fn is_variable(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.len() <= 200
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn is_plain_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && text.len() <= 100
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

fn is_user(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 32
        && text.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Hook, Hooks, Location};

    fn spec() -> AppSpec {
        serde_json::from_value(serde_json::json!({
            "app": "blog", "template": "python-django-sqlite",
            "domains": ["blog.example.org"], "public_url": "https://blog.example.org",
        }))
        .unwrap()
    }

    #[track_caller]
    fn refused(change: impl FnOnce(&mut AppSpec), option: &str) {
        let mut spec = spec();
        change(&mut spec);
        let problems = spec.check().unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].option.starts_with(option), "{problems:?}");
    }

    #[test]
    fn the_least_spec_is_sound() {
        spec().check().unwrap();
    }

    #[test]
    fn what_could_break_out_is_refused_by_name() {
        refused(|s| s.domains = vec!["a.org;\n}".into()], "options.domains");
        refused(|s| s.domains.clear(), "options.domains");
        refused(|s| s.threads = 1, "options.threads");
        refused(|s| s.wsgi = Some("blog.wsgi".into()), "options.wsgi");
        refused(|s| s.settings = Some("x\nsocket=:80".into()), "options.settings");
        refused(|s| s.databases = vec!["../other/db".into()], "options.databases");
        refused(|s| s.health.path = "/ HTTP/1.1\r\nX: y".into(), "options.health.path");
        refused(
            |s| {
                s.env.insert("A B".into(), String::new());
            },
            "env",
        );
        refused(
            |s| {
                s.env.insert("A".into(), "\0".into());
            },
            "env.A",
        );
        refused(
            |s| {
                s.overlay.insert("../x.py".into(), String::new());
            },
            "overlay",
        );
        refused(|s| s.user = Some("root\n".into()), "user");
        refused(
            |s| s.hooks.migrate = Some(vec![Hook { command: vec![], timeout: 1 }]),
            "options.hooks.migrate",
        );
        let location = Location { url: "/s/;}".into(), root: "/x".into(), package: None };
        refused(|s| s.static_files = Some(location), "options.static");
    }

    #[test]
    fn values_of_the_environment_are_free() {
        let mut spec = spec();
        spec.env.insert("A".into(), "two\nlines $ # ' \" =".into());
        spec.env.insert("EMPTY".into(), String::new());
        spec.check().unwrap();
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        let error = serde_json::from_value::<AppSpec>(serde_json::json!({
            "app": "blog", "template": "t", "domains": [], "public_url": "", "wokers": 3 }))
        .unwrap_err();
        assert!(error.to_string().contains("wokers"), "{error}");
    }

    #[test]
    fn a_hook_is_a_list_or_a_map() {
        let hooks: Hooks = serde_json::from_value(serde_json::json!({
            "migrate": [["django-admin", "migrate"], {"command": ["x"], "timeout": 5}] }))
        .unwrap();
        let migrate = hooks.migrate.unwrap();
        assert_eq!((migrate[0].timeout, migrate[1].timeout), (600, 5));
    }
}
