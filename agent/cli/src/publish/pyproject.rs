//! What a project's pyproject.toml says, as far as it matters here.

use std::path::Path;

use flipside_api::Hooks;
use serde::Deserialize;

use crate::failures::{Result, on, usage};

/// The file.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct PyProject {
    build_system: Option<toml::Table>,
    project: Option<Project>,
    #[serde(default)]
    tool: Tool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Project {
    name: Option<String>,
    version: Option<String>,
    requires_python: Option<String>,
    #[serde(default)]
    dependencies: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
struct Tool {
    #[serde(default)]
    flipside: Flipside,
}

/// `[tool.flipside]`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Flipside {
    pub(crate) app: Option<String>,
    pub(crate) wsgi: Option<String>,
    pub(crate) settings: Option<String>,
    /// Extras of the project that production needs.
    pub(crate) extras: Vec<String>,
    pub(crate) hooks: Option<Hooks>,
}

impl PyProject {
    /// That of the project in `dir`, if it has one.
    pub(crate) fn read(dir: &Path) -> Result<Option<Self>> {
        let path = dir.join("pyproject.toml");
        match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            text => Self::parse(&text.map_err(on("read", &path))?)
                .map(Some)
                .map_err(|error| usage(format!("{}: {}", path.display(), error.to_string().trim_end()))),
        }
    }

    fn parse(text: &str) -> std::result::Result<Self, toml::de::Error> {
        toml::from_str(text)
    }

    /// Whether it says how to build a wheel; many only configure tools.
    pub(crate) fn builds(&self) -> bool {
        self.build_system.is_some()
    }

    /// The project's name.
    pub(crate) fn name(&self) -> Option<&str> {
        self.project.as_ref()?.name.as_deref()
    }

    /// The project's version, where it is not left to the build.
    pub(crate) fn version(&self) -> Option<&str> {
        self.project.as_ref()?.version.as_deref()
    }

    /// The Pythons that it runs on.
    pub(crate) fn requires_python(&self) -> Option<&str> {
        self.project.as_ref()?.requires_python.as_deref()
    }

    /// What it depends on.
    pub(crate) fn dependencies(&self) -> &[String] {
        self.project.as_ref().map_or(&[], |project| &project.dependencies)
    }

    /// What it says to us.
    pub(crate) fn flipside(&self) -> Flipside {
        self.tool.flipside.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_table_is_strict_and_the_rest_is_not_ours() {
        let project = PyProject::parse(
            "[project]\nname = \"shop\"\nrequires-python = \">=3.10\"\ndependencies = [\"django\"]\nx = 1\n[tool.ruff]\na = 1\n\
             [tool.flipside]\nwsgi = \"shop.wsgi:application\"\nhooks.migrate = [[\"shop\", \"migrate\"]]\n",
        )
        .unwrap();
        assert!(!project.builds());
        assert_eq!((project.name(), project.requires_python()), (Some("shop"), Some(">=3.10")));
        assert_eq!(project.flipside().hooks.unwrap().migrate.unwrap()[0].command, ["shop", "migrate"]);
        let error = PyProject::parse("[tool.flipside]\nwsg = \"x\"\n").unwrap_err();
        assert!(error.to_string().contains("wsg"), "{error}");
    }
}
