//! `manifest.json`: what a release is. Its bytes' hash is part of the release's id, so their order is fixed.

use flipside_api::{AppName, Hooks};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::package;
use crate::failures::Result;

/// The manifest of a release.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) v: u32,
    pub(crate) app: AppName,
    pub(crate) version: String,
    pub(crate) wsgi: Option<String>,
    pub(crate) settings: Option<String>,
    pub(crate) requires_python: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) hooks: Option<Value>,
    /// Sorted by name.
    pub(crate) files: Vec<File>,
}

/// A file in `wheels/`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct File {
    pub(crate) name: String,
    pub(crate) sha256: String,
    pub(crate) size: u64,
}

impl Manifest {
    /// The file's content.
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec_pretty(self)
            .map_err(|error| package(format!("the manifest cannot be written: {error}")))?;
        bytes.push(b'\n');
        Ok(bytes)
    }
}

/// Hooks without the lists that a release leaves to its template.
pub(crate) fn without_absent(hooks: Hooks) -> Result<Value> {
    let mut hooks = serde_json::to_value(hooks)
        .map_err(|error| package(format!("the hooks cannot be written: {error}")))?;
    if let Some(lists) = hooks.as_object_mut() {
        lists.retain(|_, list| !list.is_null());
    }
    Ok(hooks)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_form_is_that_of_the_contract() {
        let manifest = Manifest {
            v: 1,
            app: "blog".parse().unwrap(),
            version: "1.0".into(),
            wsgi: Some("blog.wsgi:application".into()),
            settings: None,
            requires_python: None,
            hooks: None,
            files: vec![File { name: "a-1-py3-none-any.whl".into(), sha256: "00".into(), size: 1 }],
        };
        let bytes = manifest.to_bytes().unwrap();
        let value: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(
            value,
            json!({"v": 1, "app": "blog", "version": "1.0", "wsgi": "blog.wsgi:application", "settings": null,
                "requires_python": null, "files": [{"name": "a-1-py3-none-any.whl", "sha256": "00", "size": 1}]})
        );
        assert_eq!(serde_json::from_slice::<Manifest>(&bytes).unwrap(), manifest);
    }

    #[test]
    fn only_lists_that_are_there_are_written() {
        let hooks: Hooks = serde_json::from_value(json!({"migrate": [["x"]], "once": []})).unwrap();
        let hooks = without_absent(hooks).unwrap();
        assert_eq!(hooks, json!({"migrate": [{"command": ["x"], "timeout": 600}], "once": []}));
    }
}
