//! Where everything of an app lies.

use std::path::{Path, PathBuf};

use flipside_api::{AppName, ReleaseId};

/// The name of an app's folder of what was taken away.
pub const TRASH: &str = ".trash";

/// The folders of one app; each method names one place, none touches the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppPaths {
    /// The app.
    pub app: AppName,
    home: PathBuf,
    run: PathBuf,
    log: PathBuf,
}

impl AppPaths {
    /// The paths of `app` below the agent's folders of apps, sockets and logs.
    pub fn new(app: &AppName, apps_dir: &Path, run_dir: &Path, log_dir: &Path) -> Self {
        Self {
            app: app.clone(),
            home: apps_dir.join(app.as_str()),
            run: run_dir.join(app.as_str()),
            log: log_dir.join(format!("{app}.log")),
        }
    }

    /// `<apps>/<app>`: root's; the app cannot write here.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// The folder of releases: root's, read-only to the app.
    pub fn releases(&self) -> PathBuf {
        self.home.join("releases")
    }

    /// One release: `venv/`, `overlay/`, `manifest.json`, `release.json`.
    pub fn release(&self, id: &ReleaseId) -> PathBuf {
        self.releases().join(id.as_str())
    }

    /// The link to the release that is current: `releases/<id>`, relative.
    pub fn current(&self) -> PathBuf {
        self.home.join("current")
    }

    /// The environment that workers read when they start: 0640, root and the app's group.
    pub fn env_file(&self) -> PathBuf {
        self.home.join("env")
    }

    /// The environment of a deploy on its way; the switch renames it to [`AppPaths::env_file`].
    pub fn env_next(&self) -> PathBuf {
        self.home.join("env.next")
    }

    /// The environment that the last switch replaced.
    pub fn env_previous(&self) -> PathBuf {
        self.home.join("env.previous")
    }

    /// Where a release is put together before it takes its name.
    pub fn staging(&self, id: &ReleaseId) -> PathBuf {
        self.releases().join(format!(".new-{id}"))
    }

    /// The folder of overlays, each named by its content.
    pub fn overlays(&self) -> PathBuf {
        self.home.join("overlays")
    }

    /// One overlay: modules that lie beside the app's own.
    pub fn overlay(&self, digest: &str) -> PathBuf {
        self.overlays().join(digest)
    }

    /// The folder of configuration files: root's; within it a folder for each set of them, named by its content.
    pub fn files(&self) -> PathBuf {
        self.home.join("files")
    }

    /// What was taken away and is still to be cleared.
    pub fn trash(&self) -> PathBuf {
        self.home.join(TRASH)
    }

    /// Copies of the databases from before deploys, each named by its deployment.
    pub fn marks(&self) -> PathBuf {
        self.home.join("marks")
    }

    /// What the app's followers remember: its user's, like the copies.
    pub fn backups(&self) -> PathBuf {
        self.home.join("backup")
    }

    /// The app's own folder: databases and all that it writes. Hostile ground to the agent.
    pub fn data(&self) -> PathBuf {
        self.home.join("data")
    }

    /// Uploads: the app writes, nginx reads.
    pub fn media(&self) -> PathBuf {
        self.home.join("media")
    }

    /// `STATIC_ROOT`: hooks write, nginx reads.
    pub fn static_root(&self) -> PathBuf {
        self.home.join("static")
    }

    /// `HOME` of the app's processes.
    pub fn user_home(&self) -> PathBuf {
        self.home.join("home")
    }

    /// `<run>/<app>`: sockets, fifos and stats of the app's instances.
    pub fn run(&self) -> &Path {
        &self.run
    }

    /// The socket that nginx passes requests to.
    pub fn socket(&self) -> PathBuf {
        self.run.join("app.sock")
    }

    /// While this file exists nginx shows the maintenance page.
    pub fn maintenance(&self) -> PathBuf {
        self.run.join("maintenance")
    }

    /// What the app's processes print.
    pub fn log(&self) -> &Path {
        &self.log
    }
}
