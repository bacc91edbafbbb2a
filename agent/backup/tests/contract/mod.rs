//! What every store must do. Each implementation runs all of it, under a prefix of its own.
#![expect(
    clippy::unwrap_used,
    reason = "a test that may panic, in functions that clippy does not take for tests"
)]

use bytes::Bytes;
use flipside_backup::store::{ErrorKind, Store};

/// Runs the suite.
pub(crate) async fn run(store: &dyn Store) {
    round_trip(store).await;
    put_new_never_replaces(store).await;
    put_replaces(store).await;
    lists_by_any_prefix_in_order(store).await;
    deletes_and_forgets(store).await;
    refuses_bad_keys(store).await;
    one_of_many_wins(store).await;
}

async fn round_trip(store: &dyn Store) {
    let big: Vec<u8> = (0..3 << 20).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for (key, bytes) in [("trip/empty", vec![]), ("trip/one", vec![7]), ("trip/deep/er/big", big)] {
        store.put_new(key, bytes.clone().into()).await.unwrap();
        assert_eq!(store.get(key).await.unwrap(), bytes, "{key}");
    }
    for key in ["trip/none", "trip/one/below", "trip/deep", "nowhere/at/all"] {
        let error = store.get(key).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{key}: {error}");
        assert_eq!(error.key(), key);
    }
}

async fn put_new_never_replaces(store: &dyn Store) {
    store.put_new("new/a", Bytes::from_static(b"first")).await.unwrap();
    let error = store.put_new("new/a", Bytes::from_static(b"second")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exists, "{error}");
    assert_eq!((error.operation(), error.key()), ("put_new", "new/a"));
    assert_eq!(store.get("new/a").await.unwrap(), "first");
}

async fn put_replaces(store: &dyn Store) {
    store.put("head", Bytes::from_static(b"a longer first")).await.unwrap();
    store.put("head", Bytes::from_static(b"second")).await.unwrap();
    assert_eq!(store.get("head").await.unwrap(), "second");
}

async fn lists_by_any_prefix_in_order(store: &dyn Store) {
    for key in ["ls/L0/0002", "ls/L0/0001", "ls/L1/0001", "ls/L0.x", "lsx"] {
        store.put_new(key, Bytes::from(key)).await.unwrap();
    }
    for (prefix, expected) in [
        ("ls/L0/", vec!["ls/L0/0001", "ls/L0/0002"]),
        ("ls/L0", vec!["ls/L0.x", "ls/L0/0001", "ls/L0/0002"]),
        ("ls/L0/0002", vec!["ls/L0/0002"]),
        ("ls/L", vec!["ls/L0.x", "ls/L0/0001", "ls/L0/0002", "ls/L1/0001"]),
        ("ls/none/", vec![]),
        ("none", vec![]),
    ] {
        let entries = store.list(prefix).await.unwrap();
        let keys: Vec<&str> = entries.iter().map(|e| e.key.as_str()).collect();
        assert_eq!(keys, expected, "{prefix}");
        for entry in entries {
            assert_eq!(entry.size, entry.key.len() as u64);
            // After 2020 by the store's clock.
            assert!(entry.modified_ms.is_none_or(|ms| ms > 1_577_836_800_000), "{entry:?}");
        }
    }
    let all = store.list("").await.unwrap();
    assert!(all.iter().any(|e| e.key == "lsx") && all.is_sorted_by(|a, b| a.key < b.key));
}

async fn deletes_and_forgets(store: &dyn Store) {
    store.put_new("del/a", Bytes::from_static(b"x")).await.unwrap();
    store.delete("del/a").await.unwrap();
    store.delete("del/a").await.unwrap();
    store.delete("del/never/there").await.unwrap();
    assert_eq!(store.get("del/a").await.unwrap_err().kind(), ErrorKind::NotFound);
    assert!(store.list("del/").await.unwrap().is_empty());
    store.put_new("del/a", Bytes::from_static(b"again")).await.unwrap();
}

async fn refuses_bad_keys(store: &dyn Store) {
    for key in ["", "/etc/passwd", "../up", "a/../../b", "a//b", ".hidden", "a/.tmp-1", "a\nb", "a b"] {
        let bytes = Bytes::from_static(b"x");
        for result in [
            store.put_new(key, bytes.clone()).await,
            store.put(key, bytes.clone()).await,
            store.get(key).await.map(drop),
            store.delete(key).await,
        ] {
            assert_eq!(result.unwrap_err().kind(), ErrorKind::Fatal, "{key:?}");
        }
    }
    assert_eq!(store.list("../").await.unwrap_err().kind(), ErrorKind::Fatal);
}

/// Of puts of one name at one time exactly one succeeds, and its bytes are what is there.
async fn one_of_many_wins(store: &dyn Store) {
    let puts = (0..8).map(|n: u8| async move { (n, store.put_new("race/one", vec![n; 5000].into()).await) });
    let done = futures_util::future::join_all(puts).await;
    let won: Vec<u8> = done.iter().filter(|(_, r)| r.is_ok()).map(|(n, _)| *n).collect();
    assert_eq!(won.len(), 1, "{done:?}");
    let lost = done.iter().filter_map(|(_, r)| r.as_ref().err());
    assert!(lost.into_iter().all(|e| e.kind() == ErrorKind::Exists), "{done:?}");
    assert_eq!(store.get("race/one").await.unwrap(), vec![won[0]; 5000]);
}
