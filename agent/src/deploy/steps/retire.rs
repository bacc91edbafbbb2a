//! Removes what is no longer needed: releases beyond those kept, marks, overlays, configuration files, what failed
//! attempts left.
//!
//! Nothing depends on it: what cannot be removed is said and tried again at the next deploy.

use std::{collections::HashSet, fs, path::Path, time::SystemTime};

use flipside_api::{Code, Failure, ReleaseId};

use super::super::{
    context::{Context, read_env},
    fault::{Moment, point},
    rewind,
};
use crate::{app::deployment::Step, sys::trash};

pub(super) async fn work(ctx: &Context) -> Result<String, Failure> {
    point(Step::Retire, Moment::During).await?;
    let keep = usize::try_from(ctx.host.config.keep_releases).unwrap_or(usize::MAX);
    let needed: HashSet<String> =
        std::iter::once(&ctx.work.release).chain(&ctx.work.previous).map(ToString::to_string).collect();
    let texts = [(ctx.paths.overlays(), "FLIPSIDE_OVERLAY"), (ctx.paths.files(), "FILES_DIR")]
        .map(|(folder, variable)| (folder, named(ctx, variable)));
    let (releases, marks) = (ctx.paths.releases(), ctx.paths.marks());
    let (trash, leads) = (ctx.paths.trash(), leads(ctx).await?);
    let removed = tokio::task::spawn_blocking(move || {
        let is_release = |name: &str| name.parse::<ReleaseId>().is_ok();
        let clear =
            |folder, keep, needed: &_, ours: &dyn Fn(&str) -> bool| clear(folder, keep, needed, ours, &trash);
        let mut removed = clear(&releases, keep, &needed, &is_release)?;
        clear(&releases, 0, &HashSet::new(), &|name| name.starts_with(".new-"))?;
        // A mark is of use for as long as the release that it leads back to is here.
        let here = |(release, _): &(ReleaseId, String)| releases.join(release.as_str()).is_dir();
        let kept: HashSet<String> = leads.into_iter().filter(here).map(|(_, id)| id).collect();
        clear(&marks, 0, &kept, &|_| true)?;
        for (folder, needed) in &texts {
            clear(folder, 0, needed, &|_| true)?;
        }
        removed.sort();
        Ok::<_, Failure>(removed)
    })
    .await
    .map_err(|_| Failure::new(Code::Interrupted, "the agent is ending"))??;
    super::data::prune(ctx).await?;
    Ok(if removed.is_empty() { String::new() } else { format!("removed {}", removed.join(", ")) })
}

/// The folders that a variable names in the environments of now and of before.
fn named(ctx: &Context, variable: &str) -> HashSet<String> {
    [ctx.paths.env_file(), ctx.paths.env_previous()]
        .iter()
        .filter_map(|path| read_env(path).ok()?.remove(variable))
        .filter_map(|folder| Path::new(&folder).file_name().map(|name| name.to_string_lossy().into_owned()))
        .collect()
}

/// The releases that a mark leads back to, with the deployments that made them; this one is on its way still.
async fn leads(ctx: &Context) -> Result<Vec<(ReleaseId, String)>, Failure> {
    let work = &ctx.work;
    let mut marks = rewind::marks(&ctx.host.records.history(&work.spec.app, 500).await?);
    if let Some(previous) = work.previous.as_ref().filter(|it| **it != work.release && ctx.will(Step::Mark)) {
        marks.insert(previous.clone(), work.id.clone());
    }
    Ok(marks.into_iter().collect())
}

/// Removes entries of `folder`, but for the newest `keep` and those needed.
fn clear(
    folder: &Path,
    keep: usize,
    needed: &HashSet<String>,
    ours: impl Fn(&str) -> bool,
    trash: &Path,
) -> Result<Vec<String>, Failure> {
    let mut found: Vec<(SystemTime, String)> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let changed = entry.metadata().and_then(|about| about.modified()).ok()?;
            ours(&name).then_some((changed, name))
        })
        .collect();
    found.sort();
    found.reverse();
    let mut removed = Vec::new();
    for (_, name) in found.into_iter().skip(keep).filter(|(_, name)| !needed.contains(name)) {
        trash::discard(&folder.join(&name), trash)
            .map_err(|error| crate::host::fault("cannot remove what is no longer needed", &error))?;
        removed.push(name);
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_and_the_needed_stay() {
        let folder = tempfile::tempdir().unwrap();
        for (age, name) in [(50, "old"), (40, "needed"), (30, "b"), (20, "c"), (10, "other")] {
            let path = folder.path().join(name);
            fs::create_dir(&path).unwrap();
            let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1000 - age);
            fs::File::open(&path).unwrap().set_modified(time).unwrap();
        }
        let needed = HashSet::from(["needed".to_owned()]);
        let trash = folder.path().join("other/trash");
        let removed = clear(folder.path(), 1, &needed, |name| name != "other", &trash).unwrap();
        assert_eq!(removed, ["b", "old"]);
        assert!(["needed", "c", "other"].iter().all(|name| folder.path().join(name).exists()));
        assert!(clear(&folder.path().join("none"), 0, &needed, |_| true, &trash).unwrap().is_empty());
    }
}
