//! uWSGI's own environment: one for each minor version of Python, made on first need.
//!
//! It is pyuwsgi, a wheel: nothing is compiled and nothing of it is run to install it. It holds nothing else, and
//! the loader takes it off the path of the apps.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use crate::sys::{
    atomic_write::{self, WriteError},
    beneath::{self, BeneathError},
    exec::{self, Ended, ExecError, Program},
};

const TIMEOUT: Duration = Duration::from_secs(300);

/// The file in an environment that says what it was made of, written last.
const MADE_OF: &str = "made-of";

/// What folders that are no environments yet, or no more, begin with.
const BUILDING: &str = ".building-";

/// Makes and finds uWSGI's environments.
#[derive(Debug, Clone)]
pub struct Installer {
    /// The folder of them: `<state>/uwsgi`.
    pub folder: PathBuf,
    /// `uv`.
    pub uv: PathBuf,
    /// What is installed, such as `pyuwsgi==2.0.30`.
    pub requirement: String,
}

/// uWSGI could not be installed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// A program could not be run.
    #[error("cannot install uWSGI")]
    Exec(#[source] ExecError),
    /// A program failed.
    #[error("{what} failed")]
    Failed {
        /// What was done.
        what: &'static str,
        /// What it printed.
        log: Vec<String>,
    },
    /// A folder could not be made or removed.
    #[error("cannot install uWSGI")]
    Folder(#[source] BeneathError),
    /// A file could not be written or renamed.
    #[error("cannot install uWSGI")]
    Write(#[source] WriteError),
    /// The lock could not be had.
    #[error("cannot lock {}", path.display())]
    Lock {
        /// The lock's file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl Installer {
    /// The Python of the environment that fits the interpreter `python`.
    ///
    /// # Errors
    /// When it has to be made and cannot.
    pub async fn ensure(&self, python: &str) -> Result<PathBuf, InstallError> {
        beneath::ensure_dir(&self.folder, 0o755, None).map_err(InstallError::Folder)?;
        let (minor, real) = self.interpreter(python).await?;
        let venv = self.folder.join(&minor);
        let made_of = format!("{} {real}\n", self.requirement);
        if !self.is_made(&venv, &made_of) {
            let _lock = self.lock().await?;
            // Another may have made it meanwhile.
            if !self.is_made(&venv, &made_of) {
                self.make(&real, &venv, &made_of).await?;
            }
        }
        Ok(venv.join("bin/python3"))
    }

    fn is_made(&self, venv: &Path, made_of: &str) -> bool {
        fs::read_to_string(venv.join(MADE_OF)).is_ok_and(|found| found == made_of)
    }

    async fn make(&self, python: &str, venv: &Path, made_of: &str) -> Result<(), InstallError> {
        self.clear_away();
        let random: u32 = rand::random();
        let building = self.folder.join(format!("{BUILDING}{random:08x}"));
        let made = self.build(python, &building, made_of).await;
        if made.is_err() {
            let _ = beneath::remove_tree(&building);
            return made;
        }
        // Instances that run from the old one have all of it in memory.
        let old = self.folder.join(format!("{BUILDING}{random:08x}.old"));
        if venv.exists() {
            atomic_write::rename(venv, &old).map_err(InstallError::Write)?;
        }
        atomic_write::rename(&building, venv).map_err(InstallError::Write)?;
        tracing::info!(venv = %venv.display(), "UwsgiInstalled");
        self.clear_away();
        Ok(())
    }

    /// Removes what was being built when an agent was killed, and what was replaced. The lock is held.
    fn clear_away(&self) {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(BUILDING)) {
            if let Err(error) = beneath::remove_tree(&entry.path()) {
                tracing::warn!(%error, "UwsgiRemainsNotRemoved");
            }
        }
    }

    async fn build(&self, python: &str, building: &Path, made_of: &str) -> Result<(), InstallError> {
        let uv = self.uv.display().to_string();
        let target = building.display().to_string();
        let interpreter = building.join("bin/python3").display().to_string();
        let venv = [&uv, "venv", "--no-project", "--python", python, &target];
        self.run("making uWSGI's environment", &venv).await?;
        let install = [
            &uv,
            "pip",
            "install",
            "--python",
            &interpreter,
            "--only-binary",
            ":all:",
            "--link-mode",
            "copy",
            &self.requirement,
        ];
        self.run("installing uWSGI", &install).await?;
        // Every app's user runs it, whatever the umask that it was made under.
        fs::set_permissions(building, fs::Permissions::from_mode(0o755))
            .map_err(|source| InstallError::Lock { path: building.to_owned(), source })?;
        atomic_write::write(&building.join(MADE_OF), made_of.as_bytes(), 0o644, None)
            .map_err(InstallError::Write)
    }

    /// The minor version and the real path of an interpreter, whatever links lead to it.
    async fn interpreter(&self, python: &str) -> Result<(String, String), InstallError> {
        const WHAT: &str = "asking Python for its version";
        let script =
            "import os, sys; print('%d.%d' % sys.version_info[:2], os.path.realpath(sys.executable))";
        let ended = self.run(WHAT, &[python, "-I", "-c", script]).await?;
        let said = ended.lines(1).pop().unwrap_or_default();
        match said.split_once(' ') {
            Some((minor, real)) if minor.bytes().all(|b| b.is_ascii_digit() || b == b'.') => {
                Ok((minor.to_owned(), real.to_owned()))
            }
            _ => Err(InstallError::Failed { what: WHAT, log: vec![said] }),
        }
    }

    async fn run(&self, what: &'static str, argv: &[&str]) -> Result<Ended, InstallError> {
        let program = Program {
            argv: argv.iter().map(|argument| (*argument).to_owned()).collect(),
            env: self.env(),
            cwd: self.folder.clone(),
            account: None,
            stdin: None,
            timeout: TIMEOUT,
            tail: 16 << 10,
        };
        let ended = exec::run(program, &mut |_| {}).await.map_err(InstallError::Exec)?;
        if ended.ok() { Ok(ended) } else { Err(InstallError::Failed { what, log: ended.lines(20) }) }
    }

    /// Which index, proxy and certificates the operator chose for the agent holds for uv too.
    fn env(&self) -> BTreeMap<String, String> {
        let chosen = |name: &str| {
            name.starts_with("UV_")
                || name.starts_with("SSL_CERT_")
                || ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"]
                    .contains(&name.to_ascii_uppercase().as_str())
        };
        let mut env: BTreeMap<String, String> = std::env::vars().filter(|(name, _)| chosen(name)).collect();
        env.insert("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin".to_owned());
        env.insert("HOME".to_owned(), self.folder.display().to_string());
        env.insert("UV_CACHE_DIR".to_owned(), self.folder.join(".cache").display().to_string());
        env.insert("UV_PYTHON_DOWNLOADS".to_owned(), "never".to_owned());
        env
    }

    async fn lock(&self) -> Result<File, InstallError> {
        let path = self.folder.join(".lock");
        let failed = |source| InstallError::Lock { path: path.clone(), source };
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
        let deadline = Instant::now() + TIMEOUT;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    sleep(Duration::from_millis(100)).await;
                }
                Err(TryLockError::WouldBlock) => return Err(failed(io::ErrorKind::TimedOut.into())),
                Err(TryLockError::Error(source)) => return Err(failed(source)),
            }
        }
    }
}
