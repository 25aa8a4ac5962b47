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
        /// Category, by which reports count.
        rejection: Rejection,
        /// Field, index and number.
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

/// Why a scenario is not used: the categories by which reports count. Names are stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Rejection {
    /// The host's callback left it out.
    LeftOutByHost,
    /// Its description cannot be read: a missing pointer, an unusable text, an unknown kind, a count beyond all limits.
    Unreadable,
    /// Ego and agents do not have as many states as are needed; where something is learnt from it, the future among them.
    StepCount,
    /// A number that was read or computed is not finite.
    NotFinite,
    /// A number that was read or computed is of a size that does not occur.
    OutOfRange,
    /// Its map has missing or repeated ids or unusable numbers.
    BadMap,
    /// Its route is empty, or names no road-block of the map.
    BadRoute,
    /// The ego is on no lane of the route that leads in its direction.
    NoReferenceLine,
    /// Another scenario before it in the source has the same token, log and type.
    Repeated,
    /// No entry of the cache on disk can hold its features; training without one can use them.
    NotCacheable,
}

impl Rejection {
    /// The category of a number that no rule allows.
    pub(crate) fn of_number(value: f64) -> Self {
        if value.is_finite() { Self::OutOfRange } else { Self::NotFinite }
    }

    /// The category of a name.
    pub(crate) fn of_name(name: &str) -> Option<Self> {
        use Rejection::*;
        let all = [LeftOutByHost, Unreadable, StepCount, NotFinite, OutOfRange, BadMap, BadRoute, NoReferenceLine, Repeated, NotCacheable];
        all.into_iter().find(|rejection| rejection.name() == name)
    }

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::LeftOutByHost => "left_out_by_host",
            Self::Unreadable => "unreadable",
            Self::StepCount => "step_count",
            Self::NotFinite => "not_finite",
            Self::OutOfRange => "out_of_range",
            Self::BadMap => "bad_map",
            Self::BadRoute => "bad_route",
            Self::NoReferenceLine => "no_reference_line",
            Self::Repeated => "repeated",
            Self::NotCacheable => "not_cacheable",
        }
    }
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
    pub fn scenario(token: impl Into<String>, rejection: Rejection, reason: impl Into<String>) -> Self {
        Self::Scenario { token: token.into(), rejection, reason: reason.into() }
    }

    /// An [`Error::File`] for a path.
    pub fn file(path: impl AsRef<std::path::Path>, reason: impl std::fmt::Display) -> Self {
        Self::File { path: path.as_ref().display().to_string(), reason: reason.to_string() }
    }
}
