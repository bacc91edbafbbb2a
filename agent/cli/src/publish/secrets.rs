//! Files that must not be in a package: every host's minion can read every package.
//!
//! The app's own wheel is searched for environment files, keys and databases, by name and by how the file
//! begins. Dependencies come from an index where all can read them, and folders of tests carry keys made for
//! tests; of those only what is never meant to be published is refused.

use flipside_api::{Code, Failure};

use super::wheel::Wheel;
use crate::failures::Result;

/// A file that may be a secret, and what it looks like.
pub(crate) type Finding = (String, &'static str);

/// How much of a file is looked at.
pub(crate) const HEAD: usize = 128;

/// What `name` (a path) looks like, judged by its name.
pub(crate) fn by_name(path: &str) -> Option<&'static str> {
    let name = path.rsplit('/').next().unwrap_or(path).to_ascii_lowercase();
    let template = [".example", ".sample", ".template", ".dist"].iter().any(|end| name.ends_with(end));
    if name == ".env" || name == ".envrc" || (name.starts_with(".env.") && !template) {
        return Some("an environment file");
    }
    let database = ["sqlite", "sqlite3", "db", "db3"];
    let ends = |end: &str| name.ends_with(end);
    for kind in database {
        let journal = ["-wal", "-shm", "-journal"].iter().any(|tail| ends(&format!(".{kind}{tail}")));
        if journal || ends(&format!(".{kind}")) {
            return Some("a database");
        }
    }
    let keys = ["id_rsa", "id_dsa", "id_ecdsa", "id_ed25519", "id_ed25519_sk", "id_ecdsa_sk"];
    if keys.contains(&name.as_str()) || ends(".p12") || ends(".pfx") || ends(".jks") || ends(".ppk") {
        return Some("a private key");
    }
    let credentials =
        [".netrc", ".pgpass", ".git-credentials", ".htpasswd", ".pypirc", ".secret", ".vault_pass"];
    credentials.contains(&name.as_str()).then_some("credentials")
}

/// What a file looks like, judged by how it begins.
pub(crate) fn by_content(head: &[u8]) -> Option<&'static str> {
    if head.starts_with(b"SQLite format 3\0") {
        return Some("a database");
    }
    let text = String::from_utf8_lossy(&head[..head.len().min(HEAD)]);
    let text = text.trim_start();
    let private = text.starts_with("-----BEGIN")
        && text.lines().next().is_some_and(|line| line.contains("PRIVATE KEY"));
    (private
        || text.starts_with("AGE-SECRET-KEY-")
        || text.starts_with("# created: ") && text.contains("# public key: age1"))
    .then_some("a private key")
}

/// The findings in a wheel that nobody allowed.
pub(crate) fn in_wheel(wheel: &Wheel, own: bool, allowed: &[String]) -> Result<Vec<Finding>> {
    let mut found = Vec::new();
    for path in wheel.entries.iter().filter(|path| !path.ends_with('/')) {
        let kind = if own && !is_test_data(path) { by_name(path) } else { never_published(path) };
        if let Some(kind) = kind {
            found.push((path.clone(), kind));
        }
    }
    if own {
        for (path, head) in wheel.heads(HEAD)? {
            if let Some(kind) = by_content(&head)
                && !is_test_data(&path)
                && !found.iter().any(|(known, _)| *known == path)
            {
                found.push((path, kind));
            }
        }
    }
    found.retain(|(path, _)| !is_allowed(path, allowed));
    Ok(found)
}

/// Whether the user said that this file may pass.
pub(crate) fn is_allowed(path: &str, allowed: &[String]) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    allowed.iter().any(|pass| pass == path || pass == name)
}

fn is_test_data(path: &str) -> bool {
    path.split('/')
        .rev()
        .skip(1)
        .any(|folder| ["test", "tests", "testdata", "node_modules"].contains(&folder))
}

fn never_published(path: &str) -> Option<&'static str> {
    match path.rsplit('/').next() {
        Some(".env") => Some("an environment file"),
        Some("db.sqlite3" | "db.sqlite") => Some("a database"),
        _ => None,
    }
}

/// Refuses a wheel with findings, by name.
pub(crate) fn refuse(wheel: &Wheel, found: &[Finding]) -> Result<()> {
    if found.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = found.iter().take(10).map(|(path, kind)| format!("{path} ({kind})")).collect();
    let more = if found.len() > names.len() {
        format!(" and {} more", found.len() - names.len())
    } else {
        String::new()
    };
    let message = format!("{} holds what must not be published: {}{more}", wheel.file, names.join(", "));
    Err(Failure::new(Code::Gate, message).hint(
        "every host can read every package: leave it out of the wheel, or let it pass with --allow-file NAME",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_known_by_name() {
        for bad in [
            ".env",
            "a/.env",
            "a/.env.production",
            "db.sqlite3",
            "x/DB.SQLITE3",
            "db.sqlite3-wal",
            "data.db",
            "keys/id_ed25519",
            "a.p12",
            ".netrc",
        ] {
            assert!(by_name(bad).is_some(), "{bad}");
        }
        for good in
            [".env.example", "env.py", "blog/database.py", "id_rsa.pub", "sqlite3.py", "a/dbx", "cert.pem"]
        {
            assert!(by_name(good).is_none(), "{good}");
        }
    }

    #[test]
    fn secrets_are_known_by_their_beginning() {
        assert!(by_content(b"SQLite format 3\0...").is_some());
        assert!(by_content(b"-----BEGIN OPENSSH PRIVATE KEY-----\nb3").is_some());
        assert!(by_content(b"\n-----BEGIN RSA PRIVATE KEY-----\nb3").is_some());
        assert!(by_content(b"-----BEGIN CERTIFICATE-----\n").is_none());
        assert!(by_content(b"KEY = '''-----BEGIN RSA PRIVATE KEY-----").is_none());
        assert!(by_content(b"").is_none());
    }
}
