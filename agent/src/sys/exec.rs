//! Programs that are run to their end: hooks, `uv`, pre-flights, one-off commands.
//!
//! Each runs in a session of its own with exactly the environment it is given, as the account it is given, and
//! with no descriptor but the three it needs. Its output is read line by line and a bounded tail of it kept.
//! Whatever it started in its session ends with it: on a timeout, when the caller goes away, and when it exits.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    os::unix::{fs::PermissionsExt, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::unix::pipe,
    process::{Child, Command},
};

use crate::runtime::Account;

mod attached;
mod follow;
mod serve;
#[cfg(test)]
mod tests;

pub use attached::{Streams, attached};
pub use follow::{Followed, Until, ending, follow, retire};
pub use serve::{LISTENER, converse, detach, serve};

/// Where one line is cut when it does not end.
const LONGEST_LINE: usize = 8 << 10;

/// How long output may still come after the program and its group have ended.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// A program to run.
#[derive(Debug, Clone)]
pub struct Program {
    /// The program, looked up in the PATH of `env`, and its arguments.
    pub argv: Vec<String>,
    /// The complete environment; nothing of ours is inherited.
    pub env: BTreeMap<String, String>,
    /// The folder that it starts in.
    pub cwd: PathBuf,
    /// Who it runs as; `None`: as we do.
    pub account: Option<Account>,
    /// What it reads; `None`: nothing.
    pub stdin: Option<Vec<u8>>,
    /// After so long it is killed.
    pub timeout: Duration,
    /// The most bytes of output that are kept.
    pub tail: usize,
}

impl Program {
    /// A program of the host that runs as we do, in `/` and with nothing but the usual PATH; it reads nothing, has
    /// all the time it takes, and none of its output is kept.
    pub fn new(argv: Vec<String>) -> Self {
        Self {
            argv,
            env: BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]),
            cwd: PathBuf::from("/"),
            account: None,
            stdin: None,
            timeout: Duration::MAX,
            tail: 0,
        }
    }
}

/// How a program ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ended {
    /// Its exit code, unless a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// The end of its output, both streams as they came.
    pub tail: Vec<u8>,
    /// Whether it was killed because its time was up.
    pub timed_out: bool,
}

impl Ended {
    /// Whether all is well.
    pub fn ok(&self) -> bool {
        self.code == Some(0) && !self.timed_out
    }

    /// The last `n` lines of its output that are not empty.
    pub fn lines(&self, n: usize) -> Vec<String> {
        let text = String::from_utf8_lossy(&self.tail);
        let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
        lines[lines.len().saturating_sub(n)..].iter().map(|line| (*line).to_owned()).collect()
    }
}

/// A program that could not be run.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// The argument list is empty or holds a NUL.
    #[error("no program: {0}")]
    Argv(&'static str),
    /// There is no such program.
    #[error("there is no program {program:?} in PATH={path}")]
    NotFound {
        /// The program.
        program: String,
        /// Where it was looked for.
        path: String,
    },
    /// It could not be started.
    #[error("cannot start {program:?}")]
    Start {
        /// The program.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It was started and could not be followed.
    #[error("lost track of {program:?}")]
    Follow {
        /// The program.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Runs a program to its end; `on_line` hears each line of its output.
///
/// # Errors
/// When it cannot be started. A program that fails is no error: see [`Ended`].
pub async fn run(program: Program, on_line: &mut (dyn FnMut(&str) + Send)) -> Result<Ended, ExecError> {
    let name = program.argv.first().cloned().unwrap_or_default();
    let (child, output) = start(&program, &name)?;
    drive(program, child, [Some(output), None], &mut |_, line| on_line(line)).await
}

/// The same with both streams apart: what is heard says which of them a line is from.
///
/// # Errors
/// As [`run`].
pub async fn run_apart(
    program: Program,
    on_line: &mut (dyn FnMut(Stream, &str) + Send),
) -> Result<Ended, ExecError> {
    let name = program.argv.first().cloned().unwrap_or_default();
    let (errors, writer) = pipe_of_ours(&name)?;
    let (child, output) = start_with(&program, &name, Some(writer))?;
    drive(program, child, [Some(output), Some(errors)], on_line).await
}

/// Which of a program's two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Its output; both where they are not kept apart.
    Output,
    /// Its errors.
    Errors,
}

async fn drive(
    program: Program,
    mut child: Child,
    outputs: [Option<pipe::Receiver>; 2],
    on_line: &mut (dyn FnMut(Stream, &str) + Send),
) -> Result<Ended, ExecError> {
    let name = program.argv.first().cloned().unwrap_or_default();
    let follow = |source| ExecError::Follow { program: name.clone(), source };
    let group = Group(child.id());
    let mut heard = Heard { tail: Tail::new(program.tail), lines: Default::default(), on_line };
    let input = program.stdin.unwrap_or_default();
    let stdin = child.stdin.take();
    let whole = async {
        let feed = async {
            if let Some(mut stdin) = stdin {
                // A program need not read what it is given.
                let _ = stdin.write_all(&input).await;
            }
        };
        let read = heard.all(outputs);
        let wait = async {
            let status = child.wait().await;
            // What it left behind in its session holds our pipe open.
            group.kill();
            status
        };
        let last_words = async {
            let status = wait.await;
            (status, tokio::time::sleep(LAST_WORDS))
        };
        // The output may end before the program does, and the other way round.
        tokio::pin!(feed, read, last_words);
        let (mut fed, mut drained) = (false, false);
        let (status, patience) = loop {
            tokio::select! {
                ended = &mut last_words => break ended,
                () = &mut feed, if !fed => fed = true,
                () = &mut read, if !drained => drained = true,
            }
        };
        if !drained {
            tokio::pin!(patience);
            tokio::select! { () = &mut read => {}, () = patience => {} }
        }
        status
    };
    let status = tokio::time::timeout(program.timeout, whole).await;
    let timed_out = status.is_err();
    let status = match status {
        Ok(status) => status.map_err(follow)?,
        Err(_) => {
            group.kill();
            child.wait().await.map_err(follow)?
        }
    };
    let tail = heard.finish();
    Ok(Ended { code: status.code(), signal: status.signal(), tail, timed_out })
}

/// What was heard of a program.
struct Heard<'a> {
    tail: Tail,
    lines: [Lines; 2],
    on_line: &'a mut (dyn FnMut(Stream, &str) + Send),
}

impl Heard<'_> {
    /// Hears all of both streams.
    async fn all(&mut self, outputs: [Option<pipe::Receiver>; 2]) {
        let [mut output, mut errors] = outputs;
        let (mut chunk, mut other) = (vec![0; 16 << 10], vec![0; 16 << 10]);
        while output.is_some() || errors.is_some() {
            tokio::select! {
                read = next(&mut output, &mut chunk), if output.is_some() => {
                    self.part(Stream::Output, &chunk[..read]);
                }
                read = next(&mut errors, &mut other), if errors.is_some() => {
                    self.part(Stream::Errors, &other[..read]);
                }
            }
        }
    }

    fn part(&mut self, stream: Stream, bytes: &[u8]) {
        self.tail.push(bytes);
        let on_line = &mut self.on_line;
        self.lines[stream as usize].push(bytes, &mut |line| on_line(stream, line));
    }

    /// Hears what was begun of a line; gives the end of all.
    fn finish(self) -> Vec<u8> {
        let [mut output, mut errors] = self.lines;
        output.finish(&mut |line| (self.on_line)(Stream::Output, line));
        errors.finish(&mut |line| (self.on_line)(Stream::Errors, line));
        self.tail.into_bytes()
    }
}

/// The next bytes of a stream; none are its end.
async fn next(from: &mut Option<pipe::Receiver>, chunk: &mut [u8]) -> usize {
    let read = match from {
        Some(open) => open.read(chunk).await.unwrap_or(0),
        None => 0,
    };
    if read == 0 {
        *from = None;
    }
    read
}

/// Kills a process group when it goes.
struct Group(Option<u32>);

impl Group {
    fn kill(&self) {
        if let Some(pid) = self.0.and_then(|pid| i32::try_from(pid).ok()) {
            let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

fn start(program: &Program, name: &str) -> Result<(Child, pipe::Receiver), ExecError> {
    start_with(program, name, None)
}

/// A pipe that we read.
fn pipe_of_ours(name: &str) -> Result<(pipe::Receiver, io::PipeWriter), ExecError> {
    let start = |source| ExecError::Start { program: name.to_owned(), source };
    let (reader, writer) = io::pipe().map_err(start)?;
    Ok((pipe::Receiver::from_owned_fd(reader.into()).map_err(start)?, writer))
}

/// Starts it; its errors go to `errors`, or where its output goes.
fn start_with(
    program: &Program,
    name: &str,
    errors: Option<io::PipeWriter>,
) -> Result<(Child, pipe::Receiver), ExecError> {
    let start = |source| ExecError::Start { program: name.to_owned(), source };
    let path = look_up(program)?;
    let (reader, writer) = pipe_of_ours(name)?;
    let errors = errors.map_or_else(|| writer.try_clone(), Ok).map_err(start)?;
    let mut command = command(&path, program);
    let agent = nix::unistd::getpid();
    // SAFETY: between fork and exec only system calls. Not in `command`: what is detached outlives the agent.
    unsafe { command.pre_exec(move || end_with(agent)) };
    command
        .stdin(if program.stdin.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(writer)
        .stderr(errors);
    // Our own ends of the pipes go with `command`, or their end is never seen.
    let child = command.spawn().map_err(start)?;
    Ok((child, reader))
}

fn command(path: &Path, program: &Program) -> Command {
    #[expect(clippy::disallowed_methods, reason = "the one place where programs are run to their end")]
    let mut command = Command::new(path);
    command
        .arg0(&program.argv[0])
        .args(&program.argv[1..])
        .env_clear()
        .envs(&program.env)
        .current_dir(&program.cwd)
        .kill_on_drop(true);
    let account = program.account.clone();
    // SAFETY: between fork and exec only calls that are safe after a fork, and no allocation.
    unsafe { command.pre_exec(move || enter(account.as_ref())) };
    command
}

/// Has the kernel end this process when the agent is killed: a hook must not go on behind the back of the next
/// agent, which undoes what the hook was part of. After the account is taken, for that would clear it.
fn end_with(agent: Pid) -> io::Result<()> {
    // SAFETY: a plain system call with numbers.
    if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // It may have been killed a moment before that.
    if nix::unistd::getppid() == agent { Ok(()) } else { Err(io::Error::from(io::ErrorKind::NotFound)) }
}

/// Makes the process that is about to run a program its own: session, umask, descriptors, account.
///
/// Only async-signal-safe calls: it runs between fork and exec.
pub(crate) fn enter(account: Option<&Account>) -> io::Result<()> {
    nix::unistd::setsid()?;
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    close_on_exec_from(3);
    if let Some(account) = account {
        become_account(account)?;
    }
    Ok(())
}

/// Marks every descriptor from `first` on to be closed by exec. Kernels without the call have none that matter:
/// everything that Rust opens is marked already.
pub(crate) fn close_on_exec_from(first: u32) {
    // SAFETY: touches flags of descriptors only.
    unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
}

/// Becomes `account` for good, without the groups that we have.
pub(crate) fn become_account(account: &Account) -> io::Result<()> {
    let gid = account.gid;
    if nix::unistd::geteuid().is_root() {
        // SAFETY: one group, read from our stack.
        if unsafe { libc::setgroups(1, &raw const gid) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    nix::unistd::setgid(gid.into())?;
    nix::unistd::setuid(account.uid.into())?;
    Ok(())
}

fn look_up(program: &Program) -> Result<PathBuf, ExecError> {
    let Some(name) = program.argv.first().filter(|name| !name.is_empty()) else {
        return Err(ExecError::Argv("the argument list is empty"));
    };
    if program.argv.iter().any(|argument| argument.contains('\0')) {
        return Err(ExecError::Argv("an argument holds a NUL character"));
    }
    if name.contains('/') {
        return Ok(PathBuf::from(name));
    }
    let path = program.env.get("PATH").map_or("", String::as_str);
    path.split(':')
        .filter(|folder| !folder.is_empty())
        .map(|folder| Path::new(folder).join(name))
        .find(|file| {
            std::fs::metadata(file).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
        })
        .ok_or_else(|| ExecError::NotFound { program: name.clone(), path: path.to_owned() })
}

/// The last bytes of a stream.
struct Tail {
    most: usize,
    bytes: VecDeque<u8>,
}

impl Tail {
    fn new(most: usize) -> Self {
        Self { most, bytes: VecDeque::new() }
    }

    fn push(&mut self, chunk: &[u8]) {
        let chunk = &chunk[chunk.len().saturating_sub(self.most)..];
        let over = (self.bytes.len() + chunk.len()).saturating_sub(self.most);
        self.bytes.drain(..over);
        self.bytes.extend(chunk);
    }

    fn into_bytes(self) -> Vec<u8> {
        self.bytes.into()
    }
}

/// Cuts a stream into lines, none longer than [`LONGEST_LINE`].
#[derive(Default)]
struct Lines {
    begun: Vec<u8>,
}

impl Lines {
    fn push(&mut self, chunk: &[u8], on_line: &mut (dyn FnMut(&str) + Send)) {
        for piece in chunk.split_inclusive(|byte| *byte == b'\n') {
            for part in piece.chunks(LONGEST_LINE) {
                self.begun.extend_from_slice(part);
                if part.ends_with(b"\n") || self.begun.len() >= LONGEST_LINE {
                    self.finish(on_line);
                }
            }
        }
    }

    fn finish(&mut self, on_line: &mut (dyn FnMut(&str) + Send)) {
        let line = std::mem::take(&mut self.begun);
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end();
        if !text.is_empty() {
            on_line(text);
        }
    }
}
