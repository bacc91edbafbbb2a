//! Who may read a chain, and who wrote it.
//!
//! Each start of a follower, and each snapshot, begins an epoch: a random key that lives in memory only. The
//! key is wrapped with age for every recipient, and the host signs a commitment to it. Objects are sealed
//! under it, their headers as associated data. So the host can read nothing that an ended epoch stored, and
//! whoever owns only the store can neither read nor forge.

use std::io::{Read, Write};

use bytes::{Bytes, BytesMut};
use chacha20poly1305::{AeadInPlace, KeyInit, Tag, XChaCha20Poly1305, XNonce};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::{
    chain::{ChainId, HEADER, Header},
    hex,
};

const TAG: usize = 16;

/// What is wrong with a key, an identity, a signature or a sealed object.
#[derive(Debug, thiserror::Error)]
pub enum CryptError {
    /// No age recipient.
    #[error("{0:?} is no recipient: age1… or an ssh-ed25519 or ssh-rsa public key")]
    Recipient(String),
    /// No recipients at all.
    #[error("there is no recipient: nobody could ever read the backup")]
    NoRecipient,
    /// No age identity.
    #[error("{0} holds no identity that can be used: AGE-SECRET-KEY-1…, or an SSH key without passphrase")]
    Identity(String),
    /// age could not wrap.
    #[error("age could not encrypt: {0}")]
    Wrap(String),
    /// None of the identities opens it.
    #[error("no identity opens the epoch's key file: {0}")]
    Unwrap(String),
    /// A file of the chain is not what it must be.
    #[error("{0}")]
    Refused(&'static str),
}

/// The key of an epoch.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct EpochKey([u8; 32]);

impl EpochKey {
    /// A new one.
    pub fn random() -> Self {
        Self(rand::random())
    }

    /// Makes an object of `object`, which is room for the header and then the body: encrypted in its place, and
    /// authenticated with the header.
    ///
    /// # Errors
    /// When it has no room or is too large for the cipher.
    pub fn seal(&self, header: &Header, mut object: Vec<u8>) -> Result<Vec<u8>, CryptError> {
        let (room, body) = object
            .split_at_mut_checked(HEADER)
            .ok_or(CryptError::Refused("it has no room for its header"))?;
        room.copy_from_slice(&header.encode());
        let tag = XChaCha20Poly1305::new((&self.0).into())
            .encrypt_in_place_detached(XNonce::from_slice(&header.nonce), room, body)
            .map_err(|_| CryptError::Refused("it is too large to encrypt"))?;
        object.extend(tag);
        Ok(object)
    }

    /// The body of an object whose header is `header`; without a copy, if nobody else holds the object.
    ///
    /// # Errors
    /// When a byte of it is not what was sealed.
    pub fn open(&self, header: &Header, object: Bytes) -> Result<Bytes, CryptError> {
        let broken = || CryptError::Refused("it was altered, cut or encrypted under another key");
        let mut body = BytesMut::from(object);
        if body.len() < HEADER + TAG {
            return Err(broken());
        }
        let head = body.split_to(HEADER);
        let tag = body.split_off(body.len() - TAG);
        XChaCha20Poly1305::new((&self.0).into())
            .decrypt_in_place_detached(
                XNonce::from_slice(&header.nonce),
                &head,
                &mut body,
                Tag::from_slice(&tag),
            )
            .map_err(|_| broken())?;
        Ok(body.freeze())
    }

    fn commitment(&self, chain: ChainId, epoch: u32) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"flipside-backup epoch key 1");
        hasher.update(&chain.0).update(&epoch.to_be_bytes()).update(&self.0);
        hasher.finalize().to_hex().to_string()
    }
}

/// What an epoch's key file holds, for those who can open it.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
struct EpochFile {
    v: u32,
    chain: String,
    epoch: u32,
    time_ms: u64,
    name: String,
    key: String,
}

/// An epoch, opened.
pub struct Epoch {
    /// The key.
    pub key: EpochKey,
    /// The database's name, as its follower gave it.
    pub name: String,
}

/// What the host signs of an epoch: everything but the key, and a commitment to it.
#[derive(Serialize, Deserialize)]
struct EpochSigned {
    v: u32,
    kind: String,
    chain: String,
    epoch: u32,
    commitment: String,
}

/// Text that the host signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed {
    /// The text, JSON.
    pub body: String,
    /// The host's public key.
    pub key: String,
    /// Its signature over the body's bytes.
    pub sig: String,
}

impl Signed {
    /// Signs `body`.
    pub fn new(by: &SigningKey, body: String) -> Self {
        let sig = hex::encode(&by.sign(body.as_bytes()).to_bytes());
        Self { body, key: hex::encode(by.verifying_key().as_bytes()), sig }
    }

    /// The signed text in `bytes` and who signed it.
    ///
    /// # Errors
    /// When it is no such thing, or the signature is wrong.
    pub fn open(bytes: &[u8]) -> Result<(String, HostKey), CryptError> {
        let signed: Self =
            serde_json::from_slice(bytes).map_err(|_| CryptError::Refused("it is no signed text"))?;
        let key = hex::decode(&signed.key).and_then(|key| VerifyingKey::from_bytes(&key).ok());
        let sig = hex::decode(&signed.sig).map(|sig| Signature::from_bytes(&sig));
        let (Some(key), Some(sig)) = (key, sig) else {
            return Err(CryptError::Refused("its signature is malformed"));
        };
        key.verify_strict(signed.body.as_bytes(), &sig)
            .map_err(|_| CryptError::Refused("its signature is wrong"))?;
        Ok((signed.body, HostKey(key.to_bytes())))
    }
}

/// The public half of the key that a host signs with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostKey(pub [u8; 32]);

impl std::fmt::Display for HostKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

impl std::str::FromStr for HostKey {
    type Err = CryptError;
    fn from_str(text: &str) -> Result<Self, CryptError> {
        hex::decode(text).map(Self).ok_or(CryptError::Refused("a host key is 64 hex digits"))
    }
}

/// Recipients, parsed.
pub struct Recipients(Vec<Box<dyn age::Recipient + Send + Sync>>);

impl Recipients {
    /// Parses `age1…` and SSH public keys.
    ///
    /// # Errors
    /// Names the first that is neither; none at all is an error too.
    pub fn parse(texts: &[String]) -> Result<Self, CryptError> {
        let mut recipients: Vec<Box<dyn age::Recipient + Send + Sync>> = Vec::new();
        for text in texts {
            let text = text.trim();
            if let Ok(recipient) = text.parse::<age::x25519::Recipient>() {
                recipients.push(Box::new(recipient));
            } else if let Ok(recipient) = text.parse::<age::ssh::Recipient>() {
                recipients.push(Box::new(recipient));
            } else {
                return Err(CryptError::Recipient(text.chars().take(100).collect()));
            }
        }
        if recipients.is_empty() { Err(CryptError::NoRecipient) } else { Ok(Self(recipients)) }
    }

    fn wrap(&self, plain: &[u8]) -> Result<Vec<u8>, CryptError> {
        let failed = |error: &dyn std::fmt::Display| CryptError::Wrap(error.to_string());
        let recipients = self.0.iter().map(|recipient| &**recipient as &dyn age::Recipient);
        let encryptor = age::Encryptor::with_recipients(recipients).map_err(|error| failed(&error))?;
        let mut file = Vec::new();
        let mut writer = encryptor.wrap_output(&mut file).map_err(|error| failed(&error))?;
        writer.write_all(plain).map_err(|error| failed(&error))?;
        writer.finish().map_err(|error| failed(&error))?;
        Ok(file)
    }
}

/// Identities, parsed.
pub struct Identities(Vec<Box<dyn age::Identity + Send + Sync>>);

impl Identities {
    /// Nobody's.
    pub(crate) fn none() -> Self {
        Self(Vec::new())
    }

    /// Parses the content of an age identity file or of an SSH private key; `from` names it in errors.
    ///
    /// # Errors
    /// When there is none in it.
    pub fn parse(from: &str, content: &str) -> Result<Self, CryptError> {
        let mut identities: Vec<Box<dyn age::Identity + Send + Sync>> = Vec::new();
        for line in content.lines().map(str::trim).filter(|line| line.starts_with("AGE-SECRET-KEY-1")) {
            let identity = line.parse::<age::x25519::Identity>();
            identities.push(Box::new(identity.map_err(|_| CryptError::Identity(from.to_owned()))?));
        }
        if let Ok(identity) = age::ssh::Identity::from_buffer(content.as_bytes(), None)
            && matches!(identity, age::ssh::Identity::Unencrypted(_))
        {
            identities.push(Box::new(identity));
        }
        if identities.is_empty() { Err(CryptError::Identity(from.to_owned())) } else { Ok(Self(identities)) }
    }

    fn unwrap(&self, file: &[u8]) -> Result<Zeroizing<Vec<u8>>, CryptError> {
        let failed = |error: &dyn std::fmt::Display| CryptError::Unwrap(error.to_string());
        let decryptor = age::Decryptor::new_buffered(file).map_err(|error| failed(&error))?;
        let identities = self.0.iter().map(|identity| &**identity as &dyn age::Identity);
        let mut plain = Zeroizing::new(Vec::new());
        let mut reader = decryptor.decrypt(identities).map_err(|error| failed(&error))?;
        reader.read_to_end(&mut plain).map_err(|error| failed(&error))?;
        Ok(plain)
    }
}

/// The two objects of a new epoch, `<chain>/epoch/<8 hex>.age` and `.sig`.
///
/// # Errors
/// When age fails.
pub fn wrap_epoch(
    epoch: &Epoch,
    (chain, number): (ChainId, u32),
    time_ms: u64,
    (recipients, host): (&Recipients, &SigningKey),
) -> Result<(Vec<u8>, Vec<u8>), CryptError> {
    let file = EpochFile {
        v: 1,
        chain: chain.to_string(),
        epoch: number,
        time_ms,
        name: epoch.name.clone(),
        key: hex::encode(&epoch.key.0),
    };
    let json = |error: serde_json::Error| CryptError::Wrap(error.to_string());
    let plain = Zeroizing::new(serde_json::to_vec(&file).map_err(json)?);
    let signed = EpochSigned {
        v: 1,
        kind: "epoch".to_owned(),
        chain: chain.to_string(),
        epoch: number,
        commitment: epoch.key.commitment(chain, number),
    };
    let signed = Signed::new(host, serde_json::to_string(&signed).map_err(json)?);
    Ok((recipients.wrap(&plain)?, serde_json::to_vec(&signed).map_err(json)?))
}

/// Opens an epoch's key file.
///
/// # Errors
/// When no identity opens it, or it belongs elsewhere.
pub fn unwrap_epoch(
    file: &[u8],
    (chain, number): (ChainId, u32),
    identities: &Identities,
) -> Result<Epoch, CryptError> {
    let plain = identities.unwrap(file)?;
    let file: EpochFile = serde_json::from_slice(&plain)
        .map_err(|_| CryptError::Refused("what is in the epoch's key file is not understood"))?;
    if file.v != 1 || file.chain != chain.to_string() || file.epoch != number {
        return Err(CryptError::Refused("the epoch's key file belongs elsewhere"));
    }
    let key = hex::decode(&file.key).ok_or(CryptError::Refused("the epoch's key is malformed"))?;
    Ok(Epoch { key: EpochKey(key), name: file.name.clone() })
}

/// The same key file, for other recipients.
///
/// # Errors
/// When no identity opens it, or age fails.
pub fn rewrap_epoch(file: &[u8], identities: &Identities, to: &Recipients) -> Result<Vec<u8>, CryptError> {
    to.wrap(&identities.unwrap(file)?)
}

/// Checks an epoch's signature file, against the key too if it is at hand; says who signed.
///
/// # Errors
/// When the signature is wrong or is one of something else.
pub fn check_epoch(
    file: &[u8],
    (chain, number): (ChainId, u32),
    epoch: Option<&Epoch>,
) -> Result<HostKey, CryptError> {
    let (body, host) = Signed::open(file)?;
    let signed: EpochSigned =
        serde_json::from_str(&body).map_err(|_| CryptError::Refused("what was signed is not understood"))?;
    let same = signed.v == 1
        && signed.kind == "epoch"
        && signed.chain == chain.to_string()
        && signed.epoch == number
        && epoch.is_none_or(|epoch| epoch.key.commitment(chain, number) == signed.commitment);
    if same { Ok(host) } else { Err(CryptError::Refused("the signature is one of another epoch")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::Name;

    #[test]
    fn an_epoch_opens_for_its_recipients_only() {
        let (ann, bob, eve) = (
            age::x25519::Identity::generate(),
            age::x25519::Identity::generate(),
            age::x25519::Identity::generate(),
        );
        let identity = |of: &age::x25519::Identity| {
            use age::secrecy::ExposeSecret;
            Identities::parse("x", of.to_string().expose_secret()).unwrap()
        };
        let recipients =
            Recipients::parse(&[ann.to_public().to_string(), bob.to_public().to_string()]).unwrap();
        let host = SigningKey::from_bytes(&rand::random());
        let epoch = Epoch { key: EpochKey::random(), name: "blog".into() };
        let at = (ChainId([1; 16]), 7);
        let (file, sig) = wrap_epoch(&epoch, at, 1, (&recipients, &host)).unwrap();
        for good in [&ann, &bob] {
            let opened = unwrap_epoch(&file, at, &identity(good)).unwrap();
            assert_eq!((opened.key.0, opened.name.as_str()), (epoch.key.0, "blog"));
            assert_eq!(check_epoch(&sig, at, Some(&opened)).unwrap().0, host.verifying_key().to_bytes());
        }
        assert!(unwrap_epoch(&file, at, &identity(&eve)).is_err());
        assert!(unwrap_epoch(&file, (ChainId([2; 16]), 7), &identity(&ann)).is_err());
        assert!(check_epoch(&sig, (ChainId([1; 16]), 8), None).is_err());
        let other = Epoch { key: EpochKey::random(), name: "blog".into() };
        assert!(check_epoch(&sig, at, Some(&other)).is_err());
    }

    #[test]
    fn every_byte_of_an_object_counts() {
        let header = Header {
            chain: ChainId([1; 16]),
            name: Name { level: 0, from: 1, to: 2, part: 0 },
            parts: 1,
            epoch: 1,
            time_ms: 1,
            prev: [0; 32],
            nonce: rand::random(),
        };
        let key = EpochKey::random();
        let plain = [&[0; HEADER][..], b"hello"].concat();
        let object = Bytes::from(key.seal(&header, plain).unwrap());
        assert_eq!(&key.open(&header, object.clone()).unwrap()[..], b"hello");
        for at in 0..object.len() {
            let mut broken = object.to_vec();
            broken[at] ^= 1;
            let opened = Header::parse(&broken).map(|header| key.open(&header, broken.into()));
            assert!(!matches!(opened, Some(Ok(_))), "byte {at}");
            assert!(key.open(&header, object.slice(..at)).is_err(), "cut at {at}");
        }
        assert!(EpochKey::random().open(&header, object).is_err());
    }
}
