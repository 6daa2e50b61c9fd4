//! Keys of whatever type.

use millstream::codec::resp::{Replies, parse_integer};

use super::size::Size;
use super::{Call, Failure, Outcome};
use crate::store::{Entry, Store, matches};

/// SCAN takes any COUNT, which is a hint, and goes no further in one step than this.
const MOST_SCANNED: usize = 100_000;
/// The same for the bytes of keys that it replies.
const MOST_SCANNED_BYTES: usize = 1024 * 1024;

pub fn del(store: &mut Store, mut call: Call<'_, '_>) -> Outcome {
    call.replies.count(call.arguments.filter(|key| store.remove(key, call.now).is_some()).count());
    Ok(())
}

pub fn exists(store: &mut Store, mut call: Call<'_, '_>) -> Outcome {
    call.replies.count(call.arguments.filter(|key| store.get(key, call.now).is_some()).count());
    Ok(())
}

pub fn type_(store: &mut Store, mut call: Call<'_, '_>) -> Outcome {
    let name = store.get(call.next()?, call.now).map_or("none", Entry::type_name);
    call.replies.simple(name.as_bytes());
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

pub fn keys(store: &mut Store, mut call: Call<'_, '_>) -> Outcome {
    let pattern = call.next()?;
    let mut keys = Vec::new();
    store.scan(0, usize::MAX, call.now, |entry| {
        if matches(pattern, entry.key()) {
            keys.push(entry.key());
        }
        false
    });
    size_of(&keys).check()?;
    reply_keys(&keys, &mut call.replies);
    Ok(())
}

/// A cursor: digits and nothing else.
pub fn parse_cursor(text: &[u8]) -> Result<u64, Failure> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(text).ok().filter(|_| digits);
    text.and_then(|text| text.parse().ok()).ok_or(Failure::Cursor)
}

pub fn scan(store: &mut Store, mut call: Call<'_, '_>) -> Outcome {
    let cursor = parse_cursor(call.next()?)?;
    let (mut pattern, mut kind, mut count) = (&b"*"[..], None, 10);
    while let Some(option) = call.arguments.next() {
        match option.to_ascii_uppercase().as_slice() {
            b"MATCH" => pattern = call.next()?,
            b"TYPE" => kind = Some(call.next()?.to_ascii_lowercase()),
            b"COUNT" => {
                count = call.next_integer()?;
                if count < 1 {
                    return Err(Failure::Syntax);
                }
            }
            _ => return Err(Failure::Syntax),
        }
    }
    let (mut keys, mut bytes) = (Vec::new(), 0);
    let count = usize::try_from(count).unwrap_or(usize::MAX).min(MOST_SCANNED);
    let cursor = store.scan(cursor, count, call.now, |entry| {
        let right = kind.as_deref().is_none_or(|kind| kind == entry.type_name().as_bytes());
        if right && matches(pattern, entry.key()) {
            bytes += entry.key().len();
            keys.push(entry.key());
        }
        bytes > MOST_SCANNED_BYTES
    });
    call.replies.array(2);
    call.replies.bulk(cursor.to_string().as_bytes());
    reply_keys(&keys, &mut call.replies);
    Ok(())
}

pub fn randomkey(store: &mut Store, mut call: Call<'_, '_>) -> Outcome {
    call.replies.bulk_or_null(store.random(call.now, &mut fastrand::Rng::new()).map(Entry::key));
    Ok(())
}

pub fn dbsize(store: &mut Store, mut call: Call<'_, '_>) -> Outcome {
    call.replies.count(store.len());
    Ok(())
}

pub fn flush(store: &mut Store, mut call: Call<'_, '_>) -> Outcome {
    let option = call.arguments.next().map(<[u8]>::to_ascii_uppercase);
    let known = matches!(option.as_deref(), None | Some(b"ASYNC" | b"SYNC"));
    if !known || call.arguments.len() > 0 {
        return Err(Failure::Syntax);
    }
    store.clear();
    call.replies.ok();
    Ok(())
}

/// A position in a list, which counts from the end if it is negative.
pub fn position(text: &[u8], len: usize) -> Result<i64, Failure> {
    let position = parse_integer(text).ok_or(Failure::NotAnInteger)?;
    let len = i64::try_from(len).unwrap_or(i64::MAX);
    Ok(if position < 0 { position.saturating_add(len) } else { position })
}
