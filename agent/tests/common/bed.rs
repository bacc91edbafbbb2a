//! Where an agent of the tests lies, what it asks for health, and what is seen of its app.

use std::sync::Arc;

use flipside_api::Outcome;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinSet,
};

use super::Agent;

/// A folder that every user may pass through, and an nginx that says whatever it is told to.
pub struct Bed {
    pub folder: tempfile::TempDir,
    nginx: String,
    _tasks: JoinSet<()>,
}

impl Bed {
    pub async fn new(answer: &'static str) -> Self {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::Builder::new().prefix("engine-").tempdir_in("/var/tmp").unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let nginx = format!("http://{}", listener.local_addr().unwrap());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 4096];
                let n = stream.read(&mut request).await.unwrap_or(0);
                if n == 0 {
                    // Whoever wanted to ask was cut short.
                    continue;
                }
                let request = String::from_utf8_lossy(&request[..n]).to_lowercase();
                assert!(request.contains("host: blog.test"), "{request}");
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        Self { folder, nginx, _tasks: tasks }
    }

    pub fn agent(&self) -> Agent {
        Agent::start(self.folder.path(), Arc::default(), &self.nginx)
    }

    /// An agent with more in its configuration.
    pub fn configured(&self, more: &str) -> Agent {
        Agent::configured(self.folder.path(), Arc::default(), &self.nginx, more)
    }

    /// Another agent on the same folder, as after a restart.
    pub fn again(&self, agent: &Agent) -> Agent {
        self.again_with(agent, "")
    }

    /// The same with another configuration.
    pub fn again_with(&self, agent: &Agent, more: &str) -> Agent {
        Agent::configured(self.folder.path(), Arc::clone(&agent.runtime), &self.nginx, more)
    }
}

pub const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
/// An app's own answer, and a wrong one.
pub const WRONG: &str = "HTTP/1.1 500 Oh\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
pub const SICK: &str = "HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

pub fn names(outcome: &Outcome) -> String {
    outcome.steps.iter().map(|step| step.name.as_str()).collect::<Vec<_>>().join(" ")
}

/// What of the app must be the same after a deploy that failed.
pub fn picture(agent: &Agent) -> Vec<(String, String)> {
    let paths = agent.paths();
    let mut seen = vec![
        ("current".to_owned(), format!("{:?}", agent.current())),
        ("env".to_owned(), std::fs::read_to_string(paths.env_file()).unwrap_or_default()),
        ("next".to_owned(), paths.env_next().exists().to_string()),
        ("running".to_owned(), {
            let running = agent.runtime.0.lock().unwrap();
            format!("{} {:?}", running.listening, running.serves)
        }),
    ];
    let mut releases: Vec<String> = std::fs::read_dir(paths.releases())
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    releases.sort();
    seen.push(("releases".to_owned(), releases.join(" ")));
    seen
}
