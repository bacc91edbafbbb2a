//! What a release's migrations would do to an app's databases: `migrations` in the data of a plan.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The migrations of a release, compared with the databases as they are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Migrations {
    /// Why nothing is known of them, such as a release that is not installed yet; empty where it is known.
    pub unknown_why: String,
    /// The databases that were compared.
    pub databases: Vec<Migrated>,
    /// Those that wait, in the order in which they would run.
    pub pending: Vec<Migration>,
    /// Those that were applied and that the release does not know: it is older than the databases.
    pub unknown: Vec<Migration>,
}

/// A database that migrations are for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Migrated {
    /// Django's alias.
    pub alias: String,
    /// Whether it holds nothing yet, so that nothing can be lost.
    pub empty: bool,
}

/// One migration of one database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Migration {
    /// Django's alias of the database.
    pub database: String,
    /// The label of the Django app.
    pub app: String,
    /// The migration's name.
    pub name: String,
    /// What it does, in order. None are listed for a database that is empty.
    #[serde(default)]
    pub operations: Vec<Operation>,
}

/// One operation of a migration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Operation {
    /// Its class, such as `RemoveField`.
    pub kind: String,
    /// What it is about, such as `Post.title`.
    pub subject: String,
    /// Whether it loses data, or changes it so that the code of before cannot go on.
    pub destructive: bool,
}

impl Migration {
    /// Whether any operation is destructive.
    pub fn is_destructive(&self) -> bool {
        self.operations.iter().any(|operation| operation.destructive)
    }

    /// App and name, as Django writes them, and what is destructive in it.
    pub fn describe(&self) -> String {
        let losing = self.operations.iter().filter(|operation| operation.destructive);
        let losing: Vec<String> = losing.map(|it| format!("{} {}", it.kind, it.subject)).collect();
        let Self { database, app, name, .. } = self;
        let place = if database == "default" { String::new() } else { format!(" of {database}") };
        let what = if losing.is_empty() { String::new() } else { format!(": {}", losing.join(", ")) };
        format!("{app}.{name}{place}{what}")
    }
}

impl Migrations {
    /// The migrations that wait and are destructive.
    pub fn destructive(&self) -> impl Iterator<Item = &Migration> {
        self.pending.iter().filter(|migration| migration.is_destructive())
    }
}

/// A list for a sentence: the first few, and how many more there are.
pub fn sentence<'a>(migrations: impl IntoIterator<Item = &'a Migration>) -> String {
    const FEW: usize = 20;
    let all: Vec<&Migration> = migrations.into_iter().collect();
    let mut text = all.iter().take(FEW).map(|it| it.describe()).collect::<Vec<_>>().join("; ");
    if all.len() > FEW {
        text.push_str(&format!("; and {} more", all.len() - FEW));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn migration(name: &str, destructive: bool) -> Migration {
        let operation = Operation { kind: "RemoveField".into(), subject: "Post.mood".into(), destructive };
        let database = "default".to_owned();
        Migration { database, app: "blog".into(), name: name.into(), operations: vec![operation] }
    }

    #[test]
    fn a_sentence_names_what_is_destructive() {
        let other = Migration { database: "more".into(), ..migration("0003_z", false) };
        let both = [migration("0002_x", true), other];
        assert_eq!(sentence(&both), "blog.0002_x: RemoveField Post.mood; blog.0003_z of more");
        let many: Vec<Migration> = (0..22).map(|n| migration(&n.to_string(), false)).collect();
        assert!(sentence(&many).ends_with("blog.19; and 2 more"));
        let all = Migrations { pending: both.to_vec(), ..Migrations::default() };
        assert_eq!(all.destructive().count(), 1);
    }
}
