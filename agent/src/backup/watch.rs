//! Which databases are followed: looked at every other second, for files appear and options change.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use flipside_api::{AppName, AppSpec};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    follower::{Follower, Seen},
    place::Place,
    record::{Register, end},
};
use crate::{app::record::App, sqlite};

/// How often is looked.
const EVERY: Duration = Duration::from_secs(2);
/// More databases than an app can have by intention: each costs a process.
const MOST: usize = 32;

/// The followers of this host.
pub(super) struct Watch {
    pub(super) place: Arc<Place>,
    pub(super) register: Register,
    inner: Mutex<Inner>,
    look: tokio::sync::Notify,
    tasks: TaskTracker,
}

#[derive(Default)]
struct Inner {
    followers: BTreeMap<(AppName, String), Follower>,
    /// Apps whose databases nobody may have open now.
    paused: HashSet<AppName>,
    stopping: bool,
}

/// While it lives nobody follows the app's databases.
pub(super) struct Pause {
    watch: Arc<Watch>,
    app: AppName,
}

impl Drop for Pause {
    fn drop(&mut self) {
        self.watch.lock().paused.remove(&self.app);
        self.watch.look.notify_one();
    }
}

impl Watch {
    pub(super) fn new(place: Arc<Place>) -> Arc<Self> {
        let register = Register::new(&place.host.config.state_dir);
        Arc::new(Self {
            place,
            register,
            inner: Mutex::default(),
            look: tokio::sync::Notify::new(),
            tasks: TaskTracker::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows until the agent stops, then ends all followers gently.
    pub(super) async fn run(self: &Arc<Self>, stop: &CancellationToken) {
        loop {
            match self.place.host.records.apps().await {
                Ok(apps) => self.reconcile(&apps).await,
                Err(error) => tracing::error!(%error, "AppsUnknown"),
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(EVERY) => {}
                () = self.look.notified() => {}
            }
        }
        self.lock().stopping = true;
        self.end(|_| true).await;
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// What is named, in a moment; not only at the next look.
    pub(super) async fn look_now(self: &Arc<Self>, app: &App) {
        self.begin(&app.spec, &self.databases(&app.spec).await);
    }

    async fn reconcile(self: &Arc<Self>, apps: &[App]) {
        let mut wanted = BTreeSet::new();
        for app in apps.iter().filter(|app| app.spec.backup) {
            let databases = self.databases(&app.spec).await;
            self.begin(&app.spec, &databases);
            wanted.extend(databases.into_iter().map(|database| (app.spec.app.clone(), database)));
        }
        self.end(|key| !wanted.contains(key)).await;
        // What another agent left behind, of apps and databases that are not followed any more.
        for mut record in self.register.all() {
            if record.pid != 0 && !wanted.contains(&(record.app.clone(), record.database.clone())) {
                end(&record).await;
                record.pid = 0;
                if let Err(error) = self.register.put(&record) {
                    tracing::error!(error, "FollowerRecordFailed");
                }
            }
        }
    }

    /// The databases that the app's patterns name: those that are there, and those that were.
    pub(super) async fn databases(&self, spec: &AppSpec) -> BTreeSet<String> {
        let (data, patterns) = (self.place.host.paths(&spec.app).data(), spec.databases.clone());
        let named = tokio::task::spawn_blocking(move || sqlite::named(&data, &patterns)).await;
        let found = match named {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => {
                tracing::warn!(app = %spec.app, %error, "DatabasesNotListed");
                Vec::new()
            }
            Err(_) => Vec::new(),
        };
        let there = found.iter().filter_map(|path| path.to_str()).filter(|name| is_database(name));
        let mut all: BTreeSet<String> = there.map(str::to_owned).collect();
        let known = self.register.all().into_iter();
        all.extend(
            known
                .filter(|it| it.app == spec.app && sqlite::is_named(&spec.databases, &it.database))
                .map(|it| it.database),
        );
        if all.len() > MOST {
            tracing::error!(app = %spec.app, databases = all.len(), most = MOST, "TooManyDatabases");
        }
        all.into_iter().take(MOST).collect()
    }

    fn begin(self: &Arc<Self>, spec: &AppSpec, databases: &BTreeSet<String>) {
        let mut inner = self.lock();
        if inner.stopping || inner.paused.contains(&spec.app) {
            return;
        }
        for database in databases {
            let key = (spec.app.clone(), database.clone());
            if inner.followers.contains_key(&key) {
                continue;
            }
            let (follower, keeper) = Follower::new(&self.place, &self.register, spec.clone(), database);
            inner.followers.insert(key, follower);
            self.tasks.spawn(keeper.keep());
        }
    }

    /// Ends the followers that `which` picks, all at once.
    async fn end(&self, which: impl Fn(&(AppName, String)) -> bool) {
        let mut ending = Vec::new();
        self.lock().followers.retain(|key, follower| {
            let ends = which(key);
            if ends {
                follower.stop();
                ending.push(follower.clone());
            }
            !ends
        });
        for follower in ending {
            follower.ended().await;
        }
    }

    /// Ends the app's followers; each has captured and uploaded its last when this returns.
    pub(super) async fn pause(self: &Arc<Self>, app: &AppName) -> Pause {
        self.lock().paused.insert(app.clone());
        let pause = Pause { watch: Arc::clone(self), app: app.clone() };
        self.end(|(of, _)| of == app).await;
        // And what another agent left behind, if we had no time yet to take it over.
        for record in self.register.all().iter().filter(|record| record.app == *app) {
            end(record).await;
        }
        pause
    }

    /// The app's followers by database.
    pub(super) fn of(&self, app: &AppName) -> Vec<(String, Follower)> {
        let inner = self.lock();
        let ours = inner.followers.iter().filter(|((of, _), _)| of == app);
        ours.map(|((_, database), follower)| (database.clone(), follower.clone())).collect()
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<(AppSpec, String, Seen)> {
        let inner = self.lock();
        let all = inner.followers.iter();
        all.map(|((_, database), it)| (it.spec.clone(), database.clone(), it.seen())).collect()
    }
}

/// Whether a file of that name can be a database, and not what lies beside one.
fn is_database(name: &str) -> bool {
    let beside = ["-wal", "-shm", "-journal"].iter().any(|end| name.ends_with(end));
    !beside && !name.contains(".replaced-") && !name.starts_with(".restoring-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_beside_a_database_is_none() {
        for (name, yes) in [
            ("db.sqlite3", true),
            ("sub/db", true),
            ("db.sqlite3-wal", false),
            ("db.sqlite3-shm", false),
            ("db.sqlite3-journal", false),
            ("db.sqlite3.replaced-2026", false),
            (".restoring-1/0", false),
        ] {
            assert_eq!(is_database(name), yes, "{name}");
        }
    }
}
