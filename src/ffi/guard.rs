//! Every entry of the C ABI runs inside [`guard`]: nothing unwinds into the host, and a failure's story is kept for the thread.

use super::status::{Failure, Outcome, TE_OK, TE_PANIC, TeStatus};
use std::{
    any::Any,
    cell::{Cell, RefCell},
    ffi::{CString, c_char},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Once,
};

thread_local! {
    static LAST_ERROR: RefCell<CString> = RefCell::new(CString::default());
    static DEPTH: Cell<usize> = const { Cell::new(0) };
    static PANIC_PLACE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Runs an entry's body, turns its outcome into a code and keeps the message.
pub fn guard(body: impl FnOnce() -> Outcome) -> TeStatus {
    keep_panics_quiet();
    DEPTH.with(|depth| depth.set(depth.get() + 1));
    let outcome = catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|payload| {
        let place = PANIC_PLACE.try_with(|place| std::mem::take(&mut *place.borrow_mut())).unwrap_or_default();
        Err(Failure::new(TE_PANIC, format!("panic{place}: {}", panic_text(payload))))
    });
    DEPTH.with(|depth| depth.set(depth.get() - 1));
    match outcome {
        Ok(()) => TE_OK,
        Err(failure) => {
            // A thread that is ending, or a program that is, may have no place for the message any more.
            let _ = LAST_ERROR.try_with(|last| *last.borrow_mut() = c_string(&failure.message));
            failure.status
        }
    }
}

/// A text for C; a NUL inside, which C cannot carry, becomes U+FFFD.
pub fn c_string(text: &str) -> CString {
    CString::new(text).unwrap_or_else(|_| CString::new(text.replace('\0', "\u{fffd}")).unwrap_or_default())
}

/// The message of the last call on this thread that failed, empty if none has. It lives until the next failing call on this thread.
#[unsafe(no_mangle)]
pub extern "C" fn te_last_error() -> *const c_char {
    LAST_ERROR.try_with(|last| last.borrow().as_ptr()).unwrap_or(c"".as_ptr())
}

fn panic_text(payload: Box<dyn Any + Send>) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| text.to_string()).or_else(|| payload.downcast_ref::<String>().cloned());
    // A payload may panic again when it is dropped.
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(second);
    }
    text.unwrap_or_else(|| "no message".into())
}

/// A library prints nothing unasked, yet the standard panic hook prints. So a hook is put in front of the one in force, once,
/// which keeps the place for the error and is silent for panics that a guard will catch: those on a thread that is inside a
/// guard and those on the library's own threads, whose names start with `te-`. Every other panic goes to the hook that was there.
fn keep_panics_quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let guarded = DEPTH.try_with(|depth| depth.get() > 0).unwrap_or(false);
            let ours = || std::thread::current().name().is_some_and(|name| name.starts_with("te-"));
            if guarded {
                let place = info.location().map(|at| format!(" at {}:{}", at.file(), at.line())).unwrap_or_default();
                let _ = PANIC_PLACE.try_with(|kept| *kept.borrow_mut() = place);
            } else if !ours() {
                previous(info);
            }
        }));
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CStr;

    fn last() -> String {
        // SAFETY: te_last_error returns a NUL-terminated text that lives until the next failure.
        unsafe { CStr::from_ptr(te_last_error()) }.to_str().unwrap().into()
    }

    #[test]
    fn a_panic_becomes_a_code_with_its_place() {
        assert_eq!(guard(|| panic!("broken {}", 7)), TE_PANIC);
        assert!(last().contains("broken 7") && last().contains("guard.rs:"), "{}", last());
        assert_eq!(guard(|| Ok(())), TE_OK);
        assert!(last().contains("broken 7"), "success leaves the message");
    }

    #[test]
    fn a_message_is_its_threads_own() {
        assert_eq!(guard(|| Err(Failure::argument("here"))), 1);
        std::thread::spawn(|| assert_eq!(last(), "")).join().unwrap();
        assert_eq!(last(), "here");
    }

    #[test]
    fn calls_fail_quietly_while_their_thread_ends() {
        struct Late;
        impl Drop for Late {
            fn drop(&mut self) {
                assert_eq!(guard(|| Err(Failure::argument("late"))), 1);
                assert_eq!(guard(|| panic!("late")), TE_PANIC);
                assert_eq!(last(), "");
            }
        }
        thread_local! {
            static LATE: Late = const { Late };
        }
        std::thread::spawn(|| {
            // What is used first is destroyed last.
            LATE.with(|_| ());
            assert_eq!(guard(|| panic!("early")), TE_PANIC);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_text_with_nul_is_carried() {
        assert_eq!(c_string("a\0b").to_str().unwrap(), "a\u{fffd}b");
    }
}
