//! `backup`: the library's verbs, for databases that no agent follows and for stores whose host is gone.

mod follow;
mod media;
mod place;
mod read;

use flipside_api::{Code, Failure};
use flipside_backup::{follow::FollowError, state::StateError};

use super::Session;
use crate::{
    args::{BackupArgs, BackupVerb},
    failures::Result,
};

/// `flipside backup`.
pub(crate) fn run(args: &BackupArgs, session: &Session<'_>) -> Result<u8> {
    match &args.verb {
        BackupVerb::Init(args) => follow::init(args, session),
        BackupVerb::Run(args) => follow::once(args, session),
        BackupVerb::Watch(args) => follow::watch(args, session),
        BackupVerb::Position(args) => follow::position(args, session),
        BackupVerb::List(args) => read::list(args, session),
        BackupVerb::Check(args) => read::check(args, session),
        BackupVerb::Restore(args) => read::restore(args, session),
        BackupVerb::Prune(args) => read::prune(args, session),
        BackupVerb::Rewrap(args) => read::rewrap(args, session),
        BackupVerb::Media(args) => media::run(args, session),
    }
}

/// An error of the library, with all that is beneath it.
fn failed(error: &(dyn std::error::Error + 'static)) -> Failure {
    let busy = match error.downcast_ref::<FollowError>() {
        Some(FollowError::State(error)) => matches!(error, StateError::Locked { .. }),
        _ => false,
    };
    let (mut message, mut cause) = (error.to_string(), error.source());
    while let Some(error) = cause {
        // Our enums show the error that they wrap; say each thing once.
        let text = error.to_string();
        if !message.ends_with(&text) {
            message = format!("{message}: {text}");
        }
        cause = error.source();
    }
    Failure::new(if busy { Code::Busy } else { Code::Backup }, message)
}
