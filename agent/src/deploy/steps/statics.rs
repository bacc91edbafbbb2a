//! Static files: copied out of the package, or collected by hooks. They are laid beside those of earlier releases,
//! whose pages ask for them still.
//!
//! What names them may be one file for all releases, such as Django's staticfiles.json where a project has its own
//! storage: it is kept, and the undo puts it back, or the old release would read the names of the new one.

use std::time::Duration;

use flipside_api::{Code, Failure};

use super::super::{
    context::Context,
    fault::{Moment, point},
    hooks,
};
use crate::{
    app::{deployment::Step, env},
    sys::exec::Ended,
};

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
/// Keeps the manifests, or puts them back. They lie in a hidden folder, which nginx does not serve.
const MANIFESTS: &str = "
import pathlib, shutil, sys
way, root, mark = sys.argv[1:]
root, kept = pathlib.Path(root), pathlib.Path(root, f'.before-{mark}')
if way == 'keep' and root.is_dir():
    for old in root.glob('.before-*'):
        shutil.rmtree(old)
    # Whole or not there: on a full disk a half of it would go back over what is good.
    copies = kept.with_suffix('.new')
    copies.mkdir()
    for file in root.glob('*.json'):
        if file.is_file() and not file.is_symlink() and file.stat().st_size < 16 << 20:
            shutil.copy2(file, copies / file.name)
    copies.rename(kept)
elif way == 'back' and kept.is_dir():
    for file in kept.iterdir():
        file.replace(root / file.name)
    kept.rmdir()
";
const TIMEOUT: Duration = Duration::from_secs(600);

pub(super) async fn work(ctx: &Context) -> Result<String, Failure> {
    manifests(ctx, "keep").await?;
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

pub(super) async fn undo(ctx: &Context) -> Result<(), Failure> {
    // Before a first deploy there was none.
    if ctx.work.previous.is_none() {
        return Ok(());
    }
    manifests(ctx, "back").await
}

async fn manifests(ctx: &Context, way: &str) -> Result<(), Failure> {
    let env = ctx.current_env()?;
    let Some(root) = env.get("STATIC_ROOT").cloned().filter(|root| !root.is_empty()) else { return Ok(()) };
    let ended = python(ctx, env, &[MANIFESTS, way, &root, &ctx.work.id]).await?;
    if ended.ok() {
        return Ok(());
    }
    let message = format!("the manifests of static files in {root} could not be kept or put back ({way})");
    Err(Failure::new(Code::Hook, message).log(ended.lines(20)))
}

/// Runs a script as the app's user, with the release's interpreter and none of its packages.
async fn python(ctx: &Context, env: env::Env, arguments: &[&str]) -> Result<Ended, Failure> {
    let python = ctx.venv().join("bin/python3").display().to_string();
    let mut argv: Vec<String> = [&python, "-I", "-S", "-c"].map(str::to_owned).to_vec();
    argv.extend(arguments.iter().map(|argument| (*argument).to_owned()));
    ctx.run(argv, env, TIMEOUT).await
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
