//! `manifest.json`: what a package says of itself. Its bytes give the release its id.

use std::path::Path;

use flipside_api::{AppName, Code, Failure, Hooks, ReleaseId};
use serde::Deserialize;

use crate::sys::beneath;

/// The most bytes of a manifest.
const LARGEST: u64 = 4 << 20;

/// A package's manifest.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Manifest {
    v: u32,
    app: AppName,
    version: String,
    /// Entry as `module:attribute`.
    pub(crate) wsgi: Option<String>,
    /// Django's settings module.
    pub(crate) settings: Option<String>,
    /// Lists of hooks that replace the spec's.
    #[serde(default)]
    pub(crate) hooks: Hooks,
    /// The wheels.
    pub(crate) files: Vec<Wheel>,
}

/// A wheel of a package.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Wheel {
    /// The file's name in `wheels/`.
    pub(crate) name: String,
    /// 64 hex digits.
    pub(crate) sha256: String,
    /// Bytes.
    pub(crate) size: u64,
}

impl Manifest {
    /// The manifest in `folder`, and its bytes.
    ///
    /// # Errors
    /// When there is none, or it is not that of `release` of `app`.
    pub(crate) fn read(
        folder: &Path,
        app: &AppName,
        release: &ReleaseId,
    ) -> Result<(Self, Vec<u8>), Failure> {
        use std::io::Read;
        let wrong = |problem: String| Failure::new(Code::Package, format!("{release}: {problem}"));
        let file = beneath::open_read(folder, Path::new("manifest.json")).map_err(|error| {
            wrong(crate::host::chain(&error)).hint("publish the release again, or fetch it again")
        })?;
        let mut bytes = Vec::new();
        file.take(LARGEST + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| wrong(format!("cannot read the manifest: {error}")))?;
        if bytes.len() as u64 > LARGEST {
            return Err(wrong(format!("its manifest is larger than {LARGEST} bytes")));
        }
        Ok((Self::understand(&bytes, app, release)?, bytes))
    }

    fn understand(bytes: &[u8], app: &AppName, release: &ReleaseId) -> Result<Self, Failure> {
        let wrong = |problem: String| {
            Failure::new(Code::Package, format!("{release}: {problem}"))
                .hint("the package on this host is not what was published: publish it again")
        };
        let manifest: Self = serde_json::from_slice(bytes)
            .map_err(|error| wrong(format!("its manifest is not understood: {error}")))?;
        if manifest.v != 1 {
            return Err(wrong(format!("its manifest is of version {}, this agent knows 1", manifest.v)));
        }
        let id = ReleaseId::of(&manifest.version, bytes).map_err(|error| wrong(error.to_string()))?;
        if id != *release {
            return Err(wrong(format!("its manifest is that of {id}")));
        }
        if manifest.app != *app {
            return Err(wrong(format!("it is a release of {}, not of {app}", manifest.app)));
        }
        if manifest.files.is_empty() {
            return Err(wrong("it has no wheels".to_owned()));
        }
        for (at, wheel) in manifest.files.iter().enumerate() {
            wheel.check().map_err(wrong)?;
            if manifest.files[..at].iter().any(|other| other.name == wheel.name) {
                return Err(wrong(format!("it names {} twice", wheel.name)));
            }
        }
        Ok(manifest)
    }

    /// Bytes of all wheels.
    pub(crate) fn size(&self) -> u64 {
        self.files.iter().fold(0, |sum, wheel| sum.saturating_add(wheel.size))
    }
}

impl Wheel {
    /// Nothing in a name may leave its folder or break a line of a requirements file.
    fn check(&self) -> Result<(), String> {
        let shown: String = self.name.chars().take(80).collect();
        let plain = self.name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._+!-".contains(&b));
        if !plain
            || self.name.len() > 250
            || self.name.starts_with(['.', '-'])
            || !self.name.ends_with(".whl")
        {
            return Err(format!("{shown:?} is no name of a wheel"));
        }
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if self.sha256.len() != 64 || !self.sha256.bytes().all(hex) {
            return Err(format!("the sha256 of {shown} is not 64 hex digits"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn blog() -> AppName {
        "blog".parse().unwrap()
    }

    fn text(file: &str) -> String {
        format!(r#"{{"v":1,"app":"blog","version":"1.0","wsgi":"b:a","settings":null,"files":[{file}]}}"#)
    }

    fn wheel(name: &str) -> String {
        format!(r#"{{"name":"{name}","sha256":"{}","size":3}}"#, "a".repeat(64))
    }

    fn understand(text: &str) -> Result<Manifest, Failure> {
        Manifest::understand(text.as_bytes(), &blog(), &ReleaseId::of("1.0", text.as_bytes()).unwrap())
    }

    #[test]
    fn a_sound_manifest_is_understood() {
        let manifest = understand(&text(&wheel("blog-1.0-py3-none-any.whl"))).unwrap();
        assert_eq!((manifest.size(), manifest.wsgi.as_deref()), (3, Some("b:a")));
    }

    #[test]
    fn what_is_not_as_published_is_refused() {
        let sound = text(&wheel("a.whl"));
        let other = ReleaseId::of("1.0", b"other").unwrap();
        let failure = Manifest::understand(sound.as_bytes(), &blog(), &other).unwrap_err();
        assert!(failure.message.contains("its manifest is that of"), "{failure:?}");
        let id = ReleaseId::of("1.0", sound.as_bytes()).unwrap();
        assert!(Manifest::understand(sound.as_bytes(), &"shop".parse().unwrap(), &id).is_err());
        for file in ["../a.whl", "a\\n.whl", "-r.whl", ".whl", "a b.whl", "a.tar.gz"] {
            let failure = understand(&text(&wheel(file))).unwrap_err();
            assert!(failure.message.contains("no name of a wheel"), "{file}: {failure:?}");
        }
        let twice = format!("{},{}", wheel("a.whl"), wheel("a.whl"));
        assert!(understand(&text(&twice)).unwrap_err().message.contains("twice"));
        assert!(understand(&text("")).unwrap_err().message.contains("no wheels"));
        assert!(understand(&sound.replace("aaaa", "zzzz")).unwrap_err().message.contains("64 hex"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_understood_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let id = ReleaseId::of("1.0", &bytes).unwrap();
            prop_assert!(Manifest::understand(&bytes, &blog(), &id).is_err());
        }

        /// Changed by somebody who makes the release's name fit: what passes still leads nowhere else.
        #[test]
        fn a_changed_manifest_names_no_other_place(
            changes in proptest::collection::vec((any::<prop::sample::Index>(), 0..4u8, any::<char>()), 1..6),
        ) {
            let mut text: Vec<char> = text(&wheel("blog-1.0-py3-none-any.whl")).chars().collect();
            for (at, how, char) in changes {
                let at = at.index(text.len());
                match how {
                    0 => text[at] = char,
                    1 => text.insert(at, char),
                    2 => drop(text.remove(at)),
                    _ => text.insert(at, ['/', '.', '-', '"', '\\', '\n', '\0', ' '][char as usize % 8]),
                }
            }
            if let Ok(manifest) = understand(&text.into_iter().collect::<String>()) {
                for file in &manifest.files {
                    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._+!-".contains(&b);
                    prop_assert!(file.name.bytes().all(plain) && !file.name.starts_with(['.', '-']));
                }
            }
        }
    }
}
