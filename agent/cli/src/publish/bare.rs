//! A Django project that is no Python package: a folder with manage.py, as `startproject` leaves it.
//!
//! It becomes a wheel that holds the folder as it is, so that `BASE_DIR` and all that hangs on it (templates,
//! static folders, data files) stay where the project looks for them. What belongs to a developer's machine
//! is left out: environments, caches, version control, uploads, and above all secrets and databases. Where manage.py
//! puts a folder such as `src` on Python's path, the wheel does.

use std::{
    collections::BTreeMap,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use flipside_api::AppName;

use super::{
    detect, secrets,
    wheel::{self, Content, Wheel},
};
use crate::failures::{Result, on, usage};

/// Folders that no project means to ship.
const NOT_SHIPPED: [&str; 8] =
    ["__pycache__", "node_modules", "media", "staticfiles", "build", "dist", "venv", "env"];

/// Hidden folders of tools, wherever they lie. At the top no hidden folder is shipped; below it may be one like
/// `static/.well-known`.
const TOOLS: [&str; 7] =
    [".git", ".hg", ".svn", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".ipynb_checkpoints"];

/// A project to pack.
#[derive(Debug)]
pub(crate) struct Project<'a> {
    pub(crate) folder: &'a Path,
    pub(crate) app: &'a AppName,
    pub(crate) version: &'a str,
    pub(crate) requires_python: Option<&'a str>,
    /// Files that look like secrets and are none.
    pub(crate) allowed: &'a [String],
    /// The package store, which may lie in the project.
    pub(crate) store: &'a Path,
}

/// A packed project.
#[derive(Debug)]
pub(crate) struct Packed {
    pub(crate) wheel: Wheel,
    pub(crate) files: usize,
    /// What was left out that its owner may miss, and why.
    pub(crate) left_out: Vec<(String, &'static str)>,
}

/// Packs a project into a wheel in `to`.
pub(crate) fn pack(project: &Project<'_>, to: &Path) -> Result<Packed> {
    let Project { app, version, .. } = project;
    if version.is_empty() || !version.bytes().all(|b| b.is_ascii_alphanumeric() || b"._+!".contains(&b)) {
        return Err(usage(format!("{version:?} is no version of a Python package")).hint("write it like 1.0"));
    }
    let mut walk = Walk { project, files: BTreeMap::new(), left_out: Vec::new() };
    walk.folder(project.folder, "")?;
    let count = walk.files.len();
    // A name of its own: a project's folder may be called as something that it depends on (`django`).
    let name = format!("{}_project", app.as_str().replace('-', "_"));
    if let Some(root) = source_root(project.folder, &walk.files) {
        walk.files.insert(format!("{name}.pth"), Content::Bytes(format!("{root}\n").into_bytes()));
    }
    let dist_info = format!("{name}-{version}.dist-info");
    let mut metadata = format!("Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n");
    if let Some(pythons) = project.requires_python.filter(|pythons| !pythons.contains('\n')) {
        metadata.push_str(&format!("Requires-Python: {pythons}\n"));
    }
    let about = "Wheel-Version: 1.0\nGenerator: flipside\nRoot-Is-Purelib: true\nTag: py3-none-any\n";
    walk.files.insert(format!("{dist_info}/METADATA"), Content::Bytes(metadata.into_bytes()));
    walk.files.insert(format!("{dist_info}/WHEEL"), Content::Bytes(about.into()));
    let path = to.join(format!("{name}-{version}-py3-none-any.whl"));
    wheel::write(&path, &dist_info, &walk.files)?;
    Ok(Packed { wheel: Wheel::open(&path)?, files: count, left_out: walk.left_out })
}

/// The folder that holds manage.py's settings module, where that is not the project's own.
fn source_root<'a>(folder: &Path, files: &'a BTreeMap<String, Content>) -> Option<&'a str> {
    let settings = detect::settings_in(&std::fs::read_to_string(folder.join("manage.py")).ok()?)?;
    let modules = detect::files_of(&settings);
    if modules.iter().any(|module| files.contains_key(module)) {
        return None;
    }
    let root = |file: &'a String| {
        let (root, rest) = file.split_once('/')?;
        modules.iter().any(|module| module == rest).then_some(root)
    };
    files.keys().find_map(root)
}

struct Walk<'a> {
    project: &'a Project<'a>,
    files: BTreeMap<String, Content>,
    left_out: Vec<(String, &'static str)>,
}

impl Walk<'_> {
    fn folder(&mut self, folder: &Path, prefix: &str) -> Result<()> {
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(on("read", folder))? {
            paths.push(entry.map_err(on("read", folder))?.path());
        }
        paths.sort();
        for path in paths {
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
                self.left_out.push((path.display().to_string(), "its name is not UTF-8"));
                continue;
            };
            let inside = format!("{prefix}{name}");
            let metadata = std::fs::symlink_metadata(&path).map_err(on("read", &path))?;
            if metadata.is_dir() {
                self.enter(&path, name, &inside)?;
            } else if metadata.is_symlink() {
                self.link(&path, inside)?;
            } else if metadata.is_file() {
                self.file(path, inside)?;
            }
        }
        Ok(())
    }

    fn enter(&mut self, path: &Path, name: &str, inside: &str) -> Result<()> {
        // A virtual environment goes by any name; a package may bear the name of a folder we leave out.
        let environment = path.join("pyvenv.cfg").is_file();
        let package = path.join("__init__.py").is_file();
        let top = !inside.contains('/');
        let tool = (top && name.starts_with('.')) || TOOLS.contains(&name) || name.ends_with(".egg-info");
        if tool || name == "__pycache__" || environment || path == self.project.store {
            return Ok(());
        }
        if NOT_SHIPPED.contains(&name) && (top || name == "node_modules") && !package {
            let why = match name {
                "media" => "uploads are data, not code",
                "staticfiles" => "static files are collected at a deploy",
                _ => "made by tools",
            };
            self.left_out.push((format!("{inside}/"), why));
            return Ok(());
        }
        self.folder(path, &format!("{inside}/"))
    }

    /// A link to a file of the project is that file; one that leads out of it or to a folder is not followed.
    fn link(&mut self, path: &Path, inside: String) -> Result<()> {
        match path.canonicalize() {
            Ok(target) if target.starts_with(self.project.folder) && target.is_file() => {
                self.file(target, inside)
            }
            _ => {
                self.left_out.push((inside, "a link that leads to a folder or out of the project"));
                Ok(())
            }
        }
    }

    fn file(&mut self, path: PathBuf, inside: String) -> Result<()> {
        let name = inside.rsplit('/').next().unwrap_or(&inside);
        let target = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let kind = match secrets::by_name(&inside).or_else(|| secrets::by_name(&target)) {
            None => secrets::by_content(&head(&path)?),
            kind => kind,
        };
        match kind {
            Some(kind) if !secrets::is_allowed(&inside, self.project.allowed) => {
                self.left_out.push((inside, kind))
            }
            None if (name == inside && name.starts_with('.')) || name == ".DS_Store" => {}
            None if name.ends_with(".pyc") || name.ends_with(".log") => {}
            _ => {
                self.files.insert(inside, Content::File(path));
            }
        }
        Ok(())
    }
}

fn head(path: &Path) -> Result<Vec<u8>> {
    let mut head = Vec::new();
    let file = File::open(path).map_err(on("read", path))?;
    file.take(secrets::HEAD as u64).read_to_end(&mut head).map_err(on("read", path))?;
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::atomic_write;

    fn project(dir: &Path) {
        let files: [(&str, &[u8]); 16] = [
            ("static/.well-known/x.txt", b"x"),
            ("packages/blog/1/wheels/a.whl", b"x"),
            ("manage.py", b"os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'my.settings')"),
            ("my/__init__.py", b""),
            ("my/settings.py", b"DEBUG = True"),
            ("templates/a.html", b"x"),
            ("static/logo, big.svg", b"x"),
            (".env", b"KEY=1"),
            ("db.sqlite3", b""),
            ("odd.name", b"SQLite format 3\0"),
            ("key.txt", b"-----BEGIN PRIVATE KEY-----\n"),
            (".git/config", b"x"),
            ("venv2/pyvenv.cfg", b"x"),
            ("venv2/lib/x.py", b"x"),
            ("media/up.jpg", b"x"),
            ("my/__pycache__/a.pyc", b"x"),
        ];
        for (name, content) in files {
            let path = dir.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            atomic_write(&path, content, 0o644).unwrap();
        }
        std::os::unix::fs::symlink("/etc/passwd", dir.join("out.txt")).unwrap();
        std::os::unix::fs::symlink("my/settings.py", dir.join("in.py")).unwrap();
        std::os::unix::fs::symlink(".", dir.join("loop")).unwrap();
        std::os::unix::fs::symlink(".env", dir.join("config.txt")).unwrap();
    }

    fn packed(root: &Path, app: &str, to: &Path) -> Packed {
        let (app, store) = (app.parse().unwrap(), root.join("packages"));
        let (version, requires_python) = ("1.0", Some(">=3.10"));
        let project =
            Project { folder: root, app: &app, version, requires_python, allowed: &[], store: &store };
        pack(&project, to).unwrap()
    }

    #[test]
    fn the_project_is_packed_and_the_machine_is_not() {
        let (dir, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let root = dir.path().canonicalize().unwrap();
        project(&root);
        let packed = packed(&root, "my-site", to.path());
        assert_eq!(packed.wheel.file, "my_site_project-1.0-py3-none-any.whl");
        assert_eq!(packed.wheel.requires_python.as_deref(), Some(">=3.10"));
        let mut inside: Vec<&str> = packed
            .wheel
            .entries
            .iter()
            .map(String::as_str)
            .filter(|name| !name.contains("dist-info"))
            .collect();
        inside.sort_unstable();
        let expected = [
            "in.py",
            "manage.py",
            "my/__init__.py",
            "my/settings.py",
            "static/.well-known/x.txt",
            "static/logo, big.svg",
            "templates/a.html",
        ];
        assert_eq!(inside, expected);
        let left: Vec<&str> = packed.left_out.iter().map(|(path, _)| path.as_str()).collect();
        let expected =
            [".env", "config.txt", "db.sqlite3", "key.txt", "loop", "media/", "odd.name", "out.txt"];
        assert_eq!(left, expected);
    }

    #[test]
    fn a_folder_of_sources_is_on_the_path() {
        let (dir, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let root = dir.path().canonicalize().unwrap();
        let settings = "os.environ['DJANGO_SETTINGS_MODULE'] = 'my.settings.prod'\n";
        for (name, text) in [
            ("manage.py", settings),
            ("src/my/settings/prod.py", ""),
            ("src/my/wsgi.py", "application = get()\n"),
        ] {
            std::fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
            atomic_write(&root.join(name), text.as_bytes(), 0o644).unwrap();
        }
        let wheel = packed(&root, "a", to.path()).wheel;
        assert_eq!(wheel.text("a_project.pth").unwrap().as_deref(), Some("src\n"));
        let found = detect::complete(&detect::Entry::default(), &[&wheel]).unwrap();
        assert_eq!(found.wsgi.as_deref(), Some("my.wsgi:application"));
        assert_eq!(found.settings.as_deref(), Some("my.settings.prod"));
    }

    #[test]
    fn the_same_project_is_the_same_wheel() {
        let bytes = || {
            let (dir, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            let root = dir.path().canonicalize().unwrap();
            project(&root);
            std::fs::read(packed(&root, "a", to.path()).wheel.path).unwrap()
        };
        assert_eq!(bytes(), bytes());
    }
}
