//! Who wants which messages: a tree of the filters' tokens, and the results of the subjects that
//! were asked for, until a subscription changes them.

#[cfg(test)]
#[path = "interest/tests.rs"]
mod tests;

use std::collections::BTreeMap;
use std::rc::Rc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use memchr::memchr;

use super::subject::{self, is_literal, is_valid};

/// Which of this reactor's subscriptions.
pub type SubscriptionKey = usize;

/// The results that are kept have this many subscribers altogether, or one of them has more.
const MOST_KEPT: usize = 256 * 1024;
/// What a result counts for besides its subscribers.
const RESULT: usize = 128;

/// Who wants something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subscriber {
    Local(SubscriptionKey),
    /// One on another reactor, of this index.
    Elsewhere(usize),
}

/// The subscriptions of a reactor, and what it knows of those of others.
#[derive(Default)]
pub struct Interest {
    root: Level,
    kept: HashMap<Box<[u8]>, Rc<Matched>, RandomState>,
    /// What the kept results count for.
    size: usize,
}

/// Those who want the messages of a subject.
#[derive(Debug, Default, PartialEq)]
pub struct Matched {
    /// Each of them gets all messages. Those that get the same bytes are together.
    pub groups: Vec<Vec<SubscriptionKey>>,
    /// The reactors that have some of these.
    pub reactors: Vec<usize>,
    /// Each message goes to one of a queue group's members.
    pub queues: Vec<Queue>,
}

/// A queue group.
#[derive(Debug, PartialEq)]
pub struct Queue {
    pub name: Box<[u8]>,
    /// A reactor is named as often as it has members.
    pub members: Vec<Subscriber>,
}

/// What is behind a token.
#[derive(Default)]
struct Level {
    tokens: HashMap<Box<[u8]>, Node, RandomState>,
    any: Option<Box<Node>>,
    rest: Option<Box<Members>>,
}

#[derive(Default)]
struct Node {
    level: Level,
    members: Option<Box<Members>>,
}

/// The subscribers of a filter, and how many a reactor has.
#[derive(Default)]
struct Members {
    all: BTreeMap<Subscriber, usize>,
    queues: BTreeMap<Box<[u8]>, BTreeMap<Subscriber, usize>>,
}

impl Interest {
    /// Adds a subscriber of a filter.
    pub fn add(&mut self, filter: &[u8], queue: Option<&[u8]>, subscriber: Subscriber) {
        self.forget(filter);
        let members = self.root.members_mut(filter);
        let subscribers = match queue {
            None => &mut members.all,
            Some(name) => members.queues.entry(name.into()).or_default(),
        };
        *subscribers.entry(subscriber).or_default() += 1;
    }

    /// Removes a subscriber that was added.
    pub fn remove(&mut self, filter: &[u8], queue: Option<&[u8]>, subscriber: Subscriber) {
        self.forget(filter);
        self.root.remove(filter, queue, subscriber);
    }

    /// Those who want a subject's messages. Subscriptions get the same bytes if `form` returns the
    /// same for both.
    #[inline]
    pub fn of<F: Ord>(
        &mut self,
        subject: &[u8],
        form: impl Fn(SubscriptionKey) -> F,
    ) -> Rc<Matched> {
        match self.kept.get(subject) {
            Some(matched) => Rc::clone(matched),
            None => self.find(subject, form),
        }
    }

    #[inline(never)]
    fn find<F: Ord>(&mut self, subject: &[u8], form: impl Fn(SubscriptionKey) -> F) -> Rc<Matched> {
        let (mut matched, mut all) = (Matched::default(), Vec::new());
        if !is_valid(subject) {
            return Rc::new(matched); // Nobody can subscribe to it.
        }
        self.root.visit(subject, &mut |members| matched.add(members, &mut all));
        all.sort_by_key(|key| form(*key));
        matched.groups = all.chunk_by(|a, b| form(*a) == form(*b)).map(<[_]>::to_vec).collect();
        matched.reactors.sort_unstable();
        matched.reactors.dedup();
        let matched = Rc::new(matched);
        self.size += matched.size();
        if self.size > MOST_KEPT {
            self.kept.clear();
            self.size = matched.size();
        }
        self.kept.insert(subject.into(), Rc::clone(&matched));
        matched
    }

    /// Forgets the results that a filter has a part in.
    fn forget(&mut self, filter: &[u8]) {
        if is_literal(filter) {
            if let Some(matched) = self.kept.remove(filter) {
                self.size -= matched.size();
            }
            return;
        }
        let Interest { kept, size, .. } = self;
        kept.retain(|subject, matched| {
            let keeps = !subject::matches(filter, subject);
            *size -= if keeps { 0 } else { matched.size() };
            keeps
        });
    }
}

impl Matched {
    /// What it counts for where it is kept.
    fn size(&self) -> usize {
        let queues = self.queues.iter().map(|queue| RESULT + queue.members.len());
        let groups = self.groups.iter().map(Vec::len);
        RESULT + groups.sum::<usize>() + self.reactors.len() + queues.sum::<usize>()
    }

    fn add(&mut self, members: &Members, all: &mut Vec<SubscriptionKey>) {
        for subscriber in members.all.keys() {
            match *subscriber {
                Subscriber::Local(key) => all.push(key),
                Subscriber::Elsewhere(reactor) => self.reactors.push(reactor),
            }
        }
        for (name, subscribers) in &members.queues {
            // A group may have members by several filters.
            let known = self.queues.iter().position(|queue| queue.name == *name);
            let index = known.unwrap_or_else(|| {
                self.queues.push(Queue { name: name.clone(), members: Vec::new() });
                self.queues.len() - 1
            });
            for (subscriber, count) in subscribers {
                self.queues[index].members.extend(std::iter::repeat_n(*subscriber, *count));
            }
        }
    }
}

impl Level {
    /// The members of a filter, made if there are none yet.
    fn members_mut(&mut self, filter: &[u8]) -> &mut Members {
        let (token, rest) = split(filter);
        let node = match token {
            b">" => return self.rest.get_or_insert_default(),
            b"*" => self.any.get_or_insert_default(),
            token => self.tokens.entry(token.into()).or_default(),
        };
        match rest {
            Some(rest) => node.level.members_mut(rest),
            None => node.members.get_or_insert_default(),
        }
    }

    /// Removes a subscriber, and what is not needed any more.
    fn remove(&mut self, filter: &[u8], queue: Option<&[u8]>, subscriber: Subscriber) {
        match split(filter) {
            (b">", _) => Members::remove(&mut self.rest, queue, subscriber),
            (b"*", rest) => {
                self.any.take_if(|node| node.remove(rest, queue, subscriber));
            }
            (token, rest) => {
                if let Some(node) = self.tokens.get_mut(token)
                    && node.remove(rest, queue, subscriber)
                {
                    self.tokens.remove(token);
                }
            }
        }
    }

    /// Shows the members of all filters that stand for a subject. Each node is visited once.
    fn visit(&self, subject: &[u8], show: &mut impl FnMut(&Members)) {
        if let Some(members) = &self.rest {
            show(members);
        }
        let (token, rest) = split(subject);
        for node in self.any.as_deref().into_iter().chain(self.tokens.get(token)) {
            match (rest, &node.members) {
                (Some(rest), _) => node.level.visit(rest, show),
                (None, Some(members)) => show(members),
                (None, None) => {}
            }
        }
    }
}

impl Node {
    /// Returns whether nothing is left.
    fn remove(
        &mut self,
        rest: Option<&[u8]>,
        queue: Option<&[u8]>,
        subscriber: Subscriber,
    ) -> bool {
        match rest {
            Some(rest) => self.level.remove(rest, queue, subscriber),
            None => Members::remove(&mut self.members, queue, subscriber),
        }
        let Node { members, level: Level { tokens, any, rest } } = self;
        members.is_none() && tokens.is_empty() && any.is_none() && rest.is_none()
    }
}

impl Members {
    fn remove(place: &mut Option<Box<Self>>, queue: Option<&[u8]>, subscriber: Subscriber) {
        let Some(members) = place else { return };
        match queue {
            None => decrease(&mut members.all, subscriber),
            Some(name) => {
                let Some(subscribers) = members.queues.get_mut(name) else { return };
                decrease(subscribers, subscriber);
                if subscribers.is_empty() {
                    members.queues.remove(name);
                }
            }
        }
        if members.all.is_empty() && members.queues.is_empty() {
            *place = None;
        }
    }
}

fn decrease(counts: &mut BTreeMap<Subscriber, usize>, subscriber: Subscriber) {
    if let Some(count) = counts.get_mut(&subscriber) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&subscriber);
        }
    }
}

/// The first token, and what is behind its dot.
fn split(subject: &[u8]) -> (&[u8], Option<&[u8]>) {
    match memchr(b'.', subject) {
        Some(dot) => (&subject[..dot], Some(&subject[dot + 1..])),
        None => (subject, None),
    }
}
