//! `publish`: from a project to a release in the store.

use serde_json::json;

use super::{Session, deploy};
use crate::{
    args::PublishArgs,
    failures::{OK, Result, usage},
    project::{self, Project},
    publish::{self, Order, Origin},
};

/// `flipside publish`.
pub(crate) fn run(args: &PublishArgs, session: &Session<'_>) -> Result<u8> {
    let dir = args.dir.clone().unwrap_or_else(|| ".".into());
    let project_dir = if args.wheels.is_some() { None } else { Some(dir.as_path()) };
    let store = project::store(session.shared, project_dir.unwrap_or(std::path::Path::new(".")))?;
    let named = args.name.as_deref().or(session.shared.app.as_deref());
    let said = project_dir.map(Project::read).transpose()?.flatten().map(|project| project.name);
    let name = match named {
        Some(name) => Some(name.parse().map_err(|error| usage(format!("{error}")))?),
        None => said,
    };
    let tags = if args.tag.is_empty() { vec!["latest".to_owned()] } else { args.tag.clone() };
    let order = Order {
        origin: match &args.wheels {
            Some(wheels) => Origin::Wheels(wheels.clone()),
            None => Origin::Project(dir.clone()),
        },
        store,
        name,
        version: args.release_version.clone(),
        wsgi: args.wsgi.clone(),
        settings: args.settings.clone(),
        hooks: args.hooks.as_deref().map(deploy::read_json).transpose()?,
        tags: tags
            .iter()
            .map(|tag| tag.parse().map_err(|error| usage(format!("{error}"))))
            .collect::<Result<_>>()?,
        allowed: args.allow_file.clone(),
        uv: args.uv.clone(),
        python: args.python.clone(),
    };
    let published = publish::publish(&order, session.output)?;
    if session.output.is_json() {
        session.output.object(&json!({
            "v": 1, "result": true, "app": published.app, "release": published.release, "tags": order.tags,
            "new": published.new, "wheels": published.wheels, "bytes": published.bytes, "ms": published.ms,
        }));
        return Ok(OK);
    }
    let what = if published.new { "published" } else { "unchanged, published before" };
    session.output.line(format!(
        "{what}: {} {} ({}), {} wheels, {:.1} MB, in {}",
        published.app,
        published.release,
        tags.join(", "),
        published.wheels,
        published.bytes as f64 / 1e6,
        crate::when::took(published.ms),
    ));
    Ok(OK)
}
