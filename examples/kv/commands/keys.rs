//! Keys of whatever type.

use millstream::codec::resp::{Arguments, Replies, parse_integer};

use super::size::Size;
use super::{Failure, Outcome, next, next_integer};
use crate::store::{Entry, Millis, Store, matches};

/// SCAN takes any COUNT, which is a hint, and goes no further in one step than this.
const MOST_SCANNED: usize = 100_000;
/// The same for the bytes of keys that it replies.
const MOST_SCANNED_BYTES: usize = 1024 * 1024;

pub fn del(
    store: &mut Store,
    arguments: Arguments<'_>,
    replies: &mut Replies<'_, '_>,
    now: Millis,
) -> Outcome {
    replies.count(arguments.filter(|key| store.remove(key, now).is_some()).count());
    Ok(())
}

pub fn exists(
    store: &mut Store,
    arguments: Arguments<'_>,
    replies: &mut Replies<'_, '_>,
    now: Millis,
) -> Outcome {
    replies.count(arguments.filter(|key| store.get(key, now).is_some()).count());
    Ok(())
}

pub fn type_(
    store: &mut Store,
    mut arguments: Arguments<'_>,
    replies: &mut Replies<'_, '_>,
    now: Millis,
) -> Outcome {
    let name = store.get(next(&mut arguments)?, now).map_or("none", Entry::type_name);
    replies.simple(name.as_bytes());
    Ok(())
}

fn size_of(keys: &[&[u8]]) -> Size {
    let mut size = Size::default();
    keys.iter().for_each(|key| size.copied(key.len()));
    size
}

fn reply_keys(keys: &[&[u8]], replies: &mut Replies<'_, '_>) {
    replies.array(keys.len());
    keys.iter().for_each(|key| replies.bulk(key));
}

pub fn keys(
    store: &mut Store,
    mut arguments: Arguments<'_>,
    replies: &mut Replies<'_, '_>,
    now: Millis,
) -> Outcome {
    let pattern = next(&mut arguments)?;
    let mut keys = Vec::new();
    store.scan(0, usize::MAX, now, |entry| {
        if matches(pattern, entry.key()) {
            keys.push(entry.key());
        }
        false
    });
    size_of(&keys).check()?;
    reply_keys(&keys, replies);
    Ok(())
}

/// A cursor: digits and nothing else.
pub fn parse_cursor(text: &[u8]) -> Result<u64, Failure> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(text).ok().filter(|_| digits);
    text.and_then(|text| text.parse().ok()).ok_or(Failure::Cursor)
}

pub fn scan(
    store: &mut Store,
    mut arguments: Arguments<'_>,
    replies: &mut Replies<'_, '_>,
    now: Millis,
) -> Outcome {
    let cursor = parse_cursor(next(&mut arguments)?)?;
    let (mut pattern, mut kind, mut count) = (&b"*"[..], None, 10);
    while let Some(option) = arguments.next() {
        match option.to_ascii_uppercase().as_slice() {
            b"MATCH" => pattern = next(&mut arguments)?,
            b"TYPE" => kind = Some(next(&mut arguments)?.to_ascii_lowercase()),
            b"COUNT" => {
                count = next_integer(&mut arguments)?;
                if count < 1 {
                    return Err(Failure::Syntax);
                }
            }
            _ => return Err(Failure::Syntax),
        }
    }
    let (mut keys, mut bytes) = (Vec::new(), 0);
    let count = usize::try_from(count).unwrap_or(usize::MAX).min(MOST_SCANNED);
    let cursor = store.scan(cursor, count, now, |entry| {
        let right = kind.as_deref().is_none_or(|kind| kind == entry.type_name().as_bytes());
        if right && matches(pattern, entry.key()) {
            bytes += entry.key().len();
            keys.push(entry.key());
        }
        bytes > MOST_SCANNED_BYTES
    });
    replies.array(2);
    replies.bulk(cursor.to_string().as_bytes());
    reply_keys(&keys, replies);
    Ok(())
}

pub fn randomkey(
    store: &mut Store,
    _: Arguments<'_>,
    replies: &mut Replies<'_, '_>,
    now: Millis,
) -> Outcome {
    replies.bulk_or_null(store.random(now, &mut fastrand::Rng::new()).map(Entry::key));
    Ok(())
}

pub fn dbsize(
    store: &mut Store,
    _: Arguments<'_>,
    replies: &mut Replies<'_, '_>,
    _: Millis,
) -> Outcome {
    replies.count(store.len());
    Ok(())
}

pub fn flush(
    store: &mut Store,
    mut arguments: Arguments<'_>,
    replies: &mut Replies<'_, '_>,
    _: Millis,
) -> Outcome {
    let option = arguments.next().map(<[u8]>::to_ascii_uppercase);
    let known = matches!(option.as_deref(), None | Some(b"ASYNC" | b"SYNC"));
    if !known || arguments.len() > 0 {
        return Err(Failure::Syntax);
    }
    store.clear();
    replies.ok();
    Ok(())
}

/// A position in a list, which counts from the end if it is negative.
pub fn position(text: &[u8], len: usize) -> Result<i64, Failure> {
    let position = parse_integer(text).ok_or(Failure::NotAnInteger)?;
    let len = i64::try_from(len).unwrap_or(i64::MAX);
    Ok(if position < 0 { position.saturating_add(len) } else { position })
}
