//! S3: the contract on a real server of it (moto, if FLIPSIDE_UV names a uv to install it with), and each
//! class of answer from a server that says what it is told.

#![expect(
    clippy::unwrap_used,
    reason = "a test that may panic, in functions that clippy does not take for tests"
)]

use std::time::Duration;

use bytes::Bytes;
use flipside_backup::store::{ErrorKind, S3, Store as _};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    task::JoinSet,
};

mod contract;
mod moto;

fn s3(url: &str) -> S3 {
    S3::new(url).unwrap().with_credentials("AKIATEST", "secret", None)
}

#[tokio::test]
async fn holds_the_contract_on_a_real_server() {
    let Some((_moto, endpoint)) = moto::start().await else {
        println!("SKIP: FLIPSIDE_UV is not set, so there is no S3 server to install");
        return;
    };
    moto::make_bucket(&endpoint, "flipside-test").await;
    contract::run(&s3(&format!("s3://flipside-test/some/prefix?endpoint={endpoint}"))).await;
    contract::run(&s3(&format!("s3://flipside-test/other?endpoint={endpoint}"))).await;

    let whole = s3(&format!("s3://flipside-test?endpoint={endpoint}"));
    assert!(whole.get("some/prefix/head").await.is_ok() && whole.get("other/head").await.is_ok());
    many_pages(&whole).await;

    let error = s3(&format!("s3://no-such-bucket?endpoint={endpoint}")).get("a").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fatal, "a bucket that is not there is no missing object: {error}");
    assert!(error.advice().contains("bucket"));
}

/// More objects than one page of a listing holds.
async fn many_pages(store: &S3) {
    for chunk in (0..1100).collect::<Vec<u32>>().chunks(100) {
        let puts =
            chunk.iter().map(|n| async move { store.put(&format!("many/{n:04}"), Bytes::new()).await });
        assert!(futures_util::future::join_all(puts).await.iter().all(Result::is_ok));
    }
    let keys: Vec<String> = store.list("many/").await.unwrap().into_iter().map(|e| e.key).collect();
    assert_eq!(keys, (0..1100).map(|n| format!("many/{n:04}")).collect::<Vec<_>>());
}

/// A server that answers every request with `answer`, or never.
async fn server(answer: Option<String>) -> (JoinSet<()>, S3) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("s3://bucket/p?endpoint=http://{}", listener.local_addr().unwrap());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 16 << 10];
            let _ = stream.read(&mut request).await;
            match &answer {
                Some(answer) => drop(stream.write_all(answer.as_bytes()).await),
                None => std::future::pending().await,
            }
        }
    });
    (tasks, s3(&url))
}

fn answer(status: &str, code: &str) -> String {
    let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>m</Message></Error>");
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[tokio::test]
async fn each_answer_has_its_class() {
    for (status, code, kind, advice) in [
        ("412 Precondition Failed", "PreconditionFailed", ErrorKind::Exists, ""),
        ("409 Conflict", "ConditionalRequestConflict", ErrorKind::Retryable, ""),
        ("503 Slow Down", "SlowDown", ErrorKind::Retryable, ""),
        ("500 Internal Server Error", "InternalError", ErrorKind::Retryable, ""),
        ("400 Bad Request", "RequestTimeout", ErrorKind::Retryable, ""),
        ("403 Forbidden", "AccessDenied", ErrorKind::Fatal, "s3:PutObject"),
        ("403 Forbidden", "RequestTimeTooSkewed", ErrorKind::Fatal, "clock"),
        ("403 Forbidden", "SignatureDoesNotMatch", ErrorKind::Fatal, "credentials"),
        ("404 Not Found", "NoSuchBucket", ErrorKind::Fatal, "bucket"),
        ("501 Not Implemented", "NotImplemented", ErrorKind::Fatal, "conditional"),
    ] {
        let (_tasks, store) = server(Some(answer(status, code))).await;
        let error = store.put_new("a", Bytes::from_static(b"x")).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{status} {code}: {error}");
        assert!(error.advice().contains(advice), "{status} {code}: {}", error.advice());
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_or_is_no_answer_may_be_asked_for_again() {
    for raw in [
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this",
        "HTTP/1.1 200 OK\r\nContent-",
        "no http\r\n\r\n",
    ] {
        let (_tasks, store) = server(Some(raw.to_owned())).await;
        let error = store.get("a").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Retryable, "{raw:?}: {error}");
    }
}

#[tokio::test]
async fn a_huge_answer_is_not_taken_into_memory() {
    let raw = "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n".to_owned() + &"x".repeat(66 << 20);
    let (_tasks, store) = server(Some(raw)).await;
    assert_eq!(store.get("a").await.unwrap_err().kind(), ErrorKind::Fatal);
}

#[tokio::test]
async fn nobody_listening_may_be_asked_again_and_a_silent_server_is_waited_for() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let url = format!("s3://bucket/p?endpoint=http://{closed}");
    assert_eq!(s3(&url).get("a").await.unwrap_err().kind(), ErrorKind::Retryable);
    let (_tasks, silent) = server(None).await;
    let waited = tokio::time::timeout(Duration::from_millis(200), silent.get("a")).await;
    assert!(waited.is_err(), "a silent server is waited for until Retrying's deadline");
}
