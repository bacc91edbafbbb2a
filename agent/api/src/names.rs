//! Names that reach paths, sockets, nginx and uWSGI: each has one strict type, checked where it enters.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A name that breaks the rule of its type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no {kind}: {rule}")]
pub struct NameError {
    kind: &'static str,
    rule: &'static str,
    text: String,
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $rule:literal, $pattern:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(#[schemars(regex(pattern = $pattern))] String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                let valid: fn(&str) -> bool = $valid;
                if valid(text) {
                    Ok(Self(text.to_owned()))
                } else {
                    // A hostile name may be megabytes long; the error is for a person.
                    let text = text.chars().take(80).collect();
                    Err(NameError { kind: $kind, rule: $rule, text })
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

name!(
    /// The name of an application: `[a-z][a-z0-9-]{0,30}`.
    AppName,
    "app name",
    "a lower-case letter, then at most 30 letters, digits and hyphens",
    "^[a-z][a-z0-9-]{0,30}$",
    |text| {
        text.len() <= 31
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    }
);

name!(
    /// The id of a release: `<version>-<the first 12 hex digits of its manifest's sha256>`.
    ReleaseId,
    "release id",
    "a version, a hyphen and 12 hex digits, as `flipside publish` prints it",
    "^[A-Za-z0-9][A-Za-z0-9._+!-]{0,99}-[0-9a-f]{12}$",
    |text| {
        let Some((version, digest)) = text.rsplit_once('-') else { return false };
        version.len() <= 100
            && version.starts_with(|c: char| c.is_ascii_alphanumeric())
            && version.bytes().all(|b| b.is_ascii_alphanumeric() || b"._+!-".contains(&b))
            && digest.len() == 12
            && digest.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    }
);

impl ReleaseId {
    /// The id of the release of `version` whose manifest file holds `manifest`.
    ///
    /// # Errors
    /// When the version holds a character that no id may.
    pub fn of(version: &str, manifest: &[u8]) -> Result<Self, NameError> {
        use sha2::{Digest, Sha256};
        let digest = Sha256::digest(manifest);
        let hex: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        format!("{version}-{hex}").parse()
    }

    /// The version part.
    pub fn version(&self) -> &str {
        self.0.rsplit_once('-').map_or("", |(version, _)| version)
    }
}

name!(
    /// A name that points at a release, such as `latest`.
    Tag,
    "tag",
    "a letter or digit, then at most 63 letters, digits, dots, underscores and hyphens",
    "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
    |text| {
        text.len() <= 64
            && text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
    }
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn app_names_are_strict() {
        for good in ["a", "blog", "shop-2", "a23456789012345678901234567890x"] {
            assert!(good.parse::<AppName>().is_ok(), "{good}");
        }
        for bad in ["", "2shop", "-x", "Blog", "a/b", "..", "a.b", "a b", "a\n", "ä", &"a".repeat(32)] {
            assert!(bad.parse::<AppName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn release_ids_carry_their_manifest() {
        let id = ReleaseId::of("1.0+local", b"{}").unwrap();
        assert_eq!(id.as_str(), "1.0+local-44136fa355b3");
        assert_eq!(id.version(), "1.0+local");
        for bad in [
            "1.0",
            "1.0-44136fa355b",
            "../x-44136fa355b3",
            "1/0-44136fa355b3",
            "1.0-44136FA355B3",
            "-44136fa355b3",
        ] {
            assert!(bad.parse::<ReleaseId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn tags_are_no_paths() {
        assert!("latest".parse::<Tag>().is_ok());
        for bad in ["", ".", "../x", "a/b", "a\nb"] {
            assert!(bad.parse::<Tag>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_error_is_short_however_long_the_name() {
        let error = "x/".repeat(1 << 20).parse::<AppName>().unwrap_err();
        assert!(error.to_string().len() < 300);
    }
}
