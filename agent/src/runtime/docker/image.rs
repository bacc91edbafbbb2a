//! The image that containers start from: Python and what it needs, of the very Debian packages that the host has.
//!
//! A release's venv points at the host's interpreter, and hooks run on the host: so the image holds the same files
//! at the same paths, and is made in a second, with no registry, mirror or root file system of its own. Its tag
//! names the suite, Python and a hash of the packages' versions: what `apt-get upgrade` changes makes another
//! image, which the next instance starts from.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io::Write,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use bollard::{
    Docker, body_try_stream,
    query_parameters::{CreateImageOptions, ListImagesOptions, RemoveImageOptions},
};
use bytes::BytesMut;
use flipside_api::{Code, Failure};
use futures_util::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::{io::AsyncReadExt, sync::Mutex};

use super::{
    engine::{EngineError, refused},
    packages::{FORMAT, Package, Packages},
};
use crate::{
    host::fault,
    sys::exec::{self, Program},
};

/// The name of the images, without a tag.
const NAME: &str = "flipside-runtime";

/// What all of them have, also those that lost their name.
const LABEL: &str = "flipside.runtime";

/// Changes when what is made of the same packages changes.
const RECIPE: &str = "3";

/// How long `dpkg-query` and the import may take on a busy disk.
const TIMEOUT: Duration = Duration::from_secs(300);

/// The most that `dpkg-query` says.
const MOST: usize = 32 << 20;

/// What no program needs.
const UNREAD: [&str; 6] = ["doc/", "man/", "info/", "locale/", "lintian/", "bug/"];

/// What an image is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Recipe {
    /// The interpreter that the releases' venvs are made of.
    pub python: PathBuf,
    /// Packages of the host beside those that Python needs.
    pub packages: Vec<String>,
}

/// An image, and whether it was made just now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Image {
    /// Its name with the tag.
    pub(super) name: String,
    /// What was made, in a line; nothing where it was there already.
    pub(super) made: String,
}

/// The image of `recipe`, made where the engine has none.
///
/// # Errors
/// When the host has no such packages, or the engine refuses.
pub(super) async fn ensure(docker: &Docker, recipe: &Recipe) -> Result<Image, Failure> {
    let python = recipe.python.canonicalize().map_err(|error| {
        Failure::new(Code::Host, format!("cannot find python {}: {error}", recipe.python.display()))
    })?;
    let listed = query(&["-W", "-f", FORMAT]).await?;
    let packages = Packages::read(&listed);
    let taken = packages.closure(&recipe.packages).map_err(|missing| {
        Failure::new(Code::Host, format!("these packages are not installed: {}", missing.join(", ")))
            .hint("apt-get install them, or take them out of docker_packages in agent.toml")
    })?;
    let tag = tag(&python, &taken);
    let name = format!("{NAME}:{tag}");
    if docker.inspect_image(&name).await.is_ok() {
        return Ok(Image { name, made: String::new() });
    }
    // Two of the same at once would leave one without a name.
    static MAKING: Mutex<()> = Mutex::const_new(());
    let _making = MAKING.lock().await;
    if docker.inspect_image(&name).await.is_ok() {
        return Ok(Image { name, made: String::new() });
    }
    let begun = Instant::now();
    let mut arguments = vec!["-L".to_owned()];
    arguments.extend(taken.iter().map(|package| package.query()));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let files = files(&query(&arguments).await?);
    if !files.contains(&python) {
        return Err(Failure::new(
            Code::Host,
            format!("python {} is of none of the distribution's packages", python.display()),
        )
        .hint("containers hold the host's own Python: say python = \"/usr/bin/python3\" in agent.toml"));
    }
    import(docker, &tag, &files).await?;
    forget_older(docker, &name).await;
    let made = format!("made the image {name} in {:.1} s", begun.elapsed().as_secs_f64());
    tracing::info!(name, files = files.len(), "RuntimeImageMade");
    Ok(Image { name, made })
}

/// `bookworm-python3.11-` and twelve digits of what it is made of.
fn tag(python: &Path, packages: &[&Package]) -> String {
    let mut hash = Sha256::new();
    hash.update(RECIPE);
    for package in packages {
        hash.update(package.line());
    }
    let digest: String = hash.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let suite = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME=")).unwrap_or("debian");
    let name = python.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let plain = |text: &str| -> String {
        text.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '.').take(40).collect()
    };
    format!("{}-{}-{digest}", plain(suite), plain(&name))
}

async fn query(arguments: &[&str]) -> Result<String, Failure> {
    let none = "the docker runtime makes its image of Debian packages: on other systems say runtime: process";
    let mut argv = vec!["dpkg-query".to_owned()];
    argv.extend(arguments.iter().map(|argument| (*argument).to_owned()));
    let ended = exec::run(program(argv, MOST), &mut |_| {})
        .await
        .map_err(|error| fault("cannot list the packages of this host", &error).hint(none))?;
    if !ended.ok() {
        let failure = Failure::new(Code::Host, "dpkg-query cannot list the packages of this host");
        return Err(failure.hint(none).log(ended.lines(20)));
    }
    Ok(String::from_utf8_lossy(&ended.tail).into_owned())
}

fn program(argv: Vec<String>, tail: usize) -> Program {
    let env = BTreeMap::from([
        ("PATH".to_owned(), "/usr/sbin:/usr/bin:/sbin:/bin".to_owned()),
        ("LC_ALL".to_owned(), "C.UTF-8".to_owned()),
    ]);
    Program { env, timeout: TIMEOUT, tail, ..Program::new(argv) }
}

/// The files of the packages that are there, by their real paths, with what Python compiled beside them.
fn files(listed: &str) -> BTreeSet<PathBuf> {
    let mut real: HashMap<PathBuf, Option<PathBuf>> = HashMap::new();
    let mut files = BTreeSet::new();
    // `/lib` is a link to `usr/lib` on today's systems, and packages list either.
    for link in ["/bin", "/lib", "/lib32", "/lib64", "/libx32", "/sbin"] {
        files.extend(Some(PathBuf::from(link)).filter(|link| link.is_symlink()));
    }
    for path in listed.lines().filter(|line| line.starts_with('/')).map(Path::new) {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { continue };
        let parent = real.entry(parent.to_owned()).or_insert_with(|| parent.canonicalize().ok());
        let Some(path) = parent.as_ref().map(|parent| parent.join(name)) else { continue };
        let unread = path.strip_prefix("/usr/share").is_ok_and(|below| {
            UNREAD.iter().any(|folder| below.as_os_str().as_bytes().starts_with(folder.as_bytes()))
        });
        if unread || path.symlink_metadata().is_err() {
            continue;
        }
        if path.extension().is_some_and(|extension| extension == "py") {
            files.extend(compiled(&path));
        }
        // Every folder on the way, whatever packages list: engines make those that are missing, closed to all but root.
        files.extend(path.ancestors().filter(|path| path.parent().is_some()).map(Path::to_owned));
    }
    files
}

/// A read-only root has no room for what Python compiles, so it comes along.
fn compiled(source: &Path) -> Vec<PathBuf> {
    let (Some(folder), Some(stem)) = (source.parent(), source.file_stem()) else { return Vec::new() };
    let entries = std::fs::read_dir(folder.join("__pycache__")).into_iter().flatten().flatten();
    let prefix = [stem.as_bytes(), b"."].concat();
    entries
        .filter(|entry| entry.file_name().as_bytes().starts_with(&prefix))
        .map(|entry| entry.path())
        .collect()
}

async fn import(docker: &Docker, tag: &str, files: &BTreeSet<PathBuf>) -> Result<(), Failure> {
    let unlisted = |error: std::io::Error| fault("cannot list the files of the image", &error);
    let mut list = tempfile::NamedTempFile::new().map_err(unlisted)?;
    let names: Vec<u8> =
        files.iter().flat_map(|path| [&path.as_os_str().as_bytes()[1..], b"\0"].concat()).collect();
    list.write_all(&names).map_err(unlisted)?;
    let list = list.into_temp_path();
    let argv = [
        "tar",
        "--create",
        "--directory=/",
        "--no-recursion",
        "--numeric-owner",
        "--null",
        "--verbatim-files-from",
    ];
    let mut argv: Vec<String> = argv.iter().map(|argument| (*argument).to_owned()).collect();
    argv.push(format!("--files-from={}", list.display()));
    let mut tar =
        exec::converse(&program(argv, 0)).map_err(|error| fault("cannot pack the image", &error))?;
    let output = tar.stdout.take();
    let pack = stream::try_unfold(output, |output| async {
        let Some(mut output) = output else { return Ok(None) };
        let mut chunk = BytesMut::with_capacity(256 << 10);
        let count = output.read_buf(&mut chunk).await?;
        Ok((count > 0).then(|| (chunk.freeze(), Some(output))))
    });
    let options = CreateImageOptions {
        from_src: Some("-".to_owned()),
        repo: Some(NAME.to_owned()),
        tag: Some(tag.to_owned()),
        changes: vec![format!("LABEL {LABEL}=1")],
        ..CreateImageOptions::default()
    };
    let mut said = docker.create_image(Some(options), Some(body_try_stream(pack)), None);
    let mut imported = Ok(());
    while let Some(word) = said.next().await {
        if let Err(error) = word {
            imported = Err(refused("import the runtime's image")(error));
        }
    }
    let packed = tar.wait().await.is_ok_and(|status| status.success());
    if packed && imported.is_ok() {
        return Ok(());
    }
    // Half an image must not be found by the next.
    let _ = docker.remove_image(&format!("{NAME}:{tag}"), None::<RemoveImageOptions>, None).await;
    imported.map_err(|error| error.failure())?;
    Err(Failure::new(Code::Host, "cannot pack the image: tar failed").hint("the agent's log says why"))
}

/// Removes the images of earlier packages, and those whose name another agent gave to its own, made at the same
/// time; one that a container still runs from stays.
async fn forget_older(docker: &Docker, name: &str) {
    let filters = HashMap::from([("label".to_owned(), vec![LABEL.to_owned()])]);
    let options = ListImagesOptions { filters: Some(filters), ..ListImagesOptions::default() };
    let images = docker.list_images(Some(options)).await.unwrap_or_default();
    for older in images.iter().filter(|image| !image.repo_tags.iter().any(|tag| tag == name)) {
        if docker.remove_image(&older.id, None::<RemoveImageOptions>, None).await.is_ok() {
            tracing::info!(image = older.id, "RuntimeImageRemoved");
        }
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        error.failure()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_folder_on_the_way_to_a_file_comes_along() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("usr/lib")).unwrap();
        std::os::unix::fs::symlink("usr/lib", root.join("lib")).unwrap();
        crate::sys::atomic_write::write(&root.join("usr/lib/ld.so"), b"", 0o755, None).unwrap();
        let listed =
            format!("{}\ndiverted by x\n{}\n", root.join("lib/ld.so").display(), root.join("gone").display());
        let files = files(&listed);
        for path in ["usr", "usr/lib", "usr/lib/ld.so"] {
            assert!(files.contains(&root.join(path)), "{path}: {files:?}");
        }
        assert!(!files.contains(&root.join("gone")) && !files.contains(Path::new("/")), "{files:?}");
    }
}
