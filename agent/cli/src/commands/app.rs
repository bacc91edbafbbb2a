//! `app`: a project's beginnings and its tests.

use std::path::Path;

use flipside_api::{AppName, Code, Failure};
use serde_json::json;

use super::Session;
use crate::{
    args::{AppArgs, AppVerb},
    exec::{self, Tool},
    failures::{OK, Result, on, usage},
    project::{FILE, Project},
    publish::requirements,
};

/// `flipside app`.
pub(crate) fn run(args: &AppArgs, session: &Session<'_>) -> Result<u8> {
    match &args.verb {
        AppVerb::Bootstrap { name, dir, template, target } => {
            let name: AppName = name.parse().map_err(|error| usage(format!("{error}")))?;
            let project = Project {
                name,
                template: template.clone(),
                store: session
                    .shared
                    .store
                    .as_deref()
                    .map(std::path::absolute)
                    .transpose()
                    .map_err(on("find", dir))?,
                target: target.clone(),
            };
            bootstrap(&project, dir, session)
        }
        AppVerb::Test { name, dir, uv, python, arguments } => {
            if let (Some(name), Some(project)) = (name, Project::read(dir)?)
                && project.name.as_str() != name
            {
                return Err(usage(format!(
                    "the project in {} is {}, not {name}",
                    dir.display(),
                    project.name
                )));
            }
            let tools = (exec::uv(uv.as_deref())?, exec::python(python.as_deref())?);
            test(dir, (&tools.0, &tools.1), arguments)
        }
    }
}

fn bootstrap(project: &Project, dir: &Path, session: &Session<'_>) -> Result<u8> {
    std::fs::create_dir_all(dir).map_err(on("create", dir))?;
    match Project::read(dir)? {
        Some(there) if there == *project => {}
        Some(there) => {
            return Err(Failure::new(
                Code::Usage,
                format!("{} already has a {FILE}, of {}", dir.display(), there.name),
            )
            .hint(format!("edit it, or remove it first: {}", dir.join(FILE).display())));
        }
        None => project.write(dir)?,
    }
    if session.output.is_json() {
        session.output.object(&json!({"v": 1, "result": true, "app": project.name, "file": dir.join(FILE)}));
        return Ok(OK);
    }
    session.output.line(format!("{} is written", dir.join(FILE).display()));
    if !dir.join("manage.py").exists() && !dir.join("pyproject.toml").exists() {
        let module = project.name.as_str().replace('-', "_");
        session.output.line(format!(
            "no project yet: uvx --from django django-admin startproject {module} {}",
            dir.display()
        ));
    }
    session.output.line(format!("next: flipside publish {} --store DIR", dir.display()));
    Ok(OK)
}

/// Runs the project's tests with uv in an environment that is made for it and thrown away.
fn test(dir: &Path, (uv, python): (&Path, &Path), arguments: &[String]) -> Result<u8> {
    let dir = dir.canonicalize().map_err(on("find", dir))?;
    let own = requirements::of(&dir)?;
    let mut tool =
        Tool::new(uv).dir(&dir).args(["run", "--isolated", "--no-project", "--python"]).args([python]);
    for argument in own.for_run() {
        tool = tool.args([argument]);
    }
    let tool = if own.uses_pytest(&dir) {
        tool.args(["--with", "pytest", "--", "python", "-m", "pytest"])
    } else if dir.join("manage.py").is_file() {
        tool.args(["--", "python", "manage.py", "test"])
    } else {
        tool.args(["--with", "pytest", "--", "python", "-m", "pytest"])
    };
    let status = tool.args(arguments).attached()?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}
