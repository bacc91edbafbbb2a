//! What a project depends on, where its authors wrote it.

use std::path::{Path, PathBuf};

use super::pyproject::PyProject;
use crate::failures::Result;

/// The usual places, the most specific first.
const FILES: [&str; 4] =
    ["requirements.txt", "requirements/production.txt", "requirements/prod.txt", "requirements/base.txt"];

/// Where a project's dependencies are written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Requirements {
    /// In the metadata of the wheel that it builds.
    Built,
    /// In a file, or in a pyproject.toml that builds nothing; a Django project needs Django in any case.
    Listed {
        /// The requirements file.
        file: Option<PathBuf>,
        /// Requirements as text.
        inline: Vec<String>,
    },
}

/// Those of the project in `dir`.
pub(crate) fn of(dir: &Path) -> Result<Requirements> {
    let project = PyProject::read(dir)?.unwrap_or_default();
    if project.builds() {
        return Ok(Requirements::Built);
    }
    let mut inline = project.dependencies().to_vec();
    let file = FILES.iter().map(|name| dir.join(name)).find(|path| path.is_file());
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
