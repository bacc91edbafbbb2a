//! The wall clock, read in this one place.

use jiff::Timestamp;

/// How far the clock was put, in tests.
#[cfg(feature = "faults")]
static PUT: std::sync::atomic::AtomicI64 = std::sync::atomic::AtomicI64::new(0);

/// Puts the clock of this process forward or back, for tests.
#[cfg(feature = "faults")]
pub fn put(ms: i64) {
    PUT.store(ms, std::sync::atomic::Ordering::Relaxed);
}

/// Milliseconds since 1970 by the wall clock, which may be put back and forth: deadlines are no matter of it.
pub fn now_ms() -> i64 {
    let now = Timestamp::now().as_millisecond();
    #[cfg(feature = "faults")]
    let now = now + PUT.load(std::sync::atomic::Ordering::Relaxed);
    now
}

/// `ms` as RFC 3339 in UTC, with milliseconds; times that no calendar holds are shown as its first day.
pub fn rfc3339(ms: i64) -> String {
    let time = Timestamp::from_millisecond(ms).unwrap_or(Timestamp::UNIX_EPOCH);
    format!("{time:.3}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_in_utc() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
        assert_eq!(rfc3339(i64::MAX), "1970-01-01T00:00:00.000Z");
    }
}
