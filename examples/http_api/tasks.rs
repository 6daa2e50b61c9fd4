//! The tasks, which all reactors share.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use millstream::http::Failure;
use serde::{Deserialize, Serialize};

/// More tasks are not kept.
const MOST_TASKS: usize = 1_000;
/// The longest title, in characters.
const LONGEST_TITLE: usize = 100;

/// A task.
#[derive(Clone, Serialize)]
pub(crate) struct Task {
    pub(crate) id: u64,
    #[serde(flatten)]
    pub(crate) draft: Draft,
}

/// What a client says of a task.
#[derive(Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Draft {
    title: String,
    #[serde(default)]
    done: bool,
}

impl Draft {
    /// Whether it is a task that anyone could do.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let error = match self.title.trim() {
            "" => "it is empty",
            title if title.chars().count() > LONGEST_TITLE => "it is too long",
            _ => return Ok(()),
        };
        Err(Failure::invalid(error, Some("title")))
    }
}

/// The parameters of a task's path.
#[derive(Deserialize)]
pub(crate) struct Key {
    id: u64,
}

/// Which tasks are listed.
#[derive(Deserialize)]
pub(crate) struct Filter {
    done: Option<bool>,
}

/// All of them. What is done under the lock is short, so reactors don't wait long for each other.
#[derive(Default)]
pub(crate) struct Tasks(Mutex<Table>);

#[derive(Default)]
struct Table {
    last_id: u64,
    drafts: BTreeMap<u64, Draft>,
}

impl Tasks {
    pub(crate) fn list(&self, filter: &Filter) -> Vec<Task> {
        let table = self.lock();
        let drafts = table.drafts.iter();
        let listed = drafts.filter(|(_, draft)| filter.done.is_none_or(|done| done == draft.done));
        listed.map(|(id, draft)| Task { id: *id, draft: draft.clone() }).collect()
    }

    /// Adds a task, if there are not too many.
    pub(crate) fn add(&self, draft: Draft) -> Option<Task> {
        let mut table = self.lock();
        if table.drafts.len() >= MOST_TASKS {
            return None;
        }
        table.last_id += 1;
        let id = table.last_id;
        table.drafts.insert(id, draft.clone());
        Some(Task { id, draft })
    }

    pub(crate) fn get(&self, key: &Key) -> Option<Task> {
        let draft = self.lock().drafts.get(&key.id)?.clone();
        Some(Task { id: key.id, draft })
    }

    pub(crate) fn change(&self, key: &Key, draft: Draft) -> Option<Task> {
        self.lock().drafts.get_mut(&key.id)?.clone_from(&draft);
        Some(Task { id: key.id, draft })
    }

    pub(crate) fn remove(&self, key: &Key) -> bool {
        self.lock().drafts.remove(&key.id).is_some()
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
