//! Who is told that the tasks have changed.

use std::sync::{Mutex, PoisonError};

use millstream::http::{EventStream, SendBodyError, ServerEvent};

/// More pages are not told at a time.
const MOST_PAGES: usize = 1_000;

/// The pages that are open. What is done under the lock is short, as for the tasks.
#[derive(Default)]
pub(crate) struct Changes(Mutex<Vec<EventStream>>);

impl Changes {
    /// Adds a page, which is told at once, so that it shows what there is. One too many is not: its
    /// stream ends, and it tries again later.
    pub(crate) fn add(&self, mut page: EventStream) {
        let mut pages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pages.retain(EventStream::is_open);
        match pages.len() < MOST_PAGES && page.send(change()).is_ok() {
            true => pages.push(page),
            false => drop(page.into_writer().finish()), // It may be gone.
        }
    }

    /// Tells all pages that something has changed.
    pub(crate) fn tell(&self) {
        let mut pages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A page for which as much waits as may has that to come, which says the same.
        pages.retain_mut(|page| !matches!(page.send(change()), Err(SendBodyError::Closed)));
    }
}

fn change() -> ServerEvent {
    ServerEvent::new("changed")
}
