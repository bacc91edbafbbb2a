//! `.flipside-app`: what a project says about itself, so that its commands need no flags.

use std::path::{Path, PathBuf};

use flipside_api::AppName;
use serde::{Deserialize, Serialize};

use crate::{
    args::Shared,
    failures::{Result, on, usage},
    files,
};

/// The file's name.
pub(crate) const FILE: &str = ".flipside-app";

/// What stands in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Project {
    /// The app's name.
    pub(crate) name: AppName,
    /// The deploy template.
    pub(crate) template: String,
    /// The package store; relative to the file's folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) store: Option<PathBuf>,
    /// The Salt target that runs the app.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) target: Option<String>,
}

impl Project {
    /// The project in `dir`, if it has such a file.
    pub(crate) fn read(dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(FILE);
        let text = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            text => text.map_err(on("read", &path))?,
        };
        let mut project: Self = toml::from_str(&text)
            .map_err(|error| usage(format!("{}: {}", path.display(), error.to_string().trim_end())))?;
        project.store = project.store.map(|store| dir.join(store));
        Ok(Some(project))
    }

    /// Writes it into `dir`.
    pub(crate) fn write(&self, dir: &Path) -> Result<()> {
        let text = toml::to_string(self).map_err(|error| usage(format!("{FILE}: {error}")))?;
        files::atomic_write(&dir.join(FILE), text.as_bytes(), 0o644)
    }
}

/// The app that a command is about: the word after the verb, else `-a`, else the project's.
pub(crate) fn app(word: Option<&str>, shared: &Shared) -> Result<AppName> {
    match (word, shared.app.as_deref()) {
        (Some(word), Some(flag)) if word != flag => {
            Err(usage(format!("two apps are named: {word} and, with -a, {flag}")))
        }
        (Some(name), _) | (None, Some(name)) => name.parse().map_err(|error| usage(format!("{error}"))),
        (None, None) => match Project::read(Path::new("."))? {
            Some(project) => Ok(project.name),
            None => Err(usage("no app is named")
                .hint(format!("name it after the verb or with -a, or run in a project that has a {FILE}"))),
        },
    }
}

/// The store: the flag or FLIPSIDE_STORE, else what the project in `dir` says.
pub(crate) fn store(shared: &Shared, dir: &Path) -> Result<PathBuf> {
    let named = match &shared.store {
        Some(store) => Some(store.clone()),
        None => Project::read(dir)?.and_then(|project| project.store),
    };
    let store = named.ok_or_else(|| {
        usage("no package store is named").hint(format!("--store DIR, FLIPSIDE_STORE, or `store` in {FILE}"))
    })?;
    std::path::absolute(&store).map_err(on("find", &store))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_comes_back_as_written() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Project::read(dir.path()).unwrap(), None);
        let mut project = Project {
            name: "blog".parse().unwrap(),
            template: "python-django-sqlite".into(),
            store: Some("store".into()),
            target: Some("web*".into()),
        };
        project.write(dir.path()).unwrap();
        project.store = Some(dir.path().join("store"));
        assert_eq!(Project::read(dir.path()).unwrap(), Some(project));
    }

    #[test]
    fn a_wrong_file_is_named_with_its_key() {
        let dir = tempfile::tempdir().unwrap();
        files::atomic_write(
            &dir.path().join(FILE),
            b"name = \"blog\"\ntemplate = \"t\"\nstor = \"x\"\n",
            0o644,
        )
        .unwrap();
        let failure = Project::read(dir.path()).unwrap_err();
        assert!(failure.message.contains(FILE) && failure.message.contains("stor"), "{failure:?}");
    }
}
