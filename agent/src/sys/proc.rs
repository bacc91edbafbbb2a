//! What the kernel says of processes. Unlike what an app's user can write, it is true.

use std::{
    fs,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};

/// A process as the kernel sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    /// Its parent.
    pub parent: u32,
    /// When it started, in ticks since boot: with the pid it names a process for good.
    pub started: u64,
    /// Whether it has ended and only waits to be reaped.
    pub ended: bool,
}

/// The process `pid`, while there is one.
pub fn process(pid: u32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold anything, brackets and spaces too.
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    Some(Process {
        parent: fields.get(1)?.parse().ok()?,
        started: fields.get(19)?.parse().ok()?,
        ended: matches!(*fields.first()?, "Z" | "X"),
    })
}

/// Whether the process `pid` that started at `started` still runs.
pub fn runs(pid: u32, started: u64) -> bool {
    process(pid).is_some_and(|process| process.started == started && !process.ended)
}

/// The running children of `pid`, in order.
pub fn children(pid: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let listed: Result<Vec<String>, _> =
        threads.map(|thread| fs::read_to_string(thread.path().join("children"))).collect();
    let mut children: Vec<u32> = match listed {
        Ok(listed) => listed
            .iter()
            .flat_map(|list| list.split_whitespace())
            .filter_map(|pid| pid.parse().ok())
            .collect(),
        // Kernels can be built without that file, and a thread may just have ended.
        Err(_) => fs::read_dir("/proc")
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .collect(),
    };
    children.retain(|child| process(*child).is_some_and(|process| process.parent == pid && !process.ended));
    children.sort_unstable();
    children
}

/// Ends every process whose environment has the variable `name` with `value`, and waits until they are gone.
/// Whether they are, within `patience`.
pub fn end_marked(name: &str, value: &str, patience: Duration) -> bool {
    let mark = format!("{name}={value}");
    let begun = Instant::now();
    loop {
        let pids = marked(mark.as_bytes());
        if pids.is_empty() {
            return true;
        }
        if begun.elapsed() > patience {
            return false;
        }
        pids.into_iter().for_each(|pid| signal(pid, Signal::SIGKILL));
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The processes that were started with this variable. Their own say: good to find what we started, no more.
fn marked(mark: &[u8]) -> Vec<u32> {
    let is = |pid: &u32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == mark)
    };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid != std::process::id() && is(pid))
        .collect()
}

/// The number that `pid` has in its own PID namespace: another where it is in a container.
pub fn own_number(pid: u32) -> u32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    line.and_then(|numbers| numbers.split_whitespace().last()?.parse().ok()).unwrap_or(pid)
}

/// The resident bytes of `pid`.
pub fn resident(pid: u32) -> u64 {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
    let pages: u64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    pages * page_size()
}

fn page_size() -> u64 {
    // SAFETY: asks for a constant.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

/// Sends `signal` to the process `pid`; one that has ended is no error.
pub fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = positive(pid) {
        let _ = kill(pid, signal);
    }
}

/// Sends the real-time or other signal of that number, which `nix` has no name for.
pub fn signal_number(pid: u32, number: i32) {
    if let Some(pid) = positive(pid) {
        // SAFETY: two integers, no memory.
        unsafe { libc::kill(pid.as_raw(), number) };
    }
}

/// Kills every process of the group that `pid` leads.
pub fn kill_group(pid: u32) {
    if let Some(pid) = positive(pid) {
        let _ = killpg(pid, Signal::SIGKILL);
    }
}

/// 0 and 1 and what is no pid name groups, init or everybody.
fn positive(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().filter(|pid| *pid > 1).map(Pid::from_raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn we_run_and_are_a_child_of_our_parent() {
        let me = std::process::id();
        let process = process(me).unwrap();
        assert_eq!(process.parent, std::os::unix::process::parent_id());
        assert!(runs(me, process.started));
        assert!(!runs(me, process.started + 1));
        assert!(children(process.parent).contains(&me));
        assert!(resident(me) > 100_000);
        assert_eq!(own_number(me), me);
    }

    #[test]
    fn nobody_is_signalled_by_a_number_that_names_all() {
        for pid in [0, 1, u32::MAX] {
            assert_eq!(positive(pid), None);
        }
    }
}
