//! `doctor`: what this host lacks, each with what to do.

use std::path::Path;

use flipside_api::{Command, Failure};
use serde_json::{Value, json};

use super::Session;
use crate::{
    args::DoctorArgs,
    exec::{self, Tool},
    failures::{OK, Result},
};

/// A release needs its wheels, a venv and the old one beside it.
const LEAST_FREE: u64 = 1 << 30;
const FAILED: u8 = 1;

struct Check {
    name: &'static str,
    /// What was found, or what is wrong and what to do.
    found: std::result::Result<String, Failure>,
}

/// `flipside doctor`.
pub(crate) fn run(args: &DoctorArgs, session: &Session<'_>) -> Result<u8> {
    let checks = [
        Check { name: "agent", found: agent(session) },
        Check {
            name: "uv",
            found: exec::uv(args.uv.as_deref())
                .and_then(|uv| Tool::new(&uv).args(["--version"]).run("ask uv for its version")),
        },
        Check {
            name: "python",
            found: exec::python(None)
                .and_then(|python| Tool::new(&python).args(["--version"]).run("ask Python for its version")),
        },
        Check { name: "nginx", found: nginx() },
        Check { name: "disk", found: disk() },
    ];
    let healthy = checks.iter().all(|check| check.found.is_ok());
    if session.output.is_json() {
        let checks: Vec<Value> = checks.iter().map(Check::object).collect();
        session.output.object(&json!({"v": 1, "result": healthy, "checks": checks}));
    } else {
        for check in &checks {
            match &check.found {
                Ok(found) => session.output.line(format!("ok    {:<7} {}", check.name, found.trim())),
                Err(failure) => {
                    session.output.line(format!("FAIL  {:<7} {}", check.name, failure.message));
                    if !failure.hint.is_empty() {
                        session.output.line(format!("              {}", failure.hint));
                    }
                }
            }
        }
    }
    Ok(if healthy { OK } else { FAILED })
}

impl Check {
    fn object(&self) -> Value {
        match &self.found {
            Ok(found) => json!({"name": self.name, "ok": true, "message": found.trim()}),
            Err(failure) => {
                json!({"name": self.name, "ok": false, "message": failure.message, "hint": failure.hint})
            }
        }
    }
}

fn agent(session: &Session<'_>) -> Result<String> {
    let outcome = session.ask(Command::Version)?;
    match outcome.error {
        Some(error) => Err(error),
        None => Ok(format!("answers at {}", session.shared.socket.display())),
    }
}

fn nginx() -> Result<String> {
    let program = exec::find("nginx").ok_or_else(|| {
        Failure::new(flipside_api::Code::Host, "nginx is not installed").hint("salt-call state.apply nginx")
    })?;
    // nginx says its version on stderr; that it runs at all is what counts.
    Tool::new(&program).args(["-v"]).run("ask nginx for its version")?;
    Ok(program.display().to_string())
}

fn disk() -> Result<String> {
    let place =
        ["/srv/flipside", "/var/lib/flipside", "/"].into_iter().map(Path::new).find(|path| path.is_dir());
    let place = place.unwrap_or(Path::new("/"));
    let stat = nix::sys::statvfs::statvfs(place)
        .map_err(|error| crate::failures::io("measure", place, &error.into()))?;
    let free = stat.blocks_available() * stat.fragment_size();
    let message = format!("{:.1} GB free at {}", free as f64 / 1e9, place.display());
    if free < LEAST_FREE {
        return Err(
            Failure::new(flipside_api::Code::Host, message).hint("a deploy of a large app needs 1 GB")
        );
    }
    Ok(message)
}
