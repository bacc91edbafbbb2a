//! Apps in containers: the same holder, listener and uWSGI as without, and a wall around each instance.
//!
//! The holder stays on the host and keeps the listener, so that all that loses no request without containers loses
//! none with them: a hot switch is a chain reload inside the container, a cold one a second container on the same
//! listener, a held one ends the container while requests wait. Only how an instance is started differs: the
//! holder runs [`start`], which has the engine start a container and hands it the listener.

mod engine;
mod image;
mod job;
mod packages;
pub mod start;

use std::path::{Path, PathBuf};

use flipside_api::Failure;

use self::{engine::connect, image::Recipe, job::Job};
use super::{InstanceSpec, assets::Assets, holder::protocol::Order, uwsgi::files::NOTES};
use crate::host::fault;

/// Puts instances into containers.
#[derive(Debug, Clone)]
pub struct Containers {
    /// The engine's socket.
    pub socket: PathBuf,
    /// Packages of the host that apps need beside Python.
    pub packages: Vec<String>,
}

/// What of the host's is put into every container, beside what is the app's.
pub(super) struct Tools<'a> {
    /// The agent's own program.
    pub(super) agent: &'a Path,
    /// The Python files.
    pub(super) assets: &'a Assets,
    /// The folder of uWSGI's environments.
    pub(super) uwsgi: &'a Path,
}

impl Containers {
    /// What of a spec makes another container, beside what makes another uWSGI.
    pub(super) fn options(&self, spec: &InstanceSpec) -> String {
        format!("docker {:?} {} {}", spec.memory, processors(spec), self.packages.join(" "))
    }

    /// Whether the engine is there.
    pub(super) async fn reach(&self) -> Result<(), Failure> {
        Ok(connect(&self.socket).await.map(drop)?)
    }

    /// Makes sure that the engine is there and has the image; says what was made for that.
    pub(super) async fn ready(&self, spec: &InstanceSpec) -> Result<String, Failure> {
        let docker = connect(&self.socket).await?;
        Ok(image::ensure(&docker, &self.recipe(spec)).await?.made)
    }

    /// The order that starts what `order` would, in a container.
    pub(super) async fn contain(
        &self,
        order: Order,
        spec: &InstanceSpec,
        tools: &Tools<'_>,
    ) -> Result<Order, Failure> {
        let docker = connect(&self.socket).await?;
        let recipe = self.recipe(spec);
        let image = image::ensure(&docker, &recipe).await?.name;
        let paths = &spec.paths;
        let notes = paths.run().join(NOTES);
        // Processes of two containers have the same numbers: each instance leaves its word in a folder of its own.
        let mut env = order.env.clone();
        env.insert("FLIPSIDE_NOTES".to_owned(), notes.join(&order.name).display().to_string());
        let enter = tools.assets.enter.clone();
        let mut read = vec![paths.home().to_owned(), paths.run().to_owned(), tools.uwsgi.to_owned()];
        read.extend(enter.parent().filter(|folder| *folder != tools.uwsgi).map(Path::to_owned));
        let written = [paths.data(), paths.media(), paths.static_root(), paths.user_home(), notes];
        let mut write: Vec<PathBuf> = written.into_iter().filter(|folder| folder.is_dir()).collect();
        if !write.contains(&paths.data()) {
            // The engine says that it is missing.
            write.push(paths.data());
        }
        let me = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        let job = Job {
            socket: self.socket.clone(),
            recipe,
            image,
            app: paths.app.to_string(),
            instance: order.name.clone(),
            options: order.options.clone(),
            run: paths.run().to_owned(),
            argv: order.argv,
            env,
            cwd: order.cwd,
            enter,
            owner: order.account.as_ref().map_or(me, |account| (account.uid, account.gid)),
            read,
            write,
            memory: spec.memory,
            processors: processors(spec),
        };
        let text = serde_json::to_string(&job)
            .map_err(|error| fault("cannot write the container's order", &error))?;
        let env = order.env.into_iter().filter(|(name, _)| name == "PATH").collect();
        let argv = vec![tools.agent.display().to_string(), "contain".to_owned(), text];
        Ok(Order { argv, env, cwd: PathBuf::from("/"), account: None, contained: true, ..order })
    }

    fn recipe(&self, spec: &InstanceSpec) -> Recipe {
        Recipe { python: PathBuf::from(&spec.python), packages: self.packages.clone() }
    }
}

/// A worker of Python has use of one processor, and one more is for those that start; in billionths.
fn processors(spec: &InstanceSpec) -> i64 {
    let there =
        std::thread::available_parallelism().map_or(1, |count| i64::try_from(count.get()).unwrap_or(1));
    (i64::from(spec.workers) + 1).min(there) * 1_000_000_000
}

#[cfg(test)]
mod tests;
