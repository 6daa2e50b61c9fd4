//! When keys are gone.

use millstream::codec::resp::Arguments;

use super::{Call, Failure, Outcome, next_integer};
use crate::store::{Entry, Millis, Store};

/// How a time is told.
#[derive(Clone, Copy, PartialEq)]
pub enum At {
    Seconds,
    Millis,
    UnixSeconds,
    UnixMillis,
}

/// The deadline that a number stands for, whatever its sign.
fn moment(number: i64, at: At, now: Millis, command: &'static str) -> Result<Millis, Failure> {
    let millis = match at {
        At::Seconds | At::UnixSeconds => number.checked_mul(1000),
        At::Millis | At::UnixMillis => Some(number),
    };
    let moment = match at {
        At::Seconds | At::Millis => millis.and_then(|millis| millis.checked_add(now)),
        At::UnixSeconds | At::UnixMillis => millis,
    };
    moment.ok_or(Failure::ExpireTime(command))
}

/// The deadline of a value that is being set, which must be a positive number.
pub fn deadline(
    number: i64,
    at: At,
    now: Millis,
    command: &'static str,
) -> Result<Millis, Failure> {
    if number <= 0 {
        return Err(Failure::ExpireTime(command));
    }
    moment(number, at, now, command)
}

/// Under which conditions EXPIRE does something.
#[derive(Default)]
struct Conditions {
    nx: bool,
    xx: bool,
    gt: bool,
    lt: bool,
}

impl Conditions {
    fn parse(arguments: Arguments<'_>) -> Result<Self, Failure> {
        let mut conditions = Conditions::default();
        for option in arguments {
            match option.to_ascii_uppercase().as_slice() {
                b"NX" => conditions.nx = true,
                b"XX" => conditions.xx = true,
                b"GT" => conditions.gt = true,
                b"LT" => conditions.lt = true,
                _ => {
                    return Err(Failure::about("ERR Unsupported option ", option, ""));
                }
            }
        }
        let Conditions { nx, xx, gt, lt } = conditions;
        if nx && (xx || gt || lt) {
            let text = "ERR NX and XX, GT or LT options at the same time are not compatible";
            return Err(Failure::Other(text));
        }
        if gt && lt {
            let text = "ERR GT and LT options at the same time are not compatible";
            return Err(Failure::Other(text));
        }
        Ok(conditions)
    }

    fn allow(&self, present: Option<Millis>, next: Millis) -> bool {
        !(self.nx && present.is_some()
            || self.xx && present.is_none()
            || self.gt && present.is_none_or(|present| next <= present)
            || self.lt && present.is_some_and(|present| next >= present))
    }
}

/// Sets a deadline; the command's name is for its errors.
pub fn set_deadline(
    store: &mut Store,
    mut call: Call<'_, '_>,
    at: At,
    command: &'static str,
) -> Outcome {
    let (key, mut number) = (call.next()?, call.arguments.clone());
    call.arguments.next();
    let conditions = Conditions::parse(call.arguments)?;
    let deadline = moment(next_integer(&mut number)?, at, call.now, command)?;
    let present = store.get(key, call.now).map(Entry::deadline);
    let done = present.is_some_and(|present| conditions.allow(present, deadline));
    if done && deadline <= call.now {
        store.remove(key, call.now);
    } else if done {
        store.set_deadline(key, Some(deadline), call.now);
    }
    call.replies.integer(done.into());
    Ok(())
}

/// How long a key is still there; -1 without a deadline, -2 without the key.
fn left(store: &mut Store, key: &[u8], now: Millis) -> Millis {
    store.get(key, now).map_or(-2, |entry| entry.deadline().map_or(-1, |deadline| deadline - now))
}

pub fn ttl(store: &mut Store, mut call: Call<'_, '_>) -> Outcome {
    let left = left(store, call.next()?, call.now);
    call.replies.integer(if left < 0 { left } else { left.saturating_add(500) / 1000 });
    Ok(())
}

pub fn pttl(store: &mut Store, mut call: Call<'_, '_>) -> Outcome {
    let left = left(store, call.next()?, call.now);
    call.replies.integer(left);
    Ok(())
}

pub fn persist(store: &mut Store, mut call: Call<'_, '_>) -> Outcome {
    let key = call.next()?;
    let had = store.get(key, call.now).is_some_and(|entry| entry.deadline().is_some());
    store.set_deadline(key, None, call.now);
    call.replies.integer(had.into());
    Ok(())
}
