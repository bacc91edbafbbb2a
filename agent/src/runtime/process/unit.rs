//! Holders as units of systemd: `flipside-app@<app>.service`, sandboxed and limited, so that whatever happens to
//! the agent's own unit touches no app. The template of the unit is Salt's (`salt/flipside/files`).
//!
//! Limits are set with `systemctl set-property`, which the kernel takes up at once, so a changed limit needs no
//! restart. They are kept below /run: after a boot they are set again before the unit starts.

use std::time::Duration;

use flipside_api::{Code, Failure};

use crate::{
    app::paths::AppPaths,
    host::fault,
    runtime::holder::{HoldArgs, OWNER},
    sys::{
        atomic_write,
        exec::{self, Program},
    },
};

/// systemd answers at once; a start waits at most for the last of the holder before.
const PATIENCE: Duration = Duration::from_secs(75);

fn unit(paths: &AppPaths) -> String {
    format!("flipside-app@{}.service", paths.app)
}

/// Limits the memory of all that the app's unit runs, or no longer.
pub(super) async fn limit(paths: &AppPaths, memory: Option<u64>) -> Result<(), Failure> {
    let most = memory.map_or_else(|| "infinity".to_owned(), |bytes| bytes.to_string());
    systemctl(&["set-property", "--runtime", &unit(paths), &format!("MemoryMax={most}")]).await.map(drop)
}

/// Starts the app's holder; its pid.
pub(super) async fn start(paths: &AppPaths, args: &HoldArgs) -> Result<u32, Failure> {
    let (uid, gid) = args.owner.unwrap_or_default();
    // What differs from app to app: the unit reads it when it starts.
    let text = format!("{OWNER}={uid}:{gid}\n");
    atomic_write::write(&paths.run().join("holder.env"), text.as_bytes(), 0o644, None)
        .map_err(|error| fault("cannot tell the app's unit its owner", &error))?;
    let unit = unit(paths);
    systemctl(&["start", &unit]).await?;
    let shown = systemctl(&["show", "--property=MainPID", "--value", &unit]).await?;
    shown.trim().parse().map_err(|_| Failure::new(Code::Host, format!("{unit} has no process: {shown:?}")))
}

async fn systemctl(arguments: &[&str]) -> Result<String, Failure> {
    let argv: Vec<String> =
        ["systemctl", "--no-ask-password"].iter().chain(arguments).map(|part| (*part).to_owned()).collect();
    let shown = argv.join(" ");
    let program = Program { timeout: PATIENCE, tail: 4096, ..Program::new(argv) };
    let ended = exec::run(program, &mut |_| {}).await.map_err(|error| fault("cannot ask systemd", &error))?;
    if ended.ok() {
        return Ok(String::from_utf8_lossy(&ended.tail).into_owned());
    }
    let unit = arguments.iter().find(|part| part.ends_with(".service")).copied().unwrap_or_default();
    Err(Failure::new(Code::Host, format!("{shown} failed"))
        .hint(format!("`systemctl status {unit}` says more; the state flipside.agent writes the unit's file"))
        .log(ended.lines(20)))
}
