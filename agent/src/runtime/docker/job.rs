//! A container to start, as the holder's starter is told of it, and as the engine is.
//!
//! No secret is in it: the environment that an app sees is read by its workers from the env file.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
};

use bollard::models::{
    ContainerCreateBody, HostConfig, HostConfigLogConfig, Mount, MountType, RestartPolicy,
    RestartPolicyNameEnum,
};
use serde::{Deserialize, Serialize};

use super::image::Recipe;

/// Processes and threads that an app may have.
const MOST_TASKS: i64 = 512;

/// What of the host's is shown at its place, so that names, times and certificates are the host's.
const SHOWN: [&str; 6] = [
    "/etc/group",
    "/etc/localtime",
    "/etc/passwd",
    "/etc/ssl/certs",
    "/usr/local/share/ca-certificates",
    "/usr/share/ca-certificates",
];

/// The label that says whose containers these are: the app's folder of sockets.
pub(super) const RUN_LABEL: &str = "flipside.run";

/// A container to start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Job {
    /// The engine's socket.
    pub(super) socket: PathBuf,
    /// What the image is made of, should it be gone.
    pub(super) recipe: Recipe,
    /// The image.
    pub(super) image: String,
    /// The app.
    pub(super) app: String,
    /// The instance.
    pub(super) instance: String,
    /// The hash of its options.
    pub(super) options: String,
    /// The app's folder of sockets.
    pub(super) run: PathBuf,
    /// What the first process is: uWSGI, with its arguments.
    pub(super) argv: Vec<String>,
    /// What it sees.
    pub(super) env: BTreeMap<String, String>,
    /// Where it starts.
    pub(super) cwd: PathBuf,
    /// What takes the listener over before.
    pub(super) enter: PathBuf,
    /// User and group id.
    pub(super) owner: (u32, u32),
    /// Folders that can be read.
    pub(super) read: Vec<PathBuf>,
    /// Folders that can be written.
    pub(super) write: Vec<PathBuf>,
    /// The most memory in bytes.
    pub(super) memory: Option<u64>,
    /// The most processor time, in billionths of a processor.
    pub(super) processors: i64,
}

impl Job {
    /// The socket on which the container takes the listener over.
    pub(super) fn door(&self) -> PathBuf {
        self.run.join(format!("{}.door", self.instance))
    }

    /// A name for one container of the instance.
    pub(super) fn name(&self) -> String {
        format!("flipside-{}-{}-{:04x}", self.app, self.instance, rand::random::<u16>())
    }

    /// What the engine is asked for.
    pub(super) fn body(&self, image: &str) -> ContainerCreateBody {
        let interpreter = self.argv.first().cloned().unwrap_or_default();
        let enter =
            [&interpreter, "-I", &self.enter.display().to_string(), &self.door().display().to_string()];
        let mut argv: Vec<String> = enter.iter().map(|argument| (*argument).to_owned()).collect();
        argv.extend(self.argv.iter().cloned());
        let labels = [
            (RUN_LABEL, self.run.display().to_string()),
            ("flipside.app", self.app.clone()),
            ("flipside.instance", self.instance.clone()),
            ("flipside.options", self.options.clone()),
        ];
        ContainerCreateBody {
            image: Some(image.to_owned()),
            user: Some(format!("{}:{}", self.owner.0, self.owner.1)),
            entrypoint: Some(argv),
            env: Some(self.env.iter().map(|(name, value)| format!("{name}={value}")).collect()),
            working_dir: Some(self.cwd.display().to_string()),
            labels: Some(labels.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()),
            stop_signal: Some("SIGTERM".to_owned()),
            stop_timeout: Some(i64::try_from(crate::runtime::uwsgi::MERCY_SECONDS).unwrap_or(30) + 5),
            host_config: Some(self.host_config()),
            ..ContainerCreateBody::default()
        }
    }

    fn host_config(&self) -> HostConfig {
        let memory = self.memory.and_then(|bytes| i64::try_from(bytes).ok());
        HostConfig {
            mounts: Some(self.mounts()),
            readonly_rootfs: Some(true),
            tmpfs: Some(HashMap::from([(
                "/tmp".to_owned(),
                "rw,nosuid,nodev,mode=1777,size=512m".to_owned(),
            )])),
            cap_drop: Some(vec!["ALL".to_owned()]),
            security_opt: Some(vec!["no-new-privileges".to_owned()]),
            memory,
            // As much again of swap would be no limit.
            memory_swap: memory,
            nano_cpus: Some(self.processors),
            pids_limit: Some(MOST_TASKS),
            // memcached listens on the host's loopback, and the app listens nowhere but on its UNIX socket.
            network_mode: Some("host".to_owned()),
            userns_mode: Some("host".to_owned()),
            // The holder starts an instance again that ends, and a container is never started twice.
            restart_policy: Some(RestartPolicy {
                name: Some(RestartPolicyNameEnum::NO),
                ..RestartPolicy::default()
            }),
            auto_remove: Some(true),
            // What is said before the app's log is taken over goes to whoever starts it, and no further.
            log_config: Some(HostConfigLogConfig { typ: Some("none".to_owned()), config: None }),
            ..HostConfig::default()
        }
    }

    fn mounts(&self) -> Vec<Mount> {
        let shown = SHOWN.iter().map(PathBuf::from).filter(|path| path.exists());
        let read = self.read.iter().cloned().chain(shown).map(|path| (path, true));
        let write = self.write.iter().cloned().map(|path| (path, false));
        read.chain(write)
            .map(|(path, read_only)| Mount {
                source: Some(path.display().to_string()),
                target: Some(path.display().to_string()),
                typ: Some(MountType::BIND),
                read_only: Some(read_only),
                ..Mount::default()
            })
            .collect()
    }
}
