//! A connection's replies that are on their way.

use std::collections::VecDeque;
use std::sync::Arc;

use millstream::codec::resp::{Arguments, Protocol, Replies, Reply};
use millstream::{Output, TimerId};

use super::put_bulk;
use crate::commands::{Failure, MOST_REPLY, Transaction, parse_cursor};
use crate::encoded::{Encoded, Parts};

/// In the cursor of a scan, above the part.
pub const CURSOR_SHARD: u32 = 8;

/// A connection with this many replies on their way is not read until half of them have come.
const MOST_WAITING: usize = 256;
/// The same for this many bytes of requests and replies.
const MOST_BYTES: usize = 1024 * 1024;

/// Which part of which of a connection's replies.
#[derive(Clone, Copy)]
pub struct Ticket {
    pub reply: u64,
    pub part: usize,
}

impl Ticket {
    /// For what nobody waits for.
    pub const NONE: Ticket = Ticket { reply: u64::MAX, part: 0 };
}

/// A connection's replies that are not complete, in order.
#[derive(Default)]
pub struct Queue {
    waiting: VecDeque<Waiting>,
    /// The number of the first of them.
    first: u64,
    /// The bytes of them, of the requests that have none yet, and of what is deferred.
    bytes: usize,
    /// The shards that wait until they are asked for more.
    pub withheld: Vec<usize>,
    /// A transaction that was done, and of which not all replies are written.
    pub executing: Option<Execution>,
    /// When the command that waits has waited long enough.
    pub timer: Option<TimerId>,
    /// Commands that must wait until all of them are written.
    deferred: VecDeque<Copied>,
    /// What is written when all others are: why the connection closes.
    pub error: Option<String>,
    /// Too much is on its way.
    full: bool,
    /// When all of them are written, the connection closes.
    pub ending: bool,
}

/// A command that was copied, to be run later.
#[derive(Clone)]
pub struct Copied {
    bulks: Vec<u8>,
    len: usize,
}

/// A transaction whose commands of keys were done, and what is left of their replies.
pub struct Execution {
    pub transaction: Arc<Transaction>,
    /// How many of its commands have replied.
    pub done: usize,
    pub replies: Parts,
}

pub struct Waiting {
    pub gather: Gather,
    parts: Vec<Awaited>,
}

/// What one shard replies.
pub struct Awaited {
    shard: usize,
    /// The size of the request, and then of the reply.
    bytes: usize,
    reply: Option<Encoded>,
}

/// Makes one reply of those of all reactors.
pub type Gatherer = Box<dyn FnOnce(Vec<Encoded>, &mut Replies<'_, '_>)>;

/// How the replies of the shards become one.
pub enum Gather {
    /// There is one.
    One,
    /// The one of a scan, whose cursor gets the shard.
    Scan { shard: usize, count: usize },
    /// The sum of numbers.
    Sum,
    /// The elements of all arrays.
    Concat,
    /// For each key, which shard has the next element of its array.
    Values(Vec<usize>),
    /// The first that is not null.
    Any,
    /// The array of what the commands of keys in a transaction reply.
    Exec(Arc<Transaction>),
    /// There is one, which may take its time.
    Block,
    /// In a way of its own.
    By(Gatherer),
    /// Nobody asked for them.
    Nothing,
}

impl From<Arguments<'_>> for Copied {
    fn from(arguments: Arguments<'_>) -> Self {
        Copied::new(&arguments)
    }
}

impl Copied {
    pub fn new(arguments: &Arguments<'_>) -> Self {
        Copied { bulks: arguments.as_bulks().to_vec(), len: arguments.len() }
    }

    pub fn of(words: &[&[u8]]) -> Self {
        let mut bulks = Vec::new();
        words.iter().for_each(|word| put_bulk(&mut bulks, word));
        Copied { bulks, len: words.len() }
    }

    pub fn arguments(&self) -> Arguments<'_> {
        Arguments::from_bulks(&self.bulks, self.len)
    }

    pub fn size(&self) -> usize {
        self.bulks.len() + size_of::<Self>()
    }
}

impl Queue {
    /// Whether all replies are written.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.executing.is_none()
    }

    /// Whether there are no replies to be written, and no commands to be run.
    #[inline]
    pub fn is_idle(&self) -> bool {
        self.is_empty() && self.deferred.is_empty()
    }

    /// Whether all replies of shards have come and are written.
    pub fn awaits_nothing(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether no other command may be run before all replies are written, or all commands that
    /// came before it are run.
    pub fn is_exclusive(&self) -> bool {
        let is_exclusive =
            |waiting: &Waiting| matches!(waiting.gather, Gather::Exec(_) | Gather::Block);
        self.executing.is_some()
            || !self.deferred.is_empty()
            || self.waiting.back().is_some_and(is_exclusive)
    }

    /// The shard at which a command waits, or is going to.
    pub fn blocking_shard(&self) -> Option<usize> {
        let waiting = self.waiting.back()?;
        matches!(waiting.gather, Gather::Block).then_some(waiting.parts.first()?.shard)
    }

    /// Whether the next frames must wait.
    pub fn is_blocked(&self) -> bool {
        self.full || self.ending
    }

    /// Puts a command off. The connection is read all the same until there are too many: only so
    /// is it noticed that a client is gone that waits.
    pub fn defer(&mut self, command: Copied) {
        self.bytes += command.size();
        self.deferred.push_back(command);
        self.note_level();
    }

    /// Takes the first command that was put off, if all replies before its own are written.
    pub fn take_deferred(&mut self) -> Option<Copied> {
        let command = if self.is_empty() { self.deferred.pop_front()? } else { return None };
        self.bytes -= command.size();
        self.note_level();
        Some(command)
    }

    /// Awaits replies, which become one.
    pub fn push(&mut self, gather: Gather, parts: Vec<Awaited>) -> u64 {
        self.bytes += parts.iter().map(|part| part.bytes).sum::<usize>();
        self.waiting.push_back(Waiting { gather, parts });
        self.first + self.waiting.len() as u64 - 1
    }

    pub fn answer(&mut self, ticket: Ticket, reply: Encoded) {
        let index =
            ticket.reply.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
        if let Some(waiting) = index.and_then(|index| self.waiting.get_mut(index)) {
            let part = &mut waiting.parts[ticket.part];
            self.bytes = self.bytes - part.bytes + reply.len();
            (part.bytes, part.reply) = (reply.len(), Some(reply));
        }
    }

    /// Takes the first reply if all parts of it have come.
    pub fn take_complete(&mut self) -> Option<Waiting> {
        self.waiting.front()?.parts.iter().all(|part| part.reply.is_some()).then_some(())?;
        let waiting = self.waiting.pop_front()?;
        self.bytes -= waiting.parts.iter().map(|part| part.bytes).sum::<usize>();
        self.first += 1;
        Some(waiting)
    }

    /// Notes whether too much is on its way. That ends when half of it has come.
    pub fn note_level(&mut self) {
        let half = if self.full { 2 } else { 1 };
        self.full = self.waiting.len() >= MOST_WAITING / half || self.bytes > MOST_BYTES / half;
    }

    /// Takes a shard that is to be asked for more: the next reply is its own.
    pub fn next_withheld(&mut self) -> Option<usize> {
        let front = self.waiting.front()?;
        let missing = |shard| front.parts.iter().any(|part| part.misses(shard));
        let index = self.withheld.iter().position(|shard| missing(*shard))?;
        Some(self.withheld.swap_remove(index))
    }
}

impl Awaited {
    pub fn new(shard: usize, bytes: usize) -> Self {
        Awaited { shard, bytes, reply: None }
    }

    fn misses(&self, shard: usize) -> bool {
        self.shard == shard && self.reply.is_none()
    }
}

impl Waiting {
    /// Whether it is the reply of a command that waits.
    pub fn has_waited(&self) -> bool {
        matches!(self.gather, Gather::Block)
    }

    /// The transaction whose reply this is, if it was done.
    pub fn transaction(&self) -> Option<Arc<Transaction>> {
        let Gather::Exec(transaction) = &self.gather else { return None };
        let head = self.parts.first()?.reply.as_ref()?.first();
        let was_done = head.starts_with(b"*") && !head.starts_with(b"*-");
        was_done.then(|| Arc::clone(transaction))
    }

    /// The elements of the array that the only shard replied.
    pub fn into_elements(mut self) -> Option<Parts> {
        let mut elements = Parts::from(self.parts.pop()?.reply?);
        elements.line();
        Some(elements)
    }

    pub fn write(self, output: &mut Output<'_>, protocol: Protocol) {
        let Waiting { gather, parts } = self;
        let encoded: Vec<Encoded> = parts.into_iter().filter_map(|part| part.reply).collect();
        if let Gather::Nothing = gather {
            return;
        }
        if let Some(error) = encoded.iter().find(|reply| reply.is_error()) {
            return error.write(output);
        }
        if let (Gather::One | Gather::Exec(_) | Gather::Block, Some(reply)) =
            (&gather, encoded.first())
        {
            return reply.write(output);
        }
        let mut replies = Replies::new(output, protocol);
        if encoded.iter().map(Encoded::len).sum::<usize>() > MOST_REPLY {
            return Failure::ReplyTooLong.reply(&mut replies);
        }
        if let Gather::By(gather) = gather {
            return gather(encoded, &mut replies);
        }
        let decoded = || encoded.iter().flat_map(|reply| Reply::split_first(reply.first()));
        match gather {
            // See above.
            Gather::One | Gather::Exec(_) | Gather::Block | Gather::By(_) | Gather::Nothing => {}
            Gather::Any => {
                let found = decoded().position(|(reply, _)| reply != Reply::Null).unwrap_or(0);
                encoded[found].write(output);
            }
            Gather::Sum => replies.integer(decoded().fold(0, |sum, (reply, _)| match reply {
                Reply::Integer(number) => number.saturating_add(sum),
                _ => sum,
            })),
            Gather::Concat => {
                let mut arrays: Vec<Parts> = encoded.into_iter().map(Parts::from).collect();
                replies.array(arrays.iter_mut().map(Parts::number).sum());
                arrays.into_iter().for_each(|elements| elements.write_rest(output));
            }
            Gather::Values(order) => {
                let mut arrays: Vec<Parts> = encoded.into_iter().map(Parts::from).collect();
                arrays.iter_mut().for_each(|array| drop(array.line()));
                replies.array(order.len());
                order.into_iter().for_each(|part| arrays[part].write_next(output));
            }
            Gather::Scan { shard, count } => {
                for (reply, _) in decoded() {
                    let Reply::Array(mut elements) = reply else { continue };
                    let Some(Reply::Bulk(cursor)) = elements.next() else { continue };
                    replies.array(2);
                    let cursor = parse_cursor(cursor).unwrap_or(0);
                    replies.bulk(next_cursor(cursor, shard, count).to_string().as_bytes());
                    replies.encoded(elements.as_bytes());
                }
            }
        }
    }
}

/// A shard's cursor as a cursor of all shards; at its end the next shard begins.
fn next_cursor(cursor: u64, shard: usize, count: usize) -> u64 {
    match cursor {
        0 if shard + 1 == count => 0,
        0 => (shard as u64 + 1) << CURSOR_SHARD,
        cursor => cursor | (shard as u64) << CURSOR_SHARD,
    }
}
