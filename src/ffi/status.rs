//! Status codes of the border. [`Error::status`] maps to them; the header shows them as macros.

#![allow(dead_code, reason = "some codes are made by Error::status alone and stand here for the header")]

use crate::error::Error;

/// What every fallible function returns: `TE_OK` or one of the other codes. `te_last_error` then tells the whole story.
pub type TeStatus = i32;

/// Success.
pub const TE_OK: TeStatus = 0;
/// An argument is unusable: a null pointer, a wrong `struct_size`, an index out of range.
pub const TE_INVALID_ARGUMENT: TeStatus = 1;
/// The configuration text or an override is wrong.
pub const TE_INVALID_CONFIG: TeStatus = 2;
/// A scenario or map breaks a rule of the scenario model.
pub const TE_INVALID_SCENARIO: TeStatus = 3;
/// A callback of the host reported a failure.
pub const TE_HOST_ERROR: TeStatus = 4;
/// The data cannot be used as asked: an empty split, no valid scenario.
pub const TE_DATA_ERROR: TeStatus = 5;
/// A file could not be read or written.
pub const TE_FILE_ERROR: TeStatus = 6;
/// Loss or gradient stopped being finite.
pub const TE_NOT_FINITE: TeStatus = 7;
/// The device cannot run what it was asked to run.
pub const TE_BACKEND_ERROR: TeStatus = 8;
/// A fault of the library: a tensor's shape or a graph's structure is wrong.
pub const TE_INTERNAL_ERROR: TeStatus = 9;
/// The host ended the call (`te_fit` reports a stopped run as success).
pub const TE_STOPPED: TeStatus = 10;
/// The handle is in use by another call, or by the call whose callback is running.
pub const TE_BUSY: TeStatus = 11;
/// A fault of the library: it panicked. The handle can only be freed if later calls return `TE_POISONED`.
pub const TE_PANIC: TeStatus = 12;
/// An earlier call on this handle panicked; it can only be freed.
pub const TE_POISONED: TeStatus = 13;
/// The process forked after the handle was made; in the child it can only be freed.
pub const TE_FORKED: TeStatus = 14;

/// A failure at the border: a code and the whole story.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    /// The code that is returned.
    pub status: TeStatus,
    /// What `te_last_error` will say.
    pub message: String,
}

impl Failure {
    /// A failure with its own code.
    pub fn new(status: TeStatus, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }
    /// An unusable argument.
    pub fn argument(message: impl Into<String>) -> Self {
        Self::new(TE_INVALID_ARGUMENT, message)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { status: error.status(), message: error.to_string() }
    }
}

/// Result inside the border.
pub type Outcome<T = ()> = Result<T, Failure>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Rejection;

    #[test]
    fn errors_map_to_the_codes_of_the_header() {
        let text = String::new;
        let table = [
            (Error::Argument(text()), TE_INVALID_ARGUMENT),
            (Error::config("lr", ""), TE_INVALID_CONFIG),
            (Error::scenario("a", Rejection::Unreadable, ""), TE_INVALID_SCENARIO),
            (Error::Host { callback: text(), token: text(), reason: text() }, TE_HOST_ERROR),
            (Error::Data(text()), TE_DATA_ERROR),
            (Error::file("a", ""), TE_FILE_ERROR),
            (Error::NotFinite(text()), TE_NOT_FINITE),
            (Error::Backend(text()), TE_BACKEND_ERROR),
            (Error::Graph(text()), TE_INTERNAL_ERROR),
            (Error::Stopped, TE_STOPPED),
            (Error::Panic(text()), TE_PANIC),
        ];
        for (error, code) in table {
            assert_eq!(error.status(), code, "{error}");
        }
    }
}
