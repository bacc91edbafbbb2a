//! One lock for each app, held by a living command and so never stale.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use flipside_api::{AppName, Code, Failure, Who};
use tokio::sync::OwnedMutexGuard;

use crate::sys::clock;

/// Who holds an app.
#[derive(Debug, Clone)]
struct Holder {
    verb: &'static str,
    who: Who,
    since: i64,
}

#[derive(Debug, Default)]
struct Lock {
    gate: Arc<tokio::sync::Mutex<()>>,
    holder: Arc<Mutex<Option<Holder>>>,
}

/// The locks of all apps.
#[derive(Debug, Default)]
pub(super) struct Locks {
    apps: Mutex<HashMap<AppName, Lock>>,
}

/// The app is this command's until this is dropped.
#[derive(Debug)]
pub(super) struct Held {
    holder: Arc<Mutex<Option<Holder>>>,
    _guard: OwnedMutexGuard<()>,
}

impl Drop for Held {
    fn drop(&mut self) {
        *self.holder.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Locks {
    /// Takes the app's lock, waiting for it at most `wait` seconds.
    ///
    /// # Errors
    /// With who holds it, and since when.
    pub(super) async fn take(
        &self,
        app: &AppName,
        verb: &'static str,
        who: &Who,
        wait: u64,
    ) -> Result<Held, Failure> {
        let (gate, holder) = {
            let mut apps = self.apps.lock().unwrap_or_else(PoisonError::into_inner);
            let lock = apps.entry(app.clone()).or_default();
            (Arc::clone(&lock.gate), Arc::clone(&lock.holder))
        };
        let guard = match Arc::clone(&gate).try_lock_owned() {
            Ok(guard) => guard,
            Err(_) => tokio::time::timeout(Duration::from_secs(wait), gate.lock_owned())
                .await
                .map_err(|_| busy(app, &holder, wait))?,
        };
        let me = Holder { verb, who: who.clone(), since: clock::now_ms() };
        *holder.lock().unwrap_or_else(PoisonError::into_inner) = Some(me);
        Ok(Held { holder, _guard: guard })
    }

    /// What holds the app now, as a sentence.
    pub(super) fn holder(&self, app: &AppName) -> Option<String> {
        let apps = self.apps.lock().unwrap_or_else(PoisonError::into_inner);
        let holder = apps.get(app)?.holder.lock().unwrap_or_else(PoisonError::into_inner).clone();
        holder.map(|holder| describe(&holder))
    }
}

fn busy(app: &AppName, holder: &Mutex<Option<Holder>>, wait: u64) -> Failure {
    let holder = holder.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let by = holder.as_ref().map_or_else(|| "another command".to_owned(), describe);
    Failure::new(Code::Busy, format!("{app} is held by {by}; waited {wait} s"))
        .hint("wait for it, or ask again with a longer wait")
}

fn describe(holder: &Holder) -> String {
    let Holder { verb, who, since } = holder;
    let user = if who.user.is_empty() { "somebody" } else { &who.user };
    let via = if who.via.is_empty() { "the API" } else { &who.via };
    let id = who.id.as_ref().map_or_else(String::new, |id| format!(", {id}"));
    format!("{verb} of {user} by {via}{id}, since {}", clock::rfc3339(*since))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who() -> Who {
        Who { via: "salt".into(), user: "ann".into(), id: Some("jid7".into()), ..Who::default() }
    }

    #[tokio::test]
    async fn the_second_is_told_who_was_first() {
        let locks = Locks::default();
        let (blog, shop) = ("blog".parse().unwrap(), "shop".parse().unwrap());
        let held = locks.take(&blog, "deploy", &who(), 0).await.unwrap();
        let failure = locks.take(&blog, "reload", &Who::default(), 0).await.unwrap_err();
        assert_eq!(failure.code, Code::Busy);
        for part in ["deploy of ann by salt, jid7", "since 20"] {
            assert!(failure.message.contains(part), "{}", failure.message);
        }
        locks.take(&shop, "reload", &who(), 0).await.unwrap();
        drop(held);
        locks.take(&blog, "reload", &who(), 0).await.unwrap();
        assert_eq!(locks.holder(&blog), None);
    }

    #[tokio::test]
    async fn who_waits_gets_it() {
        let locks = Arc::new(Locks::default());
        let blog: AppName = "blog".parse().unwrap();
        let held = locks.take(&blog, "deploy", &who(), 0).await.unwrap();
        let waiter = {
            let (locks, blog) = (Arc::clone(&locks), blog.clone());
            async move { locks.take(&blog, "reload", &Who::default(), 60).await }
        };
        let (taken, ()) = tokio::join!(waiter, async { drop(held) });
        assert!(taken.is_ok());
    }
}
