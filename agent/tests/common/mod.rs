//! An agent in a folder of its own, with a runtime that runs nothing but remembers what it was told.

mod bed;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use flipside_agent::{
    app::{paths::AppPaths, plan::Intent},
    backup::{Backups, NoBackups, Stored},
    config::Config,
    db::Db,
    deploy::{Ask, Private},
    host::Host,
    progress::Channel,
    router::Router,
    runtime::{InstanceSpec, Observed, Runtime, Worker, assets::Assets},
    secrets::Keyring,
};
use flipside_api::{
    AppSpec, Code, Command, Deploy, Failure, Outcome, Package, ReleaseId, Reply, Request, Rollback,
    RuntimeKind, Who,
};
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

pub use bed::{Bed, OK, SICK, WRONG, names, picture};

/// What runs, as the fake has it.
#[derive(Debug, Default)]
pub struct Running {
    pub listening: bool,
    pub serves: Option<ReleaseId>,
    pub options: Option<String>,
    /// What was asked of the runtime, in order.
    pub calls: Vec<String>,
    /// The next call of this name fails.
    pub fail: Option<&'static str>,
}

/// A runtime that runs nothing.
#[derive(Debug, Default)]
pub struct FakeRuntime(pub Mutex<Running>);

impl FakeRuntime {
    fn told(&self, call: &'static str, change: impl FnOnce(&mut Running)) -> Result<(), Failure> {
        let mut running = self.0.lock().unwrap();
        running.calls.push(call.to_owned());
        if running.fail == Some(call) {
            running.fail = None;
            return Err(Failure::new(Code::Switch, format!("{call} failed, as it was told to")));
        }
        change(&mut running);
        Ok(())
    }

    fn serve(
        &self,
        call: &'static str,
        spec: &InstanceSpec,
        release: &ReleaseId,
        fresh: bool,
    ) -> Result<(), Failure> {
        let current = std::fs::read_link(spec.paths.current()).unwrap();
        assert_eq!(
            current,
            Path::new("releases").join(release.as_str()),
            "told to serve what is not current"
        );
        let options = self.options(spec);
        self.told(call, |running| {
            running.listening = true;
            running.serves = Some(release.clone());
            if fresh {
                running.options = Some(options);
            }
        })
    }
}

#[async_trait]
impl Runtime for FakeRuntime {
    fn kind(&self) -> RuntimeKind {
        RuntimeKind::Process
    }

    fn options(&self, spec: &InstanceSpec) -> String {
        format!("{}/{}", spec.workers, spec.threads)
    }

    async fn ready(&self, _: &InstanceSpec) -> Result<String, Failure> {
        Ok(String::new())
    }

    async fn observe(&self, _paths: &AppPaths) -> Result<Observed, Failure> {
        let running = self.0.lock().unwrap();
        let worker = |release: &ReleaseId| Worker {
            id: 1,
            pid: 1,
            accepting: true,
            busy: false,
            release: Some(release.clone()),
            rss: 0,
            requests: 0,
            respawns: 0,
        };
        Ok(Observed {
            listening: running.listening,
            workers: running.serves.iter().map(worker).collect(),
            options: running.options.clone(),
            problem: None,
        })
    }

    async fn start(&self, spec: &InstanceSpec, release: &ReleaseId) -> Result<(), Failure> {
        self.serve("start", spec, release, true)
    }

    async fn reload(&self, spec: &InstanceSpec, release: &ReleaseId) -> Result<(), Failure> {
        self.serve("reload", spec, release, false)
    }

    async fn replace(&self, spec: &InstanceSpec, release: &ReleaseId) -> Result<(), Failure> {
        self.serve("replace", spec, release, true)
    }

    async fn hold(&self, _paths: &AppPaths) -> Result<(), Failure> {
        self.told("hold", |running| running.serves = None)
    }

    async fn stop(&self, _paths: &AppPaths) -> Result<(), Failure> {
        self.told("stop", |running| {
            running.listening = false;
            running.serves = None;
            running.options = None;
        })
    }
}

/// An agent of the tests.
pub struct Agent {
    pub folder: PathBuf,
    pub host: Arc<Host>,
    pub router: Arc<Router>,
    pub runtime: Arc<FakeRuntime>,
    pub stored: Option<Arc<Stored>>,
}

impl Agent {
    /// An agent on what lies in `folder`, with what runs there; `nginx` is where it asks for health.
    pub fn start(folder: &Path, runtime: Arc<FakeRuntime>, nginx: &str) -> Self {
        Self::configured(folder, runtime, nginx, "")
    }

    /// The same with more in its configuration, which counts where it names the same.
    pub fn configured(folder: &Path, runtime: Arc<FakeRuntime>, nginx: &str, more: &str) -> Self {
        let path = folder.display();
        let text = format!(
            "id = \"web1\"\napps_dir = \"{path}/apps\"\nstate_dir = \"{path}\"\nrun_dir = \"{path}/run\"\n\
             log_dir = \"{path}/log\"\nsocket = \"{path}/sock\"\nnginx = \"{nginx}\"\nkeep_releases = 2\n\
             uv = \"{}\"\npython = \"/usr/bin/python3\"\nbuild_user = \"root\"\n",
            uv().display()
        );
        let key = |line: &str| line.split(' ').next().map(str::to_owned);
        let usual = text.lines().filter(|line| !more.lines().any(|other| key(other) == key(line)));
        let text = usual.chain(more.lines()).collect::<Vec<_>>().join("\n");
        let config = Config::parse(&text, folder).unwrap();
        for part in ["apps", "run", "run/blog", "log"] {
            std::fs::create_dir_all(folder.join(part)).unwrap();
        }
        let db = Db::open(&folder.join("agent.db")).unwrap();
        let host = Arc::new(Host {
            config,
            records: Arc::new(db.clone()),
            db,
            keyring: Keyring::open(&folder.join("identity")).unwrap(),
            runtimes: vec![Arc::clone(&runtime) as Arc<dyn Runtime>],
            assets: Assets::write(folder).unwrap(),
            program: env!("CARGO_BIN_EXE_flipside-agent").into(),
            started: 0,
        });
        let stored = Stored::new(&host);
        let backups: Arc<dyn Backups> = match &stored {
            Some(stored) => Arc::clone(stored) as _,
            None => Arc::new(NoBackups),
        };
        let router = Router::new(Arc::clone(&host), backups, CancellationToken::new());
        Self { folder: folder.to_owned(), host, router, runtime, stored }
    }

    /// Asks, and hears all of it.
    pub async fn ask(&self, who: Who, command: Command) -> (Vec<String>, Outcome) {
        let mut heard = self.router.submit(Request::new(who, command));
        let mut said = Vec::new();
        loop {
            match heard.next().await.expect("an outcome") {
                Reply::Progress(it) => said.push(format!("{} {} {}", it.step, it.event, it.message)),
                Reply::Outcome(outcome) => return (said, *outcome),
            }
        }
    }

    /// Asks, and hears how it ended.
    pub async fn end(&self, command: Command) -> Outcome {
        self.ask(Who { via: "test".into(), user: "ann".into(), ..Who::default() }, command).await.1
    }

    pub fn paths(&self) -> AppPaths {
        self.host.paths(&"blog".parse().unwrap())
    }

    pub fn current(&self) -> Option<PathBuf> {
        std::fs::read_link(self.paths().current()).ok()
    }

    pub fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.runtime.0.lock().unwrap().calls)
    }
}

/// The uv that FLIPSIDE_UV names (`make test` does), or the one on PATH.
pub fn uv() -> PathBuf {
    let named = std::env::var_os("FLIPSIDE_UV").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join("uv"));
    named.into_iter().chain(found).find(|uv| uv.is_file()).expect("FLIPSIDE_UV names a uv, or PATH has one")
}

/// A package of one wheel with a module `blog` whose text is `module`.
pub fn package(folder: &Path, version: &str, module: &str) -> Package {
    let dir = folder.join(format!("package-{version}"));
    std::fs::create_dir_all(dir.join("wheels")).unwrap();
    let name = format!("blog-{version}-py3-none-any.whl");
    let wheel = wheel(version, module);
    put(&dir.join("wheels").join(&name), &wheel);
    let sha256: String = Sha256::digest(&wheel).iter().map(|byte| format!("{byte:02x}")).collect();
    let manifest = serde_json::json!({
        "v": 1, "app": "blog", "version": version, "wsgi": "blog:application", "settings": null,
        "files": [{ "name": name, "sha256": sha256, "size": wheel.len() }],
    })
    .to_string();
    put(&dir.join("manifest.json"), manifest.as_bytes());
    Package { release: ReleaseId::of(version, manifest.as_bytes()).unwrap(), dir: dir.display().to_string() }
}

/// Makes a wheel with Python's own zipfile: what pip accepts is what Python wrote.
fn wheel(version: &str, module: &str) -> Vec<u8> {
    let script = "import sys, zipfile, io, base64\n\
        version, module = sys.argv[1:]\n\
        out = io.BytesIO()\n\
        info = f'blog-{version}.dist-info'\n\
        files = {'blog/__init__.py': module, 'blog/static/a.css': version,\n\
            f'{info}/METADATA': f'Metadata-Version: 2.1\\nName: blog\\nVersion: {version}\\n',\n\
            f'{info}/WHEEL': 'Wheel-Version: 1.0\\nGenerator: t\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n'}\n\
        record = ''.join(f'{name},,\\n' for name in files) + f'{info}/RECORD,,\\n'\n\
        with zipfile.ZipFile(out, 'w') as zip:\n\
        \x20   for name, text in [*files.items(), (f'{info}/RECORD', record)]: zip.writestr(name, text)\n\
        sys.stdout.buffer.write(out.getvalue())\n";
    #[expect(clippy::disallowed_methods, reason = "a test makes its own wheel")]
    let made = std::process::Command::new("/usr/bin/python3").args(["-c", script, version, module]).output();
    let made = made.unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    made.stdout
}

pub fn put(path: &Path, bytes: &[u8]) {
    flipside_agent::sys::atomic_write::write(path, bytes, 0o644, None).unwrap();
}

/// The least spec, changed as `more` says.
pub fn spec(more: &serde_json::Value) -> AppSpec {
    let mut all: BTreeMap<String, serde_json::Value> = serde_json::from_value(serde_json::json!({
        "app": "blog", "template": "t", "domains": ["blog.test"], "public_url": "http://blog.test",
        "databases": ["*.sqlite3"], "health": {"timeout": 1}, "user": "daemon",
    }))
    .unwrap();
    all.extend(serde_json::from_value::<BTreeMap<String, serde_json::Value>>(more.clone()).unwrap());
    serde_json::from_value(serde_json::to_value(all).unwrap()).unwrap()
}

/// The same as the engine is asked for it, by salt's job 7.
pub fn ask(deploy: Deploy) -> Ask {
    let Deploy { mut spec, package, test, cold, allow, .. } = deploy;
    Ask {
        intent: Intent::Deploy,
        verb: "deploy",
        who: Who { via: "salt".into(), user: "ann".into(), id: Some("jid7".into()), ..Who::default() },
        private: Private::take(&mut spec),
        spec,
        release: package.release,
        package: package.dir.into(),
        cold,
        test,
        allow,
    }
}

/// Deploys until `event` of `step` is heard, and goes no further: what is awaited then never goes on.
pub async fn dies_at(agent: &Agent, ask: Ask, step: &str, event: &str) {
    let channel = Channel::new();
    let mut heard = channel.subscribe();
    let listens = async {
        while let Some(Reply::Progress(progress)) = heard.next().await {
            if progress.step == step && progress.event == event {
                return;
            }
        }
    };
    tokio::select! {
        biased;
        () = listens => {}
        ended = flipside_agent::deploy::deploy(&agent.host, ask, &channel) => {
            panic!("{step} {event} was never heard: {ended:?}")
        }
    }
}

/// A rollback of the app to the release before.
pub fn rollback() -> Rollback {
    let app = "blog".parse().unwrap();
    Rollback {
        app,
        release: None,
        wait: 0,
        with_data: false,
        with_env: false,
        test: false,
        allow: Vec::new(),
    }
}

/// A deploy of it.
pub fn deploy(spec: AppSpec, package: &Package) -> Deploy {
    Deploy { spec, package: package.clone(), test: false, cold: false, wait: 0, allow: Vec::new() }
}
