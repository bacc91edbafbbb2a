//! What goes wrong with a store, in the four classes that a caller acts on.

/// What a caller can do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// `put_new` found the name taken.
    Exists,
    /// There is no such object.
    NotFound,
    /// It may work in a while: the store is away, slow, or asks for patience. The outcome of a put is
    /// unknown.
    Retryable,
    /// It will not work until somebody does something: credentials, a full disk, a bad name.
    Fatal,
}

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// A verb of the store that failed.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {subject:?}: {what}")]
pub struct StoreError {
    kind: ErrorKind,
    operation: &'static str,
    subject: String,
    what: String,
    hint: &'static str,
    #[source]
    cause: Option<Cause>,
}

impl StoreError {
    /// A failure of `operation` on the object, prefix or address `subject`.
    pub fn new(kind: ErrorKind, operation: &'static str, subject: &str, what: impl Into<String>) -> Self {
        Self { kind, operation, subject: subject.to_owned(), what: what.into(), hint: "", cause: None }
    }

    /// The same, with the error beneath it.
    #[must_use]
    pub fn because(mut self, cause: impl Into<Cause>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// The same, with what to do.
    #[must_use]
    pub fn hint(mut self, hint: &'static str) -> Self {
        self.hint = hint;
        self
    }

    pub(super) fn bad_url(url: &str, what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Fatal, "open", url, what)
            .hint("give the path of a folder, or s3://BUCKET/PREFIX?region=REGION&endpoint=URL")
    }

    /// The class.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The verb that failed.
    pub fn operation(&self) -> &'static str {
        self.operation
    }

    /// The key, prefix or address that it was about.
    pub fn key(&self) -> &str {
        &self.subject
    }

    /// What a person can do; empty where the message says all.
    pub fn advice(&self) -> &'static str {
        self.hint
    }
}
