//! Times as people write and read them.

use jiff::{SignedDuration, Timestamp};

use crate::failures::{Result, usage};

/// RFC 3339 from RFC 3339 or from an age such as `10m`, counted back from `now`.
pub(crate) fn instant(text: &str, now: Timestamp) -> Result<String> {
    if let Ok(timestamp) = text.parse::<Timestamp>() {
        return Ok(timestamp.to_string());
    }
    let wrong = || {
        usage(format!("{text:?} is no time")).hint("write 2026-11-28T10:00:00Z, or an age: 90s, 10m, 2h, 1d")
    };
    let unit = match text.chars().last() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 3600,
        Some('d') => 86400,
        _ => return Err(wrong()),
    };
    let count: i64 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    let seconds = count.checked_mul(unit).filter(|seconds| *seconds >= 0).ok_or_else(wrong)?;
    now.checked_sub(SignedDuration::from_secs(seconds)).map(|then| then.to_string()).map_err(|_| wrong())
}

/// An RFC 3339 time, checked.
pub(crate) fn timestamp(text: &str) -> Result<String> {
    text.parse::<Timestamp>().map(|timestamp| timestamp.to_string()).map_err(|_| {
        usage(format!("{text:?} is no RFC 3339 time")).hint("write it like 2026-11-28T10:00:00Z")
    })
}

/// A time to the second, as it came if it is none.
pub(crate) fn second(text: &str) -> String {
    match text.parse::<Timestamp>() {
        Ok(timestamp) => timestamp.strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
        Err(_) => crate::output::clean(text),
    }
}

/// Milliseconds for people.
pub(crate) fn took(ms: u64) -> String {
    match ms {
        0..1000 => format!("{ms} ms"),
        1000..60_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        _ => format!("{} min {:02} s", ms / 60_000, ms % 60_000 / 1000),
    }
}

/// Seconds as an age: one figure, one unit.
pub(crate) fn age(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_count_back() {
        let now: Timestamp = "2026-11-28T10:00:00Z".parse().unwrap();
        assert_eq!(instant("10m", now).unwrap(), "2026-11-28T09:50:00Z");
        assert_eq!(instant("2026-11-28T10:00:00+01:00", now).unwrap(), "2026-11-28T09:00:00Z");
        for bad in ["", "m", "10", "-5m", "10 m", "99999999999999999d", "ä", "yesterday"] {
            assert!(instant(bad, now).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_read_well() {
        assert_eq!(took(999), "999 ms");
        assert_eq!(second("2026-11-28T11:49:57.213+01:00"), "2026-11-28 10:49:57Z");
        assert_eq!(second("never\n"), "never\u{fffd}");
        assert_eq!(took(3250), "3.2 s");
        assert_eq!(took(61_000), "1 min 01 s");
        assert_eq!((age(5).as_str(), age(7200).as_str(), age(200_000).as_str()), ("5s", "2h", "2d"));
    }
}
