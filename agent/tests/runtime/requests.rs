//! Requests that take long: those that may go on, and those that hang are ended.

use std::time::Duration;

use flipside_agent::runtime::Runtime;

use crate::{
    client::{ask, get, post_slowly},
    fixture::Fixture,
};

const SLEEPS: &str = r#"
import os, time
def application(environ, start_response):
    time.sleep({"/hang": 600, "/slow": 1.5}.get(environ["PATH_INFO"], 0))
    start_response("200 OK", [])
    return [str(os.getpid()).encode()]
"#;

#[tokio::test(flavor = "multi_thread")]
async fn one_that_hangs_is_ended_and_takes_no_other_with_it() {
    let Some(mut fixture) = Fixture::new() else { return };
    (fixture.spec.workers, fixture.spec.request_timeout) = (1, 2);
    let release = fixture.release_of("1.0", SLEEPS);
    fixture.flip(&release, "red");
    fixture.runtime.start(&fixture.spec, &release).await.unwrap();
    let socket = fixture.socket();
    let before = get(&socket, "/").await.unwrap();
    // In the same worker, and at it when the other's time is over.
    let beside = async {
        tokio::time::sleep(Duration::from_millis(1200)).await;
        get(&socket, "/slow").await.unwrap()
    };
    let (hung, beside) = tokio::join!(get(&socket, "/hang"), beside);
    assert_eq!(beside, before, "it was answered, by the worker that hung");
    assert!(!hung.is_ok_and(|answer| answer.contains("200 OK")));
    let after = get(&socket, "/").await.unwrap();
    assert!(after.contains("200 OK") && after != before, "another worker: {after}");
    let log = fixture.log();
    assert!(log.contains("GET '/hang' takes over 2 s (request_timeout)"), "{log}");
    assert!(log.contains("time.sleep({\"/hang\": 600"), "where it hung: {log}");
}

/// uWSGI's own time limit killed the worker here.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_comes_slowly_harms_nobody() {
    let Some(mut fixture) = Fixture::new() else { return };
    fixture.spec.workers = 1;
    let release = fixture.release("1.0");
    fixture.flip(&release, "red");
    fixture.runtime.start(&fixture.spec, &release).await.unwrap();
    let socket = fixture.socket();
    let mut slow = std::pin::pin!(post_slowly(&socket, 60, Duration::from_millis(50)));
    // Now and then another one begins and ends beside it.
    let answer = loop {
        tokio::select! {
            answer = &mut slow => break answer.unwrap(),
            () = tokio::time::sleep(Duration::from_millis(300)) => assert!(!ask(&socket).await.is_empty()),
        }
    };
    assert!(answer.contains("200 OK"), "{answer}");
}
