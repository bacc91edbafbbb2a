//! From Salt's configuration to the sockets of its event bus.
//!
//! Salt derives the sockets' names from `sock_dir`, `root_dir`, `id` and `hash_type`, or listens on loopback
//! ports with `ipc_mode: tcp`; old socket files may still lie around then, so only the configuration tells.

use std::{
    fmt,
    fs::File,
    io::{self, Read},
    net::{Ipv4Addr, SocketAddr},
    path::{Component, Path, PathBuf},
};

use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};

use crate::settings::{Settings, Unreadable};

/// One of a bus's two sockets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A UNIX socket.
    Unix(PathBuf),
    /// `ipc_mode: tcp`: a port on loopback, without any access control.
    Tcp(SocketAddr),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => path.display().fmt(f),
            Self::Tcp(address) => address.fmt(f),
        }
    }
}

/// The two sockets of a bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoints {
    /// Every event comes out here.
    pub publish: Address,
    /// What is written here is published, and acted upon.
    pub pull: Address,
}

/// A minion, as its configuration describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Minion {
    /// Its id.
    pub id: String,
    /// Its masters, as it names them itself.
    pub masters: Vec<String>,
    /// Its bus.
    pub endpoints: Endpoints,
}

/// The configuration does not lead to a bus.
#[derive(Debug, thiserror::Error)]
pub enum DiscoverError {
    /// A file that is there and cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A setting whose form or value is beyond us.
    #[error("{}: {problem}", path.display())]
    Setting {
        /// The main configuration file.
        path: PathBuf,
        /// Which setting, and what it must look like.
        problem: String,
    },
    /// No id is configured, and the minion has not written down its own yet.
    #[error("no `id` in {}, and no {}: set one, or start the minion once", config.display(), file.display())]
    NoId {
        /// The configuration file.
        config: PathBuf,
        /// Where the minion keeps a generated id.
        file: PathBuf,
    },
}

impl Endpoints {
    /// The sockets of the minion `id` in `sock_dir`; `None` for a hash that this crate does not have.
    pub fn of_minion(sock_dir: &Path, id: &str, hash_type: &str) -> Option<Self> {
        let hash = match hash_type.to_ascii_lowercase().as_str() {
            "sha224" => hex(&Sha224::digest(id)),
            "sha256" => hex(&Sha256::digest(id)),
            "sha384" => hex(&Sha384::digest(id)),
            "sha512" => hex(&Sha512::digest(id)),
            _ => return None,
        };
        let socket = |end| Address::Unix(sock_dir.join(format!("minion_event_{}_{end}.ipc", &hash[..10])));
        Some(Self { publish: socket("pub"), pull: socket("pull") })
    }

    /// The sockets of the master in `sock_dir`.
    pub fn of_master(sock_dir: &Path) -> Self {
        let socket = |end| Address::Unix(sock_dir.join(format!("master_event_{end}.ipc")));
        Self { publish: socket("pub"), pull: socket("pull") }
    }

    fn on_loopback(publish: u16, pull: u16) -> Self {
        let port = |port| Address::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        Self { publish: port(publish), pull: port(pull) }
    }
}

/// The minion of the configuration file `config` (usually `/etc/salt/minion`) and of what it includes. Like Salt,
/// takes a missing file for an empty one.
///
/// # Errors
/// When a file cannot be read, or does not say where the bus is.
pub fn minion(config: &Path) -> Result<Minion, DiscoverError> {
    let config = Configuration::read(config, "minion")?;
    let mut id = match config.get("id")? {
        Some(id) => id.to_owned(),
        None => config.generated_id()?,
    };
    if let Some(domain) = config.get("append_domain")?
        && !(id.ends_with(domain) || id.ends_with('.'))
    {
        id = format!("{id}.{domain}");
    }
    let endpoints = if config.is_tcp()? {
        Endpoints::on_loopback(config.port("tcp_pub_port", 4510)?, config.port("tcp_pull_port", 4511)?)
    } else {
        let hash_type = config.get("hash_type")?.unwrap_or("sha256");
        Endpoints::of_minion(&config.sock_dir()?, &id, hash_type)
            .ok_or_else(|| config.wrong("hash_type", "sha224, sha256, sha384 or sha512"))?
    };
    let mut masters = config.list(&config.settings, "master")?;
    if masters.is_empty() {
        masters.push("salt".to_owned());
    }
    masters.iter_mut().for_each(without_port);
    Ok(Minion { id, masters, endpoints })
}

/// Cuts the port off a host, as Salt does before it names it.
fn without_port(master: &mut String) {
    if let Some((host, port)) = master.rsplit_once(':')
        && !host.contains(':')
        && port.parse::<u16>().is_ok()
    {
        master.truncate(host.len());
    }
}

/// The bus of the master of the configuration file `config` (usually `/etc/salt/master`).
///
/// # Errors
/// When a file cannot be read, or does not say where the bus is.
pub fn master(config: &Path) -> Result<Endpoints, DiscoverError> {
    let config = Configuration::read(config, "master")?;
    Ok(if config.is_tcp()? {
        let publish = config.port("tcp_master_pub_port", 4512)?;
        Endpoints::on_loopback(publish, config.port("tcp_master_pull_port", 4513)?)
    } else {
        Endpoints::of_master(&config.sock_dir()?)
    })
}

/// The settings of a role, and where they came from.
struct Configuration<'a> {
    path: &'a Path,
    role: &'static str,
    settings: Settings,
}

impl<'a> Configuration<'a> {
    fn read(path: &'a Path, role: &'static str) -> Result<Self, DiscoverError> {
        let settings = read(path)?.unwrap_or_default();
        let mut config = Self { path, role, settings };
        let default =
            config.get("default_include")?.map_or_else(|| format!("{role}.d/*.conf"), str::to_owned);
        let mut patterns = vec![default];
        patterns.extend(config.list(&config.settings, "include")?);
        for pattern in patterns {
            let included = config.included(path, &pattern, MAX_INCLUDES)?;
            config.settings.update(included);
        }
        Ok(config)
    }

    /// What the files that match `pattern` say, in the order of their names, each with its own includes.
    fn included(&self, from: &Path, pattern: &str, depth: usize) -> Result<Settings, DiscoverError> {
        let mut all = Settings::default();
        let Some(depth) = depth.checked_sub(1) else {
            return Err(self.problem(format!("`include` goes round in circles at {}", from.display())));
        };
        for path in matches(&from.parent().unwrap_or(Path::new("")).join(pattern)) {
            let Some(mut settings) = read(&path)? else { continue };
            for pattern in self.list(&settings, "include")? {
                settings.update(self.included(&path, &pattern, depth)?);
            }
            all.update(settings);
        }
        Ok(all)
    }

    fn get(&self, key: &str) -> Result<Option<&str>, DiscoverError> {
        self.settings.get(key).map_err(|Unreadable(key)| self.wrong(&key, "`key: value` on one line"))
    }

    fn list(&self, settings: &Settings, key: &str) -> Result<Vec<String>, DiscoverError> {
        settings.list(key).map_err(|Unreadable(key)| self.wrong(&key, "a text or a list of texts"))
    }

    fn wrong(&self, key: &str, expected: &str) -> DiscoverError {
        self.problem(format!("`{key}` must be {expected}"))
    }

    fn problem(&self, problem: String) -> DiscoverError {
        DiscoverError::Setting { path: self.path.to_owned(), problem }
    }

    fn is_tcp(&self) -> Result<bool, DiscoverError> {
        match self.get("ipc_mode")?.unwrap_or("ipc") {
            "ipc" => Ok(false),
            "tcp" => Ok(true),
            _ => Err(self.wrong("ipc_mode", "ipc or tcp")),
        }
    }

    fn port(&self, key: &str, default: u16) -> Result<u16, DiscoverError> {
        let Some(text) = self.get(key)? else { return Ok(default) };
        text.parse().map_err(|_| self.wrong(key, "a port"))
    }

    /// The folder of the sockets, moved and shortened as Salt does it.
    fn sock_dir(&self) -> Result<PathBuf, DiscoverError> {
        let role = self.role;
        let sock_dir = self.get("sock_dir")?.map_or_else(|| format!("/var/run/salt/{role}"), str::to_owned);
        let cachedir = self.get("cachedir")?.map_or_else(|| format!("/var/cache/salt/{role}"), str::to_owned);
        // The names of UNIX sockets are short: Salt keeps below the cache what would not fit.
        let sock_dir = if sock_dir.len() > cachedir.len() + 10 {
            Path::new(&cachedir).join(".salt-unix")
        } else {
            PathBuf::from(sock_dir)
        };
        Ok(below(&self.root_dir()?, &sock_dir))
    }

    fn root_dir(&self) -> Result<PathBuf, DiscoverError> {
        Ok(PathBuf::from(self.get("root_dir")?.unwrap_or("/")))
    }

    /// The id that a minion without a configured one made up and wrote down.
    fn generated_id(&self) -> Result<String, DiscoverError> {
        let file = below(&self.root_dir()?, Path::new("/etc/salt/minion_id"));
        let text = text(&file)?.unwrap_or_default();
        let id = text.lines().next().unwrap_or_default().trim_start_matches('\u{feff}').trim();
        if id.is_empty() || id == "localhost" {
            return Err(DiscoverError::NoId { config: self.path.to_owned(), file });
        }
        Ok(id.to_owned())
    }
}

/// `path` below `root`, unless it lies there already.
fn below(root: &Path, path: &Path) -> PathBuf {
    if path.starts_with(root) {
        return path.to_owned();
    }
    root.join(path.strip_prefix("/").unwrap_or(path))
}

const MAX_INCLUDES: usize = 8;
/// No configuration is larger; reading stops there.
const MAX_FILE: u64 = 4 << 20;

fn read(path: &Path) -> Result<Option<Settings>, DiscoverError> {
    Ok(text(path)?.as_deref().map(Settings::parse))
}

/// The text of a file; `None` when there is no such file.
fn text(path: &Path) -> Result<Option<String>, DiscoverError> {
    let failed = |source| DiscoverError::Read { path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut bytes).map_err(failed)?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

/// The files that match a path with `*` and `?`, sorted.
fn matches(pattern: &Path) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::new()];
    for part in pattern.components() {
        let name = match part {
            Component::Normal(name) => name.to_string_lossy(),
            other => {
                found.iter_mut().for_each(|path| path.push(other));
                continue;
            }
        };
        if !name.contains(['*', '?']) {
            found.iter_mut().for_each(|path| path.push(name.as_ref()));
            continue;
        }
        let folders = found.drain(..).filter_map(|folder| {
            let folder = if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder };
            std::fs::read_dir(folder).ok()
        });
        let names = folders.flatten().flatten();
        found = names
            .filter(|entry| {
                let entry = entry.file_name();
                let entry = entry.to_string_lossy();
                !entry.starts_with('.') && is_match(name.as_bytes(), entry.as_bytes())
            })
            .map(|entry| entry.path())
            .collect();
    }
    found.sort();
    found.retain(|path| path.is_file());
    found
}

fn is_match(pattern: &[u8], name: &[u8]) -> bool {
    match pattern.split_first() {
        None => name.is_empty(),
        Some((b'*', rest)) => (0..=name.len()).any(|skip| is_match(rest, &name[skip..])),
        Some((b'?', rest)) => !name.is_empty() && is_match(rest, &name[1..]),
        Some((byte, rest)) => name.first() == Some(byte) && is_match(rest, &name[1..]),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
#[path = "discover_tests.rs"]
mod tests;
