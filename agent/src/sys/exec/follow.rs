//! Programs that run until they are told to end: how they are told, and what they say meanwhile.

use std::{
    io,
    os::unix::process::ExitStatusExt,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use nix::sys::signal::Signal;
use tokio::{
    io::AsyncReadExt,
    net::unix::pipe,
    process::Child,
    sync::watch,
    time::{Instant, timeout_at},
};

use super::{ExecError, LAST_WORDS, Lines, Program, command, look_up, pipe_of_ours};
use crate::sys::proc;

/// When a program has to end: nothing as long as it may run.
pub type Until = watch::Receiver<Option<Instant>>;

/// Has what listens end within `within`. A second word may only bring the end nearer.
pub fn retire(until: &watch::Sender<Option<Instant>>, within: Duration) {
    let at = Instant::now() + within;
    until.send_modify(|until| *until = Some(until.map_or(at, |before| before.min(at))));
}

/// Waits for the end of `child`, or brings it about: by one TERM once `until` has a time (a second one often means
/// that the first was not meant gently), by force when that has come. What it leaves behind in its group is killed.
///
/// # Errors
/// When it cannot be waited for.
async fn see_off(child: &mut Child, until: &mut Until) -> io::Result<ExitStatus> {
    let Some(pid) = child.id() else { return child.wait().await };
    let mut asked = false;
    let status = loop {
        let Some(at) = *until.borrow_and_update() else {
            tokio::select! {
                status = child.wait() => break status,
                () = told(until) => {}
            }
            continue;
        };
        if Instant::now() >= at {
            proc::kill_group(pid);
            break child.wait().await;
        }
        if !asked {
            proc::signal(pid, Signal::SIGTERM);
            asked = true;
        }
        tokio::select! {
            ended = timeout_at(at, child.wait()) => if let Ok(status) = ended { break status },
            // The time may have come nearer.
            () = told(until) => {}
        }
    };
    proc::kill_group(pid);
    status
}

/// The next word; none comes from those that are gone.
async fn told(until: &mut Until) {
    if until.changed().await.is_err() {
        std::future::pending().await
    }
}

/// A program that runs beside us and whose lines we hear. It outlives us, unless it writes to a pipe that nobody
/// reads any more.
#[derive(Debug)]
pub struct Followed {
    child: Child,
    output: pipe::Receiver,
}

/// Starts `program` in a session of its own; its timeout and tail are not looked at, and it reads nothing.
///
/// # Errors
/// When it cannot be started.
pub fn follow(program: &Program) -> Result<Followed, ExecError> {
    let name = program.argv.first().cloned().unwrap_or_default();
    let start = |source| ExecError::Start { program: name.clone(), source };
    let path = look_up(program)?;
    let (output, writer) = pipe_of_ours(&name)?;
    let mut command = command(&path, program);
    command.stdin(Stdio::null()).stdout(writer.try_clone().map_err(start)?).stderr(writer);
    let child = command.kill_on_drop(false).spawn().map_err(start)?;
    // Our own ends of the pipe must go, or its end is never seen.
    drop(command);
    Ok(Followed { child, output })
}

impl Followed {
    /// Its process, the leader of its group.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Follows it to its end, or brings that about: by one TERM at first, by force when `until` has come; `on_line` hears each line of its output.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub async fn to_its_end(
        mut self,
        until: &mut Until,
        on_line: &mut (dyn FnMut(&str) + Send),
    ) -> io::Result<ExitStatus> {
        let (mut lines, mut chunk) = (Lines::default(), vec![0; 16 << 10]);
        let ended = see_off(&mut self.child, until);
        tokio::pin!(ended);
        let (mut status, mut silence) = (None, None);
        loop {
            let patience = silence.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
            tokio::select! {
                read = self.output.read(&mut chunk) => match read {
                    Ok(n) if n > 0 => lines.push(&chunk[..n], on_line),
                    _ => break,
                },
                end = &mut ended, if status.is_none() => {
                    status = Some(end);
                    silence = Some(Instant::now() + LAST_WORDS);
                }
                // What left the group may hold the pipe open for ever.
                () = tokio::time::sleep_until(patience), if silence.is_some() => break,
            }
        }
        lines.finish(on_line);
        match status {
            Some(status) => status,
            None => ended.await,
        }
    }
}

/// How a program ended, in words.
pub fn ending(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with code {code}"),
        (_, Some(signal)) => format!("was ended by signal {signal}"),
        _ => "ended".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn python(code: &str) -> Program {
        Program::new(["python3", "-c", code].map(str::to_owned).to_vec())
    }

    /// Runs it, tells it to end at its first line where `within` says how soon, and gives what it said.
    async fn ended(code: &str, within: Option<Duration>) -> (String, Vec<String>) {
        let followed = follow(&python(code)).unwrap();
        let (sender, mut until) = watch::channel(None);
        let mut said = Vec::new();
        let mut hear = |line: &str| {
            said.push(line.to_owned());
            within.into_iter().for_each(|within| retire(&sender, within));
        };
        let status = followed.to_its_end(&mut until, &mut hear).await.unwrap();
        (ending(status), said)
    }

    #[tokio::test]
    async fn it_ends_by_itself_gently_or_by_force() {
        let hour = Duration::from_secs(3600);
        let (how, said) = ended("print('a'); print('b'); raise SystemExit(3)", None).await;
        assert_eq!((how.as_str(), said), ("ended with code 3", vec!["a".to_owned(), "b".to_owned()]));
        // A second TERM would end it at once.
        let gentle = "import os, signal, sys, time\ntold = []\n\
            signal.signal(15, lambda *_: (signal.signal(15, signal.SIG_DFL), told.append(1)))\n\
            print('up', flush=True)\nwhile not told: time.sleep(0.01)\n\
            print('well', flush=True)\ntime.sleep(0.3)\nsys.exit(0)";
        let (how, said) = ended(gentle, Some(hour)).await;
        assert_eq!((how.as_str(), said.last().unwrap().as_str()), ("ended with code 0", "well"));
        let deaf = "import signal, os, time\nsignal.signal(15, signal.SIG_IGN)\n\
            child = os.fork()\nif child: print(child, flush=True)\ntime.sleep(3600)";
        let (how, said) = ended(deaf, Some(Duration::from_millis(50))).await;
        assert_eq!(how, "was ended by signal 9");
        let child: u32 = said[0].parse().unwrap();
        let gone = || proc::process(child).is_none_or(|process| process.ended);
        tokio::time::timeout(hour / 60, async {
            while !gone() {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("its child ends with it");
    }
}
