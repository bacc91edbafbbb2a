//! The fake holds the contract too, and the decorators do what they promise on it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use flipside_backup::store::{ErrorKind, Fake, Fault, Patience, Retrying, Store, Throttled};

mod contract;

fn patience() -> Patience {
    let wait = Duration::from_millis(2);
    Patience {
        attempts: 4,
        first_wait: wait,
        longest_wait: wait,
        deadline: Duration::from_millis(500),
        slowest: u64::MAX,
    }
}

fn retrying(fake: &Arc<Fake>) -> Retrying {
    Retrying::new(Arc::clone(fake) as Arc<dyn Store>, patience())
}

fn x() -> Bytes {
    Bytes::from_static(b"x")
}

#[tokio::test]
async fn holds_the_contract_bare_and_decorated() {
    contract::run(&Fake::new()).await;
    contract::run(&retrying(&Arc::new(Fake::new()))).await;
    contract::run(&Throttled::new(Arc::new(Fake::new()), u64::MAX)).await;
}

#[tokio::test]
async fn every_verb_outlasts_a_few_failures() {
    let fake = Arc::new(Fake::new());
    let store = retrying(&fake);
    for verb in ["put_new", "put", "get", "list", "delete"] {
        fake.fail(verb, [Fault::Unavailable; 3]);
    }
    store.put_new("a", x()).await.unwrap();
    store.put("a", x()).await.unwrap();
    assert_eq!(store.get("a").await.unwrap(), x());
    assert_eq!(store.list("").await.unwrap().len(), 1);
    store.delete("a").await.unwrap();
    assert_eq!(fake.calls().len(), 20);
}

#[tokio::test]
async fn patience_has_an_end_and_what_is_hopeless_is_not_repeated() {
    let fake = Arc::new(Fake::new());
    fake.fail_always("put", Some(Fault::Unavailable));
    let error = retrying(&fake).put("a", x()).await.unwrap_err();
    assert_eq!((error.kind(), fake.calls().len()), (ErrorKind::Retryable, 4));
    fake.fail_always("get", Some(Fault::Denied));
    assert_eq!(retrying(&fake).get("a").await.unwrap_err().kind(), ErrorKind::Fatal);
    assert_eq!(fake.calls().len(), 5);
}

#[tokio::test]
async fn a_put_new_whose_answer_was_lost_is_recognised_as_our_own() {
    let fake = Arc::new(Fake::new());
    fake.fail("put_new", [Fault::LostResponse]);
    retrying(&fake).put_new("seg/1", x()).await.unwrap();
    assert_eq!(fake.objects()["seg/1"], x());
}

#[tokio::test]
async fn a_name_that_another_writer_took_meanwhile_is_not_ours() {
    let fake = Arc::new(Fake::new());
    fake.tamper("seg/1", Some(Bytes::from_static(b"another's")));
    fake.fail("put_new", [Fault::Unavailable]);
    let error = retrying(&fake).put_new("seg/1", x()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exists);
    // And with an answer at once there is nothing to compare: it is taken, even with the same bytes.
    fake.tamper("seg/2", Some(x()));
    assert_eq!(retrying(&fake).put_new("seg/2", x()).await.unwrap_err().kind(), ErrorKind::Exists);
}

#[tokio::test]
async fn who_may_only_put_believes_a_taken_name_only_after_an_unknown_outcome() {
    let fake = Arc::new(Fake::new());
    fake.fail_always("get", Some(Fault::Denied));
    fake.fail("put_new", [Fault::LostResponse]);
    let store = retrying(&fake);
    store.put_new("seg/1", x()).await.unwrap();
    assert_eq!(store.put_new("seg/1", x()).await.unwrap_err().kind(), ErrorKind::Exists);
}

/// All answers are lost, patience ends, and the caller asks again an hour later.
#[tokio::test]
async fn an_unknown_outcome_is_remembered_across_calls() {
    let fake = Arc::new(Fake::new());
    let store = retrying(&fake);
    fake.fail("put_new", [Fault::LostResponse, Fault::Unavailable, Fault::Unavailable, Fault::Unavailable]);
    assert_eq!(store.put_new("seg/1", x()).await.unwrap_err().kind(), ErrorKind::Retryable);
    store.put_new("seg/1", x()).await.unwrap();
}

#[tokio::test]
async fn a_silent_store_is_left_at_the_deadline() {
    let fake = Arc::new(Fake::new());
    fake.fail("get", [Fault::Slow(Duration::from_secs(600)); 2]);
    fake.tamper("a", Some(x()));
    let began = Instant::now();
    let quick = Patience { deadline: Duration::from_millis(30), ..patience() };
    let store = Retrying::new(Arc::clone(&fake) as Arc<dyn Store>, quick);
    assert_eq!(store.get("a").await.unwrap(), x());
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test]
async fn the_cap_on_bandwidth_holds_for_parallel_puts() {
    let store = Throttled::new(Arc::new(Fake::new()), 100_000);
    let began = Instant::now();
    let puts = (0..5).map(|n| {
        let store = &store;
        async move { store.put(&format!("o{n}"), vec![0; 10_000].into()).await }
    });
    for done in futures_util::future::join_all(puts).await {
        done.unwrap();
    }
    // The first goes at once; each other waits 0.1 s for the one before.
    assert!(began.elapsed() >= Duration::from_millis(395), "{:?}", began.elapsed());
}
