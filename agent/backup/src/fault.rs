//! Points at which a test can end the process as a power cut would. In release builds they are nothing.

/// Ends the process by SIGKILL if `FLIPSIDE_BACKUP_FAULT=<point>:<n>` names this point and it is its nth time.
pub(crate) fn point(_name: &str) {
    #[cfg(debug_assertions)]
    armed::point(_name);
}

#[cfg(debug_assertions)]
mod armed {
    use std::sync::{
        LazyLock,
        atomic::{AtomicU32, Ordering},
    };

    static FAULT: LazyLock<Option<(String, u32)>> = LazyLock::new(|| {
        let text = std::env::var("FLIPSIDE_BACKUP_FAULT").ok()?;
        let (name, n) = text.split_once(':')?;
        Some((name.to_owned(), n.parse().ok()?))
    });
    static SEEN: AtomicU32 = AtomicU32::new(0);

    pub(super) fn point(name: &str) {
        let Some((wanted, n)) = &*FAULT else { return };
        if name == wanted && SEEN.fetch_add(1, Ordering::SeqCst) + 1 == *n {
            // Nothing of ours runs after this: no destructor, no flush.
            let _ = nix::sys::signal::kill(nix::unistd::getpid(), nix::sys::signal::Signal::SIGKILL);
        }
    }
}
