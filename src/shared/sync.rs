//! What code between threads is made of: the real thing, or, under `cfg(loom)`, the parts of loom's
//! model checker, which tries the threads' interleavings and what the memory model allows.
//!
//! `Arc` is not among them. Counting references is not a part of our protocols, and so the rest of
//! the crate needs no shim.

#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};

#[cfg(not(loom))]
pub(crate) use crossbeam_queue::SegQueue as Queue;

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};

#[cfg(loom)]
pub(crate) use modelled::Queue;

#[cfg(loom)]
mod modelled {
    use std::collections::VecDeque;

    use loom::sync::Mutex;
    use loom::sync::atomic::{AtomicUsize, Ordering};

    /// A queue that promises no more than a lock-free one does.
    ///
    /// A lock around everything would order all that threads do before a push and after a look, and
    /// the fences that the real queue's user needs would not be missed. So emptiness is decided by
    /// a relaxed load outside of the lock.
    pub(crate) struct Queue<T> {
        items: Mutex<VecDeque<T>>,
        len: AtomicUsize,
    }

    impl<T> Queue<T> {
        pub(crate) fn new() -> Self {
            Self { items: Mutex::new(VecDeque::new()), len: AtomicUsize::new(0) }
        }

        pub(crate) fn push(&self, item: T) {
            let mut items = self.items.lock().expect("no thread panics with the lock");
            items.push_back(item);
            self.len.store(items.len(), Ordering::Relaxed);
        }

        pub(crate) fn pop(&self) -> Option<T> {
            if self.is_empty() {
                return None;
            }
            let mut items = self.items.lock().expect("no thread panics with the lock");
            let item = items.pop_front();
            self.len.store(items.len(), Ordering::Relaxed);
            item
        }

        pub(crate) fn len(&self) -> usize {
            self.len.load(Ordering::Relaxed)
        }

        pub(crate) fn is_empty(&self) -> bool {
            self.len() == 0
        }
    }
}
