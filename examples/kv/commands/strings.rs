//! Text and numbers.

use millstream::codec::resp::{Replies, parse_integer};

use super::expiry::{At, deadline};
use super::size::Size;
use super::{Call, Failure, Outcome};
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
pub fn get(store: &mut Store, mut call: Call<'_, '_>) -> Outcome {
    reply(store.scalar(call.next()?, call.now)?, &mut call.replies);
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
    fn parse(call: &mut Call<'_, '_>) -> Result<Self, Failure> {
        let mut options = Options::default();
        let mut time = None;
        while let Some(option) = call.arguments.next() {
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
            time = Some((call.next()?, at));
        }
        if let Some((number, at)) = time {
            let number = parse_integer(number).ok_or(Failure::NotAnInteger)?;
            options.deadline = Some(deadline(number, at, call.now, "set")?);
        }
        Ok(options)
    }
}

#[inline]
pub fn set(store: &mut Store, mut call: Call<'_, '_>) -> Outcome {
    let (key, value) = (call.next()?, call.next()?);
    if call.arguments.len() > 0 {
        let options = Options::parse(&mut call)?;
        return set_with(store, key, value, &options, call);
    }
    store.set(key, Scalar::Text(value), None);
    call.replies.ok();
    Ok(())
}

#[cold]
fn set_with(
    store: &mut Store,
    key: &[u8],
    value: &[u8],
    options: &Options,
    mut call: Call<'_, '_>,
) -> Outcome {
    let kept = store.get(key, call.now).map(Entry::deadline);
    let refused = options.if_there.is_some_and(|there| there != kept.is_some());
    if options.get {
        reply(store.scalar(key, call.now)?, &mut call.replies);
    } else if refused {
        call.replies.null();
    } else {
        call.replies.ok();
    }
    if !refused {
        let kept = kept.flatten().filter(|_| options.keep_ttl);
        store.set(key, Scalar::Text(value), options.deadline.or(kept));
    }
    Ok(())
}

pub fn setnx(store: &mut Store, mut call: Call<'_, '_>) -> Outcome {
    let (key, value) = (call.next()?, call.next()?);
    let there = store.get(key, call.now).is_some();
    if !there {
        store.set(key, Scalar::Text(value), None);
    }
    call.replies.integer((!there).into());
    Ok(())
}

/// Sets a text for a time; the command's name is for its errors.
pub fn set_for(
    store: &mut Store,
    mut call: Call<'_, '_>,
    at: At,
    command: &'static str,
) -> Outcome {
    let key = call.next()?;
    let deadline = deadline(call.next_integer()?, at, call.now, command)?;
    store.set(key, Scalar::Text(call.next()?), Some(deadline));
    call.replies.ok();
    Ok(())
}

pub fn getset(store: &mut Store, mut call: Call<'_, '_>) -> Outcome {
    let (key, value) = (call.next()?, call.next()?);
    reply(store.scalar(key, call.now)?, &mut call.replies);
    store.set(key, Scalar::Text(value), None);
    Ok(())
}

pub fn getdel(store: &mut Store, mut call: Call<'_, '_>) -> Outcome {
    let key = call.next()?;
    reply(store.scalar(key, call.now)?, &mut call.replies);
    store.remove(key, call.now);
    Ok(())
}

pub fn mget(store: &mut Store, mut call: Call<'_, '_>) -> Outcome {
    let value = |key| store.peek(key, call.now).and_then(|entry| Entry::scalar(entry).ok());
    let values: Vec<Option<Scalar<'_>>> = call.arguments.map(value).collect();
    let mut size = Size::default();
    values.iter().for_each(|value| size.text(length(*value)));
    size.check()?;
    call.replies.array(values.len());
    values.into_iter().for_each(|value| reply(value, &mut call.replies));
    Ok(())
}

pub fn mset(store: &mut Store, mut call: Call<'_, '_>) -> Outcome {
    if !call.arguments.len().is_multiple_of(2) {
        return Err(Failure::Arguments("mset".into()));
    }
    while let (Some(key), Some(value)) = (call.arguments.next(), call.arguments.next()) {
        store.set(key, Scalar::Text(value), None);
    }
    call.replies.ok();
    Ok(())
}

#[inline]
pub fn incr(store: &mut Store, mut call: Call<'_, '_>) -> Outcome {
    let key = call.next()?;
    add(store, key, 1, call)
}

pub fn decr(store: &mut Store, mut call: Call<'_, '_>) -> Outcome {
    let key = call.next()?;
    add(store, key, -1, call)
}

pub fn incrby(store: &mut Store, mut call: Call<'_, '_>) -> Outcome {
    let (key, number) = (call.next()?, call.next_integer()?);
    add(store, key, number, call)
}

pub fn decrby(store: &mut Store, mut call: Call<'_, '_>) -> Outcome {
    let key = call.next()?;
    let number = call.next_integer()?.checked_neg().ok_or(Failure::DecrementOverflow)?;
    add(store, key, number, call)
}

#[inline]
fn add(store: &mut Store, key: &[u8], number: i64, mut call: Call<'_, '_>) -> Outcome {
    let sum = match store.changing(key, call.now)? {
        Some(Changing::Text) => return Err(Failure::NotAnInteger),
        Some(Changing::Record(record)) => {
            let before = match record.value() {
                Scalar::Integer(before) => before,
                Scalar::Text(text) => parse_integer(text).ok_or(Failure::NotAnInteger)?,
                Scalar::Long(_) => return Err(Failure::NotAnInteger),
            };
            let sum = before.checked_add(number).ok_or(Failure::Overflow)?;
            record.set_value(Scalar::Integer(sum));
            store.touch(key);
            sum
        }
        None => {
            store.set(key, Scalar::Integer(number), None);
            number
        }
    };
    call.replies.integer(sum);
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

pub fn append(store: &mut Store, mut call: Call<'_, '_>) -> Outcome {
    let (key, text) = (call.next()?, call.next()?);
    if length(store.scalar(key, call.now)?) + text.len() > LONGEST {
        return Err(Failure::TooLong);
    }
    call.replies.count(store.append(key, text, call.now)?);
    Ok(())
}

pub fn strlen(store: &mut Store, mut call: Call<'_, '_>) -> Outcome {
    let length = length(store.scalar(call.next()?, call.now)?);
    call.replies.count(length);
    Ok(())
}
