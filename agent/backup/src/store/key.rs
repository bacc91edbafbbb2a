//! Which names an object may have.
//!
//! A key becomes a path in a folder and a part of an address in S3, and a listing of a store comes from
//! whoever can write there. So the alphabet is small, and the check is the same on the way in and out.

use super::{ErrorKind, StoreError};

/// The longest key; S3 takes 1024 bytes with the prefix.
const MAX_LEN: usize = 512;

/// Refuses a key that is not `part/part/…` of ASCII letters, digits, `.`, `_` and `-`, no part beginning
/// with a dot (those names are the folder store's own) or longer than 200.
pub fn check_key(operation: &'static str, key: &str) -> Result<(), StoreError> {
    if is_key(key) { Ok(()) } else { Err(refusal(operation, key)) }
}

/// Refuses a prefix that no key can begin with. It may be empty or end anywhere in a key.
pub fn check_prefix(operation: &'static str, prefix: &str) -> Result<(), StoreError> {
    let whole = prefix.strip_suffix('/').unwrap_or(prefix);
    if prefix.is_empty() || is_key(whole) { Ok(()) } else { Err(refusal(operation, prefix)) }
}

/// Whether it is a key that we may have written.
pub(crate) fn is_key(key: &str) -> bool {
    key.len() <= MAX_LEN && key.split('/').all(is_part)
}

fn is_part(part: &str) -> bool {
    let good = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-');
    !part.is_empty() && part.len() <= 200 && !part.starts_with('.') && part.bytes().all(good)
}

fn refusal(operation: &'static str, key: &str) -> StoreError {
    let what = "no key of a store: parts of letters, digits, '.', '_' and '-', joined by '/'";
    StoreError::new(ErrorKind::Fatal, operation, key, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_leave_the_store_or_cannot_be_stored_are_refused() {
        for key in ["a", "chain-1/L0/0000-0001", "x/y.age", "a..b/c"] {
            assert!(check_key("get", key).is_ok(), "{key}");
        }
        let long = "a".repeat(201);
        let deep = "a/".repeat(300) + "a";
        for key in [
            "",
            "/",
            "/etc/passwd",
            "a/../b",
            "..",
            ".tmp-1",
            "a//b",
            "a/",
            "a b",
            "ä",
            "a\n",
            "a\\b",
            "a\0",
            &long,
            &deep,
        ] {
            let error = check_key("get", key).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Fatal, "{key:?}");
        }
    }

    #[test]
    fn a_prefix_may_end_anywhere_but_not_climb() {
        for prefix in ["", "a", "a/", "a/L0/00"] {
            assert!(check_prefix("list", prefix).is_ok(), "{prefix}");
        }
        for prefix in ["/", "../", "a/..", "a//", "/a"] {
            assert!(check_prefix("list", prefix).is_err(), "{prefix}");
        }
    }
}
