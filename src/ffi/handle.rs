//! Typed ownership of what a host holds by pointer. A handle begins with a mark of its kind, so that null, a handle of another
//! kind and (as far as memory still says so) a freed one are errors instead of faults.

use super::status::{Failure, Outcome};
use std::sync::atomic::{AtomicU64, Ordering};

/// A type that C sees by its name only.
pub trait Opaque {
    /// What the handle holds.
    type Inner;
    /// Marks the kind.
    const MARK: u64;
    /// Names the kind in errors.
    const NAME: &'static str;
}

const FREED: u64 = 0xdead_dead_dead_dead;

#[repr(C)]
struct Block<T> {
    mark: AtomicU64,
    inner: T,
}

/// Gives a value to the host.
pub fn create<O: Opaque>(inner: O::Inner) -> *mut O {
    Box::into_raw(Box::new(Block { mark: AtomicU64::new(O::MARK), inner })).cast()
}

/// Looks at a value that the host holds.
///
/// # Safety
/// `handle` is null or came from [`create`] and was not freed; nobody frees it while the answer is in use.
pub unsafe fn borrow<'a, O: Opaque>(handle: *const O) -> Outcome<&'a O::Inner> {
    if handle.is_null() {
        return Err(Failure::argument(format!("the {} is null", O::NAME)));
    }
    // SAFETY: passed on to the caller.
    unsafe { look(handle) }
        .ok_or_else(|| Failure::argument(format!("the pointer is not that of a live {}: freed, or of another kind", O::NAME)))
}

/// As [`borrow`], without a message: fit for a signal handler.
///
/// # Safety
/// As [`borrow`].
pub unsafe fn look<'a, O: Opaque>(handle: *const O) -> Option<&'a O::Inner> {
    let block = handle.cast::<Block<O::Inner>>();
    if block.is_null() || !block.is_aligned() {
        return None;
    }
    // SAFETY: every handle begins with its mark; the caller vouches that this is one. The mark then says of which kind.
    unsafe { ((*block.cast::<AtomicU64>()).load(Ordering::Acquire) == O::MARK).then(|| &(*block).inner) }
}

/// Marks a handle as freed and leaves its memory alone.
///
/// # Safety
/// As [`borrow`].
pub unsafe fn abandon<O: Opaque>(handle: *mut O) -> Outcome {
    // SAFETY: passed on to the caller; `borrow` found a live block.
    unsafe {
        borrow(handle.cast_const())?;
        (*handle.cast::<AtomicU64>()).store(FREED, Ordering::Release);
    }
    Ok(())
}

/// Takes a value back from the host; null is `None`.
///
/// # Safety
/// As [`borrow`], and nobody uses the handle any more.
pub unsafe fn take<O: Opaque>(handle: *mut O) -> Outcome<Option<O::Inner>> {
    if handle.is_null() {
        return Ok(None);
    }
    // SAFETY: passed on to the caller.
    unsafe { borrow(handle.cast_const()) }?;
    let block = handle.cast::<Block<O::Inner>>();
    // SAFETY: `borrow` found a live block of this kind, made by `create` from a box.
    let block = unsafe {
        (*block).mark.store(FREED, Ordering::Release);
        Box::from_raw(block)
    };
    Ok(Some(block.inner))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Apple;
    impl Opaque for Apple {
        type Inner = String;
        const MARK: u64 = 1;
        const NAME: &'static str = "apple";
    }
    struct Pear;
    impl Opaque for Pear {
        type Inner = String;
        const MARK: u64 = 2;
        const NAME: &'static str = "pear";
    }

    #[test]
    fn kinds_are_told_apart() {
        let apple = create::<Apple>("red".into());
        // SAFETY: `apple` is alive until `take`.
        unsafe {
            assert_eq!(borrow(apple.cast_const()).unwrap(), "red");
            assert_eq!(
                borrow(apple.cast_const().cast::<Pear>()).unwrap_err().message,
                "the pointer is not that of a live pear: freed, or of another kind"
            );
            assert_eq!(borrow(std::ptr::null::<Pear>()).unwrap_err().message, "the pear is null");
            assert!(borrow(apple.cast_const().cast::<u8>().add(1).cast::<Apple>()).is_err());
            assert_eq!(take(apple).unwrap().as_deref(), Some("red"));
            assert_eq!(take(std::ptr::null_mut::<Apple>()).unwrap(), None);
        }
    }
}
