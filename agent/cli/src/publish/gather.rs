//! Getting the wheels of a release together: taken as they are, or built and fetched for a project folder.

use std::path::Path;

use flipside_api::AppName;

use super::{
    Order, Timer, bare, deps, detect,
    pyproject::{self, PyProject},
    requirements::{self, Requirements},
    wheel::{self, Wheel},
};
use crate::{
    exec,
    failures::{Result, on, usage},
    output::Output,
};

/// The wheels of a release, and what is known of the app.
pub(super) struct Gathered {
    pub(super) wheels: Vec<Wheel>,
    /// The file of the app's own wheel, where we made it.
    pub(super) own: Option<String>,
    pub(super) app: AppName,
    /// What the project says, beside what was asked for.
    pub(super) says: pyproject::Flipside,
}

/// The wheels of a folder, as they are.
pub(super) fn ready(folder: &Path, order: &Order) -> Result<Gathered> {
    let wheels = wheel::in_folder(folder)?;
    if wheels.is_empty() {
        return Err(usage(format!("there is no wheel in {}", folder.display())));
    }
    let app = order.name.clone().ok_or_else(|| usage("--wheels needs --name APP"))?;
    Ok(Gathered { wheels, own: None, app, says: pyproject::Flipside::default() })
}

/// Builds or packs the project, and gathers what it depends on.
pub(super) fn build(folder: &Path, order: &Order, work: &Path, output: &Output) -> Result<Gathered> {
    let folder = folder.canonicalize().map_err(on("find", folder))?;
    let project = PyProject::read(&folder)?;
    let builds = project.as_ref().is_some_and(PyProject::builds);
    if !builds && !folder.join("manage.py").is_file() {
        return Err(usage(format!(
            "{} is no project: it has neither manage.py nor a pyproject.toml that builds",
            folder.display()
        ))
        .hint(elsewhere(&folder)));
    }
    let tools = deps::Tools {
        uv: exec::uv(order.uv.as_deref())?,
        python: exec::python(order.python.as_deref())?,
        work: work.to_owned(),
    };
    let wheels = work.join("wheels");
    std::fs::create_dir(&wheels).map_err(on("create", &wheels))?;
    let project = project.unwrap_or_default();
    let built = if builds { build_or_leave(&tools, &folder, output)? } else { Built::Nothing };
    let app = app_name(order, &project, built.wheel(), &folder)?;
    let (own, wanted) = match &built {
        Built::Whole(wheel) => (wheel.copied(&wheels)?, Requirements::Built),
        part => {
            let version = part.wheel().map(|wheel| wheel.version.as_str());
            let about = About { app: &app, version: project.version().or(version), project: &project };
            (pack(&folder, &about, order, &wheels, output)?, requirements::listed(&folder)?)
        }
    };
    if let Requirements::Listed { file: Some(file), .. } = &wanted
        && !file.starts_with(&folder)
    {
        output.notice(format!("the folder says nothing of what it needs: taking {}", file.display()));
    }
    let timer = Timer::start(output, "lock");
    let locked = deps::lock(&tools, &folder, built.wheel(), &wanted, &project.flipside().extras)?;
    timer.done(&format!("{} dependencies", locked.count));
    let timer = Timer::start(output, "download");
    deps::download(&tools, &locked, &wheels)?;
    let wheels = wheel::in_folder(&wheels)?;
    timer.done(&format!("{} wheels", wheels.len()));
    Ok(Gathered { wheels, own: Some(own.file), app, says: project.flipside() })
}

/// Where the project may be instead.
fn elsewhere(folder: &Path) -> String {
    let below = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    match below.filter(|path| path.join("manage.py").is_file()).min() {
        Some(path) => format!("there is a manage.py in {}: name that folder", path.display()),
        None => "name the project's folder; ready wheels are published with --wheels".to_owned(),
    }
}

/// What is known of a project that is packed.
struct About<'a> {
    app: &'a AppName,
    version: Option<&'a str>,
    project: &'a PyProject,
}

/// The wheel of the folder as it is.
fn pack(
    folder: &Path,
    &About { app, version, project }: &About<'_>,
    order: &Order,
    to: &Path,
    output: &Output,
) -> Result<Wheel> {
    let timer = Timer::start(output, "pack");
    let project = bare::Project {
        folder,
        app,
        version: order.version.as_deref().or(version).unwrap_or("0.0.0"),
        requires_python: project.requires_python(),
        allowed: &order.allowed,
        store: &order.store.canonicalize().unwrap_or_else(|_| order.store.clone()),
    };
    let packed = bare::pack(&project, to)?;
    for (path, why) in &packed.left_out {
        output.notice(format!("left out {path}: {why}"));
    }
    timer.done(&format!("{} files in {}", packed.files, packed.wheel.file));
    Ok(packed.wheel)
}

/// What a project builds.
enum Built {
    /// A wheel that is all of it.
    Whole(Wheel),
    /// A wheel that lacks what the project runs on. What it depends on it says all the same.
    Part(Wheel),
    Nothing,
}

impl Built {
    fn wheel(&self) -> Option<&Wheel> {
        match self {
            Self::Whole(wheel) | Self::Part(wheel) => Some(wheel),
            Self::Nothing => None,
        }
    }
}

/// The wheel that the project builds. A folder with manage.py may have a pyproject.toml that was never meant
/// to build all of it: then the folder is packed as it is.
fn build_or_leave(tools: &deps::Tools, folder: &Path, output: &Output) -> Result<Built> {
    let timer = Timer::start(output, "build");
    let manage = std::fs::read_to_string(folder.join("manage.py")).ok();
    let (built, why) = match (deps::build(tools, folder), &manage) {
        (Err(failure), None) => return Err(failure),
        (Err(failure), Some(_)) => {
            let said = failure.log.iter().rev().find(|line| !line.contains("hint:"));
            (Built::Nothing, said.cloned().unwrap_or(failure.message))
        }
        (Ok(own), manage) => match manage.as_deref().and_then(|manage| lacking(&own, folder, manage)) {
            Some(lost) => (Built::Part(own), format!("its wheel lacks {lost}")),
            None => {
                timer.done(&own.file);
                return Ok(Built::Whole(own));
            }
        },
    };
    output.notice(format!(
        "the pyproject.toml does not build this project ({}); packing the folder",
        why.trim()
    ));
    Ok(built)
}

/// What a wheel lacks of a project that has a manage.py: its settings, or a folder beside the packages that
/// settings point at.
fn lacking(own: &Wheel, folder: &Path, manage: &str) -> Option<String> {
    let settings = detect::settings_in(manage).filter(|module| !detect::holds(own, module));
    let beside = |name: &&str| {
        let filled = std::fs::read_dir(folder.join(name)).is_ok_and(|mut entries| entries.next().is_some());
        filled && !own.entries.iter().any(|entry| entry.starts_with(&format!("{name}/")))
    };
    let folders = || ["templates", "static", "locale"].into_iter().find(beside);
    settings.or_else(|| folders().map(|name| format!("{name}/")))
}

/// The app's name: asked for, else what the project says of itself, else its folder's.
fn app_name(order: &Order, project: &PyProject, built: Option<&Wheel>, folder: &Path) -> Result<AppName> {
    if let Some(name) = &order.name {
        return Ok(name.clone());
    }
    let said = project.flipside().app.or_else(|| project.name().map(str::to_owned));
    let name = said.or_else(|| built.map(|wheel| wheel.name.clone())).unwrap_or_else(|| {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wheel_that_lacks_what_settings_point_at_is_not_all_of_a_project() {
        let dir = tempfile::tempdir().unwrap();
        let wheel = |entries: &[&str]| Wheel {
            path: dir.path().join("a.whl"),
            file: "a.whl".into(),
            name: "a".into(),
            version: "1".into(),
            requires_python: None,
            entries: entries.iter().map(ToString::to_string).collect(),
        };
        let manage = "os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'a.settings')";
        let lost = |entries: &[&str]| lacking(&wheel(entries), dir.path(), manage);
        assert_eq!(lost(&["a/wsgi.py"]).as_deref(), Some("a.settings"));
        std::fs::create_dir(dir.path().join("templates")).unwrap();
        assert_eq!(lost(&["a/settings.py"]), None, "an empty folder is not missed");
        crate::files::atomic_write(&dir.path().join("templates/a.html"), b"x", 0o644).unwrap();
        assert_eq!(lost(&["a/settings.py"]).as_deref(), Some("templates/"));
        assert_eq!(lost(&["a/settings.py", "templates/a.html"]), None);
    }

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
