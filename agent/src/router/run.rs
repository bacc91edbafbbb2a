//! A one-off command in an app's release and environment, as the app's user.
//!
//! Without an id it ends when whoever asked for it leaves: nobody would hear how it goes. With one it may be asked
//! for again, and goes on. It is in the history, with no more of its words than say which command it was.

use std::{sync::Arc, time::Duration};

use flipside_api::{Code, Failure, Outcome, Run, State, Streams as Asked};
use serde_json::json;

use super::{Call, Router, lifecycle};
use crate::{
    app::env,
    deploy,
    host::fault,
    sys::{
        clock,
        exec::{self, Ended, ExecError, Program, Stream},
    },
};

/// As good as no limit.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);

pub(super) async fn run(router: &Router, call: Call<'_>, asked: Run) -> Result<Outcome, Failure> {
    if asked.command.first().is_none_or(String::is_empty)
        || asked.command.iter().any(|part| part.contains('\0'))
    {
        return Err(Failure::new(Code::Usage, "there is no command to run")
            .hint("flipside run APP -- PROGRAM ARGUMENT…"));
    }
    let app = router.known(&asked.app).await?;
    let paths = router.host.paths(&asked.app);
    let mut env = deploy::read_env(&paths.env_file())?;
    let what = env::blacken(&what(&asked.command), &env);
    if let Some(Asked::Terminal { term }) = &asked.streams {
        env.insert("TERM".to_owned(), term.clone());
    }
    let program = Program {
        argv: asked.command,
        env,
        cwd: paths.data(),
        account: router.host.account(&app.spec)?,
        stdin: asked.stdin,
        timeout: if asked.timeout == 0 { NEVER } else { Duration::from_secs(u64::from(asked.timeout)) },
        tail: 4096,
    };
    let id = lifecycle::begin(router, call.verb, call.who, &app).await?;
    let goes_on = call.who.id.as_ref().is_some_and(|id| !id.is_empty());
    let channel = Arc::clone(call.channel);
    let left = |what: &str| Outcome::bad(State::Failed, Failure::new(Code::Interrupted, what));
    let outcome = tokio::select! {
        ended = follow(call, program) => match ended {
            Ok(ended) => outcome(&what, &ended),
            Err(error) => Outcome::bad(State::Refused, fault("cannot run the command", &error)),
        },
        () = channel.abandoned(), if !goes_on => left("whoever asked for it left: it was ended"),
        () = router.stop.cancelled() => left("the agent is stopping: it was ended"),
    };
    let outcome = Outcome { id: Some(id.clone()), release: Some(app.release), ..outcome };
    router.host.records.end(&id, &outcome, clock::now_ms(), None).await?;
    Ok(outcome)
}

async fn follow(call: Call<'_>, program: Program) -> Result<Ended, ExecError> {
    if let Some(streams) = call.streams {
        return exec::attached(program, streams).await;
    }
    let mut on_line = |stream, line: &str| {
        call.channel.output(if stream == Stream::Errors { "stderr" } else { "stdout" }, line);
    };
    exec::run_apart(program, &mut on_line).await
}

/// The program and the word after it: what follows may be a secret, and an event and the history tell this.
fn what(command: &[String]) -> String {
    let words: Vec<&str> = command.iter().take(2).map(String::as_str).collect();
    words.join(" ").chars().take(120).collect()
}

fn outcome(what: &str, ended: &Ended) -> Outcome {
    let code = ended.code.unwrap_or_else(|| 128 + ended.signal.unwrap_or(0));
    let data = Some(json!({ "code": code }));
    if ended.ok() {
        return Outcome { data, ..Outcome::good(State::Ok, what) };
    }
    let how = match (ended.timed_out, ended.signal) {
        (true, _) => "was ended, for its time was up".to_owned(),
        (_, Some(signal)) => format!("was ended by signal {signal}"),
        _ => format!("ended with code {code}"),
    };
    Outcome { data, ..Outcome::bad(State::Failed, Failure::new(Code::Hook, format!("{what}: it {how}"))) }
}
