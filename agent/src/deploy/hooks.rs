//! The hooks of a release: argument lists, run as the app's user in the release's environment.

use std::time::Duration;

use flipside_api::{Code, Failure, Hook};

use super::context::Context;

/// How many lines of a hook's output a failure carries.
const LINES: usize = 60;

/// Runs the hooks of one list, one after the other, until one fails.
///
/// # Errors
/// For the first that fails, with the end of its output.
pub(crate) async fn run(ctx: &Context, list: &str, hooks: Option<&Vec<Hook>>) -> Result<String, Failure> {
    let hooks = hooks.map(Vec::as_slice).unwrap_or_default();
    for hook in hooks {
        one(ctx, list, hook).await?;
    }
    Ok(hooks.iter().map(|hook| hook.command.join(" ")).collect::<Vec<_>>().join("; "))
}

async fn one(ctx: &Context, list: &str, hook: &Hook) -> Result<(), Failure> {
    let command = hook.command.join(" ");
    let env = ctx.current_env()?;
    let timeout = Duration::from_secs(u64::from(hook.timeout.max(1)));
    let failed = |how: String| {
        Failure::new(Code::Hook, format!("the {list} hook `{command}` {how}"))
            .hint("mend the release or the hook (options.hooks), and deploy again")
    };
    let ended =
        ctx.run(hook.command.clone(), env, timeout).await.map_err(|failure| failed(failure.message))?;
    if ended.ok() {
        return Ok(());
    }
    let how = match (ended.timed_out, ended.signal, ended.code) {
        (true, _, _) => format!("took longer than {} s and was ended", hook.timeout),
        (_, Some(signal), _) => format!("was ended by signal {signal}"),
        (_, _, Some(code)) => format!("ended with code {code}"),
        _ => "failed".to_owned(),
    };
    Err(failed(how).log(ended.lines(LINES)))
}
