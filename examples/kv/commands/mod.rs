//! The commands: a table that tells of each how many arguments it takes, which of them are keys,
//! and what runs it.

mod connection;
mod expiry;
mod failure;
mod hashes;
mod keys;
mod lists;
mod pubsub;
mod sets;
mod size;
mod strings;

use millstream::Action;
use millstream::codec::FramedConn;
use millstream::codec::resp::{Arguments, Replies, parse_integer};

pub use self::failure::{Failure, MOST_SHOWN, shown};
pub use self::keys::parse_cursor;
pub use self::size::MOST_REPLY;
use crate::server::Server;
use crate::store::{Millis, Store, Text};

pub type Outcome = Result<(), Failure>;
/// Runs a command on the keys of a shard. It writes one reply, or fails before it has written.
pub type OnStore = fn(&mut Store, Arguments<'_>, &mut Replies<'_, '_>, Millis) -> Outcome;
/// Runs a command of the connection itself.
pub type OnConnection =
    fn(&mut Server, &mut FramedConn<'_, Server>, Arguments<'_>) -> Result<Action, Failure>;

#[derive(Clone, Copy)]
pub enum Run {
    Store(OnStore),
    Connection(OnConnection),
}

/// A command.
pub struct Command {
    pub name: &'static str,
    /// How many arguments it takes, its name being one; at least this many if negative.
    pub arity: i8,
    pub flags: &'static [&'static str],
    /// The first and the last of its keys, counted from the end if negative, and the distance
    /// between two; 0 if it has none.
    pub keys: (i8, i8, i8),
    pub group: &'static str,
    pub run: Run,
}

impl Command {
    #[inline]
    pub fn takes(&self, arguments: usize) -> bool {
        let least = self.arity.unsigned_abs().into();
        if self.arity < 0 { arguments >= least } else { arguments == least }
    }

    /// Whether a connection in version 2 that subscribed to something may still use it.
    pub fn is_for_subscribers(&self) -> bool {
        self.group == "pubsub" && self.name != "PUBLISH"
            || matches!(self.name, "PING" | "QUIT" | "RESET")
    }
}

const READ: &[&str] = &["readonly", "fast"];
const SLOW_READ: &[&str] = &["readonly"];
const WRITE: &[&str] = &["write", "denyoom", "fast"];
const REMOVE: &[&str] = &["write", "fast"];
const OTHER: &[&str] = &["noscript", "loading", "stale", "fast"];
const NONE: (i8, i8, i8) = (0, 0, 0);
const ONE: (i8, i8, i8) = (1, 1, 1);
const ALL: (i8, i8, i8) = (1, -1, 1);

const fn store(
    name: &'static str,
    arity: i8,
    flags: &'static [&'static str],
    keys: (i8, i8, i8),
    group: &'static str,
    run: OnStore,
) -> Command {
    Command { name, arity, flags, keys, group, run: Run::Store(run) }
}

const fn connection(
    name: &'static str,
    arity: i8,
    group: &'static str,
    run: OnConnection,
) -> Command {
    Command { name, arity, flags: OTHER, keys: NONE, group, run: Run::Connection(run) }
}

/// How many commands there are; one more for tests.
const COUNT: usize = if cfg!(test) { 72 } else { 71 };

pub static COMMANDS: [Command; COUNT] = [
    #[cfg(test)]
    store("TESTED", 3, READ, ONE, "test", crate::shards::tests::tested),
    store("GET", 2, READ, ONE, "string", strings::get),
    store("SET", -3, WRITE, ONE, "string", strings::set),
    store("SETNX", 3, WRITE, ONE, "string", strings::setnx),
    store("SETEX", 4, WRITE, ONE, "string", strings::setex),
    store("PSETEX", 4, WRITE, ONE, "string", strings::psetex),
    store("GETSET", 3, WRITE, ONE, "string", strings::getset),
    store("GETDEL", 2, REMOVE, ONE, "string", strings::getdel),
    store("MGET", -2, READ, ALL, "string", strings::mget),
    store("MSET", -3, WRITE, (1, -1, 2), "string", strings::mset),
    store("INCR", 2, WRITE, ONE, "string", strings::incr),
    store("DECR", 2, WRITE, ONE, "string", strings::decr),
    store("INCRBY", 3, WRITE, ONE, "string", strings::incrby),
    store("DECRBY", 3, WRITE, ONE, "string", strings::decrby),
    store("APPEND", 3, WRITE, ONE, "string", strings::append),
    store("STRLEN", 2, READ, ONE, "string", strings::strlen),
    store("DEL", -2, REMOVE, ALL, "generic", keys::del),
    store("UNLINK", -2, REMOVE, ALL, "generic", keys::del),
    store("EXISTS", -2, READ, ALL, "generic", keys::exists),
    store("TYPE", 2, READ, ONE, "generic", keys::type_),
    store("KEYS", 2, SLOW_READ, NONE, "generic", keys::keys),
    store("SCAN", -2, SLOW_READ, NONE, "generic", keys::scan),
    store("RANDOMKEY", 1, SLOW_READ, NONE, "generic", keys::randomkey),
    store("DBSIZE", 1, READ, NONE, "server", keys::dbsize),
    store("FLUSHDB", -1, REMOVE, NONE, "server", keys::flush),
    store("FLUSHALL", -1, REMOVE, NONE, "server", keys::flush),
    store("EXPIRE", -3, REMOVE, ONE, "generic", expiry::expire),
    store("PEXPIRE", -3, REMOVE, ONE, "generic", expiry::pexpire),
    store("EXPIREAT", -3, REMOVE, ONE, "generic", expiry::expireat),
    store("PEXPIREAT", -3, REMOVE, ONE, "generic", expiry::pexpireat),
    store("TTL", 2, READ, ONE, "generic", expiry::ttl),
    store("PTTL", 2, READ, ONE, "generic", expiry::pttl),
    store("PERSIST", 2, REMOVE, ONE, "generic", expiry::persist),
    store("HSET", -4, WRITE, ONE, "hash", hashes::hset),
    store("HMSET", -4, WRITE, ONE, "hash", hashes::hmset),
    store("HGET", 3, READ, ONE, "hash", hashes::hget),
    store("HMGET", -3, READ, ONE, "hash", hashes::hmget),
    store("HGETALL", 2, SLOW_READ, ONE, "hash", hashes::hgetall),
    store("HKEYS", 2, SLOW_READ, ONE, "hash", hashes::hkeys),
    store("HVALS", 2, SLOW_READ, ONE, "hash", hashes::hvals),
    store("HDEL", -3, REMOVE, ONE, "hash", hashes::hdel),
    store("HLEN", 2, READ, ONE, "hash", hashes::hlen),
    store("HEXISTS", 3, READ, ONE, "hash", hashes::hexists),
    store("HINCRBY", 4, WRITE, ONE, "hash", hashes::hincrby),
    store("LPUSH", -3, WRITE, ONE, "list", lists::lpush),
    store("RPUSH", -3, WRITE, ONE, "list", lists::rpush),
    store("LPOP", -2, REMOVE, ONE, "list", lists::lpop),
    store("RPOP", -2, REMOVE, ONE, "list", lists::rpop),
    store("LRANGE", 4, SLOW_READ, ONE, "list", lists::lrange),
    store("LLEN", 2, READ, ONE, "list", lists::llen),
    store("LINDEX", 3, SLOW_READ, ONE, "list", lists::lindex),
    store("SADD", -3, WRITE, ONE, "set", sets::sadd),
    store("SREM", -3, REMOVE, ONE, "set", sets::srem),
    store("SMEMBERS", 2, SLOW_READ, ONE, "set", sets::smembers),
    store("SISMEMBER", 3, READ, ONE, "set", sets::sismember),
    store("SCARD", 2, READ, ONE, "set", sets::scard),
    connection("PUBLISH", 3, "pubsub", pubsub::publish),
    connection("SUBSCRIBE", -2, "pubsub", pubsub::subscribe),
    connection("UNSUBSCRIBE", -1, "pubsub", pubsub::unsubscribe),
    connection("PSUBSCRIBE", -2, "pubsub", pubsub::psubscribe),
    connection("PUNSUBSCRIBE", -1, "pubsub", pubsub::punsubscribe),
    connection("PING", -1, "connection", connection::ping),
    connection("ECHO", 2, "connection", connection::echo),
    connection("HELLO", -1, "connection", connection::hello),
    connection("AUTH", -2, "connection", connection::auth),
    connection("CLIENT", -2, "connection", connection::client),
    connection("SELECT", 2, "connection", connection::select),
    connection("RESET", 1, "connection", connection::reset),
    connection("QUIT", -1, "connection", connection::quit),
    connection("INFO", -1, "server", connection::info),
    connection("COMMAND", -1, "server", connection::command),
    connection("CONFIG", -2, "server", connection::config),
];

/// No command has a longer name.
const LONGEST: usize = 16;

/// A name in capital letters as a number.
#[inline]
fn folded(name: &[u8]) -> Option<u128> {
    let mut bytes = [0; LONGEST];
    bytes.get_mut(..name.len())?.copy_from_slice(name);
    bytes.make_ascii_uppercase();
    Some(u128::from_le_bytes(bytes))
}

const SLOTS: usize = 256;
const FREE: u8 = u8::MAX;

/// Where in [`SLOTS`] places a name is looked for first.
#[inline]
const fn slot(name: u128) -> usize {
    let mixed = (name as u64 ^ (name >> 64) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 56) as usize
}

/// The folded names, and which place in the table of slots leads to which.
static NAMES: [u128; COMMANDS.len()] = names();
static INDEX: [u8; SLOTS] = index();

const fn names() -> [u128; COMMANDS.len()] {
    let mut names = [0; COMMANDS.len()];
    let mut at = 0;
    while at < names.len() {
        let name = COMMANDS[at].name.as_bytes();
        let mut byte = 0;
        while byte < name.len() {
            names[at] |= (name[byte] as u128) << (8 * byte);
            byte += 1;
        }
        at += 1;
    }
    names
}

const fn index() -> [u8; SLOTS] {
    let (names, mut index) = (names(), [FREE; SLOTS]);
    let mut at = 0;
    while at < names.len() {
        let mut place = slot(names[at]);
        while index[place] != FREE {
            place = (place + 1) % SLOTS;
        }
        index[place] = at as u8;
        at += 1;
    }
    index
}

/// The command of a name, in whatever letters.
#[inline]
pub fn find(name: &[u8]) -> Option<&'static Command> {
    let name = folded(name)?;
    let mut place = slot(name);
    loop {
        let at = INDEX[place];
        if at == FREE {
            return None;
        }
        if NAMES[usize::from(at)] == name {
            return Some(&COMMANDS[usize::from(at)]);
        }
        place = (place + 1) % SLOTS;
    }
}

/// The next argument, of which the table says that it is there.
#[inline]
fn next<'c>(arguments: &mut Arguments<'c>) -> Result<&'c [u8], Failure> {
    arguments.next().ok_or(Failure::Syntax)
}

/// Writes text, which the reply shares if it is long.
fn write_text(text: &Text, replies: &mut Replies<'_, '_>) {
    match text {
        Text::Short(bytes) => replies.bulk(bytes),
        Text::Long(bytes) => replies.bulk_shared(bytes::Bytes::clone(bytes)),
    }
}

fn write_text_or_null(text: Option<&Text>, replies: &mut Replies<'_, '_>) {
    match text {
        Some(text) => write_text(text, replies),
        None => replies.null(),
    }
}

fn next_integer(arguments: &mut Arguments<'_>) -> Result<i64, Failure> {
    parse_integer(next(arguments)?).ok_or(Failure::NotAnInteger)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_found_by_its_name() {
        for command in &COMMANDS {
            for name in [command.name.to_string(), command.name.to_lowercase()] {
                assert_eq!(find(name.as_bytes()).map(|found| found.name), Some(command.name));
            }
        }
        for name in ["", "GE", "GETT", "seventeen letters", "G\0T"] {
            assert!(find(name.as_bytes()).is_none(), "{name}");
        }
    }
}
