//! An app on disk as a deploy would leave it, and a runtime over real uWSGI.

use std::{
    fs,
    io::Write,
    os::unix::{fs::symlink, net::UnixStream},
    path::{Path, PathBuf},
    sync::OnceLock,
};

use flipside_agent::{
    app::paths::AppPaths,
    runtime::{
        Account, InstanceSpec,
        assets::Assets,
        docker::Containers,
        holder::protocol::{Ask, Instance},
        process::ProcessRuntime,
        uwsgi::install::Installer,
    },
    sys::{atomic_write, proc},
};
use flipside_api::{ReleaseId, RuntimeKind};

/// An app that says what it is.
const APP: &str = r#"
import os, time
def application(environ, start_response):
    if environ["PATH_INFO"] == "/slow":
        time.sleep(0.3)
    if environ["PATH_INFO"] == "/die":
        os.kill(os.getpid(), 9)
    body = "%s %d %s" % (os.environ["FLIPSIDE_RELEASE"], os.getpid(), os.environ.get("COLOUR"))
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body.encode()]
"#;

pub(crate) struct Fixture {
    _folder: tempfile::TempDir,
    pub(crate) runtime: ProcessRuntime,
    pub(crate) spec: InstanceSpec,
}

/// `uv`, where there is one: the tests need it to install uWSGI.
fn uv() -> Option<PathBuf> {
    let named = std::env::var_os("FLIPSIDE_UV").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    named
        .into_iter()
        .chain(std::env::split_paths(&path).map(|folder| folder.join("uv")))
        .find(|p| p.is_file())
}

/// The minor version of the Python that the tests use.
fn minor() -> &'static str {
    static MINOR: OnceLock<String> = OnceLock::new();
    MINOR.get_or_init(|| {
        let link = fs::read_link(PYTHON).expect("a system Python");
        link.file_name().unwrap().to_str().unwrap().to_owned()
    })
}

const PYTHON: &str = "/usr/bin/python3";

/// Where the Docker engine of the tests listens.
const ENGINE: &str = "/run/docker.sock";

impl Fixture {
    /// `None`, with a word why, where uWSGI cannot be installed.
    pub(crate) fn new() -> Option<Self> {
        Self::of(None)
    }

    /// The same for a runtime of that kind.
    pub(crate) fn on(kind: RuntimeKind) -> Option<Self> {
        let mut fixture = Self::of(None)?;
        if kind == RuntimeKind::Docker {
            if UnixStream::connect(ENGINE).is_err() {
                println!("skipped: no Docker engine listens at {ENGINE}");
                return None;
            }
            fixture.runtime.containers = containers(ENGINE);
        }
        Some(fixture)
    }

    pub(crate) fn of(account: Option<Account>) -> Option<Self> {
        let Some(uv) = uv() else {
            println!("skipped: there is no uv in PATH, and FLIPSIDE_UV does not name it");
            return None;
        };
        // Short: the path of a socket has at most 107 bytes.
        let folder = tempfile::Builder::new().prefix("fs-").tempdir_in("/var/tmp").unwrap();
        let root = folder.path().canonicalize().unwrap();
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).unwrap();
        let app = "blog".parse().unwrap();
        let paths = AppPaths::new(&app, &root.join("apps"), &root.join("run"), &root.join("log"));
        for path in [paths.data(), paths.releases(), root.join("state")] {
            fs::create_dir_all(path).unwrap();
        }
        let runtime = ProcessRuntime {
            agent: env!("CARGO_BIN_EXE_flipside-agent").into(),
            // One for all tests.
            installer: Installer {
                folder: Path::new(env!("CARGO_TARGET_TMPDIR")).join("uwsgi"),
                uv,
                requirement: "pyuwsgi==2.0.30".to_owned(),
            },
            assets: Assets::write(&root.join("state")).unwrap(),
            web_group: "nogroup".to_owned(),
            containers: None,
        };
        let spec = InstanceSpec {
            paths,
            account,
            workers: 2,
            threads: 2,
            request_timeout: 60,
            start_timeout: 20,
            memory: None,
            python: PYTHON.to_owned(),
            release_header: true,
        };
        Some(Self { _folder: folder, runtime, spec })
    }

    /// Installs a release whose entry module is `code`.
    pub(crate) fn release_of(&self, version: &str, code: &str) -> ReleaseId {
        let id = ReleaseId::of(version, code.as_bytes()).unwrap();
        let venv = self.spec.paths.release(&id).join("venv");
        let packages = venv.join("lib").join(minor()).join("site-packages");
        fs::create_dir_all(&packages).unwrap();
        fs::create_dir_all(venv.join("bin")).unwrap();
        let write =
            |path: &Path, text: &str| atomic_write::write(path, text.as_bytes(), 0o644, None).unwrap();
        write(&packages.join("entry.py"), code);
        write(&venv.join("pyvenv.cfg"), "home = /usr/bin\n");
        let _ = symlink(PYTHON, venv.join("bin/python3"));
        id
    }

    /// Installs a good release.
    pub(crate) fn release(&self, version: &str) -> ReleaseId {
        self.release_of(version, APP)
    }

    /// Makes `release` current with `COLOUR` in its environment, as a deploy does.
    pub(crate) fn flip(&self, release: &ReleaseId, colour: &str) {
        let paths = &self.spec.paths;
        let env =
            format!("FLIPSIDE_RELEASE='{release}'\nFLIPSIDE_WSGI='entry:application'\nCOLOUR='{colour}'\n");
        if paths.env_file().exists() {
            fs::copy(paths.env_file(), paths.home().join("env.previous")).unwrap();
        }
        atomic_write::write(&paths.env_file(), env.as_bytes(), 0o644, None).unwrap();
        atomic_write::symlink(&Path::new("releases").join(release.as_str()), &paths.current()).unwrap();
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.spec.paths.socket()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.spec.paths.log()).unwrap_or_default()
    }

    /// The process of the holder.
    pub(crate) fn holder(&self) -> u32 {
        use std::io::Read;
        let mut stream = UnixStream::connect(self.spec.paths.run().join("holder.sock")).unwrap();
        stream.write_all(b"{\"do\":\"state\"}\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
        u32::try_from(answer["state"]["pid"].as_u64().unwrap()).unwrap()
    }
}

/// What puts instances into containers of the engine at `socket`.
pub(crate) fn containers(socket: &str) -> Option<Containers> {
    Some(Containers { socket: socket.into(), packages: Vec::new() })
}

impl Drop for Fixture {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}", self.log());
        }
        if let Ok(mut stream) = UnixStream::connect(self.spec.paths.run().join("holder.sock")) {
            let _ = stream.write_all(&serde_json::to_vec(&Ask::Quit { within: 0 }).unwrap());
            let _ = stream.write_all(b"\n");
            let _ = std::io::Read::read_to_end(&mut stream, &mut Vec::new());
        }
        // Orphans, where a test that failed left any.
        for entry in fs::read_dir(self.spec.paths.run()).into_iter().flatten().flatten() {
            let Ok(text) = fs::read_to_string(entry.path()) else { continue };
            let Ok(instance) = serde_json::from_str::<Instance>(&text) else { continue };
            if let Some(pid) = instance.pid.filter(|pid| proc::runs(*pid, instance.started)) {
                proc::kill_group(pid);
            }
        }
    }
}
