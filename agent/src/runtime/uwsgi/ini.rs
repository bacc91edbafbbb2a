//! The options of an instance, as uWSGI's ini: those that were measured to lose no request.
//!
//! No `uid`: uWSGI is started as the app's user and never is root. No `vacuum`: it would remove the socket of a
//! listener that is not its own. No `memory-report`: the kernel is asked for what workers take.

use std::path::Path;

use super::{CHAIN_SIGNAL, MERCY_SECONDS};

/// What an instance is started with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options<'a> {
    /// The Python of the environment that uWSGI is installed in.
    pub python: &'a Path,
    /// What each worker loads.
    pub loader: &'a Path,
    /// Where it starts.
    pub cwd: &'a Path,
    /// The socket of its statistics.
    pub stats: &'a Path,
    /// Worker processes.
    pub workers: u16,
    /// Threads in each.
    pub threads: u16,
    /// How many connections may wait: at most what the kernel allows, or uWSGI refuses to start.
    pub backlog: u32,
}

/// A value that uWSGI would not take as it stands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} cannot stand in uWSGI's configuration: only letters, digits, spaces and /._-+,=:@ can")]
pub struct IniError {
    value: String,
}

/// The text of the ini.
///
/// # Errors
/// When a path holds a character that could mean something: a newline, `%`, `$`, brackets, quotes.
pub fn render(options: &Options<'_>) -> Result<String, IniError> {
    let path = |path: &Path| sound(&path.display().to_string());
    // One thread would lose requests: a worker that is told to end between accepting and reading drops one.
    let threads = options.threads.max(2);
    let lines = [
        ("strict", "true".to_owned()),
        ("master", "true".to_owned()),
        ("lazy-apps", "true".to_owned()),
        ("single-interpreter", "true".to_owned()),
        ("processes", options.workers.max(1).to_string()),
        ("threads", threads.to_string()),
        ("binary-path", path(options.python)?),
        ("chdir", path(options.cwd)?),
        // Never `need-app`: one bad worker would end the instance. The loader sees to bad releases.
        ("wsgi-file", path(options.loader)?),
        ("listen", options.backlog.to_string()),
        ("stats", path(options.stats)?),
        // Without the requests' variables: they hold people's cookies.
        ("stats-no-cores", "true".to_owned()),
        // TERM lets requests finish; by default it restarts everything at once.
        ("hook-master-start", "unix_signal:15 gracefully_kill_them_all".to_owned()),
        ("hook-master-start", format!("unix_signal:{CHAIN_SIGNAL} uwsgi_chain_reload")),
        ("worker-reload-mercy", MERCY_SECONDS.to_string()),
        ("reload-mercy", (MERCY_SECONDS + 5).to_string()),
        ("no-orphans", "true".to_owned()),
        ("disable-logging", "true".to_owned()),
        ("log-5xx", "true".to_owned()),
        ("buffer-size", "32768".to_owned()),
        ("post-buffering", "65536".to_owned()),
    ];
    let body: String = lines.iter().map(|(name, value)| format!("{name} = {value}\n")).collect();
    Ok(format!("[uwsgi]\n{body}"))
}

fn sound(value: &str) -> Result<String, IniError> {
    let plain = |c: char| c.is_alphanumeric() || " /._-+,=:@".contains(c);
    let edges = value.starts_with(' ') || value.ends_with(' ');
    // `@(file)` would include a file, but brackets are out already.
    if !value.is_empty() && !edges && value.chars().all(plain) {
        Ok(value.to_owned())
    } else {
        Err(IniError { value: value.to_owned() })
    }
}

/// The backlog that the kernel allows, up to 1024.
pub fn backlog() -> u32 {
    let allowed = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap_or_default();
    allowed.trim().parse().unwrap_or(128).min(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(cwd: &Path) -> Options<'_> {
        Options {
            python: Path::new("/s/bin/python3"),
            loader: Path::new("/s/loader.py"),
            cwd,
            stats: Path::new("/r/w/i-1.stats"),
            workers: 3,
            threads: 1,
            backlog: 1024,
        }
    }

    #[test]
    fn what_was_measured_to_lose_nothing_is_what_is_written() {
        let ini = render(&options(Path::new("/srv/blog/data"))).unwrap();
        let lines: Vec<&str> = ini.lines().collect();
        for line in [
            "strict = true",
            "threads = 2",
            "processes = 3",
            "lazy-apps = true",
            "listen = 1024",
            "chdir = /srv/blog/data",
        ] {
            assert!(lines.contains(&line), "{line}");
        }
        // The loader sees to requests that hang: with threads, harakiri kills workers that did no wrong.
        for never in ["need-app", "vacuum", "memory-report", "harakiri"] {
            assert!(!ini.contains(never), "{never}");
        }
    }

    #[test]
    fn no_path_adds_an_option() {
        for hostile in ["/a\nsocket = :80", "/a\r", "/%n", "/$(HOME)", "/@(exec://x)", "/a;b", "/a ", ""] {
            assert!(render(&options(Path::new(hostile))).is_err(), "{hostile:?}");
        }
        assert!(render(&options(Path::new("/srv/my apps/é"))).is_ok());
    }
}
