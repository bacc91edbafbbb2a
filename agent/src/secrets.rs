//! The host's own age identity: environments rest in `agent.db` only as ciphertext to it, and armoured values
//! of the pillar are opened with it when an env file is written.

use std::{
    collections::BTreeMap,
    io::Read,
    path::{Path, PathBuf},
};

use age::{secrecy::ExposeSecret, x25519};
use zeroize::Zeroizing;

use crate::sys;

const ARMOUR: &str = "-----BEGIN AGE ENCRYPTED FILE-----";

/// The most bytes that an armoured value may hold.
const LARGEST: u64 = 1 << 20;

/// What can go wrong with secrets.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The identity's file cannot be read or made.
    #[error("the host's identity {} cannot be used: {reason}", path.display())]
    Identity {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A stored environment cannot be opened.
    #[error("what is stored was sealed for another identity: {0}")]
    Sealed(String),
    /// A value of the pillar cannot be opened.
    #[error("{of}.{name}: {reason}")]
    Value {
        /// What it is a value of: `env` or `files`.
        of: &'static str,
        /// Its name there.
        name: String,
        /// Why.
        reason: String,
    },
}

/// The host's identity. It never prints itself.
pub struct Keyring {
    identity: x25519::Identity,
}

impl Keyring {
    /// Reads the identity at `path`, or makes one there, readable by its owner only.
    ///
    /// # Errors
    /// When the file is there but holds no identity, or cannot be made.
    pub fn open(path: &Path) -> Result<Self, SecretError> {
        let wrong = |reason: String| SecretError::Identity { path: path.to_owned(), reason };
        match std::fs::read_to_string(path) {
            Ok(text) => {
                let text = Zeroizing::new(text);
                let line =
                    text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
                let identity = line.unwrap_or_default().parse().map_err(|why: &str| wrong(why.to_owned()))?;
                Ok(Self { identity })
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let identity = x25519::Identity::generate();
                let line = Zeroizing::new(format!("{}\n", identity.to_string().expose_secret()));
                sys::atomic_write::write(path, line.as_bytes(), 0o600, None)
                    .map_err(|error| wrong(error.to_string()))?;
                Ok(Self { identity })
            }
            Err(error) => Err(wrong(error.to_string())),
        }
    }

    /// The public half, to which others encrypt values for this host.
    pub fn recipient(&self) -> String {
        self.identity.to_public().to_string()
    }

    /// Seals bytes so that only this host can read them.
    ///
    /// # Errors
    /// When age fails, which it does not.
    pub fn seal(&self, plain: &[u8]) -> Result<Vec<u8>, SecretError> {
        age::encrypt(&self.identity.to_public(), plain)
            .map_err(|error| SecretError::Sealed(error.to_string()))
    }

    /// Opens what [`Keyring::seal`] made.
    ///
    /// # Errors
    /// When it was sealed for another identity or is damaged.
    pub fn open_sealed(&self, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SecretError> {
        age::decrypt(&self.identity, sealed)
            .map(Zeroizing::new)
            .map_err(|error| SecretError::Sealed(error.to_string()))
    }

    /// The values of the pillar's `of`, the armoured ones opened.
    ///
    /// # Errors
    /// For the first value that cannot be opened, by name.
    pub fn reveal(
        &self,
        of: &'static str,
        values: &BTreeMap<String, String>,
    ) -> Result<BTreeMap<String, String>, SecretError> {
        values.iter().map(|(name, value)| Ok((name.clone(), self.reveal_one(of, name, value)?))).collect()
    }

    fn reveal_one(&self, of: &'static str, name: &str, value: &str) -> Result<String, SecretError> {
        if !value.trim_start().starts_with(ARMOUR) {
            return Ok(value.to_owned());
        }
        let wrong = |reason: String| SecretError::Value { of, name: name.to_owned(), reason };
        let armoured = age::armor::ArmoredReader::new(value.trim().as_bytes());
        let decryptor = age::Decryptor::new(armoured).map_err(|error| wrong(error.to_string()))?;
        let reader = decryptor.decrypt(std::iter::once(&self.identity as _)).map_err(|_| {
            wrong(format!("is not encrypted to this host; encrypt it to {}", self.recipient()))
        })?;
        let mut plain = Zeroizing::new(String::new());
        reader.take(LARGEST).read_to_string(&mut plain).map_err(|error| wrong(error.to_string()))?;
        if plain.contains('\0') {
            return Err(wrong("holds a NUL character, which no text does".to_owned()));
        }
        Ok(plain.to_string())
    }
}

/// Random letters and digits, for a `SECRET_KEY`.
pub fn random_key() -> Zeroizing<String> {
    use rand::Rng;
    Zeroizing::new(
        rand::rng().sample_iter(rand::distr::Alphanumeric).take(64).map(char::from).collect::<String>(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyring() -> (tempfile::TempDir, Keyring) {
        let folder = tempfile::tempdir().unwrap();
        let keyring = Keyring::open(&folder.path().join("identity")).unwrap();
        (folder, keyring)
    }

    #[test]
    fn the_identity_is_made_once_and_is_private() {
        use std::os::unix::fs::PermissionsExt;
        let (folder, keyring) = keyring();
        let path = folder.path().join("identity");
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Keyring::open(&path).unwrap().recipient(), keyring.recipient());
    }

    #[test]
    fn what_is_sealed_opens_here_only() {
        let (_folder, ours) = keyring();
        let (_other, theirs) = keyring();
        let sealed = ours.seal(b"canary").unwrap();
        assert!(!sealed.windows(6).any(|window| window == b"canary"));
        assert_eq!(ours.open_sealed(&sealed).unwrap().as_slice(), b"canary");
        assert!(theirs.open_sealed(&sealed).is_err());
    }

    #[test]
    fn armoured_values_are_opened_and_plain_ones_stay() {
        let (_folder, keyring) = keyring();
        let armoured = age::encrypt_and_armor(&keyring.identity.to_public(), b"two\nlines").unwrap();
        let env = BTreeMap::from([("A".to_owned(), armoured), ("B".to_owned(), "$x".to_owned())]);
        let plain = keyring.reveal("env", &env).unwrap();
        assert_eq!((plain["A"].as_str(), plain["B"].as_str()), ("two\nlines", "$x"));
    }

    #[test]
    fn a_value_for_another_host_is_refused_by_name() {
        let (_folder, ours) = keyring();
        let (_other, theirs) = keyring();
        let armoured = age::encrypt_and_armor(&theirs.identity.to_public(), b"x").unwrap();
        let values = BTreeMap::from([("TOKEN".to_owned(), armoured)]);
        let error = ours.reveal("env", &values).unwrap_err().to_string();
        assert!(error.contains("env.TOKEN") && error.contains(&ours.recipient()), "{error}");
    }

    #[test]
    fn a_damaged_identity_is_refused_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity");
        sys::atomic_write::write(&path, b"nonsense\n", 0o600, None).unwrap();
        assert!(Keyring::open(&path).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "nonsense\n");
    }
}
