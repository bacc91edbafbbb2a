//! Programs that are started and left running: the holder of an app, and what serves its requests.

use std::{
    ffi::CString,
    fs::File,
    io,
    os::fd::{AsRawFd, BorrowedFd},
    process::Stdio,
};

use tokio::process::Child;

use super::{ExecError, Program, command, look_up};

/// Where systemd's protocol for handing over sockets puts the first.
pub const LISTENER: i32 = 3;

/// Starts `program` in a session of its own and leaves it: it outlives us. Its output goes to `log`. Returns its
/// pid; while we live we reap it when it ends.
///
/// # Errors
/// When it cannot be started.
pub fn detach(program: &Program, log: &File) -> Result<u32, ExecError> {
    let name = program.argv.first().cloned().unwrap_or_default();
    let start = |source| ExecError::Start { program: name.clone(), source };
    let path = look_up(program)?;
    let mut command = command(&path, program);
    let child = command
        .stdin(Stdio::null())
        .stdout(log.try_clone().map_err(start)?)
        .stderr(log.try_clone().map_err(start)?)
        .kill_on_drop(false)
        .spawn()
        .map_err(start)?;
    child.id().ok_or_else(|| start(io::ErrorKind::NotFound.into()))
}

/// Starts `program` in a session of its own to speak with: its input and output are pipes of ours, its errors go
/// where ours go. It outlives us.
///
/// # Errors
/// When it cannot be started.
pub fn converse(program: &Program) -> Result<Child, ExecError> {
    let name = program.argv.first().cloned().unwrap_or_default();
    let path = look_up(program)?;
    let mut command = command(&path, program);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .kill_on_drop(false)
        .spawn()
        .map_err(|source| ExecError::Start { program: name, source })
}

/// Starts `program` with `listener` as its descriptor 3, announced in the way of systemd's socket activation. Our
/// own descriptor of it must be number 3, so that nothing else is there when it is passed on. Its output and its
/// errors go to `output`. Until the program has a handler for the signal `deaf_to`, that signal does nothing to it.
///
/// # Errors
/// When it cannot be started.
pub fn serve(
    program: &Program,
    listener: BorrowedFd<'_>,
    output: (Stdio, &File),
    deaf_to: i32,
) -> Result<Child, ExecError> {
    let name = program.argv.first().cloned().unwrap_or_default();
    let start = |source| ExecError::Start { program: name.clone(), source };
    if listener.as_raw_fd() != LISTENER {
        return Err(start(io::Error::other("the listener must be descriptor 3")));
    }
    let path = look_up(program)?;
    let mut image = Image::new(&path, program).map_err(start)?;
    let mut command = command(&path, program);
    // SAFETY: between fork and exec only calls that are safe after a fork, and no allocation.
    unsafe {
        command.pre_exec(move || {
            libc::signal(deaf_to, libc::SIG_IGN);
            image.become_it()
        })
    };
    command
        .stdin(Stdio::null())
        .stdout(output.0)
        .stderr(output.1.try_clone().map_err(start)?)
        .kill_on_drop(false);
    command.spawn().map_err(start)
}

/// What `execve` takes. LISTEN_PID must name the process itself, whose number is known only after the fork: room
/// is kept for it here, and the exec is ours and not the standard library's.
struct Image {
    path: CString,
    argv: Vec<CString>,
    env: Vec<CString>,
    /// `LISTEN_PID=` and room for digits, ended by zeros.
    pid: Vec<u8>,
    /// Room for the two lists of pointers.
    pointers: Vec<usize>,
}

const PID: &[u8] = b"LISTEN_PID=";
const DIGITS: usize = 10;

impl Image {
    fn new(path: &std::path::Path, program: &Program) -> io::Result<Self> {
        let path = CString::new(path.as_os_str().as_encoded_bytes())?;
        let argv = program.argv.iter().map(|a| CString::new(a.as_str())).collect::<Result<Vec<_>, _>>()?;
        let ours = ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"];
        let mut env = program
            .env
            .iter()
            .filter(|(name, _)| !ours.contains(&name.as_str()))
            .map(|(name, value)| CString::new(format!("{name}={value}")))
            .collect::<Result<Vec<_>, _>>()?;
        env.push(CString::new("LISTEN_FDS=1")?);
        let pointers = vec![0; argv.len() + env.len() + 3];
        Ok(Self { path, argv, env, pid: [PID, &[0; DIGITS + 1]].concat(), pointers })
    }

    /// Replaces the process. Allocates nothing: it runs between fork and exec.
    fn become_it(&mut self) -> io::Result<()> {
        let mut number = std::process::id();
        let mut digits = [0; DIGITS];
        let mut count = 0;
        while number > 0 {
            digits[count] = b'0' + (number % 10) as u8;
            number /= 10;
            count += 1;
        }
        for (at, digit) in digits[..count].iter().rev().enumerate() {
            self.pid[PID.len() + at] = *digit;
        }
        let (argv, env) = self.pointers.split_at_mut(self.argv.len() + 1);
        for (to, from) in argv.iter_mut().zip(&self.argv) {
            *to = from.as_ptr() as usize;
        }
        for (to, from) in env.iter_mut().zip(&self.env) {
            *to = from.as_ptr() as usize;
        }
        env[self.env.len()] = self.pid.as_ptr() as usize;
        // SAFETY: descriptor 3 is the listener; only its flags are touched.
        if unsafe { libc::fcntl(LISTENER, libc::F_SETFD, 0) } < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: both lists end in a null and point to strings that live as long as we do.
        unsafe { libc::execve(self.path.as_ptr(), argv.as_ptr().cast(), env.as_ptr().cast()) };
        Err(io::Error::last_os_error())
    }
}
