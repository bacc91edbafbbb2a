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
    /// Whether the code of before cannot write any more, though nothing is lost by it.
    #[serde(default)]
    pub breaking: bool,
}

/// What migrations do to the data and to the code of before, the worse the greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// The code of before goes on.
    Harmless,
    /// It cannot write until the new code serves: requests have to wait meanwhile.
    Breaking,
    /// Data is lost or converted: an operator has to allow it.
    Destructive,
}

impl Operation {
    /// What it does.
    pub fn effect(&self) -> Effect {
        match (self.destructive, self.breaking) {
            (true, _) => Effect::Destructive,
            (false, true) => Effect::Breaking,
            (false, false) => Effect::Harmless,
        }
    }
}

impl Migration {
    /// What the worst of its operations does.
    pub fn effect(&self) -> Effect {
        self.operations.iter().map(Operation::effect).max().unwrap_or(Effect::Harmless)
    }

    /// App and name, as Django writes them, and what in it is not harmless.
    pub fn describe(&self) -> String {
        let losing = self.operations.iter().filter(|operation| operation.effect() > Effect::Harmless);
        let losing: Vec<String> = losing.map(|it| format!("{} {}", it.kind, it.subject)).collect();
        let Self { database, app, name, .. } = self;
        let place = if database == "default" { String::new() } else { format!(" of {database}") };
        let what = if losing.is_empty() { String::new() } else { format!(": {}", losing.join(", ")) };
        format!("{app}.{name}{place}{what}")
    }
}

impl Migrations {
    /// What the worst of those that wait does.
    pub fn effect(&self) -> Effect {
        self.pending.iter().map(Migration::effect).max().unwrap_or(Effect::Harmless)
    }

    /// Those that wait and do at least this.
    pub fn doing(&self, effect: Effect) -> impl Iterator<Item = &Migration> {
        self.pending.iter().filter(move |migration| migration.effect() >= effect)
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
        let (kind, subject) = ("RemoveField".into(), "Post.mood".into());
        let operation = Operation { kind, subject, destructive, breaking: false };
        let database = "default".to_owned();
        Migration { database, app: "blog".into(), name: name.into(), operations: vec![operation] }
    }

    #[test]
    fn a_sentence_names_what_is_not_harmless() {
        let other = Migration { database: "more".into(), ..migration("0003_z", false) };
        let both = [migration("0002_x", true), other];
        assert_eq!(sentence(&both), "blog.0002_x: RemoveField Post.mood; blog.0003_z of more");
        let many: Vec<Migration> = (0..22).map(|n| migration(&n.to_string(), false)).collect();
        assert!(sentence(&many).ends_with("blog.19; and 2 more"));
        let mut all = Migrations { pending: both.to_vec(), ..Migrations::default() };
        assert_eq!((all.effect(), all.doing(Effect::Destructive).count()), (Effect::Destructive, 1));
        all.pending.remove(0);
        assert_eq!(all.effect(), Effect::Harmless);
        all.pending[0].operations[0].breaking = true;
        assert_eq!((all.effect(), all.doing(Effect::Destructive).count()), (Effect::Breaking, 0));
        assert_eq!(sentence(&all.pending), "blog.0003_z of more: RemoveField Post.mood");
    }
}
