//! Static files: copied out of the package, or collected by hooks. They are laid beside those of earlier releases,
//! whose pages ask for them still.

use std::time::Duration;

use flipside_api::{Code, Failure};

use super::super::{
    context::Context,
    fault::{Moment, point},
    hooks,
};
use crate::app::{deployment::Step, env};

/// Copies as the app's user, who owns the target: what lies there is none of root's business.
const COPY: &str = "
import importlib.util, pathlib, shutil, sys
package, folder, target = sys.argv[1:]
spec = importlib.util.find_spec(package)
if spec is None or not spec.submodule_search_locations:
    sys.exit(f'there is no package {package} in this release')
source = pathlib.Path(spec.submodule_search_locations[0], folder)
if not source.is_dir():
    sys.exit(f'the package {package} has no folder {folder}')
shutil.copytree(source, target, dirs_exist_ok=True)
";
const TIMEOUT: Duration = Duration::from_secs(600);

pub(super) async fn work(ctx: &Context) -> Result<String, Failure> {
    let mut said = Vec::new();
    let location = ctx.work.spec.static_files.as_ref();
    if let Some((location, package)) =
        location.and_then(|location| location.package.as_ref().map(|p| (location, p)))
    {
        copy(ctx, package, &location.root).await?;
        said.push(format!("copied {package}"));
    }
    point(Step::Static, Moment::During).await?;
    said.push(hooks::run(ctx, "static", ctx.work.hooks.r#static.as_ref()).await?);
    said.retain(|part| !part.is_empty());
    Ok(said.join("; "))
}

async fn copy(ctx: &Context, package: &str, root: &str) -> Result<(), Failure> {
    let env = ctx.current_env()?;
    let target = env::substitute(root, &env)
        .map_err(|problem| Failure::new(Code::Spec, format!("options.static.root: {problem}")))?;
    let (package, folder) = package.split_once('/').unwrap_or((package, ""));
    let python = ctx.venv().join("bin/python3").display().to_string();
    let argv = [&python, "-c", COPY, package, folder, &target].into_iter().map(str::to_owned).collect();
    let ended = ctx.run(argv, env, TIMEOUT).await?;
    if ended.ok() {
        return Ok(());
    }
    Err(Failure::new(Code::Hook, "the static files of the package could not be copied").log(ended.lines(20)))
}
