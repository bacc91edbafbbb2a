//! `agent.toml`: one file, rendered by Salt, read once at the start and then passed in explicitly.
//!
//! Unknown keys are refused and all problems are told at once: a misspelt key that is silently ignored shows
//! only when a host has to be restored.

mod fields;

use std::path::{Path, PathBuf};

use fields::Fields;

/// What the agent is told about its host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The minion's id.
    pub id: String,
    /// Where the apps lie.
    pub apps_dir: PathBuf,
    /// Where the agent keeps its own state.
    pub state_dir: PathBuf,
    /// Where sockets and fifos are.
    pub run_dir: PathBuf,
    /// Where the apps' logs are.
    pub log_dir: PathBuf,
    /// The socket of the local API.
    pub socket: PathBuf,
    /// The group that may use it, beside root and the agent's own user.
    pub socket_group: Option<String>,
    /// The uv that builds releases.
    pub uv: PathBuf,
    /// The interpreter that releases are made of.
    pub python: PathBuf,
    /// The user who builds releases, when the agent is root.
    pub build_user: String,
    /// nginx's group, when the agent is root.
    pub web_group: String,
    /// Whether each app is a unit of systemd, `flipside-app@<app>.service`, whose template is installed.
    pub app_units: bool,
    /// The URL at which health checks ask nginx.
    pub nginx: String,
    /// memcached as host:port.
    pub memcached: String,
    /// How many releases of an app stay on disk; at least 2, for a rollback needs one.
    pub keep_releases: u32,
    /// The requirement from which uWSGI is installed.
    pub uwsgi: String,
    /// The socket of the Docker engine, for apps with `runtime: docker`.
    pub docker_socket: PathBuf,
    /// Debian packages of this host that such apps need beside Python, such as `libpq5`.
    pub docker_packages: Vec<String>,
    /// The link to the minion's bus.
    pub salt: Option<Salt>,
    /// The store of backups.
    pub backup: Option<Backup>,
}

/// How to find the minion's event bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Salt {
    /// The minion's configuration file.
    pub minion_config: PathBuf,
}

/// Where backups go and who can read them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    /// A folder or an `s3://` URL.
    pub repo: String,
    /// age recipients.
    pub recipients: Vec<String>,
    /// An identity for local restores and rehearsals, where the owner opted in.
    pub identity_file: Option<PathBuf>,
    /// An AWS credentials file; absent: the agent's environment, or the instance's role.
    pub credentials_file: Option<PathBuf>,
    /// After so many seconds a commit is in the store.
    pub rpo: u32,
    /// Hours between rehearsals, where there is an identity.
    pub rehearse_hours: u32,
    /// The most that each database's follower sends in a second, in kB; 0: all that the line takes.
    pub limit: u32,
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is no TOML.
    #[error("{} is no TOML: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why.
        message: String,
    },
    /// Some values are wrong.
    #[error("{} cannot be used:\n  {}", path.display(), problems.join("\n  "))]
    Values {
        /// The file.
        path: PathBuf,
        /// Each with its key.
        problems: Vec<String>,
    },
}

impl Config {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// With all problems of the file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    /// Understands the text of the file at `path`.
    ///
    /// # Errors
    /// With all problems of the text.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| ConfigError::Syntax {
            path: path.to_owned(),
            message: error.to_string(),
        })?;
        let mut problems = Vec::new();
        let mut fields = Fields::new(table, "", &mut problems);
        let salt = fields.table("salt");
        let backup = fields.table("backup");
        let mut config = Self {
            id: fields.required("id"),
            apps_dir: fields.path_or("apps_dir", "/srv/flipside/apps"),
            state_dir: fields.path_or("state_dir", "/var/lib/flipside"),
            run_dir: fields.path_or("run_dir", "/run/flipside"),
            log_dir: fields.path_or("log_dir", "/var/log/flipside"),
            socket: fields.path_or("socket", "/run/flipside/agent.sock"),
            socket_group: fields.text("socket_group"),
            uv: fields.path_or("uv", "/usr/local/bin/uv"),
            python: fields.path_or("python", "/usr/bin/python3"),
            build_user: fields.text_or("build_user", "flipside-build"),
            web_group: fields.text_or("web_group", "www-data"),
            app_units: fields.switch("app_units"),
            nginx: fields.text_or("nginx", "http://127.0.0.1:80"),
            memcached: fields.text_or("memcached", "127.0.0.1:11211"),
            keep_releases: fields.number_or("keep_releases", 2, 5),
            uwsgi: fields.text_or("uwsgi", "pyuwsgi==2.0.30"),
            docker_socket: fields.path_or("docker_socket", "/run/docker.sock"),
            docker_packages: fields.texts("docker_packages"),
            salt: None,
            backup: None,
        };
        fields.finish();
        config.salt = salt.map(|table| Salt::read(table, &mut problems));
        config.backup = backup.map(|table| Backup::read(table, &mut problems));
        config.judge(&mut problems);
        if problems.is_empty() {
            Ok(config)
        } else {
            Err(ConfigError::Values { path: path.to_owned(), problems })
        }
    }

    fn judge(&self, problems: &mut Vec<String>) {
        if !self.nginx.strip_prefix("http://").is_some_and(is_host_and_port) {
            problems.push(format!("nginx: must be http://HOST:PORT, not {}", self.nginx));
        }
        // The id is a part of the paths in the store.
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        if self.backup.is_some() && (self.id.starts_with('.') || !self.id.bytes().all(plain)) {
            problems.push(format!(
                "id: with backups it may hold letters, digits, '.', '_', '-', not {}",
                self.id
            ));
        }
        if !is_host_and_port(&self.memcached) {
            problems.push(format!("memcached: must be HOST:PORT, not {}", self.memcached));
        }
        // Names that dpkg-query would take for options or patterns are none.
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+.-".contains(&b);
        for name in &self.docker_packages {
            if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) || !name.bytes().all(plain) {
                problems.push(format!("docker_packages: {name:?} is no name of a Debian package"));
            }
        }
        // The kernel keeps 108 bytes for the path of a socket, and every app needs one below run_dir.
        for (key, path, most) in [("socket", &self.socket, 107), ("run_dir", &self.run_dir, 60)] {
            if path.as_os_str().len() > most {
                problems.push(format!("{key}: {} is too long for a socket's path", path.display()));
            }
        }
    }
}

impl Salt {
    fn read(table: toml::Table, problems: &mut Vec<String>) -> Self {
        let mut fields = Fields::new(table, "salt.", problems);
        let salt = Self { minion_config: fields.path_or("minion_config", "/etc/salt/minion") };
        fields.finish();
        salt
    }
}

impl Backup {
    fn read(table: toml::Table, problems: &mut Vec<String>) -> Self {
        let mut fields = Fields::new(table, "backup.", problems);
        let repo = fields.required("repo");
        // On S3 each put costs money.
        let rpo = if repo.starts_with("s3://") { 10 } else { 1 };
        let backup = Self {
            repo,
            recipients: fields.texts("recipients"),
            identity_file: fields.path("identity_file"),
            credentials_file: fields.path("credentials_file"),
            rpo: fields.number_or("rpo", 1, rpo),
            rehearse_hours: fields.number_or("rehearse_hours", 1, 24),
            limit: fields.number_or("limit", 0, 0),
        };
        fields.finish();
        if backup.recipients.is_empty() {
            problems.push("backup.recipients: needs at least one age recipient".to_owned());
        }
        if !backup.repo.starts_with('/') && !backup.repo.starts_with("s3://") && !backup.repo.is_empty() {
            problems.push(format!("backup.repo: must be an absolute path or s3://…, not {}", backup.repo));
        }
        backup
    }
}

fn is_host_and_port(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty()
            && host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:[]".contains(&b))
            && port.parse::<u16>().is_ok_and(|port| port > 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(text, Path::new("/etc/flipside/agent.toml"))
    }

    #[test]
    fn the_least_file_has_the_documented_defaults() {
        let config = parse("id = \"web1\"").unwrap();
        assert_eq!(config.apps_dir, Path::new("/srv/flipside/apps"));
        assert_eq!(config.socket, Path::new("/run/flipside/agent.sock"));
        assert_eq!((config.keep_releases, config.uwsgi.as_str()), (5, "pyuwsgi==2.0.30"));
        assert_eq!((config.salt, config.backup, config.socket_group), (None, None, None));
    }

    #[test]
    fn tables_are_read() {
        let config = parse(
            "id = \"web1\"\n[salt]\nminion_config = \"/x/minion\"\n[backup]\nrepo = \"s3://b/p\"\n\
             recipients = [\"age1x\"]\nidentity_file = \"/x/key\"",
        )
        .unwrap();
        assert_eq!(config.salt.unwrap().minion_config, Path::new("/x/minion"));
        let backup = config.backup.unwrap();
        assert_eq!(backup.recipients, ["age1x"]);
        assert_eq!((backup.rpo, backup.rehearse_hours, backup.credentials_file), (10, 24, None));
        assert_eq!(backup.identity_file.as_deref(), Some(Path::new("/x/key")));
    }

    #[test]
    fn every_problem_is_told_at_once() {
        let error = parse(
            "apps_dir = \"relative\"\nkeep_releases = 1\nuwgsi = \"x\"\nnginx = \"ftp://x\"\nuv = 3\napp_units = 1\n\
             memcached = \"nowhere\"\ndocker_packages = [\"-x\"]\n[backup]\nrecipient = \"age1\"\n[salt]\nminion = 1",
        )
        .unwrap_err()
        .to_string();
        for part in [
            "id: is missing",
            "apps_dir: must be an absolute path",
            "keep_releases: must be at least 2",
            "uwgsi: is no key",
            "nginx: must be",
            "uv: must be a string, not a integer",
            "app_units: must be true or false, not a integer",
            "memcached: must be",
            "docker_packages: \"-x\" is no name",
            "backup.repo: is missing",
            "backup.recipients: needs",
            "backup.recipient: is no key",
            "salt.minion: is no key",
        ] {
            assert!(error.contains(part), "{part:?} is not in {error}");
        }
    }

    #[test]
    fn what_is_no_toml_is_told_with_its_place() {
        let error = parse("id = \"web1\"\nid =").unwrap_err().to_string();
        assert!(error.contains("no TOML") && error.contains("line 2"), "{error}");
    }
}
