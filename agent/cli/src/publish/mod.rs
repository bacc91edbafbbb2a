//! From a project folder, or from ready wheels, to a release in the package store.
//!
//! A release is a set of wheels and a manifest that names each by its hash; the release's id is the hash
//! of the manifest. The same content gives the same release: what we build carries no time of day.

mod bare;
mod deps;
mod detect;
mod gather;
mod manifest;
mod pyproject;
pub(crate) mod requirements;
mod secrets;
pub(crate) mod store;
mod wheel;

use std::{path::PathBuf, time::Instant};

use flipside_api::{AppName, Code, Failure, Hooks, ReleaseId, Tag};

use self::{gather::Gathered, manifest::Manifest, store::Store, wheel::Wheel};
use crate::{
    failures::{Result, on, usage},
    output::Output,
};

/// Where the wheels come from.
#[derive(Debug)]
pub(crate) enum Origin {
    /// A project folder: its wheel is built, its dependencies are locked and fetched.
    Project(PathBuf),
    /// A folder with all the wheels.
    Wheels(PathBuf),
}

/// What to publish, as asked for; what is absent the project or its wheel says.
#[derive(Debug)]
pub(crate) struct Order {
    pub(crate) origin: Origin,
    pub(crate) store: PathBuf,
    pub(crate) name: Option<AppName>,
    pub(crate) version: Option<String>,
    pub(crate) wsgi: Option<String>,
    pub(crate) settings: Option<String>,
    pub(crate) hooks: Option<Hooks>,
    pub(crate) tags: Vec<Tag>,
    /// Files that look like secrets and are none.
    pub(crate) allowed: Vec<String>,
    pub(crate) uv: Option<PathBuf>,
    pub(crate) python: Option<PathBuf>,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) app: AppName,
    pub(crate) release: ReleaseId,
    /// Whether the store did not have it before.
    pub(crate) new: bool,
    pub(crate) wheels: usize,
    pub(crate) bytes: u64,
    pub(crate) ms: u64,
}

/// Publishes.
pub(crate) fn publish(order: &Order, output: &Output) -> Result<Published> {
    let begun = Instant::now();
    let work = tempfile::Builder::new()
        .prefix("flipside-publish-")
        .tempdir()
        .map_err(on("create a folder in", &std::env::temp_dir()))?;
    let gathered = match &order.origin {
        Origin::Wheels(folder) => gather::ready(folder, order)?,
        Origin::Project(folder) => gather::build(folder, order, work.path(), output)?,
    };
    let (manifest, own) = describe(&gathered, order)?;
    for wheel in &gathered.wheels {
        let found = secrets::in_wheel(wheel, own.contains(&wheel.file), &order.allowed)?;
        secrets::refuse(wheel, &found)?;
    }
    if manifest.wsgi.is_none() {
        output.notice("no entry was found in the wheel: pillar's options.wsgi must name it, or --wsgi");
    }
    if gathered.wheels.iter().any(|wheel| wheel.name == "channels") {
        output
            .notice("only WSGI is served: what the project does over WebSockets (channels) will not answer");
    }
    let bytes = manifest.to_bytes()?;
    let release = ReleaseId::of(&manifest.version, &bytes)
        .map_err(|error| usage(format!("{error}")).hint("name another version with --version"))?;
    let timer = Timer::start(output, "store");
    let store = Store::new(order.store.clone());
    let app = gathered.app;
    let new = store.place(&app, &release, &bytes, &gathered.wheels, &order.tags)?;
    timer.done(&format!("{}/{app}/{release}", order.store.display()));
    let total = manifest.files.iter().map(|file| file.size).sum();
    let ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(Published { app, release, new, wheels: manifest.files.len(), bytes: total, ms })
}

/// The manifest, and the file names of the wheels that are the app's own.
fn describe(gathered: &Gathered, order: &Order) -> Result<(Manifest, Vec<String>)> {
    let says = &gathered.says;
    let asked = detect::Entry {
        wsgi: order.wsgi.clone().or_else(|| says.wsgi.clone()),
        settings: order.settings.clone().or_else(|| says.settings.clone()),
    };
    asked.check()?;
    let own = match &gathered.own {
        Some(file) => gathered.wheels.iter().filter(|wheel| wheel.file == *file).collect(),
        None => detect::own(&gathered.wheels, &gathered.app, &asked),
    };
    let entry = detect::complete(&asked, &own)?;
    let first = own.first().copied();
    let version =
        order.version.clone().or_else(|| first.map(|wheel| wheel.version.clone())).ok_or_else(|| {
            usage("no version is named, and no wheel is the app's own by its name").hint("add --version V")
        })?;
    let hooks = order.hooks.clone().or_else(|| says.hooks.clone());
    let manifest = Manifest {
        v: 1,
        app: gathered.app.clone(),
        version,
        wsgi: entry.wsgi,
        settings: entry.settings,
        requires_python: first.and_then(|wheel| wheel.requires_python.clone()),
        hooks: hooks.map(manifest::without_absent).transpose()?,
        files: gathered.wheels.iter().map(Wheel::entry).collect::<Result<_>>()?,
    };
    // With no wheel that is clearly the app's, each may be.
    let own = if own.is_empty() { gathered.wheels.iter().collect() } else { own };
    Ok((manifest, own.iter().map(|wheel| wheel.file.clone()).collect()))
}

/// A step of a publish, with its time.
struct Timer<'a> {
    output: &'a Output,
    name: &'static str,
    begun: Instant,
}

impl<'a> Timer<'a> {
    fn start(output: &'a Output, name: &'static str) -> Self {
        Self { output, name, begun: Instant::now() }
    }

    fn done(self, message: &str) {
        let ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.output.step(self.name, "done", ms, message);
    }
}

/// A package that is not as it must be.
fn package(message: impl Into<String>) -> Failure {
    Failure::new(Code::Package, message)
}
