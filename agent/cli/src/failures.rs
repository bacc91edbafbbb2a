//! What can go wrong here wears the same form as what went wrong in the agent: a class, what and where,
//! and what to do. So one printer and one table of exit codes serve both.

use std::path::Path;

use flipside_api::{Code, Failure, Outcome, State};

/// What a command of this program gives.
pub(crate) type Result<T> = std::result::Result<T, Failure>;

/// The exit code of success.
pub(crate) const OK: u8 = 0;
const FAILED: u8 = 1;
const USAGE: u8 = 2;
const REFUSED: u8 = 3;
const NO_AGENT: u8 = 4;
const BUSY: u8 = 5;

/// The exit code for a class of failure.
pub(crate) fn exit_code(code: Code) -> u8 {
    match code {
        Code::Usage => USAGE,
        Code::Gate => REFUSED,
        Code::NoAgent => NO_AGENT,
        Code::Busy => BUSY,
        _ => FAILED,
    }
}

/// The exit code for an outcome of the agent.
pub(crate) fn exit_code_of(outcome: &Outcome) -> u8 {
    match (&outcome.error, outcome.state) {
        _ if outcome.result => OK,
        (Some(error), _) if exit_code(error.code) != FAILED => exit_code(error.code),
        (_, State::Busy) => BUSY,
        _ => FAILED,
    }
}

/// What was typed makes no sense.
pub(crate) fn usage(message: impl Into<String>) -> Failure {
    Failure::new(Code::Usage, message)
}

/// This host does not let us: `what` is an act, such as `read`.
pub(crate) fn io(what: &str, path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(Code::Host, format!("cannot {what} {}: {error}", path.display()))
}

/// `io` for `map_err`.
pub(crate) fn on<'a>(what: &'a str, path: &'a Path) -> impl FnOnce(std::io::Error) -> Failure + 'a {
    move |error| io(what, path, &error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_those_of_the_contract() {
        let bad = |state, code| exit_code_of(&Outcome::bad(state, Failure::new(code, "")));
        assert_eq!(exit_code_of(&Outcome::good(State::Unchanged, "")), 0);
        assert_eq!(bad(State::RolledBack, Code::Health), 1);
        assert_eq!(bad(State::Refused, Code::Usage), 2);
        assert_eq!(bad(State::Refused, Code::Gate), 3);
        assert_eq!(bad(State::Failed, Code::NoAgent), 4);
        assert_eq!(bad(State::Busy, Code::Busy), 5);
        assert_eq!(bad(State::Refused, Code::NotFound), 1);
    }
}
