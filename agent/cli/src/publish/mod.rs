//! From a project folder, or from ready wheels, to a release in the package store.
//!
//! A release is a set of wheels and a manifest that names each by its hash; the release's id is the hash
//! of the manifest. The same content gives the same release: what we build carries no time of day.

mod bare;
mod deps;
mod detect;
mod manifest;
mod pyproject;
pub(crate) mod requirements;
mod secrets;
pub(crate) mod store;
mod wheel;

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use flipside_api::{AppName, Code, Failure, Hooks, ReleaseId, Tag};

use self::{
    manifest::Manifest, pyproject::PyProject, requirements::Requirements, store::Store, wheel::Wheel,
};
use crate::{
    exec,
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

/// The wheels of a release, and what is known of the app.
struct Gathered {
    wheels: Vec<Wheel>,
    /// The file of the app's own wheel, where we made it.
    own: Option<String>,
    app: AppName,
    /// What the project says, beside what was asked for.
    says: pyproject::Flipside,
}

/// Publishes.
pub(crate) fn publish(order: &Order, output: &Output) -> Result<Published> {
    let begun = Instant::now();
    let work = tempfile::Builder::new()
        .prefix("flipside-publish-")
        .tempdir()
        .map_err(on("create a folder in", &std::env::temp_dir()))?;
    let gathered = match &order.origin {
        Origin::Wheels(folder) => ready(folder, order)?,
        Origin::Project(folder) => build(folder, order, work.path(), output)?,
    };
    let (manifest, own) = describe(&gathered, order)?;
    for wheel in &gathered.wheels {
        let found = secrets::in_wheel(wheel, own.contains(&wheel.file), &order.allowed)?;
        secrets::refuse(wheel, &found)?;
    }
    if manifest.wsgi.is_none() {
        output.notice("no entry was found in the wheel: pillar's options.wsgi must name it, or --wsgi");
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

/// The wheels of a folder, as they are.
fn ready(folder: &Path, order: &Order) -> Result<Gathered> {
    let wheels = wheel::in_folder(folder)?;
    if wheels.is_empty() {
        return Err(usage(format!("there is no wheel in {}", folder.display())));
    }
    let app = order.name.clone().ok_or_else(|| usage("--wheels needs --name APP"))?;
    Ok(Gathered { wheels, own: None, app, says: pyproject::Flipside::default() })
}

/// Builds or packs the project, and gathers what it depends on.
fn build(folder: &Path, order: &Order, work: &Path, output: &Output) -> Result<Gathered> {
    let folder = folder.canonicalize().map_err(on("find", folder))?;
    let project = PyProject::read(&folder)?;
    let builds = project.as_ref().is_some_and(PyProject::builds);
    if !builds && !folder.join("manage.py").is_file() {
        return Err(usage(format!(
            "{} is no project: it has neither manage.py nor a pyproject.toml that builds",
            folder.display()
        ))
        .hint("name the project's folder; ready wheels are published with --wheels"));
    }
    let tools = deps::Tools {
        uv: exec::uv(order.uv.as_deref())?,
        python: exec::python(order.python.as_deref())?,
        work: work.to_owned(),
    };
    let wheels = work.join("wheels");
    std::fs::create_dir(&wheels).map_err(on("create", &wheels))?;
    let project = project.unwrap_or_default();
    let app = app_name(order, &project, &folder)?;
    let built = if builds { build_or_leave(&tools, &folder, &wheels, output)? } else { None };
    let (own, wanted) = match built {
        Some(own) => (own, Requirements::Built),
        None => {
            let timer = Timer::start(output, "pack");
            let packed = bare::pack(
                &bare::Project {
                    folder: &folder,
                    app: &app,
                    version: order.version.as_deref().or(project.version()).unwrap_or("0.0.0"),
                    requires_python: project.requires_python(),
                    allowed: &order.allowed,
                    store: &order.store.canonicalize().unwrap_or_else(|_| order.store.clone()),
                },
                &wheels,
            )?;
            for (path, why) in &packed.left_out {
                output.notice(format!("left out {path}: {why}"));
            }
            timer.done(&format!("{} files in {}", packed.files, packed.wheel.file));
            (packed.wheel, requirements::listed(&folder)?)
        }
    };
    let timer = Timer::start(output, "lock");
    let locked = deps::lock(&tools, &folder, &own, &wanted, &project.flipside().extras)?;
    timer.done(&format!("{} dependencies", locked.count));
    let timer = Timer::start(output, "download");
    deps::download(&tools, &locked, &wheels)?;
    let wheels = wheel::in_folder(&wheels)?;
    timer.done(&format!("{} wheels", wheels.len()));
    Ok(Gathered { wheels, own: Some(own.file), app, says: project.flipside() })
}

/// The wheel that the project builds. A folder with manage.py may have a pyproject.toml that was never meant
/// to build it: then there is none, and the folder is packed as it is.
fn build_or_leave(
    tools: &deps::Tools,
    folder: &Path,
    wheels: &Path,
    output: &Output,
) -> Result<Option<Wheel>> {
    let timer = Timer::start(output, "build");
    let manage = std::fs::read_to_string(folder.join("manage.py")).ok();
    let why = match (deps::build(tools, folder, wheels), &manage) {
        (Err(failure), None) => return Err(failure),
        (Err(failure), Some(_)) => {
            let said = failure.log.iter().rev().find(|line| !line.contains("hint:"));
            said.cloned().unwrap_or(failure.message)
        }
        (Ok(own), manage) => {
            let settings = manage.as_deref().and_then(detect::settings_in);
            if settings.as_ref().is_none_or(|module| detect::holds(&own, module)) {
                timer.done(&own.file);
                return Ok(Some(own));
            }
            std::fs::remove_file(&own.path).map_err(on("remove", &own.path))?;
            format!("its wheel lacks {}", settings.unwrap_or_default())
        }
    };
    output.notice(format!(
        "the pyproject.toml does not build this project ({}); packing the folder",
        why.trim()
    ));
    Ok(None)
}

/// The app's name: asked for, else what the project says of itself, else its folder's.
fn app_name(order: &Order, project: &PyProject, folder: &Path) -> Result<AppName> {
    if let Some(name) = &order.name {
        return Ok(name.clone());
    }
    let said = project.flipside().app.or_else(|| project.name().map(str::to_owned));
    let name = said.unwrap_or_else(|| {
        folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    });
    let spelled = spelled(&name);
    spelled.parse().map_err(|_| {
        usage(format!("{name:?} gives no app name"))
            .hint("name the app with --name: a letter, then letters, digits and hyphens")
    })
}

/// A name of a project or of a folder, spelled as app names are.
fn spelled(name: &str) -> String {
    let mut spelled = String::new();
    for c in name.to_ascii_lowercase().chars() {
        match c {
            'a'..='z' => spelled.push(c),
            '0'..='9' if !spelled.is_empty() => spelled.push(c),
            _ if !spelled.is_empty() && !spelled.ends_with('-') => spelled.push('-'),
            _ => {}
        }
    }
    spelled.truncate(31);
    spelled.trim_end_matches('-').to_owned()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_folders_are_spelled_as_app_names() {
        for (name, app) in
            [("my_Site", "my-site"), ("2 Shop (old)", "shop-old"), ("a.b__c-", "a-b-c"), ("日本", "")]
        {
            assert_eq!(spelled(name), app);
        }
        assert_eq!(spelled(&"x".repeat(99)).len(), 31);
    }
}
