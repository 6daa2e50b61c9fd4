//! Hashes: fields and their values.

use millstream::codec::resp::{Arguments, Replies, parse_integer};

use super::size::Size;
use super::{Failure, Outcome, next, next_integer, write_text, write_text_or_null};
use crate::store::{Hash, Millis, Store, Text};

pub fn hset(
    store: &mut Store,
    arguments: Arguments<'_>,
    replies: &mut Replies<'_, '_>,
    now: Millis,
) -> Outcome {
    replies.count(set_fields(store, arguments, "hset", now)?);
    Ok(())
}

pub fn hmset(
    store: &mut Store,
    arguments: Arguments<'_>,
    replies: &mut Replies<'_, '_>,
    now: Millis,
) -> Outcome {
    set_fields(store, arguments, "hmset", now)?;
    replies.ok();
    Ok(())
}

/// Sets fields; returns how many of them are new.
fn set_fields(
    store: &mut Store,
    mut arguments: Arguments<'_>,
    command: &str,
    now: Millis,
) -> Result<usize, Failure> {
    let key = next(&mut arguments)?;
    if !arguments.len().is_multiple_of(2) {
        return Err(Failure::Arguments(command.into()));
    }
    Ok(store.change::<Hash, _>(key, now, |hash| {
        let before = hash.len();
        while let (Some(field), Some(value)) = (arguments.next(), arguments.next()) {
            match hash.get_mut(field) {
                Some(present) => *present = value.into(),
                None => drop(hash.insert(field.into(), value.into())),
            }
        }
        hash.len() - before
    })?)
}

pub fn hget(
    store: &mut Store,
    mut arguments: Arguments<'_>,
    replies: &mut Replies<'_, '_>,
    now: Millis,
) -> Outcome {
    let hash = store.collection::<Hash>(next(&mut arguments)?, now)?;
    let field = next(&mut arguments)?;
    write_text_or_null(hash.and_then(|hash| hash.get(field)), replies);
    Ok(())
}

pub fn hmget(
    store: &mut Store,
    mut arguments: Arguments<'_>,
    replies: &mut Replies<'_, '_>,
    now: Millis,
) -> Outcome {
    let hash = store.collection::<Hash>(next(&mut arguments)?, now)?;
    let values: Vec<Option<&Text>> =
        arguments.map(|field| hash.and_then(|hash| hash.get(field))).collect();
    let mut size = Size::default();
    values.iter().for_each(|value| size.text(value.map_or(0, |value| value.len())));
    size.check()?;
    replies.array(values.len());
    values.into_iter().for_each(|value| write_text_or_null(value, replies));
    Ok(())
}

pub fn hgetall(
    store: &mut Store,
    mut arguments: Arguments<'_>,
    replies: &mut Replies<'_, '_>,
    now: Millis,
) -> Outcome {
    let hash = store.collection::<Hash>(next(&mut arguments)?, now)?;
    let mut size = Size::default();
    for (field, value) in hash.into_iter().flatten() {
        size.copied(field.len());
        size.text(value.len());
    }
    size.check()?;
    replies.map(hash.map_or(0, Hash::len));
    for (field, value) in hash.into_iter().flatten() {
        replies.bulk(field);
        write_text(value, replies);
    }
    Ok(())
}

pub fn hkeys(
    store: &mut Store,
    mut arguments: Arguments<'_>,
    replies: &mut Replies<'_, '_>,
    now: Millis,
) -> Outcome {
    let hash = store.collection::<Hash>(next(&mut arguments)?, now)?;
    Size::check_copied(hash.into_iter().flat_map(Hash::keys))?;
    replies.array(hash.map_or(0, Hash::len));
    for field in hash.into_iter().flat_map(Hash::keys) {
        replies.bulk(field);
    }
    Ok(())
}

pub fn hvals(
    store: &mut Store,
    mut arguments: Arguments<'_>,
    replies: &mut Replies<'_, '_>,
    now: Millis,
) -> Outcome {
    let hash = store.collection::<Hash>(next(&mut arguments)?, now)?;
    Size::check_texts(hash.into_iter().flat_map(Hash::values))?;
    replies.array(hash.map_or(0, Hash::len));
    for value in hash.into_iter().flat_map(Hash::values) {
        write_text(value, replies);
    }
    Ok(())
}

pub fn hdel(
    store: &mut Store,
    mut arguments: Arguments<'_>,
    replies: &mut Replies<'_, '_>,
    now: Millis,
) -> Outcome {
    let key = next(&mut arguments)?;
    replies.count(store.change_if_there::<Hash, _>(key, now, |hash| {
        arguments.filter(|field| hash.remove(*field).is_some()).count()
    })?);
    Ok(())
}

pub fn hlen(
    store: &mut Store,
    mut arguments: Arguments<'_>,
    replies: &mut Replies<'_, '_>,
    now: Millis,
) -> Outcome {
    replies.count(store.collection::<Hash>(next(&mut arguments)?, now)?.map_or(0, Hash::len));
    Ok(())
}

pub fn hexists(
    store: &mut Store,
    mut arguments: Arguments<'_>,
    replies: &mut Replies<'_, '_>,
    now: Millis,
) -> Outcome {
    let hash = store.collection::<Hash>(next(&mut arguments)?, now)?;
    let field = next(&mut arguments)?;
    replies.integer(hash.is_some_and(|hash| hash.contains_key(field)).into());
    Ok(())
}

pub fn hincrby(
    store: &mut Store,
    mut arguments: Arguments<'_>,
    replies: &mut Replies<'_, '_>,
    now: Millis,
) -> Outcome {
    let (key, field) = (next(&mut arguments)?, next(&mut arguments)?);
    let number = next_integer(&mut arguments)?;
    let sum = store.change::<Hash, _>(key, now, |hash| {
        let before = hash.get(field).map_or(Some(0), |value| parse_integer(value));
        let sum = before
            .ok_or(Failure::HashNotAnInteger)?
            .checked_add(number)
            .ok_or(Failure::Overflow)?;
        hash.insert(field.into(), itoa::Buffer::new().format(sum).as_bytes().into());
        Ok::<_, Failure>(sum)
    })??;
    replies.integer(sum);
    Ok(())
}
