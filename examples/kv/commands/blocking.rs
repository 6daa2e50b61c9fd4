//! Commands that wait until there is something to take.
//!
//! Each of them takes at once, or fails with [`Failure::WouldBlock`]; then the client waits, and it
//! is run again when the key has something.

use std::time::Duration;

use millstream::codec::resp::{Arguments, Replies};

use super::float::{parse_float, write_float};
use super::lists::{End, move_element, parse_end};
use super::sorted_sets::Side;
use super::{Call, Command, Failure, Outcome, write_text};
use crate::store::{List, Sorted, Store};

/// No timeout is longer, in milliseconds.
const LONGEST: f64 = i64::MAX as f64;

/// How long a command waits, which its last argument says in seconds; `None` for as long as it
/// takes.
pub fn parse_timeout(text: &[u8]) -> Result<Option<Duration>, Failure> {
    let not_a_float = Failure::Other("ERR timeout is not a float or out of range");
    let millis = (parse_float(text).filter(|n| n.is_finite()).ok_or(not_a_float)? * 1000.0).ceil();
    match millis {
        _ if millis < 0.0 => Err(Failure::Other("ERR timeout is negative")),
        _ if millis >= LONGEST => Err(Failure::Other("ERR timeout is out of range")),
        0.0 => Ok(None),
        _ => Ok(Some(Duration::from_millis(millis as u64))),
    }
}

/// How long a command waits whose arguments were found to be right.
pub fn timeout(arguments: &Arguments<'_>) -> Option<Duration> {
    arguments.clone().last().and_then(|text| parse_timeout(text).ok()?)
}

/// The type of what a command waits for.
pub fn awaited_type(command: &Command) -> &'static str {
    if command.group == "list" { "list" } else { "zset" }
}

/// What a command replies if there is nothing and it may not wait, or not any longer.
pub fn write_nothing(command: &Command, in_time: bool, replies: &mut Replies<'_, '_>) {
    let moves = matches!(command.name, "BLMOVE" | "BRPOPLPUSH");
    if moves && in_time { replies.null() } else { replies.null_array() }
}

/// The keys in front of the timeout, which must be right.
fn keys<'c>(arguments: Arguments<'c>) -> Result<impl Iterator<Item = &'c [u8]>, Failure> {
    parse_timeout(arguments.clone().last().ok_or(Failure::Syntax)?)?;
    let count = arguments.len().saturating_sub(1);
    Ok(arguments.take(count))
}

pub fn pop(store: &mut Store, mut call: Call<'_, '_>, end: End) -> Outcome {
    for key in keys(call.arguments)? {
        if let Some(element) =
            store.change_if_there::<List, _>(key, call.now, |list| end.pop(list))?
        {
            call.replies.array(2);
            call.replies.bulk(key);
            write_text(&element, &mut call.replies);
            return Ok(());
        }
    }
    Err(Failure::WouldBlock)
}

pub fn blmove(store: &mut Store, mut call: Call<'_, '_>) -> Outcome {
    let (from, to) = (call.next()?, call.next()?);
    let ends = (parse_end(call.next()?)?, parse_end(call.next()?)?);
    parse_timeout(call.next()?)?;
    move_or_wait(store, (from, to), ends, call)
}

pub fn brpoplpush(store: &mut Store, mut call: Call<'_, '_>) -> Outcome {
    let (from, to) = (call.next()?, call.next()?);
    parse_timeout(call.next()?)?;
    move_or_wait(store, (from, to), (End::Back, End::Front), call)
}

fn move_or_wait(
    store: &mut Store,
    keys: (&[u8], &[u8]),
    ends: (End, End),
    mut call: Call<'_, '_>,
) -> Outcome {
    let moved = move_element(store, keys, ends, call.now)?.ok_or(Failure::WouldBlock)?;
    write_text(&moved, &mut call.replies);
    Ok(())
}

pub fn pop_scored(store: &mut Store, mut call: Call<'_, '_>, side: Side) -> Outcome {
    for key in keys(call.arguments)? {
        let pop = |sorted: &mut Sorted| sorted.pop(side == Side::Highest);
        if let Some(popped) = store.change_if_there::<Sorted, _>(key, call.now, pop)? {
            call.replies.array(3);
            call.replies.bulk(key);
            call.replies.bulk(&popped.member);
            write_float(popped.score, &mut call.replies);
            return Ok(());
        }
    }
    Err(Failure::WouldBlock)
}
