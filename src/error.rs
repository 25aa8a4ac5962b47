//! The one error type. Every variant says what was being done and to which key, scenario, field, tensor or file.

/// Result of every fallible function of the crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, with its context. [`Error::status`] is the only place that maps to the C ABI's codes.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument of a call is unusable (a null pointer, a wrong size, an index out of range).
    #[error("invalid argument: {0}")]
    Argument(String),
    /// The configuration text or an override is wrong; `key` is its dotted path (empty for the whole text).
    #[error("configuration{}: {reason}", if key.is_empty() { String::new() } else { format!(" key '{key}'") })]
    Config {
        /// Dotted path of the key.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A scenario, or the map that it refers to, breaks a rule of the scenario model.
    #[error("scenario '{token}': {reason}")]
    Scenario {
        /// Token of the scenario (or name of the map).
        token: String,
        /// Field and rule.
        reason: String,
    },
    /// The host's callback reported a failure.
    #[error("host callback '{callback}' failed{}: {reason}", if token.is_empty() { String::new() } else { format!(" for {token}") })]
    Host {
        /// Name of the callback.
        callback: String,
        /// What it was asked for.
        token: String,
        /// What it said.
        reason: String,
    },
    /// The data cannot be used as asked (an empty split, no valid scenario).
    #[error("data: {0}")]
    Data(String),
    /// A tensor's shape or a graph's structure is wrong.
    #[error("graph: {0}")]
    Graph(String),
    /// The backend cannot run what it was asked to run.
    #[error("backend: {0}")]
    Backend(String),
    /// Loss or gradient stopped being finite.
    #[error("not finite: {0}")]
    NotFinite(String),
    /// A file could not be read or written.
    #[error("file '{path}': {reason}")]
    File {
        /// Path of the file.
        path: String,
        /// Cause.
        reason: String,
    },
    /// The host asked to stop (through the stop call or an event callback).
    #[error("stopped by the host")]
    Stopped,
    /// A panic was caught at the border; the handle is poisoned.
    #[error("panic: {0}")]
    Panic(String),
}

impl Error {
    /// Code of the C ABI; the numbers of `TeStatus` in `training_engine.h`.
    pub fn status(&self) -> i32 {
        match self {
            Self::Argument(_) => 1,
            Self::Config { .. } => 2,
            Self::Scenario { .. } => 3,
            Self::Host { .. } => 4,
            Self::Data(_) => 5,
            Self::File { .. } => 6,
            Self::NotFinite(_) => 7,
            Self::Backend(_) => 8,
            Self::Graph(_) => 9,
            Self::Stopped => 10,
            Self::Panic(_) => 12,
        }
    }

    /// An [`Error::Config`] for a dotted key.
    pub fn config(key: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Config { key: key.into(), reason: reason.into() }
    }

    /// An [`Error::Scenario`] for a token.
    pub fn scenario(token: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Scenario { token: token.into(), reason: reason.into() }
    }

    /// An [`Error::File`] for a path.
    pub fn file(path: impl AsRef<std::path::Path>, reason: impl std::fmt::Display) -> Self {
        Self::File { path: path.as_ref().display().to_string(), reason: reason.to_string() }
    }
}
