//! Not more than so many writes a second.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// A bucket of permits that fills at a steady rate.
#[derive(Debug)]
pub(super) struct Pace {
    rate: f64,
    burst: f64,
    permits: f64,
    at: Instant,
}

impl Pace {
    pub(super) fn new(rate: u32, burst: u32) -> Self {
        let burst = f64::from(burst.max(1));
        Self { rate: f64::from(rate.max(1)), burst, permits: burst, at: Instant::now() }
    }

    /// Waits for the next permit. Dropped while it waits, it takes none.
    pub(super) async fn take(&mut self) {
        let wait = self.wait(Instant::now());
        if !wait.is_zero() {
            sleep(wait).await;
            self.fill(Instant::now());
        }
        self.permits -= 1.0;
    }

    fn wait(&mut self, now: Instant) -> Duration {
        self.fill(now);
        Duration::from_secs_f64((1.0 - self.permits).max(0.0) / self.rate)
    }

    fn fill(&mut self, now: Instant) {
        let since = now.saturating_duration_since(self.at);
        self.permits = (self.permits + since.as_secs_f64() * self.rate).min(self.burst);
        self.at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_burst_is_free_and_then_the_rate_holds() {
        let mut pace = Pace::new(100, 10);
        let begin = pace.at;
        for _ in 0..10 {
            assert_eq!(pace.wait(begin), Duration::ZERO);
            pace.permits -= 1.0;
        }
        assert_eq!(pace.wait(begin), Duration::from_millis(10));
        assert_eq!(pace.wait(begin + Duration::from_millis(10)), Duration::ZERO);
        // A pause fills the bucket, and no more than that.
        pace.wait(begin + Duration::from_secs(3600));
        assert!((pace.permits - 10.0).abs() < 0.01);
        let mut pace = Pace::new(1000, 1);
        let begin = Instant::now();
        for _ in 0..21 {
            pace.take().await;
        }
        assert!(begin.elapsed() >= Duration::from_millis(20));
    }
}
