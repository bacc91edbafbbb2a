//! Pauses before what has ended is started again.

use std::time::Duration;

/// The first pause; it doubles up to the last.
const FIRST: Duration = Duration::from_millis(500);
const LAST: Duration = Duration::from_secs(30);

/// What ran this long is taken to be well: the pauses begin anew.
pub(crate) const WELL: Duration = Duration::from_secs(60);

/// The pauses of one program.
#[derive(Debug, Default)]
pub(super) struct Pauses {
    last: Option<Duration>,
}

impl Pauses {
    /// The pause after a run that took `ran`.
    pub(super) fn after(&mut self, ran: Duration) -> Duration {
        let pause = match self.last.filter(|_| ran < WELL) {
            Some(last) => (last * 2).min(LAST),
            None => FIRST,
        };
        self.last = Some(pause);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_grow_to_a_bound_and_begin_anew_after_a_good_run() {
        let mut pauses = Pauses::default();
        let mut after = |seconds| pauses.after(Duration::from_secs(seconds)).as_millis();
        assert_eq!([after(0), after(0), after(1), after(59)], [500, 1000, 2000, 4000]);
        assert_eq!((0..9).map(|_| after(0)).max(), Some(30_000));
        assert_eq!([after(60), after(0)], [500, 1000]);
    }
}
