//! Keys and values, and when they are gone. It knows no network and no clock: the time is an
//! argument.

mod garbage;
mod glob;
mod record;
mod scan;
mod set;
mod sorted;
mod text;
mod watch;

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::mem;

use bytes::BytesMut;
use foldhash::quality::RandomState;
use hashbrown::HashMap;
use hashbrown::hash_table::{Entry as Place, HashTable, OccupiedEntry};

use self::garbage::drop_elsewhere;
pub use self::glob::matches;
pub use self::record::{Millis, Record, Scalar};
pub use self::set::Set;
pub use self::sorted::{Scored, Scores, Sorted};
pub use self::text::{LONG_TEXT, Text};
use self::watch::Watch;

pub type Bytes = Box<[u8]>;
pub type Hash = HashMap<Bytes, Text, RandomState>;
pub type List = VecDeque<Text>;

/// The keys are in this many tables, so that one that grows stops the server for a short time only.
const PARTS: usize = 256;
/// A collection with more elements than this is dropped elsewhere, as is what has more bytes.
const MOST_DROPPED: usize = 1024;
const MOST_DROPPED_BYTES: usize = 1024 * 1024;

/// The keys of a shard and their values.
pub struct Store {
    parts: Box<[Part]>,
    hasher: RandomState,
    len: usize,
    /// Where the next [`sweep`](Self::sweep) goes on.
    swept: (usize, usize),
    watch: Watch,
}

struct Part {
    table: HashTable<Entry>,
    /// It changes when entries may have moved to other places.
    generation: u16,
    /// Some key had a deadline when that was last looked at, or was given one since.
    expiring: bool,
    /// The present sweep came across a deadline.
    deadline_seen: bool,
    /// How many keys with a deadline the last sweep left, and the present one so far.
    deadlines: (usize, usize),
}

/// A key and its value. It takes 16 bytes.
pub enum Entry {
    Record(Record),
    Object(Box<Object>),
}

pub struct Object {
    key: Bytes,
    deadline: Option<Millis>,
    pub value: Collection,
}

pub enum Collection {
    Hash(Hash),
    List(List),
    Set(Set),
    Sorted(Sorted),
    /// Text that is too long for a [`Record`].
    Text(bytes::Bytes),
}

/// What a key with a scalar has, to be changed.
pub enum Changing<'s> {
    Record(&'s mut Record),
    /// Text that is too long to be a number.
    Text,
}

/// The key has a value of another type than the command is for.
#[derive(Debug)]
pub struct WrongType;

/// A type of collection that a key may have.
pub trait Kind: Sized {
    fn empty() -> Collection;
    fn of(value: &mut Collection) -> Option<&mut Self>;
    fn is_empty(&self) -> bool;
}

macro_rules! kind {
    ($kind:ident) => {
        impl Kind for $kind {
            fn empty() -> Collection {
                Collection::$kind($kind::default())
            }

            fn of(value: &mut Collection) -> Option<&mut Self> {
                match value {
                    Collection::$kind(value) => Some(value),
                    _ => None,
                }
            }

            fn is_empty(&self) -> bool {
                $kind::is_empty(self)
            }
        }
    };
}

kind!(Hash);
kind!(List);
kind!(Set);
kind!(Sorted);

impl Entry {
    #[inline]
    pub fn key(&self) -> &[u8] {
        match self {
            Entry::Record(record) => record.key(),
            Entry::Object(object) => &object.key,
        }
    }

    #[inline]
    pub fn deadline(&self) -> Option<Millis> {
        match self {
            Entry::Record(record) => record.deadline(),
            Entry::Object(object) => object.deadline,
        }
    }

    #[inline]
    pub fn is_gone(&self, now: Millis) -> bool {
        self.deadline().is_some_and(|deadline| deadline <= now)
    }

    /// The name that Redis has for its type.
    pub fn type_name(&self) -> &'static str {
        match self {
            Entry::Record(_) => "string",
            Entry::Object(object) => match object.value {
                Collection::Hash(_) => "hash",
                Collection::List(_) => "list",
                Collection::Set(_) => "set",
                Collection::Sorted(_) => "zset",
                Collection::Text(_) => "string",
            },
        }
    }

    #[inline]
    pub fn scalar(&self) -> Result<Scalar<'_>, WrongType> {
        match self {
            Entry::Record(record) => Ok(record.value()),
            Entry::Object(object) => match &object.value {
                Collection::Text(text) => Ok(Scalar::Long(text)),
                _ => Err(WrongType),
            },
        }
    }

    /// A key that has a scalar.
    fn new(key: &[u8], value: Scalar<'_>, deadline: Option<Millis>) -> Self {
        let long = match value {
            Scalar::Long(text) => text.clone(),
            Scalar::Text(text) if text.len() >= LONG_TEXT => bytes::Bytes::copy_from_slice(text),
            value => return Entry::Record(Record::new(key, value, deadline)),
        };
        let value = Collection::Text(long);
        Entry::Object(Box::new(Object { key: key.into(), deadline, value }))
    }

    /// Puts text behind its own; returns how long it is then.
    fn append(&mut self, text: &[u8]) -> Result<usize, WrongType> {
        match self {
            Entry::Record(record) => {
                let length = record.append(text);
                if length >= LONG_TEXT {
                    *self = Entry::new(record.key(), record.value(), record.deadline());
                }
                Ok(length)
            }
            Entry::Object(object) => {
                let Collection::Text(long) = &mut object.value else { return Err(WrongType) };
                // Its memory grows in place, unless a reply has it, too.
                let copied = |long: bytes::Bytes| BytesMut::from(&long[..]);
                let mut bytes = mem::take(long).try_into_mut().unwrap_or_else(copied);
                bytes.extend_from_slice(text);
                *long = bytes.freeze();
                Ok(long.len())
            }
        }
    }

    fn set_deadline(&mut self, deadline: Option<Millis>) {
        match self {
            Entry::Record(record) => record.set_deadline(deadline),
            Entry::Object(object) => object.deadline = deadline,
        }
    }

    fn collection<K: Kind>(&mut self) -> Result<&mut K, WrongType> {
        match self {
            Entry::Record(_) => Err(WrongType),
            Entry::Object(object) => K::of(&mut object.value).ok_or(WrongType),
        }
    }
}

impl Part {
    fn new() -> Self {
        Part {
            table: HashTable::new(),
            generation: 0,
            expiring: false,
            deadline_seen: false,
            deadlines: (0, 0),
        }
    }

    /// Notes that the table is about to take one more, which may move its entries.
    #[inline]
    fn note_growth(&mut self) {
        if self.table.len() == self.table.capacity() {
            self.generation = self.generation.wrapping_add(1);
        }
    }

    fn note_deadline(&mut self) {
        self.expiring = true;
        self.deadline_seen = true;
    }
}

impl Store {
    pub fn new() -> Self {
        Store {
            parts: (0..PARTS).map(|_| Part::new()).collect(),
            hasher: RandomState::default(),
            len: 0,
            swept: (0, 0),
            watch: Watch::default(),
        }
    }

    /// Notes that a key changed, for those who watch it.
    #[inline]
    pub fn touch(&mut self, key: &[u8]) {
        self.watch.note(key);
    }

    /// Watches a key for a client; `false` if it watches too many.
    pub fn watch(&mut self, client: u64, key: &[u8], now: Millis) -> bool {
        self.get(key, now); // What is gone already is not going to change.
        self.watch.add(client, key)
    }

    /// Watches nothing for a client any more; returns whether something of it changed.
    pub fn end_watch(&mut self, client: u64, now: Millis) -> bool {
        for key in self.watch.keys(Some(client)) {
            self.get(&key, now); // To be gone is a change.
        }
        self.watch.end(client)
    }

    /// Notes from now on when a key changes that one more client waits for.
    pub fn await_key(&mut self, key: &[u8]) {
        self.watch.wait(key);
    }

    /// One of them waits no more.
    pub fn stop_awaiting(&mut self, key: &[u8]) {
        self.watch.stop_waiting(key);
    }

    /// Whether a key changed that somebody waits for.
    #[inline]
    pub fn has_changed(&self) -> bool {
        self.watch.has_changed()
    }

    /// Takes such a key.
    pub fn take_changed(&mut self) -> Option<Bytes> {
        self.watch.take_changed()
    }

    pub fn forget_watch(&mut self, client: u64) {
        self.watch.end(client);
    }

    /// How many keys there are; those that are gone count until somebody finds out.
    pub fn len(&self) -> usize {
        self.len
    }

    /// How many keys had a deadline when they were last swept.
    pub fn expiring(&self) -> usize {
        self.parts.iter().map(|part| part.deadlines.0).sum()
    }

    /// Removes all keys, which are dropped elsewhere.
    pub fn clear(&mut self) {
        for key in self.watch.keys(None) {
            if self.peek(&key, Millis::MIN).is_some() {
                self.touch(&key);
            }
        }
        let mut tables = Vec::with_capacity(self.parts.len());
        for part in &mut self.parts {
            let generation = part.generation.wrapping_add(1);
            tables.push(mem::replace(part, Part { generation, ..Part::new() }).table);
        }
        self.len = 0;
        drop_elsewhere(tables);
    }

    #[inline]
    fn hash(&self, key: &[u8]) -> u64 {
        self.hasher.hash_one(key)
    }

    /// The place of a key that is there; a key that is gone is removed.
    #[inline]
    fn occupied(&mut self, key: &[u8], now: Millis) -> Option<OccupiedEntry<'_, Entry>> {
        let hash = self.hash(key);
        let part = &mut self.parts[part_of(hash)];
        let place = part.table.find_entry(hash, |entry| entry.key() == key).ok()?;
        if place.get().is_gone(now) {
            place.remove();
            self.len -= 1;
            self.watch.note(key);
            return None;
        }
        Some(place)
    }

    /// The entry of a key.
    #[inline]
    pub fn get(&mut self, key: &[u8], now: Millis) -> Option<&Entry> {
        self.occupied(key, now).map(|place| &*place.into_mut())
    }

    /// The text or the number that a key has.
    #[inline]
    pub fn scalar(&mut self, key: &[u8], now: Millis) -> Result<Option<Scalar<'_>>, WrongType> {
        self.get(key, now).map(Entry::scalar).transpose()
    }

    /// The entry of a key, which stays if it is gone by now.
    pub fn peek(&self, key: &[u8], now: Millis) -> Option<&Entry> {
        let hash = self.hash(key);
        let part = &self.parts[part_of(hash)];
        part.table.find(hash, |entry| entry.key() == key).filter(|entry| !entry.is_gone(now))
    }

    /// The scalar of a key, to be changed.
    pub fn changing(&mut self, key: &[u8], now: Millis) -> Result<Option<Changing<'_>>, WrongType> {
        match self.occupied(key, now).map(OccupiedEntry::into_mut) {
            None => Ok(None),
            Some(Entry::Record(record)) => Ok(Some(Changing::Record(record))),
            Some(entry) => entry.scalar().map(|_| Some(Changing::Text)),
        }
    }

    /// Puts text behind what a key has; returns how long it is then.
    pub fn append(&mut self, key: &[u8], text: &[u8], now: Millis) -> Result<usize, WrongType> {
        match self.occupied(key, now).map(OccupiedEntry::into_mut) {
            None => {
                self.set(key, Scalar::Text(text), None);
                Ok(text.len())
            }
            Some(entry) => {
                let length = entry.append(text)?;
                self.touch(key);
                Ok(length)
            }
        }
    }

    /// Gives a key a scalar, whatever it had before. Without a deadline it is there until it is
    /// removed.
    #[inline]
    pub fn set(&mut self, key: &[u8], value: Scalar<'_>, deadline: Option<Millis>) {
        self.touch(key);
        let hash = self.hash(key);
        let part = &mut self.parts[part_of(hash)];
        if deadline.is_some() {
            part.note_deadline();
        }
        match part.table.find_mut(hash, |entry| entry.key() == key) {
            Some(Entry::Record(record)) if value.fits_record() => {
                record.set_value(value);
                record.set_deadline(deadline);
            }
            Some(entry) => *entry = Entry::new(key, value, deadline),
            None => self.insert(hash, Entry::new(key, value, deadline)),
        }
    }

    /// Adds an entry whose key is not there.
    fn insert(&mut self, hash: u64, entry: Entry) {
        let part = &mut self.parts[part_of(hash)];
        part.note_growth();
        part.table.insert_unique(hash, entry, |entry| self.hasher.hash_one(entry.key()));
        self.len += 1;
    }

    /// Removes a key; returns what it had.
    pub fn remove(&mut self, key: &[u8], now: Millis) -> Option<Entry> {
        let (entry, _) = self.occupied(key, now)?.remove();
        self.len -= 1;
        self.touch(key);
        Some(entry)
    }

    /// Gives a key another deadline, or none; `false` if there is no such key.
    pub fn set_deadline(&mut self, key: &[u8], deadline: Option<Millis>, now: Millis) -> bool {
        let Some(place) = self.occupied(key, now) else { return false };
        let entry = place.into_mut();
        let had_one = entry.deadline().is_some();
        entry.set_deadline(deadline);
        if deadline.is_some() {
            let hash = self.hash(key);
            self.parts[part_of(hash)].note_deadline();
        }
        if had_one || deadline.is_some() {
            self.touch(key);
        }
        true
    }

    /// The collection that a key has.
    pub fn collection<K: Kind>(
        &mut self,
        key: &[u8],
        now: Millis,
    ) -> Result<Option<&K>, WrongType> {
        let place = self.occupied(key, now);
        place.map(|place| place.into_mut().collection().map(|kind| &*kind)).transpose()
    }

    /// Changes the collection of a key, which is made if the key has none and removed if it is
    /// empty then.
    pub fn change<K: Kind, T>(
        &mut self,
        key: &[u8],
        now: Millis,
        change: impl FnOnce(&mut K) -> T,
    ) -> Result<T, WrongType> {
        let answer = self.change_quietly(key, now, change)?;
        self.touch(key);
        Ok(answer)
    }

    /// The same for what may change nothing: then nobody is told. If it does,
    /// [`touch`](Self::touch) tells.
    pub fn change_quietly<K: Kind, T>(
        &mut self,
        key: &[u8],
        now: Millis,
        change: impl FnOnce(&mut K) -> T,
    ) -> Result<T, WrongType> {
        let hash = self.hash(key);
        let part = &mut self.parts[part_of(hash)];
        part.note_growth();
        let hasher = |entry: &Entry| self.hasher.hash_one(entry.key());
        let mut place = match part.table.entry(hash, |entry| entry.key() == key, hasher) {
            Place::Occupied(place) => place,
            Place::Vacant(place) => {
                self.len += 1;
                place.insert(Entry::Object(Box::new(Object::new(key, K::empty()))))
            }
        };
        if place.get().is_gone(now) {
            self.watch.note(key);
            *place.get_mut() = Entry::Object(Box::new(Object::new(key, K::empty())));
        }
        let kind = place.get_mut().collection::<K>()?;
        let answer = change(kind);
        if kind.is_empty() {
            place.remove();
            self.len -= 1;
        }
        Ok(answer)
    }

    /// Changes the collection of a key that has one. What is returned is the default if nothing
    /// changed.
    pub fn change_if_there<K: Kind, T: Default + PartialEq>(
        &mut self,
        key: &[u8],
        now: Millis,
        change: impl FnOnce(&mut K) -> T,
    ) -> Result<T, WrongType> {
        if self.get(key, now).is_none() {
            return Ok(T::default());
        }
        let answer = self.change_quietly(key, now, change)?;
        if answer != T::default() {
            self.touch(key);
        }
        Ok(answer)
    }
}

impl Object {
    fn new(key: &[u8], value: Collection) -> Self {
        Object { key: key.into(), deadline: None, value }
    }
}

impl Collection {
    /// Whether dropping it takes long.
    fn is_large(&self) -> bool {
        match self {
            Collection::Hash(hash) => hash.len() > MOST_DROPPED,
            Collection::List(list) => list.len() > MOST_DROPPED,
            Collection::Set(set) => set.len() > MOST_DROPPED,
            Collection::Sorted(sorted) => sorted.len() > MOST_DROPPED,
            Collection::Text(text) => text.len() > MOST_DROPPED_BYTES,
        }
    }
}

/// However it goes: removed, replaced, or gone at its time.
impl Drop for Object {
    fn drop(&mut self) {
        if self.value.is_large() {
            drop_elsewhere(mem::replace(&mut self.value, Collection::Text(bytes::Bytes::new())));
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.clear();
    }
}

/// The part of a hash. Its table uses the lowest and the highest bits.
#[inline]
fn part_of(hash: u64) -> usize {
    (hash >> 40) as usize % PARTS
}

#[cfg(test)]
mod tests;
