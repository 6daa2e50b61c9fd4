//! Who wants to know which keys change: transactions, and clients that wait for something to take.

use std::collections::{BTreeSet, VecDeque};

use foldhash::quality::RandomState;
use hashbrown::HashMap;

use super::Bytes;

/// A client watches keys of this many bytes, and their overhead, at most.
const MOST_WATCHED: usize = 16 * 1024 * 1024;
/// What a watched key takes besides its bytes, roughly.
const OVERHEAD: usize = 128;

/// The keys that clients watch for their transactions, or wait for.
#[derive(Default)]
pub struct Watch {
    keys: HashMap<Bytes, BTreeSet<u64>, RandomState>,
    clients: HashMap<u64, Watched, RandomState>,
    /// The keys that somebody waits for until they have something: how many do, and whether they
    /// are in the next list.
    awaited: HashMap<Bytes, (usize, bool), RandomState>,
    /// Those of them that changed since that was last asked for.
    changed: VecDeque<Bytes>,
}

/// What a client watches.
#[derive(Default)]
struct Watched {
    keys: Vec<Bytes>,
    bytes: usize,
    changed: bool,
}

impl Watch {
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.awaited.is_empty()
    }

    /// Watches a key for a client; `false` if that would be too much.
    pub fn add(&mut self, client: u64, key: &[u8]) -> bool {
        let watched = self.clients.entry(client).or_default();
        let bytes = watched.bytes + key.len() + OVERHEAD;
        if bytes > MOST_WATCHED {
            return false;
        }
        if self.keys.entry(key.into()).or_default().insert(client) {
            watched.keys.push(key.into());
            watched.bytes = bytes;
        }
        true
    }

    /// Notes that a key changed.
    #[inline]
    pub fn note(&mut self, key: &[u8]) {
        if !self.is_empty() {
            self.note_watched(key);
        }
    }

    #[cold]
    #[inline(never)]
    fn note_watched(&mut self, key: &[u8]) {
        for client in self.keys.get(key).into_iter().flatten() {
            self.clients.entry(*client).or_default().changed = true;
        }
        if let Some((_, is_listed)) = self.awaited.get_mut(key)
            && !*is_listed
        {
            *is_listed = true;
            self.changed.push_back(key.into());
        }
    }

    /// Notes from now on when a key changes that one more client waits for.
    pub fn wait(&mut self, key: &[u8]) {
        self.awaited.entry(key.into()).or_default().0 += 1;
    }

    /// One of them waits no more.
    pub fn stop_waiting(&mut self, key: &[u8]) {
        if let Some((count, _)) = self.awaited.get_mut(key) {
            *count -= 1;
            if *count == 0 {
                self.awaited.remove(key);
            }
        }
    }

    #[inline]
    pub fn has_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Takes a key that somebody waits for and that changed.
    pub fn take_changed(&mut self) -> Option<Bytes> {
        let key = self.changed.pop_front()?;
        if let Some((_, is_listed)) = self.awaited.get_mut(&key) {
            *is_listed = false;
        }
        Some(key)
    }

    /// The keys that a client watches; those that all clients do without one.
    pub fn keys(&self, client: Option<u64>) -> Vec<Bytes> {
        match client {
            None => self.keys.keys().cloned().collect(),
            Some(client) => {
                self.clients.get(&client).map(|watched| watched.keys.clone()).unwrap_or_default()
            }
        }
    }

    /// Watches nothing for a client any more; returns whether something of it changed.
    pub fn end(&mut self, client: u64) -> bool {
        let Some(watched) = self.clients.remove(&client) else { return false };
        for key in watched.keys {
            if let Some(clients) = self.keys.get_mut(&key) {
                clients.remove(&client);
                if clients.is_empty() {
                    self.keys.remove(&key);
                }
            }
        }
        watched.changed
    }
}
