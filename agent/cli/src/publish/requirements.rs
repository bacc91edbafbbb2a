//! What a project depends on, where its authors wrote it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::pyproject::PyProject;
use crate::failures::{Result, on, usage};

/// The usual places, the most specific first.
const FILES: [&str; 4] =
    ["requirements.txt", "requirements/production.txt", "requirements/prod.txt", "requirements/base.txt"];

/// Where a project's dependencies are written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Requirements {
    /// In the metadata of the wheel that it builds.
    Built,
    /// In a file or a lock, or in a pyproject.toml that builds nothing; a Django project needs Django in any
    /// case.
    Listed {
        /// The requirements file.
        file: Option<PathBuf>,
        /// Requirements as text.
        inline: Vec<String>,
    },
}

/// Those of the project in `dir`.
pub(crate) fn of(dir: &Path) -> Result<Requirements> {
    match PyProject::read(dir)? {
        Some(project) if project.builds() => Ok(Requirements::Built),
        _ => listed(dir),
    }
}

/// Those of the project in `dir`, which is not built.
pub(crate) fn listed(dir: &Path) -> Result<Requirements> {
    let mut inline = PyProject::read(dir)?.unwrap_or_default().dependencies().to_vec();
    let in_folder = |dir: &Path| FILES.iter().map(|name| dir.join(name)).find(|path| path.is_file());
    let mut file = in_folder(dir);
    if file.is_none() {
        inline.extend(locked(dir)?);
    }
    if file.is_none() && inline.is_empty() {
        // Many a repository holds the project's folder beside its requirements.
        file = dir.parent().and_then(in_folder);
    }
    if dir.join("manage.py").is_file() {
        // Without a version: what the file says about Django's holds, and nothing said means the newest.
        inline.push("django".to_owned());
    }
    Ok(Requirements::Listed { file, inline })
}

impl Requirements {
    /// As arguments of `uv run`.
    pub(crate) fn for_run(&self) -> Vec<String> {
        match self {
            Self::Built => vec!["--with".to_owned(), ".".to_owned()],
            Self::Listed { file, inline } => {
                let mut arguments = Vec::new();
                if let Some(file) = file {
                    arguments.extend(["--with-requirements".to_owned(), file.display().to_string()]);
                }
                for requirement in inline {
                    arguments.extend(["--with".to_owned(), requirement.clone()]);
                }
                arguments
            }
        }
    }

    /// Whether the project's tests are pytest's.
    pub(crate) fn uses_pytest(&self, dir: &Path) -> bool {
        ["pytest.ini", "conftest.py"].iter().any(|name| dir.join(name).is_file())
            || std::fs::read_to_string(dir.join("pyproject.toml"))
                .is_ok_and(|text| text.contains("[tool.pytest"))
    }
}

/// The text of a lock, if the project has it.
fn lock(path: &Path) -> Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        text => text.map(Some).map_err(on("read", path)),
    }
}

/// The versions that other tools than uv locked.
pub(crate) fn locked(dir: &Path) -> Result<Vec<String>> {
    let mut pinned = poetry(&dir.join("poetry.lock"))?;
    pinned.extend(pipenv(&dir.join("Pipfile.lock"))?);
    Ok(pinned)
}

/// What Poetry locked for production.
fn poetry(path: &Path) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Lock {
        #[serde(default)]
        package: Vec<Package>,
    }
    #[derive(Deserialize)]
    struct Package {
        name: String,
        version: String,
        #[serde(default)]
        optional: bool,
        /// Poetry 2 names them; before, development was told apart by `category`, or not at all.
        groups: Option<Vec<String>>,
        category: Option<String>,
        markers: Option<toml::Value>,
    }
    let Some(text) = lock(path)? else { return Ok(Vec::new()) };
    let lock: Lock = toml::from_str(&text)
        .map_err(|error| usage(format!("{}: {}", path.display(), error.to_string().trim_end())))?;
    let needed = |package: &Package| {
        !package.optional
            && package.groups.as_ref().is_none_or(|groups| groups.iter().any(|group| group == "main"))
            && package.category.as_ref().is_none_or(|category| category == "main")
    };
    let lines = lock.package.iter().filter(|package| needed(package)).map(|package| {
        let markers = package.markers.as_ref().and_then(toml::Value::as_str);
        pinned(&package.name, &format!("=={}", package.version), markers)
    });
    Ok(lines.collect())
}

/// What Pipenv locked for production.
fn pipenv(path: &Path) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Lock {
        #[serde(default)]
        default: BTreeMap<String, Package>,
    }
    #[derive(Deserialize)]
    struct Package {
        version: Option<String>,
        markers: Option<String>,
    }
    let Some(text) = lock(path)? else { return Ok(Vec::new()) };
    let lock: Lock =
        serde_json::from_str(&text).map_err(|error| usage(format!("{}: {error}", path.display())))?;
    let line = |(name, package): (&String, &Package)| {
        pinned(name, package.version.as_deref().unwrap_or_default(), package.markers.as_deref())
    };
    Ok(lock.default.iter().map(line).collect())
}

fn pinned(name: &str, version: &str, markers: Option<&str>) -> String {
    match markers {
        Some(markers) => format!("{name}{version} ; {markers}"),
        None => format!("{name}{version}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::atomic_write;

    fn project(files: &[(&str, &str)]) -> Requirements {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            atomic_write(&dir.path().join(name), text.as_bytes(), 0o644).unwrap();
        }
        match listed(dir.path()).unwrap() {
            Requirements::Listed { file, inline } => {
                Requirements::Listed { file: file.map(|file| file.file_name().unwrap().into()), inline }
            }
            built => built,
        }
    }

    fn inline(lines: &[&str]) -> Requirements {
        Requirements::Listed { file: None, inline: lines.iter().map(ToString::to_string).collect() }
    }

    #[test]
    fn locks_of_other_tools_are_read() {
        let poetry = "[[package]]\nname = \"django\"\nversion = \"5.1\"\ngroups = [\"main\"]\noptional = false\n\
            [[package]]\nname = \"black\"\nversion = \"1\"\ngroups = [\"dev\"]\noptional = false\n\
            [[package]]\nname = \"tzdata\"\nversion = \"2\"\nmarkers = \"sys_platform == 'win32'\"\n\
            [metadata]\nlock-version = \"2.1\"\n";
        assert_eq!(
            project(&[("poetry.lock", poetry)]),
            inline(&["django==5.1", "tzdata==2 ; sys_platform == 'win32'"])
        );
        let pipenv = r#"{"_meta": {}, "default": {"django": {"hashes": [], "version": "==4.2"}}, "develop": {"x": {}}}"#;
        assert_eq!(
            project(&[("Pipfile.lock", pipenv), ("manage.py", "")]),
            inline(&["django==4.2", "django"])
        );
    }

    #[test]
    fn a_project_that_is_built_keeps_to_its_lock() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| {
            atomic_write(&dir.path().join(name), text.as_bytes(), 0o644).unwrap();
            (of(dir.path()).unwrap(), locked(dir.path()).unwrap())
        };
        let none = put("pyproject.toml", "[build-system]\nrequires = ['poetry-core']\n[project]\nname = 'a'");
        assert_eq!(none, (Requirements::Built, Vec::new()));
        let pinned = put("poetry.lock", "[[package]]\nname = 'django'\nversion = '5.1'\n");
        assert_eq!(pinned, (Requirements::Built, vec!["django==5.1".to_owned()]));
    }

    #[test]
    fn a_folder_that_says_nothing_needs_what_the_repository_says() {
        let dir = tempfile::tempdir().unwrap();
        let (inner, outer) = (dir.path().join("site"), dir.path().join("requirements.txt"));
        std::fs::create_dir(&inner).unwrap();
        atomic_write(&outer, b"a", 0o644).unwrap();
        let found = |listed| matches!(listed, Requirements::Listed { file: Some(file), .. } if file == outer);
        assert!(found(listed(&inner).unwrap()));
        atomic_write(&inner.join("pyproject.toml"), b"[project]\nname = 'a'\ndependencies = ['b']", 0o644)
            .unwrap();
        assert!(!found(listed(&inner).unwrap()));
    }

    #[test]
    fn a_requirements_file_goes_before_locks() {
        let found = project(&[("requirements.txt", "a"), ("poetry.lock", "nonsense"), ("manage.py", "")]);
        let expected =
            Requirements::Listed { file: Some("requirements.txt".into()), inline: vec!["django".to_owned()] };
        assert_eq!(found, expected);
    }
}
