//! Starting an app's holder, finding it again, and ending it.

use std::{
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
    time::Duration,
};

use flipside_api::{Code, Failure};
use tokio::time::{Instant, sleep};

use super::{
    ProcessRuntime,
    client::{self, ClientError},
    log::LogMark,
    unit,
};
use crate::{
    app::paths::AppPaths,
    host::fault,
    runtime::{
        Account,
        holder::{
            HoldArgs,
            protocol::{Ask, HolderState},
        },
        uwsgi::files::NOTES,
    },
    sys::{
        beneath,
        exec::{self, Program},
        proc, users,
    },
};

const TICK: Duration = Duration::from_millis(30);

/// A holder that started just now answers within this.
const START: Duration = Duration::from_secs(10);

/// A holder, and whether we started it just now.
pub(super) struct Held {
    pub(super) state: HolderState,
    pub(super) fresh: bool,
}

/// The holder of an app; `None` when there is none.
pub(super) async fn find(paths: &AppPaths) -> Result<Option<HolderState>, Failure> {
    match client::ask(paths.run(), &Ask::State).await {
        Ok(state) => Ok(Some(state)),
        Err(ClientError::Absent) => Ok(None),
        Err(error) => Err(fault("cannot reach the app's holder", &error)),
    }
}

/// The holder of an app, started where there is none. Its listener has no name yet then.
pub(super) async fn find_or_start(
    runtime: &ProcessRuntime,
    paths: &AppPaths,
    account: Option<&Account>,
) -> Result<Held, Failure> {
    if let Some(state) = find(paths).await? {
        return Ok(Held { state, fresh: false });
    }
    prepare(paths, account)?;
    let owner = match account {
        None => None,
        Some(account) => {
            let group = users::group(&runtime.web_group).map_err(|error| {
                fault("nginx cannot be let in", &error).hint("Set web_group in agent.toml to nginx's group.")
            })?;
            Some((account.uid, group))
        }
    };
    let args = HoldArgs { run: paths.run().to_owned(), log: paths.log().to_owned(), owner };
    let mark = LogMark::now(paths.log());
    let pid = if runtime.units { unit::start(paths, &args).await? } else { start(&runtime.agent, &args)? };
    let deadline = Instant::now() + START;
    loop {
        if let Some(state) = find(paths).await? {
            return Ok(Held { state, fresh: true });
        }
        let ended = proc::process(pid).is_none_or(|process| process.ended);
        if ended || Instant::now() >= deadline {
            let how = if ended { "ended at once" } else { "does not answer" };
            return Err(Failure::new(Code::Host, format!("the holder of {} {how}", paths.app))
                .hint(format!("See {}.", paths.log().display()))
                .log(mark.lines()));
        }
        sleep(TICK).await;
    }
}

/// The folders that an app's instances need, with their owners.
pub(super) fn prepare(paths: &AppPaths, account: Option<&Account>) -> Result<(), Failure> {
    let owner = account.map(|account| (account.uid, account.gid));
    let make = |path: &Path, mode, owner| {
        beneath::ensure_dir(path, mode, owner).map_err(|error| fault("cannot make the app's folders", &error))
    };
    make(paths.run(), 0o755, None)?;
    make(&paths.run().join(NOTES), 0o750, owner)?;
    if let Some(folder) = paths.log().parent().filter(|folder| !folder.exists()) {
        make(folder, 0o755, None)?;
    }
    Ok(())
}

/// Whose app it is, as its folder of sockets tells: the folder stands in one that only we can write.
pub(super) fn account_of(paths: &AppPaths) -> Option<Account> {
    let metadata = std::fs::symlink_metadata(paths.run().join(NOTES)).ok()?;
    let foreign = metadata.is_dir() && metadata.uid() != nix::unistd::geteuid().as_raw();
    foreign.then(|| Account { name: String::new(), uid: metadata.uid(), gid: metadata.gid() })
}

fn start(agent: &Path, args: &HoldArgs) -> Result<u32, Failure> {
    let log = std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&args.log)
        .map_err(|error| {
            Failure::new(Code::Host, format!("cannot open the app's log {}: {error}", args.log.display()))
        })?;
    let mut argv = vec![agent.display().to_string()];
    argv.extend(args.argv());
    exec::detach(&Program::new(argv), &log).map_err(|error| fault("cannot start the app's holder", &error))
}

/// Gives the listener the name that nginx knows.
pub(super) async fn publish(paths: &AppPaths) -> Result<(), Failure> {
    let asked = client::ask(paths.run(), &Ask::Publish).await;
    asked.map(drop).map_err(|error| fault("cannot publish the app's socket", &error))
}

/// Ends instances and waits until they are gone.
pub(super) async fn retire(paths: &AppPaths, names: &[String], within: Duration) -> Result<(), Failure> {
    let failed = |error: ClientError| fault("cannot retire an instance", &error);
    for name in names {
        let ask = Ask::Retire { name: name.clone(), within: within.as_secs() };
        match client::ask(paths.run(), &ask).await {
            // One that is gone already is refused.
            Ok(_) | Err(ClientError::Refused(_)) => {}
            Err(error) => return Err(failed(error)),
        }
    }
    let deadline = Instant::now() + within + Duration::from_secs(10);
    while Instant::now() < deadline {
        let state = client::ask(paths.run(), &Ask::State).await.map_err(failed)?;
        if !state.instances.iter().any(|instance| names.contains(&instance.name)) {
            return Ok(());
        }
        sleep(TICK).await;
    }
    Err(Failure::new(Code::Host, format!("instances of {} do not end, not even by force", paths.app)))
}

/// Ends a holder and all that it holds, and waits until it is gone.
pub(super) async fn quit(paths: &AppPaths, state: &HolderState, within: Duration) -> Result<(), Failure> {
    match client::ask(paths.run(), &Ask::Quit { within: within.as_secs() }).await {
        Ok(_) | Err(ClientError::Absent) => {}
        Err(error) => return Err(fault("cannot end the app's holder", &error)),
    }
    let deadline = Instant::now() + within + Duration::from_secs(10);
    let runs = || proc::process(state.pid).is_some_and(|process| !process.ended);
    while runs() {
        if Instant::now() >= deadline {
            return Err(Failure::new(Code::Host, format!("the holder of {} does not end", paths.app))
                .hint(format!("It is process {}.", state.pid)));
        }
        sleep(TICK).await;
    }
    Ok(())
}
