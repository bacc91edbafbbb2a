//! When a scheduled command is due: five fields of cron, in the host's time zone.
//!
//! A time that the clocks skip in spring is made up for once, right after the gap; one that they pass twice in
//! autumn counts the first time. Lines with `*` or `*/n` in minute or hour go by the time that passes.

use croner::{
    Cron,
    parser::{CronParser, Seconds, Year},
};
use jiff::{SignedDuration, Timestamp, tz::TimeZone};

/// A time that was missed by at most this, because of a deploy, a restart or a busy host, is made up for.
pub const LATEST: SignedDuration = SignedDuration::from_mins(5);

/// A clock that goes back by more than this was wrong before: what it had passed then is forgotten.
const SET_BACK: SignedDuration = SignedDuration::from_hours(3);

/// A line of cron, understood.
#[derive(Debug, Clone)]
pub struct Timetable {
    cron: Cron,
    zone: TimeZone,
}

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Nothing before this.
    At(Timestamp),
    /// A run, for this time.
    Now(Timestamp),
    /// Nothing: this time is too long ago.
    Missed(Timestamp),
}

impl Timetable {
    /// Understands `line`.
    ///
    /// # Errors
    /// With what is wrong with it, for people; also when it never comes.
    pub fn parse(line: &str, zone: TimeZone) -> Result<Self, String> {
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let cron = parser.parse(line).map_err(|error| {
            format!("{:?} is no line of cron: {error}", line.chars().take(80).collect::<String>())
        })?;
        let timetable = Self { cron, zone };
        match timetable.after(Timestamp::UNIX_EPOCH) {
            Some(_) => Ok(timetable),
            None => Err(format!("{line:?} never comes")),
        }
    }

    /// The first time after `instant`.
    pub fn after(&self, instant: Timestamp) -> Option<Timestamp> {
        let next = self.cron.find_next_occurrence(&instant.to_zoned(self.zone.clone()), false).ok()?;
        Some(next.timestamp())
    }

    /// What is due at `now`, when all until `seen` was seen to; and until when all is then. However far the clock
    /// jumps, at most one run comes of it.
    pub fn due(&self, seen: Timestamp, now: Timestamp) -> Option<(Due, Timestamp)> {
        let seen = if now < seen - SET_BACK { now } else { seen };
        let next = self.after(seen)?;
        if next > now {
            return Some((Due::At(next), seen));
        }
        // Of several that have passed only the newest could still be in time.
        let recent = self.after(seen.max(now - LATEST - SignedDuration::from_nanos(1)))?;
        let due = if recent <= now { Due::Now(recent) } else { Due::Missed(next) };
        Some((due, now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn berlin(line: &str) -> Timetable {
        Timetable::parse(line, TimeZone::get("Europe/Berlin").unwrap()).unwrap()
    }

    fn times(table: &Timetable, from: &str, count: usize) -> Vec<String> {
        std::iter::successors(table.after(at(from)), |time| table.after(*time))
            .take(count)
            .map(|time| time.to_string())
            .collect()
    }

    #[test]
    fn what_is_no_line_of_cron_is_refused() {
        for bad in ["", "1 2 3", "60 * * * *", "0 0 1 1 * 2030", "0 0 0 1 1 *", "x", "0 0 31 2 *"] {
            let error = Timetable::parse(bad, TimeZone::UTC).unwrap_err();
            assert!(error.contains("cron") || error.contains("never comes"), "{bad}: {error}");
        }
        for good in ["10 3 * * *", "*/5 8-18 * * mon-fri", "@daily"] {
            Timetable::parse(good, TimeZone::UTC).unwrap();
        }
    }

    #[test]
    fn daylight_saving_runs_nothing_twice_and_leaves_no_day_out() {
        let nightly = berlin("30 2 * * *");
        // 29 March 2026: 02:00 becomes 03:00. 25 October 2026: 03:00 becomes 02:00.
        assert_eq!(
            times(&nightly, "2026-03-28T12:00:00Z", 2),
            ["2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"],
            "right after the gap"
        );
        assert_eq!(
            times(&nightly, "2026-10-24T12:00:00Z", 2),
            ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"],
            "the first time only"
        );
        let often = berlin("*/30 * * * *");
        assert_eq!(
            times(&often, "2026-10-25T00:15:00Z", 4),
            ["2026-10-25T00:30:00Z", "2026-10-25T01:00:00Z", "2026-10-25T01:30:00Z", "2026-10-25T02:00:00Z"],
            "every half hour that passes"
        );
    }

    #[test]
    fn what_was_missed_by_little_is_made_up_for_once() {
        let table = Timetable::parse("*/10 * * * *", TimeZone::UTC).unwrap();
        let due = |seen: &str, now: &str| table.due(at(seen), at(now)).unwrap();
        let seen = "2026-01-01T00:05:00Z";
        assert_eq!(due(seen, "2026-01-01T00:09:59Z"), (Due::At(at("2026-01-01T00:10:00Z")), at(seen)));
        let now = at("2026-01-01T00:14:00Z");
        assert_eq!(due(seen, "2026-01-01T00:14:00Z"), (Due::Now(at("2026-01-01T00:10:00Z")), now));
        let late = due(seen, "2026-01-01T00:16:00Z");
        assert_eq!(late, (Due::Missed(at("2026-01-01T00:10:00Z")), at("2026-01-01T00:16:00Z")));
    }

    #[test]
    fn a_clock_that_jumps_makes_no_storm() {
        let table = Timetable::parse("* * * * *", TimeZone::UTC).unwrap();
        let mut seen = at("2026-01-01T00:00:30Z");
        let mut runs = 0;
        for now in ["2026-02-01T00:00:30Z", "2026-02-01T00:00:31Z", "2026-02-01T00:00:40Z"] {
            let (due, upto) = table.due(seen, at(now)).unwrap();
            runs += usize::from(matches!(due, Due::Now(_)));
            seen = upto;
        }
        assert_eq!(runs, 1, "a month forward");
        let back = at("2026-01-01T00:00:10Z");
        let (due, upto) = table.due(seen, back).unwrap();
        assert_eq!((due, upto), (Due::At(at("2026-01-01T00:01:00Z")), back), "a month back");
        let (due, _) = table.due(at("2026-01-01T01:00:00Z"), at("2026-01-01T00:30:00Z")).unwrap();
        assert_eq!(due, Due::At(at("2026-01-01T01:01:00Z")), "half an hour back runs nothing twice");
    }
}
