//! The runtimes against real uWSGI and a real Docker engine: what must not lose a request is done under load, and
//! every request is counted.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may panic, and says so when it is skipped"
)]

/// What every runtime must do: each test takes the kind of runtime that it is to hold for.
macro_rules! on_every_runtime {
    ($($test:ident),* $(,)?) => {
        mod process {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test(flipside_api::RuntimeKind::Process).await;
            })*
        }
        mod docker {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                super::$test(flipside_api::RuntimeKind::Docker).await;
            })*
        }
    };
}

mod bad_releases;
mod client;
mod containers;
mod crew;
mod fixture;
mod hostile;
mod kills;
mod requests;
mod switching;
