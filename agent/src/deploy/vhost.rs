//! Whether nginx serves the app as its options say. The vhost is Salt's: the state flipside.app writes it, and
//! leaves a hash of the options that it was made from in the app's folder, which is root's.

use std::{io::Read, path::Path};

use flipside_api::{AppSpec, Code, Failure};

use crate::{app::paths::AppPaths, sys::beneath};

/// The record's name in the app's folder; flipside_minion.py knows it too.
const RECORD: &str = "vhost";

/// Refuses a deploy where the vhost is not that of the spec; a spec that names none has none.
pub(super) fn check(spec: &AppSpec, paths: &AppPaths) -> Result<(), Failure> {
    let Some(wanted) = &spec.vhost else { return Ok(()) };
    let found = read(paths.home());
    if found.as_ref() == Some(wanted) {
        return Ok(());
    }
    let app = &spec.app;
    let what = match found {
        None => format!("{app} has no vhost on this host yet"),
        Some(_) => format!("the vhost of {app} was made from other options than these"),
    };
    Err(Failure::new(Code::Gate, what).hint(format!(
        "apply it: salt-call state.apply flipside.app; or deploy with fresh options, which applies it: \
         salt 'THIS-HOST' flipside.deploy {app}"
    )))
}

fn read(home: &Path) -> Option<String> {
    let mut text = String::new();
    beneath::open_read(home, Path::new(RECORD)).ok()?.take(200).read_to_string(&mut text).ok()?;
    Some(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_vhost_is_refused_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let paths = AppPaths::new(&"blog".parse().unwrap(), folder.path(), folder.path(), folder.path());
        std::fs::create_dir(paths.home()).unwrap();
        let mut spec: AppSpec = serde_json::from_value(serde_json::json!({
            "app": "blog", "template": "t", "domains": ["b.org"], "public_url": "https://b.org",
        }))
        .unwrap();
        assert_eq!(check(&spec, &paths), Ok(()));
        spec.vhost = Some("1234".to_owned());
        let refused = check(&spec, &paths).unwrap_err();
        assert!(refused.message.contains("no vhost") && refused.hint.contains("state.apply flipside.app"));
        for (record, fine) in [("99\n", false), ("1234\n", true)] {
            crate::sys::atomic_write::write(&paths.home().join(RECORD), record.as_bytes(), 0o644, None)
                .unwrap();
            assert_eq!(check(&spec, &paths).is_ok(), fine, "{record}");
        }
    }
}
