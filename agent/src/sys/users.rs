//! System users and groups.

use nix::unistd::{Group, User, geteuid};

use crate::runtime::Account;

/// A user or group that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UsersError {
    /// There is none of that name.
    #[error("there is no system {kind} {name:?}")]
    Unknown {
        /// `user` or `group`.
        kind: &'static str,
        /// The name.
        name: String,
    },
    /// The host's databases could not be read.
    #[error("cannot look up the {kind} {name:?}")]
    Lookup {
        /// `user` or `group`.
        kind: &'static str,
        /// The name.
        name: String,
        /// Why.
        #[source]
        source: nix::Error,
    },
}

/// The system user `name`.
///
/// # Errors
/// When there is none.
pub fn account(name: &str) -> Result<Account, UsersError> {
    let user = User::from_name(name)
        .map_err(|source| UsersError::Lookup { kind: "user", name: name.to_owned(), source })?
        .ok_or_else(|| UsersError::Unknown { kind: "user", name: name.to_owned() })?;
    Ok(Account { name: user.name, uid: user.uid.as_raw(), gid: user.gid.as_raw() })
}

/// The id of the system group `name`.
///
/// # Errors
/// When there is none.
pub fn group(name: &str) -> Result<u32, UsersError> {
    let group = Group::from_name(name)
        .map_err(|source| UsersError::Lookup { kind: "group", name: name.to_owned(), source })?
        .ok_or_else(|| UsersError::Unknown { kind: "group", name: name.to_owned() })?;
    Ok(group.gid.as_raw())
}

/// Whether this process may become other users.
pub fn am_root() -> bool {
    geteuid().is_root()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_known_and_nonsense_is_not() {
        assert_eq!(account("root").unwrap(), Account { name: "root".into(), uid: 0, gid: 0 });
        assert_eq!(group("root").unwrap(), 0);
        let error = account("no such user\n").unwrap_err();
        assert!(error.to_string().contains("no such user"), "{error}");
    }
}
