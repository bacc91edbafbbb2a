//! A one-off command in an app's release and environment, as the app's user.
//!
//! It ends when whoever asked for it leaves: nobody would hear how it goes.

use std::{sync::Arc, time::Duration};

use flipside_api::{Code, Failure, Outcome, Run, State};
use serde_json::json;

use super::{Call, Router};
use crate::{
    deploy,
    host::fault,
    sys::exec::{self, Ended, Program},
};

/// As good as no limit.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);

pub(super) async fn run(router: &Router, call: &Call<'_>, asked: Run) -> Result<Outcome, Failure> {
    if asked.command.first().is_none_or(String::is_empty)
        || asked.command.iter().any(|part| part.contains('\0'))
    {
        return Err(Failure::new(Code::Usage, "there is no command to run")
            .hint("flipside run APP -- PROGRAM ARGUMENT…"));
    }
    let app = router.known(&asked.app).await?;
    let paths = router.host.paths(&asked.app);
    let program = Program {
        argv: asked.command,
        env: deploy::read_env(&paths.env_file())?,
        cwd: paths.data(),
        account: router.host.account(&app.spec)?,
        stdin: asked.stdin,
        timeout: if asked.timeout == 0 { NEVER } else { Duration::from_secs(u64::from(asked.timeout)) },
        tail: 4096,
    };
    let channel = Arc::clone(call.channel);
    let mut on_line = |line: &str| channel.output("stdout", line);
    let ended = tokio::select! {
        ended = exec::run(program, &mut on_line) => ended,
        () = call.channel.abandoned() => return Err(Failure::new(Code::Interrupted, "whoever asked for it left: it was ended")),
        () = router.stop.cancelled() => return Err(Failure::new(Code::Interrupted, "the agent is stopping: it was ended")),
    };
    ended.map(|ended| outcome(&ended)).map_err(|error| fault("cannot run the command", &error))
}

fn outcome(ended: &Ended) -> Outcome {
    let code = ended.code.unwrap_or_else(|| 128 + ended.signal.unwrap_or(0));
    let data = Some(json!({ "code": code }));
    if ended.ok() {
        return Outcome { data, ..Outcome::good(State::Ok, "") };
    }
    let how = match (ended.timed_out, ended.signal) {
        (true, _) => "its time was up, and it was ended".to_owned(),
        (_, Some(signal)) => format!("it was ended by signal {signal}"),
        _ => format!("it ended with code {code}"),
    };
    Outcome { data, ..Outcome::bad(State::Failed, Failure::new(Code::Hook, how)) }
}
