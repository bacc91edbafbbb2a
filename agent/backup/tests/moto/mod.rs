//! A real S3 server for tests: moto, if FLIPSIDE_UV names a uv to install it with.
#![allow(unreachable_pub, reason = "tests of two crates use it")]

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

const MOTO: &str = "moto[server]==5.2.*";

/// A server that ends with the test.
pub struct Moto(Child);

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[expect(clippy::disallowed_methods, reason = "a test's own child: an argument list, ended by its guard")]
fn command(program: &str) -> Command {
    Command::new(program)
}

/// Starts moto on a port of its own; nothing if there is no uv.
pub async fn start() -> Option<(Moto, String)> {
    let uv = std::env::var("FLIPSIDE_UV").ok()?;
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| std::env::home_dir().map(|home| home.join(".cache"))).unwrap();
    let venv = cache.join("flipside/moto");
    let python = venv.join("bin/python");
    if !venv.join("bin/moto_server").exists() {
        let made = command(&uv).args(["venv", "--quiet", "--clear"]).arg(&venv).status().unwrap();
        assert!(made.success());
        let install = ["pip", "install", "--quiet", "--compile-bytecode", MOTO, "--python"];
        assert!(command(&uv).args(install).arg(&python).status().unwrap().success());
    }
    // Tests that start at one time look for a port at different places.
    let first = 20000 + u16::try_from(std::process::id() % 8000).unwrap();
    let port =
        (first..first + 100).find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap();
    let mut server = command(python.to_str().unwrap());
    server.args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port.to_string()]);
    let moto = Moto(server.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let began = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(60), "moto does not listen");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Some((moto, format!("http://127.0.0.1:{port}")))
}

/// Makes a bucket on moto, which asks for no signature.
pub async fn make_bucket(endpoint: &str, bucket: &str) {
    let address = endpoint.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "PUT /{bucket} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}
