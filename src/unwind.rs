//! Catching panics, where less than a connection is to fail.
//!
//! A panic in a callback closes its connection. A protocol that serves several requests on one may
//! catch the panic of a single request instead.
//!
//! ```
//! use millstream::unwind::catch;
//!
//! let panic = catch(|| -> u32 { panic!("there is no such key") }).expect_err("it panicked");
//! assert_eq!(panic.message().as_deref(), Some("there is no such key"));
//! ```
//!
//! A panic carries a payload, and a payload's destructor is the user's code, too. If that panics
//! where nobody expects it, the thread ends; if it does so in a thread that has ended already, the
//! process. So no payload leaves this module.

use crate::log::limited;
use std::any::Any;
use std::mem;
use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// How many payloads are dropped whose destructors panic, each with the next one as its payload.
/// The last one is forgotten.
const MOST_PAYLOADS: usize = 16;

/// A panic that was caught.
#[derive(Debug)]
pub struct Panic {
    message: Option<String>,
}

impl Panic {
    #[cold]
    #[inline(never)]
    fn new(payload: Box<dyn Any + Send>) -> Self {
        let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let message = text.or_else(|| payload.downcast_ref::<String>().cloned());
        discard(payload);
        Panic { message }
    }

    /// What it says, if that is text.
    pub fn message(self) -> Option<String> {
        self.message
    }
}

/// Runs something that may panic, on this thread. What it leaves half done is the caller's concern.
///
/// # Errors
/// It panicked.
#[inline(always)]
pub fn catch<T>(run: impl FnOnce() -> T) -> Result<T, Panic> {
    catch_unwind(AssertUnwindSafe(run)).map_err(Panic::new)
}

/// Drops a value of the user's, whose destructor may panic.
pub(crate) fn drop_caught<T>(value: T) -> Result<(), Panic> {
    catch(|| drop(value))
}

/// Drops a panic's payload.
fn discard(mut payload: Box<dyn Any + Send>) {
    for _ in 0..MOST_PAYLOADS {
        match catch_unwind(AssertUnwindSafe(|| drop(payload))) {
            Ok(()) => return,
            Err(next) => payload = next,
        }
    }
    // Each has panicked with another one: this may go on for ever.
    mem::forget(payload);
}

/// A value of the user's that the engine has until its end, on whichever thread that comes. A panic
/// of its destructor ends nothing else.
pub(crate) struct Shielded<T>(Option<T>);

impl<T> Shielded<T> {
    pub(crate) fn new(value: T) -> Self {
        Shielded(Some(value))
    }
}

impl<T> Deref for Shielded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect("it is there until the drop")
    }
}

impl<T> DerefMut for Shielded<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_mut().expect("it is there until the drop")
    }
}

impl<T> Drop for Shielded<T> {
    fn drop(&mut self) {
        if drop_caught(self.0.take()).is_err() {
            limited!(error, "the destructor of a value that the engine was given panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::panic_any;
    use std::sync::Arc;

    use super::*;

    /// Panics when it is dropped, with one that does so as well, this many times.
    struct Bomb(usize, Arc<()>);

    impl Drop for Bomb {
        fn drop(&mut self) {
            if let Some(left) = self.0.checked_sub(1) {
                panic_any(Bomb(left, Arc::clone(&self.1)));
            }
        }
    }

    #[test]
    fn a_panic_tells_its_text() {
        let message = |run: fn()| catch(run).unwrap_err().message();
        assert_eq!(message(|| panic!("a text")).as_deref(), Some("a text"));
        assert_eq!(message(|| panic!("{} text", 1)).as_deref(), Some("1 text"));
        assert_eq!(message(|| panic_any(7)), None);
        assert_eq!(catch(|| 7).unwrap(), 7);
    }

    #[test]
    fn payloads_that_panic_are_dropped_and_endless_ones_forgotten() {
        for (bombs, forgotten) in [(1, 0), (2, 0), (MOST_PAYLOADS - 1, 0), (1 << 20, 1)] {
            let counted = Arc::new(());
            let bomb = Bomb(bombs, Arc::clone(&counted));
            assert!(catch(|| panic_any(bomb)).is_err());
            assert_eq!(Arc::strong_count(&counted), 1 + forgotten, "{bombs}");
            let bomb = Bomb(bombs, Arc::clone(&counted));
            assert!(drop_caught(bomb).is_err());
            drop(Shielded::new(Bomb(1, counted)));
        }
    }
}
