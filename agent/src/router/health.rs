//! What the master hears of how apps are, unasked: when something is newly wrong, and when nothing is any more.

use std::collections::{BTreeSet, HashMap};

use flipside_api::AppName;

use super::Witness;

/// Something that is wrong with an app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    /// What it is, so that the same is not told again.
    pub(super) what: String,
    /// The same for people, with how it is now.
    pub(super) text: String,
}

/// What was told of each app that something is wrong with.
#[derive(Debug, Default)]
pub(super) struct Told(HashMap<AppName, BTreeSet<String>>);

impl Told {
    /// Tells `witness` what is wrong with an app now, if that is news.
    pub(super) fn tell(&mut self, witness: Option<&dyn Witness>, app: &AppName, problems: &[Problem]) {
        let now: BTreeSet<String> = problems.iter().map(|problem| problem.what.clone()).collect();
        let before = self.0.remove(app).unwrap_or_default();
        let news = if now.is_empty() { !before.is_empty() } else { !now.is_subset(&before) };
        if !now.is_empty() {
            self.0.insert(app.clone(), now);
        }
        if let Some(witness) = witness.filter(|_| news) {
            let texts: Vec<String> = problems.iter().map(|problem| problem.text.clone()).collect();
            tracing::warn!(%app, ?texts, "AppHealthChanged");
            witness.health(app, texts);
        }
    }

    /// Forgets the apps that are not in `apps`.
    pub(super) fn keep(&mut self, apps: &BTreeSet<AppName>) {
        self.0.retain(|app, _| apps.contains(app));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use flipside_api::{Command, Who};

    use super::*;
    use crate::progress::Subscription;

    #[derive(Default)]
    struct Ear(Mutex<Vec<String>>);

    impl Witness for Ear {
        fn began(&self, _: &Who, _: &Command, _: Subscription) {}

        fn health(&self, app: &AppName, problems: Vec<String>) {
            self.0.lock().unwrap().push(format!("{app}: {}", problems.join(", ")));
        }
    }

    #[test]
    fn only_news_are_told() {
        let (ear, mut told, blog) = (Ear::default(), Told::default(), "blog".parse().unwrap());
        let problem = |what: &str, count: u32| Problem { what: what.into(), text: format!("{what} {count}") };
        for problems in [
            vec![],
            vec![problem("queue", 1)],
            vec![problem("queue", 2)],
            vec![problem("queue", 3), problem("nightly", 1)],
            vec![problem("queue", 4)],
            vec![],
            vec![],
        ] {
            told.tell(Some(&ear), &blog, &problems);
        }
        assert_eq!(*ear.0.lock().unwrap(), ["blog: queue 1", "blog: queue 3, nightly 1", "blog: "]);
        told.tell(Some(&ear), &blog, &[problem("queue", 5)]);
        told.keep(&BTreeSet::new());
        told.tell(Some(&ear), &blog, &[]);
        assert_eq!(ear.0.lock().unwrap().len(), 4, "what was removed is no news");
    }
}
