//! Each app's part of the store, and jobs for children that work there.
//!
//! Every app has a folder of its own in a folder store, its user's and nobody else's, and the child is started in
//! it: the store itself may be closed to everybody but root. In S3 it is a prefix. The minion's id comes first, so
//! that two hosts with the same app never take one's backup for the other's.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use flipside_api::{AppName, AppSpec, Code, Failure};
use serde_json::Value;

use super::job::{Credentials, Job, Said, Secret, Task};
use crate::{
    config::Backup,
    host::{Host, fault},
    progress::Channel,
    runtime::Account,
    sys::{
        beneath,
        exec::{self, Ended, Program},
    },
};

/// The most output of a child that is kept: a list of chains.
const TAIL: usize = 4 << 20;

/// The host's store, as configured.
pub(super) struct Place {
    pub(super) host: Arc<Host>,
    pub(super) config: Backup,
}

fn failed(message: impl Into<String>) -> Failure {
    Failure::new(Code::Backup, message)
}

impl Place {
    /// The address of an app's part.
    fn url(&self, app: &AppName) -> String {
        let (repo, query) = match self.config.repo.split_once('?') {
            Some((repo, query)) if repo.starts_with("s3://") => (repo, format!("?{query}")),
            _ => (self.config.repo.as_str(), String::new()),
        };
        format!("{}/{}/{app}{query}", repo.trim_end_matches('/'), self.host.config.id)
    }

    fn folder(&self, app: &AppName) -> Option<PathBuf> {
        (!self.config.repo.starts_with("s3://")).then(|| self.url(app).into())
    }

    /// Makes what the app's children need.
    fn prepare(&self, app: &AppName, account: Option<&Account>) -> Result<(), Failure> {
        let owner = account.map(|account| (account.uid, account.gid));
        let make = |path: &Path, mode, owner| {
            beneath::ensure_dir(path, mode, owner)
                .map_err(|error| fault("cannot make a place for backups", &error))
        };
        if let Some(folder) = self.folder(app) {
            make(&folder, 0o700, owner)?;
        }
        make(&self.host.paths(app).backups(), 0o700, owner)
    }

    /// The identity to read with: the one that was given, else the host's.
    pub(super) fn identity(&self, given: Option<&str>) -> Result<Option<Secret>, Failure> {
        if let Some(given) = given {
            return Ok(Some(Secret(given.to_owned())));
        }
        let Some(path) = &self.config.identity_file else { return Ok(None) };
        match std::fs::read_to_string(path) {
            Ok(text) => Ok(Some(Secret(text))),
            Err(error) => Err(fault(&format!("cannot read the identity {}", path.display()), &error)),
        }
    }

    fn credentials(&self) -> Result<Option<Credentials>, Failure> {
        if !self.config.repo.starts_with("s3://") {
            return Ok(None);
        }
        if let Some(path) = &self.config.credentials_file {
            let text = std::fs::read_to_string(path)
                .map_err(|error| fault(&format!("cannot read {}", path.display()), &error))?;
            let keys = credentials_in(&text);
            return keys.map(Some).ok_or_else(|| {
                failed(format!("{} names no aws_access_key_id and aws_secret_access_key", path.display()))
            });
        }
        let from = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let token = from("AWS_SESSION_TOKEN").map(Secret);
        Ok(from("AWS_ACCESS_KEY_ID").zip(from("AWS_SECRET_ACCESS_KEY")).map(|(key_id, secret)| Credentials {
            key_id,
            secret: Secret(secret),
            token,
        }))
    }

    /// A child with its job, ready to be started.
    pub(super) fn child(
        &self,
        spec: &AppSpec,
        identity: Option<Secret>,
        task: Task,
    ) -> Result<(Program, Vec<u8>), Failure> {
        let account = self.host.account(spec)?;
        self.prepare(&spec.app, account.as_ref())?;
        let paths = self.host.paths(&spec.app);
        let mut argv = vec![self.host.program.display().to_string(), "follow".to_owned()];
        argv.extend(["--app".to_owned(), spec.app.to_string()]);
        if let Task::Follow { database, .. } = &task {
            argv.push(format!("--database={database}"));
        }
        let job = Job {
            app: spec.app.to_string(),
            url: self.url(&spec.app),
            credentials: self.credentials()?,
            limit: self.config.limit,
            state: paths.backups(),
            data: paths.data(),
            identity,
            task,
        };
        let mut line = serde_json::to_vec(&job).map_err(|error| fault("cannot write a job", &error))?;
        line.push(b'\n');
        let mut env: BTreeMap<String, String> = [("PATH".to_owned(), "/usr/bin:/bin".to_owned())].into();
        for name in ["AWS_REGION", "AWS_DEFAULT_REGION", "FLIPSIDE_LOG", "SSL_CERT_FILE"] {
            env.extend(std::env::var(name).ok().map(|value| (name.to_owned(), value)));
        }
        let program = Program {
            argv,
            env,
            cwd: self.folder(&spec.app).unwrap_or_else(|| paths.backups()),
            account,
            stdin: None,
            timeout: Duration::MAX,
            tail: TAIL,
        };
        Ok((program, line))
    }

    /// Has a child do `task`; its progress is the channel's.
    pub(super) async fn run(
        &self,
        spec: &AppSpec,
        identity: Option<Secret>,
        task: Task,
        timeout: Duration,
        channel: Option<&Arc<Channel>>,
    ) -> Result<Value, Failure> {
        let (program, line) = self.child(spec, identity, task)?;
        let program = Program { stdin: Some(line), timeout, ..program };
        let mut on_line = |line: &str| {
            if let (Some(channel), Ok(Said::Progress(text))) = (channel, serde_json::from_str(line)) {
                channel.output("restore", &text);
            }
        };
        let ended = exec::run(program, &mut on_line)
            .await
            .map_err(|error| fault("cannot start the reader of the app's databases", &error))?;
        outcome(&ended)
    }
}

/// What the child said at its end.
fn outcome(ended: &Ended) -> Result<Value, Failure> {
    if ended.timed_out {
        return Err(failed("the reader of the app's databases did not end in time"));
    }
    let text = String::from_utf8_lossy(&ended.tail);
    for line in text.lines().rev() {
        match serde_json::from_str(line) {
            Ok(Said::Done(value)) => return Ok(value),
            Ok(Said::Failed { message, hint }) => return Err(failed(message).hint(hint)),
            _ => {}
        }
    }
    Err(failed("the reader of the app's databases ended without an answer").log(ended.lines(20)))
}

/// The keys of the profile `default`, or of a file without profiles.
fn credentials_in(text: &str) -> Option<Credentials> {
    let (mut key_id, mut secret, mut token, mut ours) = (None, None, None, true);
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            ours = line == "[default]";
        } else if let (true, Some((name, value))) = (ours, line.split_once('=')) {
            match name.trim() {
                "aws_access_key_id" => key_id = Some(value.trim().to_owned()),
                "aws_secret_access_key" => secret = Some(Secret(value.trim().to_owned())),
                "aws_session_token" => token = Some(Secret(value.trim().to_owned())),
                _ => {}
            }
        }
    }
    key_id.zip(secret).map(|(key_id, secret)| Credentials { key_id, secret, token })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_the_default_profile() {
        let keys = credentials_in(
            "[other]\naws_access_key_id = no\naws_secret_access_key = no\n[default]\naws_access_key_id=a\n\
             aws_secret_access_key = b=c\naws_session_token = t==\n",
        );
        let keys = keys.unwrap();
        assert_eq!((keys.key_id.as_str(), keys.secret.0.as_str()), ("a", "b=c"));
        assert_eq!(keys.token.unwrap().0, "t==");
        assert_eq!(credentials_in("[other]\naws_access_key_id=a\naws_secret_access_key=b"), None);
    }

    #[test]
    fn a_child_that_says_nothing_is_a_failure_with_its_last_words() {
        let ended = Ended { code: Some(101), tail: b"thread panicked\n".to_vec(), ..Ended::default() };
        assert_eq!(outcome(&ended).unwrap_err().log, ["thread panicked"]);
        let ended = Ended { tail: b"{\"done\":[1]}\n".to_vec(), ..Ended::default() };
        assert_eq!(outcome(&ended).unwrap(), serde_json::json!([1]));
    }
}
