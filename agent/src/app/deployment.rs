//! One attempt to make a release current, as a state that follows from its journal.
//!
//! The journal is a list of events; [`Deployment::next`] says for each whether it may come now and what it makes
//! of the deployment. It is total: an event that may not come is refused, never guessed at. The engine acts on
//! the state, and so does an agent that finds the journal of one that was killed.

use std::{fmt, str::FromStr};

/// The steps of a deploy, in the order in which they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// Copy the package in and verify every byte of it.
    Fetch,
    /// Write the next environment and the overlay.
    Env,
    /// Build the release's virtual environment.
    Venv,
    /// Copy the databases as they were before the first hook.
    Mark,
    /// Hooks that write into the release, then seal it.
    Prepare,
    /// Import the release in a process of its own, then the `check` hooks.
    Preflight,
    /// Compare the release's migrations with the databases: the gate of the destructive ones.
    Schema,
    /// Collect static files.
    Static,
    /// End the old workers; requests wait in the listener.
    Hold,
    /// Put the databases back to a mark; what they replace is kept.
    Data,
    /// Change the databases.
    Migrate,
    /// Hooks of the first deploy.
    Once,
    /// Make the release current and have every worker serve it.
    Switch,
    /// Ask through nginx.
    Health,
    /// Hooks after the switch.
    After,
    /// Remove what is no longer needed.
    Retire,
}

impl Step {
    /// All of them, in order.
    pub const ALL: [Self; 16] = [
        Self::Fetch,
        Self::Env,
        Self::Venv,
        Self::Mark,
        Self::Prepare,
        Self::Preflight,
        Self::Schema,
        Self::Static,
        Self::Hold,
        Self::Data,
        Self::Migrate,
        Self::Once,
        Self::Switch,
        Self::Health,
        Self::After,
        Self::Retire,
    ];

    /// The name, as plans and journals spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fetch => "fetch",
            Self::Env => "env",
            Self::Venv => "venv",
            Self::Mark => "mark",
            Self::Prepare => "prepare",
            Self::Preflight => "preflight",
            Self::Schema => "schema",
            Self::Static => "static",
            Self::Hold => "hold",
            Self::Data => "data",
            Self::Migrate => "migrate",
            Self::Once => "once",
            Self::Switch => "switch",
            Self::Health => "health",
            Self::After => "after",
            Self::Retire => "retire",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that no step has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no step of a deploy")]
pub struct UnknownStep(pub String);

impl FromStr for Step {
    type Err = UnknownStep;
    fn from_str(text: &str) -> Result<Self, UnknownStep> {
        Self::ALL.into_iter().find(|step| step.name() == text).ok_or_else(|| UnknownStep(text.to_owned()))
    }
}

/// What the journal records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The step begins, or begins again after a crash.
    Started(Step),
    /// It is done.
    Done(Step),
    /// It failed; from here on all is undone.
    Failed(Step),
    /// The agent was killed, or told to stop; from here on all is undone.
    Interrupted,
    /// The step is undone.
    Undone(Step),
    /// It could not be undone.
    UndoFailed(Step),
}

impl Event {
    /// The event as a word and the step that it is about.
    pub fn parts(self) -> (&'static str, Option<Step>) {
        match self {
            Self::Started(step) => ("started", Some(step)),
            Self::Done(step) => ("done", Some(step)),
            Self::Failed(step) => ("failed", Some(step)),
            Self::Interrupted => ("interrupted", None),
            Self::Undone(step) => ("undone", Some(step)),
            Self::UndoFailed(step) => ("undo_failed", Some(step)),
        }
    }

    /// The event of [`Event::parts`].
    pub fn from_parts(word: &str, step: Option<Step>) -> Option<Self> {
        match (word, step) {
            ("started", Some(step)) => Some(Self::Started(step)),
            ("done", Some(step)) => Some(Self::Done(step)),
            ("failed", Some(step)) => Some(Self::Failed(step)),
            ("interrupted", None) => Some(Self::Interrupted),
            ("undone", Some(step)) => Some(Self::Undone(step)),
            ("undo_failed", Some(step)) => Some(Self::UndoFailed(step)),
            _ => None,
        }
    }
}

/// Where a deployment goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Forward,
    Back { broken: bool },
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Do this step.
    Do(Step),
    /// Undo this step.
    Undo(Step),
    /// It is over, and the release is current.
    Deployed,
    /// It is over, and all is as before.
    RolledBack,
    /// It is over, and something could not be put back.
    Broken,
}

/// An event that may not come now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{event:?} may not follow where {next:?} is next")]
pub struct IllegalTransition {
    event: Event,
    next: Next,
}

/// One attempt to make a release current.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployment {
    steps: Vec<Step>,
    /// How many of the steps are done, and not undone.
    done: usize,
    /// Whether the step after those was begun.
    open: bool,
    direction: Direction,
}

impl Deployment {
    /// A deployment that will take these steps.
    pub fn new(steps: Vec<Step>) -> Self {
        Self { steps, done: 0, open: false, direction: Direction::Forward }
    }

    /// Adds a step that turned out to be needed, in its place among those that are still to come.
    pub fn need(&mut self, step: Step) {
        if !self.steps.contains(&step) {
            let place = self.steps.partition_point(|one| *one < step).max(self.begun().len());
            self.steps.insert(place, step);
        }
    }

    /// The deployment that these events led to.
    ///
    /// # Errors
    /// When they contradict one another.
    pub fn replay(steps: Vec<Step>, events: &[Event]) -> Result<Self, IllegalTransition> {
        events.iter().try_fold(Self::new(steps), |deployment, event| deployment.next(*event))
    }

    /// What comes next.
    pub fn todo(&self) -> Next {
        match self.direction {
            Direction::Forward => self.steps.get(self.done).map_or(Next::Deployed, |step| Next::Do(*step)),
            Direction::Back { broken } => match self.done.checked_sub(1).map(|last| self.steps[last]) {
                Some(step) => Next::Undo(step),
                None if broken => Next::Broken,
                None => Next::RolledBack,
            },
        }
    }

    /// Whether a crash is finished and not undone: the release has proven itself, or its workers may have written
    /// to databases that the undo would put back.
    pub fn is_past_return(&self) -> bool {
        let gate = if self.steps.contains(&Step::Health) { Step::Health } else { Step::Switch };
        let proven = self.steps[..self.done].contains(&gate);
        let rewinds = self.steps.contains(&Step::Hold) || self.steps.contains(&Step::Data);
        let written = rewinds && self.begun().contains(&Step::Switch);
        self.direction == Direction::Forward && (proven || written)
    }

    /// The steps that were begun and are not undone.
    pub fn begun(&self) -> &[Step] {
        &self.steps[..self.done + usize::from(self.open)]
    }

    /// The deployment after `event`.
    ///
    /// # Errors
    /// When the event may not come now.
    pub fn next(mut self, event: Event) -> Result<Self, IllegalTransition> {
        match (event, self.todo()) {
            (Event::Started(step), Next::Do(due)) if step == due => self.open = true,
            (Event::Done(step), Next::Do(due)) if step == due && self.open => {
                self.done += 1;
                self.open = false;
            }
            (Event::Failed(step), Next::Do(due)) if step == due && self.open => self.turn_back(),
            (Event::Interrupted, Next::Do(_)) => self.turn_back(),
            (Event::Undone(step), Next::Undo(due)) if step == due => self.done -= 1,
            (Event::UndoFailed(step), Next::Undo(due)) if step == due => {
                self.done -= 1;
                self.direction = Direction::Back { broken: true };
            }
            (event, next) => return Err(IllegalTransition { event, next }),
        }
        Ok(self)
    }

    /// A step that was begun may have done half of its work: it is undone as well.
    fn turn_back(&mut self) {
        self.done += usize::from(self.open);
        self.open = false;
        self.direction = Direction::Back { broken: false };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STEPS: [Step; 3] = [Step::Fetch, Step::Switch, Step::Health];

    fn after(events: &[Event]) -> Deployment {
        Deployment::replay(STEPS.to_vec(), events).unwrap()
    }

    #[test]
    fn names_come_back() {
        for step in Step::ALL {
            assert_eq!(step.name().parse(), Ok(step));
            for event in [
                Event::Started(step),
                Event::Done(step),
                Event::Failed(step),
                Event::Undone(step),
                Event::UndoFailed(step),
            ] {
                let (word, step) = event.parts();
                assert_eq!(Event::from_parts(word, step), Some(event));
            }
        }
        assert!("Fetch".parse::<Step>().is_err());
        assert!(Step::ALL.is_sorted());
    }

    #[test]
    fn all_done_is_deployed() {
        use Event::{Done, Started};
        let mut events = Vec::new();
        for step in STEPS {
            assert_eq!(after(&events).todo(), Next::Do(step));
            events.extend([Started(step), Done(step)]);
        }
        assert_eq!(after(&events).todo(), Next::Deployed);
    }

    #[test]
    fn a_failed_step_is_undone_with_those_before_it() {
        use Event::{Done, Failed, Started, Undone};
        let mut events =
            vec![Started(Step::Fetch), Done(Step::Fetch), Started(Step::Switch), Failed(Step::Switch)];
        assert_eq!(after(&events).todo(), Next::Undo(Step::Switch));
        events.push(Undone(Step::Switch));
        assert_eq!(after(&events).todo(), Next::Undo(Step::Fetch));
        events.push(Undone(Step::Fetch));
        assert_eq!(after(&events).todo(), Next::RolledBack);
    }

    #[test]
    fn a_crash_undoes_what_was_begun_and_no_more() {
        use Event::{Done, Interrupted, Started};
        let done = [Started(Step::Fetch), Done(Step::Fetch), Interrupted];
        assert_eq!(after(&done).todo(), Next::Undo(Step::Fetch));
        let begun = [Started(Step::Fetch), Done(Step::Fetch), Started(Step::Switch), Interrupted];
        assert_eq!(after(&begun).todo(), Next::Undo(Step::Switch));
        assert_eq!(after(&[Interrupted]).todo(), Next::RolledBack);
    }

    #[test]
    fn what_cannot_be_undone_is_broken_but_the_rest_is_undone() {
        use Event::{Done, Failed, Started, UndoFailed, Undone};
        let events = [
            Started(Step::Fetch),
            Done(Step::Fetch),
            Started(Step::Switch),
            Failed(Step::Switch),
            UndoFailed(Step::Switch),
            Undone(Step::Fetch),
        ];
        assert_eq!(after(&events).todo(), Next::Broken);
    }

    #[test]
    fn health_is_the_point_of_no_return() {
        use Event::{Done, Started};
        let mut events =
            vec![Started(Step::Fetch), Done(Step::Fetch), Started(Step::Switch), Done(Step::Switch)];
        assert!(!after(&events).is_past_return());
        events.extend([Started(Step::Health), Done(Step::Health)]);
        assert!(after(&events).is_past_return());
    }

    #[test]
    fn what_may_have_written_to_databases_that_would_go_back_is_finished() {
        use Event::{Done, Started};
        for (first, finished) in [(Step::Hold, true), (Step::Data, true), (Step::Migrate, false)] {
            let steps = vec![first, Step::Switch, Step::Health];
            let mut events = vec![Started(first), Done(first)];
            assert!(!Deployment::replay(steps.clone(), &events).unwrap().is_past_return());
            events.push(Started(Step::Switch));
            assert_eq!(Deployment::replay(steps, &events).unwrap().is_past_return(), finished, "{first}");
        }
    }

    #[test]
    fn illegal_moves_are_refused() {
        use Event::{Done, Interrupted, Started, Undone};
        for events in [
            &[Done(Step::Fetch)][..],
            &[Started(Step::Switch)],
            &[Undone(Step::Fetch)],
            &[Started(Step::Fetch), Done(Step::Switch)],
            &[Interrupted, Started(Step::Fetch)],
            &[Interrupted, Interrupted],
        ] {
            assert!(Deployment::replay(STEPS.to_vec(), events).is_err(), "{events:?}");
        }
    }

    fn any_event() -> impl Strategy<Value = Event> {
        let step = proptest::sample::select(STEPS.to_vec());
        prop_oneof![
            step.clone().prop_map(Event::Started),
            step.clone().prop_map(Event::Done),
            step.clone().prop_map(Event::Failed),
            step.clone().prop_map(Event::Undone),
            step.prop_map(Event::UndoFailed),
            Just(Event::Interrupted),
        ]
    }

    /// What becomes of a step, or of the agent.
    #[derive(Debug, Clone, Copy)]
    enum Fate {
        Works,
        Fails,
        /// The agent is killed before it begins, in the middle of it, or when what it did is not on record.
        Dies,
        DiesWithin,
    }

    fn fates() -> impl Strategy<Value = Vec<Fate>> {
        let fate = proptest::sample::select(vec![
            Fate::Works,
            Fate::Works,
            Fate::Works,
            Fate::Fails,
            Fate::Dies,
            Fate::DiesWithin,
        ]);
        proptest::collection::vec(fate, 0..80)
    }

    fn plans() -> impl Strategy<Value = Vec<Step>> {
        proptest::sample::subsequence(Step::ALL.to_vec(), 0..=Step::ALL.len())
    }

    /// As the engine does: the journal is written before and after, and another agent goes on from it.
    fn lives(steps: &[Step], fates: &[Fate]) -> (Vec<Event>, std::collections::BTreeMap<Step, i32>) {
        let mut events = Vec::new();
        // What is on disk of each step: undos and repeated works are idempotent.
        let mut made = std::collections::BTreeMap::new();
        let mut fates = fates.iter().copied().chain(std::iter::repeat(Fate::Works));
        loop {
            let now = Deployment::replay(steps.to_vec(), &events).unwrap();
            let fate = fates.next().unwrap();
            let mut died = matches!(fate, Fate::Dies);
            match now.todo() {
                Next::Do(step) if !died => {
                    events.push(Event::Started(step));
                    made.insert(step, 1);
                    match fate {
                        Fate::Fails => events.push(Event::Failed(step)),
                        Fate::Works => events.push(Event::Done(step)),
                        _ => died = true,
                    }
                }
                Next::Undo(step) if !died => {
                    made.remove(&step);
                    match fate {
                        Fate::Fails => events.push(Event::UndoFailed(step)),
                        Fate::Works => events.push(Event::Undone(step)),
                        _ => died = true,
                    }
                }
                Next::Do(_) | Next::Undo(_) => {}
                _ => return (events, made),
            }
            if died {
                let found = Deployment::replay(steps.to_vec(), &events).unwrap();
                if !found.is_past_return() && matches!(found.todo(), Next::Do(_)) {
                    events.push(Event::Interrupted);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn whatever_happens_it_ends_and_all_is_made_or_nothing(steps in plans(), fates in fates()) {
            let (events, made) = lives(&steps, &fates);
            let end = Deployment::replay(steps.clone(), &events).unwrap();
            match end.todo() {
                Next::Deployed => prop_assert_eq!(made.keys().copied().collect::<Vec<_>>(), steps),
                Next::RolledBack | Next::Broken => {
                    prop_assert!(made.is_empty(), "{:?} is left", made);
                    let undone = events.iter().any(|event| matches!(event, Event::UndoFailed(_)));
                    prop_assert_eq!(end.todo() == Next::Broken, undone);
                }
                other => prop_assert!(false, "{:?} is no end", other),
            }
            for step in Step::ALL {
                // Nothing may follow the end.
                prop_assert!(end.clone().next(Event::Started(step)).is_err());
                prop_assert!(end.clone().next(Event::Undone(step)).is_err());
            }
        }

        #[test]
        fn every_event_is_obeyed_or_refused(events in proptest::collection::vec(any_event(), 0..60)) {
            let mut deployment = Deployment::new(STEPS.to_vec());
            for event in events {
                let before = deployment.clone();
                deployment = deployment.next(event).unwrap_or(before);
                prop_assert!(deployment.begun().len() <= STEPS.len());
            }
        }
    }
}
