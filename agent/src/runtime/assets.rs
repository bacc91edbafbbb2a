//! The Python files that come with the agent, and what is to be known of a pre-flight.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use flipside_api::{Code, Failure, Migration, Migrations};
use serde::Deserialize;

use crate::sys::{
    atomic_write::{self, WriteError},
    beneath,
    exec::Ended,
};

const LOADER: &str = include_str!("python/loader.py");
const PREFLIGHT: &str = include_str!("python/preflight.py");
const SCHEMA: &str = include_str!("python/schema.py");
const ENTER: &str = include_str!("python/enter.py");

/// Where the agent's Python files lie: the apps' users read them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assets {
    /// What uWSGI loads in every worker.
    pub loader: PathBuf,
    /// What tries a release out.
    pub preflight: PathBuf,
    /// What looks at its migrations, for the one before.
    pub schema: PathBuf,
    /// What becomes uWSGI in a container.
    pub enter: PathBuf,
}

/// Where a pre-flight finds the release's code.
#[derive(Debug, Clone, Copy)]
pub enum Tree<'a> {
    /// Installed.
    Venv(&'a Path),
    /// As wheels, which it unpacks.
    Wheels {
        /// The host's Python.
        python: &'a Path,
        /// `wheels/`, and an empty `site/` that the app's user may write to.
        folder: &'a Path,
    },
}

/// The files could not be put in place.
#[derive(Debug, thiserror::Error)]
pub enum AssetsError {
    /// Their folder could not be made.
    #[error("cannot put the agent's Python files in place")]
    Folder(#[source] beneath::BeneathError),
    /// A file could not be written.
    #[error("cannot put the agent's Python files in place")]
    Write(#[source] WriteError),
}

impl Assets {
    /// Writes the files to `<state>/uwsgi`, each in one step: workers may be reading them.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn write(state_dir: &Path) -> Result<Self, AssetsError> {
        let folder = state_dir.join("uwsgi");
        beneath::ensure_dir(&folder, 0o755, None).map_err(AssetsError::Folder)?;
        let [loader, preflight, schema, enter] =
            ["loader.py", "preflight.py", "schema.py", "enter.py"].map(|name| folder.join(name));
        let assets = Self { loader, preflight, schema, enter };
        for (path, text) in [
            (&assets.loader, LOADER),
            (&assets.preflight, PREFLIGHT),
            (&assets.schema, SCHEMA),
            (&assets.enter, ENTER),
        ] {
            atomic_write::write(path, text.as_bytes(), 0o644, None).map_err(AssetsError::Write)?;
        }
        Ok(assets)
    }

    /// The argument list of a pre-flight of a release. It is to run as the app's user with the whole environment
    /// that the release will have, `DATA_DIR` as its folder, and a timeout.
    pub fn preflight_argv(&self, tree: Tree<'_>, path: &str, host: &str, https: bool) -> Vec<String> {
        // -I: as in a worker it is the loader that looks at PYTHONPATH, and nobody at its like. -S: the packages
        // of the host's Python are not the release's.
        let (python, flags) = match tree {
            Tree::Venv(venv) => (venv.join("bin/python3"), "-I"),
            Tree::Wheels { python, .. } => (python.to_owned(), "-IS"),
        };
        let text = |path: &Path| path.display().to_string();
        let mut argv = vec![text(&python), flags.to_owned(), text(&self.preflight)];
        argv.extend(["--loader".to_owned(), text(&self.loader)]);
        argv.extend(["--path", path, "--host", host].map(str::to_owned));
        argv.extend(https.then(|| "--https".to_owned()));
        if let Tree::Wheels { folder, .. } = tree {
            argv.extend(["--unpack".to_owned(), text(folder)]);
        }
        argv
    }

    /// Arguments that have a pre-flight look at the migrations too.
    pub fn schema_arguments(&self) -> [String; 2] {
        ["--schema".to_owned(), self.schema.display().to_string()]
    }
}

/// What a pre-flight found out about the release's migrations.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Schema {
    /// Those that wait and those that the release does not know.
    #[serde(flatten)]
    pub migrations: Migrations,
    /// Those that were asked for by name, as far as the release knows them.
    #[serde(default)]
    pub named: Vec<Migration>,
    /// The SQLite files that its settings name.
    #[serde(default)]
    pub files: Vec<PathBuf>,
}

/// What a pre-flight reported.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Verdict {
    /// Whether the release was imported and answered with a status below 500.
    pub ok: bool,
    /// What it answered.
    pub status: Option<u16>,
    /// The exception, in a line.
    #[serde(default)]
    pub error: String,
    /// The last lines of its traceback.
    #[serde(default)]
    pub traceback: Vec<String>,
    /// Its migrations, where they were asked for and are Django's.
    #[serde(default)]
    pub schema: Option<Schema>,
}

impl Verdict {
    /// What the release answered, where it was imported and answered at all, be it with a status of 500.
    pub fn answer(ended: &Ended) -> Option<u16> {
        let verdict = Self::read(ended)?;
        verdict.status.filter(|_| !ended.timed_out)
    }

    /// The report at the end of a pre-flight's output, if it came to one.
    pub fn read(ended: &Ended) -> Option<Self> {
        #[derive(Deserialize)]
        struct Line {
            flipside_preflight: Verdict,
        }
        let text = String::from_utf8_lossy(&ended.tail);
        let line = text.lines().rev().find_map(|line| serde_json::from_str::<Line>(line.trim()).ok());
        line.map(|line| line.flipside_preflight)
    }

    /// Reads the report at the end of a pre-flight's output.
    ///
    /// # Errors
    /// When the release does not start: it raised, exited, crashed, hung or answered with a 5xx.
    pub fn of(ended: &Ended, timeout: Duration) -> Result<Self, Failure> {
        let fail = |message: String, log| Err(Failure::new(Code::Preflight, message).log(log));
        if ended.timed_out {
            let message = format!("the release did not start within {} s", timeout.as_secs());
            return fail(message, ended.lines(30))
                .map_err(|failure| failure.hint("It hangs at import or in its first request; see the log."));
        }
        match (Self::read(ended), ended.signal) {
            (Some(verdict), _) if verdict.ok && ended.ok() => Ok(verdict),
            (Some(verdict), _) => {
                let message = match verdict.status {
                    Some(status) if verdict.error.is_empty() => {
                        format!("the release answers its first request with {status}")
                    }
                    Some(_) => format!("the release fails at its first request: {}", verdict.error),
                    None => format!("the release does not start: {}", verdict.error),
                };
                let hint = hint(&verdict);
                let log = if verdict.traceback.is_empty() { printed(ended) } else { verdict.traceback };
                fail(message, log).map_err(|failure| match hint {
                    Some(hint) => failure.hint(hint),
                    None => failure,
                })
            }
            (None, Some(signal)) => {
                fail(format!("the release crashes when it starts: signal {signal}"), ended.lines(30))
            }
            (None, None) => {
                let code = ended.code.unwrap_or(-1);
                fail(format!("the release exits when it starts, with code {code}"), ended.lines(30))
            }
        }
    }
}

/// What the app printed, without our own report.
fn printed(ended: &Ended) -> Vec<String> {
    let mut lines = ended.lines(30);
    lines.retain(|line| !line.starts_with("{\"flipside_preflight\""));
    lines
}

/// What to do about the two that happen most.
fn hint(verdict: &Verdict) -> Option<&'static str> {
    let environ = || verdict.traceback.iter().any(|line| line.contains("environ"));
    let error = &verdict.error;
    if ["'pylibmc'", "'pymemcache'"].iter().any(|client| error.contains(client)) {
        Some(
            "CACHE_URL asks for memcached, and the release brings no client: add pymemcache to the project's \
             dependencies and publish again, or set CACHE_URL under env in the app's pillar",
        )
    } else if error.starts_with("ModuleNotFoundError") {
        Some("no wheel of the release brings it: add it to the project's dependencies and publish again")
    } else if environ() && ["KeyError", "ImproperlyConfigured"].iter().any(|name| error.starts_with(name)) {
        Some("a variable that the settings need is missing: set it under env in the app's pillar")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(code: i32, output: &str) -> Ended {
        Ended { code: Some(code), signal: None, tail: output.into(), timed_out: false }
    }

    fn message(ended: &Ended) -> String {
        Verdict::of(ended, Duration::from_secs(60)).unwrap_err().message
    }

    #[test]
    fn a_report_is_found_among_what_the_app_prints() {
        let output = "hello\n\n{\"flipside_preflight\": {\"ok\": true, \"status\": 301}}\nbye\n";
        assert_eq!(Verdict::of(&ended(0, output), Duration::ZERO).unwrap().status, Some(301));
    }

    #[test]
    fn each_way_to_fail_is_told_apart() {
        let raised = r#"{"flipside_preflight": {"ok": false, "status": null, "error": "ImportError: x"}}"#;
        assert!(message(&ended(1, raised)).contains("ImportError: x"));
        let lacks = r#"{"flipside_preflight": {"ok": false, "status": null, "error": "KeyError: 'TOKEN'",
            "traceback": ["  T = os.environ['TOKEN']"]}}"#;
        let lacks = Verdict::of(&ended(1, &lacks.replace('\n', "")), Duration::ZERO).unwrap_err();
        assert!(lacks.hint.contains("under env"), "{lacks:?}");
        let broken = r#"{"flipside_preflight": {"ok": false, "status": 500}}"#;
        assert!(message(&ended(1, broken)).contains("500"));
        assert_eq!(Verdict::answer(&ended(1, broken)), Some(500));
        assert_eq!(Verdict::answer(&ended(1, raised)), None);
        assert!(message(&ended(3, "gone")).contains("code 3"));
        assert!(message(&Ended { signal: Some(11), ..Ended::default() }).contains("signal 11"));
        assert!(message(&Ended { timed_out: true, ..Ended::default() }).contains("within 60 s"));
    }
}
