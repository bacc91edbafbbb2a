//! Building the app's wheel, and locking and fetching what it depends on: uv resolves and builds, pip fetches
//! (uv has no download of wheels). Dependencies that exist as source only are built here, never on a host.

use std::path::{Path, PathBuf};

use super::{
    package,
    requirements::{self, Requirements},
    wheel::{self, Wheel},
};
use crate::{
    exec::Tool,
    failures::{Result, on},
    files,
};

/// 1980, the earliest time that a zip can hold: builds carry no time of day.
const EPOCH: &str = "315532800";

/// What publishing works with.
#[derive(Debug)]
pub(crate) struct Tools {
    pub(crate) uv: PathBuf,
    pub(crate) python: PathBuf,
    /// A folder of this publish alone.
    pub(crate) work: PathBuf,
}

impl Tools {
    fn uv(&self) -> Tool {
        Tool::new(&self.uv)
            .env("SOURCE_DATE_EPOCH", EPOCH)
            .env("PYTHONHASHSEED", "0")
            .env("PIP_NO_INPUT", "1")
            .env("PIP_DISABLE_PIP_VERSION_CHECK", "1")
            .env("UV_NO_PROGRESS", "1")
    }
}

/// Locked dependencies.
#[derive(Debug)]
pub(crate) struct Locked {
    file: PathBuf,
    /// How many.
    pub(crate) count: usize,
}

/// Builds the wheel of the project in `folder`, from a copy: old build folders neither leak into the wheel nor
/// appear in the project.
pub(crate) fn build(tools: &Tools, folder: &Path) -> Result<Wheel> {
    let (copy, to) = (tools.work.join("source"), tools.work.join("built"));
    copy_tree(folder, &copy)?;
    tools
        .uv()
        .dir(&copy)
        .args(["build", "--wheel", "--quiet", "--python"])
        .args([&tools.python])
        .args(["--out-dir".as_ref(), to.as_os_str()])
        .run("build the project's wheel")?;
    let mut built = wheel::in_folder(&to)?;
    match (built.pop(), built.is_empty()) {
        (Some(own), true) => {
            wheel::normalise(&own.path)?;
            Ok(own)
        }
        _ => Err(package("the project's build gave no wheel, or several")),
    }
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir(to).map_err(on("create", to))?;
    for entry in std::fs::read_dir(from).map_err(on("read", from))? {
        let entry = entry.map_err(on("read", from))?;
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        let name = entry.file_name().to_string_lossy().into_owned();
        let kind = entry.file_type().map_err(on("read", &path))?;
        if kind.is_symlink() {
            let link = std::fs::read_link(&path).map_err(on("read", &path))?;
            std::os::unix::fs::symlink(link, &target).map_err(on("write", &target))?;
        } else if kind.is_dir() {
            let made = ["__pycache__", "node_modules", ".tox", ".nox"].contains(&name.as_str())
                || name.ends_with(".egg-info")
                || path.join("pyvenv.cfg").is_file();
            // `build` and `dist` are a builder's only at the top and without a package in them.
            let output = ["build", "dist"].contains(&name.as_str())
                && from.join("pyproject.toml").is_file()
                && !path.join("__init__.py").is_file();
            if !made && !output {
                copy_tree(&path, &target)?;
            }
        } else if kind.is_file() {
            std::fs::copy(&path, &target).map_err(on("copy", &path))?;
        }
    }
    Ok(())
}

/// Locks what the app depends on, each file by its hash: by the project's uv.lock where there is one, else by
/// resolving now what the wheel that it builds and its authors' lists say, in the versions of their locks.
pub(crate) fn lock(
    tools: &Tools,
    folder: &Path,
    built: Option<&Wheel>,
    wanted: &Requirements,
    extras: &[String],
) -> Result<Locked> {
    let file = tools.work.join("locked.txt");
    if folder.join("uv.lock").is_file() {
        let mut tool =
            tools.uv().dir(folder).args(["export", "--frozen", "--quiet", "--no-dev", "--no-emit-project"]);
        for extra in extras {
            tool = tool.args(["--extra", extra]);
        }
        tool.args(["--no-header", "--no-annotate", "--format", "requirements-txt", "--output-file"])
            .args([&file])
            .run("read the project's uv.lock")?;
        return counted(file);
    }
    let input = tools.work.join("wanted.in");
    let (mut lines, listed, pinned) = match wanted {
        Requirements::Built => (Vec::new(), None, requirements::locked(folder)?),
        Requirements::Listed { file, inline } => (inline.clone(), file.as_ref(), Vec::new()),
    };
    if let Some(built) = built {
        let extras = if extras.is_empty() { String::new() } else { format!("[{}]", extras.join(",")) };
        lines.push(format!("{}{extras} @ file://{}", built.name, built.path.display()));
    }
    files::atomic_write(&input, (lines.join("\n") + "\n").as_bytes(), 0o600)?;
    let mut tool =
        tools.uv().dir(folder).args(["pip", "compile", "--quiet", "--generate-hashes", "--no-header"]);
    tool = tool.args(["--no-annotate", "--python"]).args([&tools.python]);
    if let Some(built) = built {
        tool = tool.args(["--no-emit-package", &built.name]);
    }
    tool = tool.args(["--output-file".as_ref(), file.as_os_str(), input.as_os_str()]);
    if let Some(listed) = listed {
        tool = tool.args([listed]);
    }
    if !pinned.is_empty() {
        let constraints = tools.work.join("pinned.txt");
        files::atomic_write(&constraints, (pinned.join("\n") + "\n").as_bytes(), 0o600)?;
        tool = tool.args(["--constraint".as_ref(), constraints.as_os_str()]);
    }
    tool.run("lock the dependencies")?;
    counted(file)
}

fn counted(file: PathBuf) -> Result<Locked> {
    let text = std::fs::read_to_string(&file).map_err(on("read", &file))?;
    let starts = |line: &&str| line.starts_with(|c: char| c.is_ascii_alphanumeric());
    Ok(Locked { count: text.lines().filter(starts).count(), file })
}

/// Fetches the locked dependencies as wheels into `to`.
pub(crate) fn download(tools: &Tools, locked: &Locked, to: &Path) -> Result<()> {
    if locked.count == 0 {
        return Ok(());
    }
    tools
        .uv()
        .args(["tool", "run", "--quiet", "--python"])
        .args([&tools.python])
        .args(["pip", "wheel", "--quiet", "--no-deps", "--require-hashes", "--wheel-dir"])
        .args([to, "--requirement".as_ref(), &locked.file])
        .run("fetch the dependencies")?;
    // What the lock does not know was built here: like the app's own wheel it must not carry a time.
    let known = std::fs::read_to_string(&locked.file).map_err(on("read", &locked.file))?;
    for wheel in wheel::in_folder(to)? {
        if !known.contains(&wheel.entry()?.sha256) {
            wheel::normalise(&wheel.path)?;
        }
    }
    Ok(())
}
