//! Programs that read from and write to what whoever asked for them gave: three ends of pipes or files, or the
//! terminal that is theirs alone.

use std::{
    io,
    os::{fd::OwnedFd, unix::process::ExitStatusExt},
    process::Stdio,
};

use super::{Ended, ExecError, Program, command, end_with, look_up};
use crate::sys::proc;

/// Where a program reads and writes.
#[derive(Debug)]
pub enum Streams {
    /// Input, output and errors.
    Three([OwnedFd; 3]),
    /// All of it a terminal, which becomes the one that controls the program's session.
    Terminal(OwnedFd),
}

/// Runs a program to its end. Whatever it started ends with it, in its session and not only in its group: a shell
/// gives each of its jobs a group of its own.
///
/// # Errors
/// When it cannot be started. A program that fails is no error: see [`Ended`].
pub async fn attached(program: Program, streams: Streams) -> Result<Ended, ExecError> {
    let name = program.argv.first().cloned().unwrap_or_default();
    let start = |source| ExecError::Start { program: name.clone(), source };
    let path = look_up(&program)?;
    let mut command = command(&path, &program);
    let controls = matches!(streams, Streams::Terminal(_));
    let [stdin, stdout, stderr] = match streams {
        Streams::Three(three) => three,
        Streams::Terminal(terminal) => {
            let copy = || terminal.try_clone().map_err(start);
            [copy()?, copy()?, terminal.try_clone().map_err(start)?]
        }
    };
    command.stdin(Stdio::from(stdin)).stdout(Stdio::from(stdout)).stderr(Stdio::from(stderr));
    let agent = nix::unistd::getpid();
    // SAFETY: between fork and exec only system calls with numbers.
    unsafe {
        command.pre_exec(move || {
            if controls && libc::ioctl(0, libc::TIOCSCTTY, 0) != 0 {
                return Err(io::Error::last_os_error());
            }
            end_with(agent)
        })
    };
    let mut child = command.spawn().map_err(start)?;
    // Our own copies of its streams must go, or their end is never seen.
    drop(command);
    let session = Session(child.id());
    let waited = tokio::time::timeout(program.timeout, child.wait()).await;
    session.end();
    let timed_out = waited.is_err();
    let status = match waited {
        Ok(status) => status,
        Err(_) => child.wait().await,
    };
    let status = status.map_err(|source| ExecError::Follow { program: name.clone(), source })?;
    Ok(Ended { code: status.code(), signal: status.signal(), tail: Vec::new(), timed_out })
}

/// Ends a session when it goes.
struct Session(Option<u32>);

impl Session {
    fn end(&self) {
        if let Some(leader) = self.0 {
            proc::kill_session(leader);
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Read, time::Duration};

    use nix::pty::openpty;

    use super::*;

    fn python(code: &str) -> Program {
        Program {
            timeout: Duration::from_secs(60),
            ..Program::new(["python3", "-c", code].map(str::to_owned).to_vec())
        }
    }

    fn text(mut from: io::PipeReader) -> String {
        let mut text = String::new();
        from.read_to_string(&mut text).unwrap();
        text
    }

    #[tokio::test]
    async fn output_and_errors_stay_apart_and_the_session_ends() {
        let (input, to) = io::pipe().unwrap();
        let ((out, to_out), (err, to_err)) = (io::pipe().unwrap(), io::pipe().unwrap());
        drop(to);
        // The child leaves the group, as a shell's jobs do, and holds both streams open.
        let code = "import os, sys, time\nif not os.fork():\n os.setpgid(0, 0)\n time.sleep(3600)\n\
            print(sys.stdin.read() == '', flush=True); print('err', file=sys.stderr); sys.exit(7)";
        let ended =
            attached(python(code), Streams::Three([input.into(), to_out.into(), to_err.into()])).await;
        assert_eq!(ended.unwrap().code, Some(7));
        let (out, err) = tokio::task::spawn_blocking(|| (text(out), text(err))).await.unwrap();
        assert_eq!((out.as_str(), err.as_str()), ("True\n", "err\n"));
    }

    #[tokio::test]
    async fn a_terminal_is_the_programs_own() {
        let pty = openpty(None, None).unwrap();
        let code = "import os, sys\nassert all(os.isatty(fd) for fd in (0, 1, 2))\n\
            tty = open('/dev/tty', 'w'); print('mine', file=tty); sys.exit(os.tcgetpgrp(0) != os.getpgrp())";
        let ended = attached(python(code), Streams::Terminal(pty.slave)).await.unwrap();
        assert_eq!(ended.code, Some(0));
        let mut seen = [0; 16];
        let n = std::fs::File::from(pty.master).read(&mut seen).unwrap();
        assert_eq!(&seen[..n], b"mine\r\n");
    }
}
