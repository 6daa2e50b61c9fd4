//! Text and numbers.

use millstream::codec::resp::{Arguments, Replies, parse_integer};

use super::expiry::{At, deadline};
use super::size::Size;
use super::{Failure, Outcome, next, next_integer};
use crate::store::{Changing, Entry, Millis, Scalar, Store};

/// The longest text that may come about.
const LONGEST: usize = 512 * 1024 * 1024;

#[inline]
pub fn reply(value: Option<Scalar<'_>>, replies: &mut Replies<'_, '_>) {
    match value {
        Some(Scalar::Text(text)) => replies.bulk(text),
        Some(Scalar::Integer(number)) => replies.bulk_integer(number),
        Some(Scalar::Long(text)) => replies.bulk_shared(text.clone()),
        None => replies.null(),
    }
}

#[inline]
pub fn get(
    store: &mut Store,
    mut arguments: Arguments<'_>,
    replies: &mut Replies<'_, '_>,
    now: Millis,
) -> Outcome {
    reply(store.scalar(next(&mut arguments)?, now)?, replies);
    Ok(())
}

/// What SET is told behind key and value.
#[derive(Default)]
struct Options {
    /// Only if the key is there, or is not.
    if_there: Option<bool>,
    get: bool,
    keep_ttl: bool,
    deadline: Option<Millis>,
}

impl Options {
    fn parse(mut arguments: Arguments<'_>, now: Millis) -> Result<Self, Failure> {
        let mut options = Options::default();
        let mut time = None;
        while let Some(option) = arguments.next() {
            let at = match option.to_ascii_uppercase().as_slice() {
                b"NX" if options.if_there != Some(true) => {
                    options.if_there = Some(false);
                    continue;
                }
                b"XX" if options.if_there != Some(false) => {
                    options.if_there = Some(true);
                    continue;
                }
                b"GET" => {
                    options.get = true;
                    continue;
                }
                b"KEEPTTL" if time.is_none() => {
                    options.keep_ttl = true;
                    continue;
                }
                b"EX" => At::Seconds,
                b"PX" => At::Millis,
                b"EXAT" => At::UnixSeconds,
                b"PXAT" => At::UnixMillis,
                _ => return Err(Failure::Syntax),
            };
            if options.keep_ttl || time.is_some() {
                return Err(Failure::Syntax);
            }
            time = Some((next(&mut arguments)?, at));
        }
        if let Some((number, at)) = time {
            let number = parse_integer(number).ok_or(Failure::NotAnInteger)?;
            options.deadline = Some(deadline(number, at, now, "set")?);
        }
        Ok(options)
    }
}

#[inline]
pub fn set(
    store: &mut Store,
    mut arguments: Arguments<'_>,
    replies: &mut Replies<'_, '_>,
    now: Millis,
) -> Outcome {
    let (key, value) = (next(&mut arguments)?, next(&mut arguments)?);
    if arguments.len() > 0 {
        let options = Options::parse(arguments, now)?;
        return set_with(store, key, value, &options, replies, now);
    }
    store.set(key, Scalar::Text(value), None);
    replies.ok();
    Ok(())
}

#[cold]
fn set_with(
    store: &mut Store,
    key: &[u8],
    value: &[u8],
    options: &Options,
    replies: &mut Replies<'_, '_>,
    now: Millis,
) -> Outcome {
    let kept = store.get(key, now).map(Entry::deadline);
    let refused = options.if_there.is_some_and(|there| there != kept.is_some());
    if options.get {
        reply(store.scalar(key, now)?, replies);
    } else if refused {
        replies.null();
    } else {
        replies.ok();
    }
    if !refused {
        let kept = kept.flatten().filter(|_| options.keep_ttl);
        store.set(key, Scalar::Text(value), options.deadline.or(kept));
    }
    Ok(())
}

pub fn setnx(
    store: &mut Store,
    mut arguments: Arguments<'_>,
    replies: &mut Replies<'_, '_>,
    now: Millis,
) -> Outcome {
    let (key, value) = (next(&mut arguments)?, next(&mut arguments)?);
    let there = store.get(key, now).is_some();
    if !there {
        store.set(key, Scalar::Text(value), None);
    }
    replies.integer((!there).into());
    Ok(())
}

pub fn setex(
    store: &mut Store,
    arguments: Arguments<'_>,
    replies: &mut Replies<'_, '_>,
    now: Millis,
) -> Outcome {
    set_for(store, arguments, replies, (At::Seconds, "setex"), now)
}

pub fn psetex(
    store: &mut Store,
    arguments: Arguments<'_>,
    replies: &mut Replies<'_, '_>,
    now: Millis,
) -> Outcome {
    set_for(store, arguments, replies, (At::Millis, "psetex"), now)
}

fn set_for(
    store: &mut Store,
    mut arguments: Arguments<'_>,
    replies: &mut Replies<'_, '_>,
    (at, command): (At, &'static str),
    now: Millis,
) -> Outcome {
    let key = next(&mut arguments)?;
    let deadline = deadline(next_integer(&mut arguments)?, at, now, command)?;
    store.set(key, Scalar::Text(next(&mut arguments)?), Some(deadline));
    replies.ok();
    Ok(())
}

pub fn getset(
    store: &mut Store,
    mut arguments: Arguments<'_>,
    replies: &mut Replies<'_, '_>,
    now: Millis,
) -> Outcome {
    let (key, value) = (next(&mut arguments)?, next(&mut arguments)?);
    reply(store.scalar(key, now)?, replies);
    store.set(key, Scalar::Text(value), None);
    Ok(())
}

pub fn getdel(
    store: &mut Store,
    mut arguments: Arguments<'_>,
    replies: &mut Replies<'_, '_>,
    now: Millis,
) -> Outcome {
    let key = next(&mut arguments)?;
    reply(store.scalar(key, now)?, replies);
    store.remove(key, now);
    Ok(())
}

pub fn mget(
    store: &mut Store,
    arguments: Arguments<'_>,
    replies: &mut Replies<'_, '_>,
    now: Millis,
) -> Outcome {
    let value = |key| store.peek(key, now).and_then(|entry| Entry::scalar(entry).ok());
    let values: Vec<Option<Scalar<'_>>> = arguments.map(value).collect();
    let mut size = Size::default();
    values.iter().for_each(|value| size.text(length(*value)));
    size.check()?;
    replies.array(values.len());
    values.into_iter().for_each(|value| reply(value, replies));
    Ok(())
}

pub fn mset(
    store: &mut Store,
    mut arguments: Arguments<'_>,
    replies: &mut Replies<'_, '_>,
    _now: Millis,
) -> Outcome {
    if !arguments.len().is_multiple_of(2) {
        return Err(Failure::Arguments("mset".into()));
    }
    while let (Some(key), Some(value)) = (arguments.next(), arguments.next()) {
        store.set(key, Scalar::Text(value), None);
    }
    replies.ok();
    Ok(())
}

#[inline]
pub fn incr(
    store: &mut Store,
    mut arguments: Arguments<'_>,
    replies: &mut Replies<'_, '_>,
    now: Millis,
) -> Outcome {
    add(store, next(&mut arguments)?, 1, replies, now)
}

pub fn decr(
    store: &mut Store,
    mut arguments: Arguments<'_>,
    replies: &mut Replies<'_, '_>,
    now: Millis,
) -> Outcome {
    add(store, next(&mut arguments)?, -1, replies, now)
}

pub fn incrby(
    store: &mut Store,
    mut arguments: Arguments<'_>,
    replies: &mut Replies<'_, '_>,
    now: Millis,
) -> Outcome {
    let key = next(&mut arguments)?;
    add(store, key, next_integer(&mut arguments)?, replies, now)
}

pub fn decrby(
    store: &mut Store,
    mut arguments: Arguments<'_>,
    replies: &mut Replies<'_, '_>,
    now: Millis,
) -> Outcome {
    let key = next(&mut arguments)?;
    let number = next_integer(&mut arguments)?.checked_neg().ok_or(Failure::DecrementOverflow)?;
    add(store, key, number, replies, now)
}

#[inline]
fn add(
    store: &mut Store,
    key: &[u8],
    number: i64,
    replies: &mut Replies<'_, '_>,
    now: Millis,
) -> Outcome {
    let sum = match store.changing(key, now)? {
        Some(Changing::Text) => return Err(Failure::NotAnInteger),
        Some(Changing::Record(record)) => {
            let before = match record.value() {
                Scalar::Integer(before) => before,
                Scalar::Text(text) => parse_integer(text).ok_or(Failure::NotAnInteger)?,
                Scalar::Long(_) => return Err(Failure::NotAnInteger),
            };
            let sum = before.checked_add(number).ok_or(Failure::Overflow)?;
            record.set_value(Scalar::Integer(sum));
            sum
        }
        None => {
            store.set(key, Scalar::Integer(number), None);
            number
        }
    };
    replies.integer(sum);
    Ok(())
}

fn length(value: Option<Scalar<'_>>) -> usize {
    match value {
        None => 0,
        Some(Scalar::Text(text)) => text.len(),
        Some(Scalar::Long(text)) => text.len(),
        Some(Scalar::Integer(number)) => itoa::Buffer::new().format(number).len(),
    }
}

pub fn append(
    store: &mut Store,
    mut arguments: Arguments<'_>,
    replies: &mut Replies<'_, '_>,
    now: Millis,
) -> Outcome {
    let (key, text) = (next(&mut arguments)?, next(&mut arguments)?);
    if length(store.scalar(key, now)?) + text.len() > LONGEST {
        return Err(Failure::TooLong);
    }
    replies.count(store.append(key, text, now)?);
    Ok(())
}

pub fn strlen(
    store: &mut Store,
    mut arguments: Arguments<'_>,
    replies: &mut Replies<'_, '_>,
    now: Millis,
) -> Outcome {
    replies.count(length(store.scalar(next(&mut arguments)?, now)?));
    Ok(())
}
