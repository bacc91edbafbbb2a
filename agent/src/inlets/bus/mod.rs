//! The minion's event bus: requests come in as `flipside/do/<verb>/<app>`, and the master hears how every command
//! goes, whichever way it came, as `flipside/on/<verb>/<app>/{started,progress,done,failed}`.
//!
//! An event is a hint: only verbs that carry no secret and destroy nothing are taken from here. The two prefixes
//! never overlap, as Salt's reactor matches `*` across slashes and an answer must not look like a request.
//!
//! Nothing here holds up a command: what is said on the way is dropped when the bus is slow or away, and how a
//! command ended waits in agent.db until the minion has taken it.

mod answer;
mod herald;
mod request;
mod sender;

use std::{path::Path, sync::Arc, time::Duration};

use flipside_api::{Code, Failure, Reply};
use salt_wire::{
    Bus, EventStream, Incoming, Options,
    discover::{self, Minion},
};
use tokio::sync::{Semaphore, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::request::{Asked, Heard};
use crate::{
    host::{Host, chain},
    router::Router,
};

pub use herald::Herald;

/// How many commands may run at once that were asked for by events.
const AT_ONCE: usize = 32;
/// How long until a configuration that led to no bus is read again.
const LOOK_AGAIN: Duration = Duration::from_secs(15);

/// Takes requests and sends answers until `stop`. Gives back the herald, which has last things to write down when
/// the router has come to rest; nothing where the host has no minion.
pub async fn serve(host: Arc<Host>, router: Arc<Router>, stop: CancellationToken) -> Option<Arc<Herald>> {
    let config = &host.config.salt.as_ref()?.minion_config;
    let herald = Herald::new(&host.config.id, host.db.clone());
    router.witnessed_by(Box::new(Arc::clone(&herald)));
    let free = Arc::new(Semaphore::new(AT_ONCE));
    let inlet = Inlet { router, herald: Arc::clone(&herald), free, commands: TaskTracker::new() };
    let run = async {
        loop {
            let minion = find(config).await;
            tracing::info!(bus = %minion.endpoints.publish, "BusFound");
            inlet.follow(config, &minion).await;
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = run => {}
    }
    Some(herald)
}

/// The minion, as soon as its configuration says where its bus is.
async fn find(config: &Path) -> Minion {
    let mut last = String::new();
    loop {
        match discover::minion(config) {
            Ok(minion) => return minion,
            Err(error) => {
                let problem = chain(&error);
                if problem != last {
                    tracing::warn!(problem, "BusNotFound");
                    last = problem;
                }
            }
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

struct Inlet {
    router: Arc<Router>,
    herald: Arc<Herald>,
    free: Arc<Semaphore>,
    commands: TaskTracker,
}

impl Inlet {
    /// Serves this bus until the configuration names another one.
    async fn follow(&self, config: &Path, minion: &Minion) {
        let options = Options {
            prefixes: vec![request::PREFIX.to_owned()],
            echo_tag: "flipside/echo".to_owned(),
            ..Options::default()
        };
        let (bus, mut stream) = Bus::connect(minion.endpoints.clone(), options);
        let connected = watch::Sender::new(false);
        tokio::select! {
            () = self.listen(&mut stream, &connected, config, minion) => {}
            () = sender::send_ends(&bus, minion, &self.herald, connected.subscribe()) => {}
            () = sender::send_passing(&bus, &self.herald, connected.subscribe()) => {}
        }
    }

    async fn listen(
        &self,
        stream: &mut EventStream,
        connected: &watch::Sender<bool>,
        config: &Path,
        minion: &Minion,
    ) {
        while let Some(incoming) = stream.next().await {
            match incoming {
                Incoming::Event(event) => self.hear(&event),
                Incoming::Connected { session, framing } => {
                    tracing::info!(session, ?framing, "BusConnected");
                    connected.send_replace(true);
                }
                Incoming::Lost(why) => {
                    connected.send_replace(false);
                    tracing::warn!(why = chain(&why), "BusLost");
                    if discover::minion(config).is_ok_and(|found| found != *minion) {
                        return;
                    }
                }
                Incoming::Missed(count) => tracing::warn!(count, "BusEventsMissed"),
            }
        }
    }

    fn hear(&self, event: &salt_wire::Event) {
        match request::read(event) {
            Heard::Nonsense(why) => tracing::debug!(why, "BusEventIgnored"),
            Heard::Refused(asked, failure) => self.refuse(&asked, failure),
            Heard::Asked(asked, request) => {
                let Ok(slot) = Arc::clone(&self.free).try_acquire_owned() else {
                    let failure = Failure::new(Code::Busy, "too many commands run that events asked for")
                        .hint("ask again in a while, with the same id");
                    return self.refuse(&asked, failure);
                };
                let mut heard = self.router.submit(request);
                // The herald answers; here only the slot waits for the end.
                self.commands.spawn(async move {
                    while matches!(heard.next().await, Some(Reply::Progress(_))) {}
                    drop(slot);
                });
            }
        }
    }

    fn refuse(&self, asked: &Asked, failure: Failure) {
        tracing::warn!(verb = asked.verb, app = %asked.app, problem = failure.message, "BusRequestRefused");
        self.herald.refused(asked, failure);
    }
}

#[cfg(test)]
mod tests;
