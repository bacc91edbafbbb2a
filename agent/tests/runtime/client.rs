//! What nginx would be: a client of uWSGI's protocol, and a load that counts strictly.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    task::JoinSet,
    time::timeout,
};

/// The answer to a GET of `path`.
pub(crate) async fn get(socket: &Path, path: &str) -> std::io::Result<String> {
    answer(begin(socket, "GET", path, 0).await?).await
}

/// The answer to a POST whose body comes in so many pieces, with a pause after each.
pub(crate) async fn post_slowly(socket: &Path, pieces: usize, pause: Duration) -> std::io::Result<String> {
    let piece = [b'x'; 1000];
    let mut stream = begin(socket, "POST", "/", pieces * piece.len()).await?;
    for _ in 0..pieces {
        stream.write_all(&piece).await?;
        tokio::time::sleep(pause).await;
    }
    answer(stream).await
}

async fn answer(mut stream: UnixStream) -> std::io::Result<String> {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

async fn begin(socket: &Path, method: &str, path: &str, length: usize) -> std::io::Result<UnixStream> {
    let mut stream = UnixStream::connect(socket).await?;
    let mut vars = Vec::new();
    for (name, value) in [
        ("REQUEST_METHOD", method),
        ("CONTENT_LENGTH", &length.to_string()),
        ("PATH_INFO", path),
        ("QUERY_STRING", ""),
        ("REQUEST_URI", path),
        ("SERVER_NAME", "blog.example.org"),
        ("SERVER_PORT", "80"),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
        ("HTTP_HOST", "blog.example.org"),
    ] {
        for text in [name, value] {
            vars.extend(u16::try_from(text.len()).unwrap().to_le_bytes());
            vars.extend(text.as_bytes());
        }
    }
    let [low, high] = u16::try_from(vars.len()).unwrap().to_le_bytes();
    stream.write_all(&[0, low, high, 0]).await?;
    stream.write_all(&vars).await?;
    Ok(stream)
}

/// The body of a good answer: release, worker and colour.
pub(crate) async fn ask(socket: &Path) -> String {
    let answer = timeout(Duration::from_secs(30), get(socket, "/")).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer:?}");
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

/// Clients that ask all the time.
pub(crate) struct Load {
    tasks: JoinSet<()>,
    over: Arc<AtomicBool>,
    good: Arc<AtomicU64>,
    bad: Arc<std::sync::Mutex<Vec<String>>>,
}

impl Load {
    pub(crate) fn on(socket: PathBuf, clients: usize) -> Self {
        let (over, good, bad) = (Arc::default(), Arc::default(), Arc::default());
        let mut load = Self { tasks: JoinSet::new(), over, good, bad };
        for client in 0..clients {
            let (socket, over) = (socket.clone(), Arc::clone(&load.over));
            let (good, bad) = (Arc::clone(&load.good), Arc::clone(&load.bad));
            let path = if client % 2 == 0 { "/slow" } else { "/" };
            load.tasks.spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    match timeout(Duration::from_secs(40), get(&socket, path)).await {
                        Ok(Ok(answer)) if answer.starts_with("HTTP/1.1 200 ") => {
                            good.fetch_add(1, Ordering::Relaxed);
                        }
                        other => bad.lock().unwrap().push(format!("{other:?}")),
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            });
        }
        load
    }

    /// Waits for so many good answers more.
    pub(crate) async fn more(&self, count: u64) {
        let until = self.good.load(Ordering::Relaxed) + count;
        let enough = async {
            while self.good.load(Ordering::Relaxed) < until {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_secs(40), enough).await.unwrap();
    }

    /// Ends, and fails when a single request did.
    pub(crate) async fn lost_nothing(mut self) -> u64 {
        self.over.store(true, Ordering::Relaxed);
        while self.tasks.join_next().await.is_some() {}
        assert_eq!(*self.bad.lock().unwrap(), Vec::<String>::new());
        self.good.load(Ordering::Relaxed)
    }
}
