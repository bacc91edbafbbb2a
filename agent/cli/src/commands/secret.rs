//! `secret`: values for pillar that only the named hosts can read.

use std::{
    io::{Read, Write},
    path::Path,
};

use age::armor::{ArmoredWriter, Format};
use flipside_api::{Code, Command, Failure};
use serde_json::json;

use super::Session;
use crate::{
    args::{SecretArgs, SecretVerb},
    failures::{OK, Result, on, usage},
};

/// The largest value; an environment holds no more.
const MOST: u64 = 1 << 20;

/// `flipside secret`.
pub(crate) fn run(args: &SecretArgs, session: &Session<'_>) -> Result<u8> {
    match &args.verb {
        SecretVerb::Encrypt { recipient } => {
            let mut plain = Vec::new();
            std::io::stdin().take(MOST + 1).read_to_end(&mut plain).map_err(on("read", "stdin".as_ref()))?;
            if plain.len() as u64 > MOST {
                return Err(usage("a secret is at most 1 MiB"));
            }
            let armour = encrypt(&plain, recipient)?;
            if session.output.is_json() {
                session.output.object(&json!({"v": 1, "result": true, "armour": armour}));
            } else {
                session.output.line(armour.trim_end());
            }
        }
        SecretVerb::Recipient { identity } => {
            let recipient = match identity {
                Some(path) => recipient_in(path)?,
                None => ask_recipient(session)?,
            };
            if session.output.is_json() {
                session.output.object(&json!({"v": 1, "result": true, "recipient": recipient}));
            } else {
                session.output.line(recipient);
            }
        }
    }
    Ok(OK)
}

fn encrypt(plain: &[u8], recipients: &[String]) -> Result<String> {
    let recipients = recipients.iter().map(|text| parse(text)).collect::<Result<Vec<_>>>()?;
    let failed = |error: &dyn std::fmt::Display| Failure::new(Code::Host, format!("cannot encrypt: {error}"));
    let encryptor = age::Encryptor::with_recipients(recipients.iter().map(|recipient| recipient.as_ref()))
        .map_err(|error| failed(&error))?;
    let mut armoured = Vec::new();
    let armour =
        ArmoredWriter::wrap_output(&mut armoured, Format::AsciiArmor).map_err(|error| failed(&error))?;
    let mut writer = encryptor.wrap_output(armour).map_err(|error| failed(&error))?;
    writer.write_all(plain).map_err(|error| failed(&error))?;
    writer.finish().and_then(ArmoredWriter::finish).map_err(|error| failed(&error))?;
    String::from_utf8(armoured).map_err(|error| failed(&error))
}

fn parse(text: &str) -> Result<Box<dyn age::Recipient>> {
    if let Ok(recipient) = text.parse::<age::x25519::Recipient>() {
        return Ok(Box::new(recipient));
    }
    if let Ok(recipient) = text.parse::<age::ssh::Recipient>() {
        return Ok(Box::new(recipient));
    }
    let start: String = text.chars().take(20).collect();
    Err(usage(if text.starts_with("AGE-SECRET-KEY-") {
        "that is an identity (a private key), not a recipient".to_owned()
    } else {
        format!("{start:?} is no recipient: age1… or an SSH public key")
    })
    .hint("flipside secret recipient prints that of a host"))
}

fn recipient_in(path: &Path) -> Result<String> {
    let text = std::fs::read_to_string(path).map_err(on("read", path))?;
    let key = text.lines().map(str::trim).find_map(|line| line.parse::<age::x25519::Identity>().ok());
    key.map(|key| key.to_public().to_string())
        .ok_or_else(|| usage(format!("{} holds no age identity", path.display())))
}

/// The agent's status names the host's recipient.
fn ask_recipient(session: &Session<'_>) -> Result<String> {
    let outcome = session.ask(Command::Status { app: None })?;
    if let Some(error) = outcome.error {
        return Err(error);
    }
    let data = outcome.data.unwrap_or_default();
    let found = data.pointer("/host/recipient").or_else(|| data.get("recipient"));
    found.and_then(|recipient| Some(recipient.as_str()?.to_owned())).ok_or_else(|| {
        Failure::new(Code::NotFound, "the agent does not say its recipient")
            .hint("read it from the host's identity file with --identity FILE")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encrypted_can_be_read_by_its_recipient_only() {
        let (ours, other) = (age::x25519::Identity::generate(), age::x25519::Identity::generate());
        let armour = encrypt(b"s3cret\n$", &[ours.to_public().to_string()]).unwrap();
        assert!(armour.starts_with("-----BEGIN AGE ENCRYPTED FILE-----"));
        let open = |identity: &age::x25519::Identity| -> Option<Vec<u8>> {
            let reader = age::armor::ArmoredReader::new(armour.as_bytes());
            let decryptor = age::Decryptor::new(reader).ok()?;
            let mut plain = Vec::new();
            decryptor.decrypt(std::iter::once(identity as _)).ok()?.read_to_end(&mut plain).ok()?;
            Some(plain)
        };
        assert_eq!(open(&ours).unwrap(), b"s3cret\n$");
        assert_eq!(open(&other), None);
    }

    #[test]
    fn an_identity_is_no_recipient_and_is_not_repeated() {
        let failure = encrypt(b"x", &["AGE-SECRET-KEY-1QQQQSECRET".to_owned()]).unwrap_err();
        assert!(failure.message.contains("private key") && !failure.message.contains("QQQQ"), "{failure:?}");
        assert!(encrypt(b"x", &["age1nonsense".to_owned()]).is_err());
    }
}
