//! The one place where this program starts others: from argument lists, never through a shell.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Output, Stdio},
};

use flipside_api::{Code, Failure};

use crate::failures::Result;

/// How much of a failed program's output is shown.
const TAIL: usize = 30;

/// A program to run, described before it runs.
#[derive(Debug)]
pub(crate) struct Tool {
    command: Command,
    name: String,
}

impl Tool {
    /// The program `program`, given nothing on its stdin.
    #[expect(clippy::disallowed_methods, reason = "this is the place")]
    pub(crate) fn new(program: &Path) -> Self {
        let mut command = Command::new(program);
        command.stdin(Stdio::null());
        let name = program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned();
        Self { command, name }
    }

    /// With these arguments after those before.
    pub(crate) fn args<S: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.command.args(arguments);
        self
    }

    /// In this folder.
    pub(crate) fn dir(mut self, dir: &Path) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// With this variable in its environment.
    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Runs it to its end; `what` says for whom it matters what it was to do.
    ///
    /// Its output is kept for the failure, which shows the last lines.
    pub(crate) fn run(mut self, what: &str) -> Result<String> {
        let output = self.command.output().map_err(|error| self.not_started(&error))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(Failure::new(Code::Build, format!("cannot {what}: {} ended with {}", self.name, output.status))
            .log(tail(&output)))
    }

    /// Runs it with this program's terminal and gives how it ended.
    pub(crate) fn attached(mut self) -> Result<ExitStatus> {
        self.command.stdin(Stdio::inherit());
        self.command.status().map_err(|error| self.not_started(&error))
    }

    fn not_started(&self, error: &std::io::Error) -> Failure {
        Failure::new(Code::Host, format!("cannot start {}: {error}", self.name))
    }
}

fn tail(output: &Output) -> Vec<String> {
    let both = [String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)].concat();
    let lines: Vec<&str> = both.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(TAIL)..].iter().map(ToString::to_string).collect()
}

/// The program `name` as a shell would find it.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    // An administrator's programs are often not on a user's PATH.
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/local/bin"), PathBuf::from("/usr/sbin")])
        .map(|folder| folder.join(name))
        .find(|file| nix::unistd::access(file, nix::unistd::AccessFlags::X_OK).is_ok() && file.is_file())
}

/// The program uv: the one asked for, else the one on PATH.
pub(crate) fn uv(asked: Option<&Path>) -> Result<PathBuf> {
    let found = match asked {
        Some(path) if path.is_file() => Some(path.to_owned()),
        Some(path) => {
            return Err(Failure::new(Code::Host, format!("there is no uv at {}", path.display())));
        }
        None => find("uv"),
    };
    found.ok_or_else(|| {
        Failure::new(Code::Host, "uv is not on PATH")
            .hint("install it (`pip install uv`), or name it with --uv or FLIPSIDE_UV")
    })
}

/// The Python to build for: the one asked for, else the system's.
pub(crate) fn python(asked: Option<&Path>) -> Result<PathBuf> {
    let system = Path::new("/usr/bin/python3");
    match asked {
        Some(path) => Ok(path.to_owned()),
        None if system.is_file() => Ok(system.to_owned()),
        None => find("python3").ok_or_else(|| {
            Failure::new(Code::Host, "there is no python3").hint("name one with --python or FLIPSIDE_PYTHON")
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_shows_the_last_lines() {
        let python = find("python3").unwrap();
        let code = "import sys\nfor n in range(99): print(n)\nprint('why', file=sys.stderr)\nsys.exit(3)";
        let failure = Tool::new(&python).args(["-c", code]).run("count").unwrap_err();
        assert!(failure.message.contains("cannot count") && failure.message.contains('3'), "{failure:?}");
        assert_eq!(failure.log.last().unwrap(), "why");
        assert_eq!(failure.log.len(), TAIL);
    }

    #[test]
    fn a_missing_program_is_named() {
        let failure = Tool::new(Path::new("/nonexistent/uv")).run("x").unwrap_err();
        assert!(failure.message.contains("cannot start uv"), "{failure:?}");
        assert!(uv(Some(Path::new("/nonexistent/uv"))).is_err());
    }
}
