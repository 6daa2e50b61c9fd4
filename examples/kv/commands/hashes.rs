//! Hashes: fields and their values.

use millstream::codec::resp::parse_integer;

use super::size::Size;
use super::{Call, Failure, Outcome, write_text, write_text_or_null};
use crate::store::{Hash, Store, Text};

pub fn hset(store: &mut Store, mut call: Call<'_, '_>) -> Outcome {
    let new = set_fields(store, &mut call, "hset")?;
    call.replies.count(new);
    Ok(())
}

pub fn hmset(store: &mut Store, mut call: Call<'_, '_>) -> Outcome {
    set_fields(store, &mut call, "hmset")?;
    call.replies.ok();
    Ok(())
}

/// Sets fields; returns how many of them are new.
fn set_fields(store: &mut Store, call: &mut Call<'_, '_>, command: &str) -> Result<usize, Failure> {
    let (key, pairs) = (call.next()?, &mut call.arguments);
    if !pairs.len().is_multiple_of(2) {
        return Err(Failure::Arguments(command.into()));
    }
    Ok(store.change::<Hash, _>(key, call.now, |hash| {
        let before = hash.len();
        while let (Some(field), Some(value)) = (pairs.next(), pairs.next()) {
            match hash.get_mut(field) {
                Some(present) => *present = value.into(),
                None => drop(hash.insert(field.into(), value.into())),
            }
        }
        hash.len() - before
    })?)
}

pub fn hget(store: &mut Store, mut call: Call<'_, '_>) -> Outcome {
    let hash = store.collection::<Hash>(call.next()?, call.now)?;
    let field = call.next()?;
    write_text_or_null(hash.and_then(|hash| hash.get(field)), &mut call.replies);
    Ok(())
}

pub fn hmget(store: &mut Store, mut call: Call<'_, '_>) -> Outcome {
    let hash = store.collection::<Hash>(call.next()?, call.now)?;
    let values: Vec<Option<&Text>> =
        call.arguments.map(|field| hash.and_then(|hash| hash.get(field))).collect();
    let mut size = Size::default();
    values.iter().for_each(|value| size.text(value.map_or(0, |value| value.len())));
    size.check()?;
    call.replies.array(values.len());
    values.into_iter().for_each(|value| write_text_or_null(value, &mut call.replies));
    Ok(())
}

pub fn hgetall(store: &mut Store, mut call: Call<'_, '_>) -> Outcome {
    let hash = store.collection::<Hash>(call.next()?, call.now)?;
    let mut size = Size::default();
    for (field, value) in hash.into_iter().flatten() {
        size.copied(field.len());
        size.text(value.len());
    }
    size.check()?;
    call.replies.map(hash.map_or(0, Hash::len));
    for (field, value) in hash.into_iter().flatten() {
        call.replies.bulk(field);
        write_text(value, &mut call.replies);
    }
    Ok(())
}

pub fn hkeys(store: &mut Store, mut call: Call<'_, '_>) -> Outcome {
    let hash = store.collection::<Hash>(call.next()?, call.now)?;
    Size::check_copied(hash.into_iter().flat_map(Hash::keys))?;
    call.replies.array(hash.map_or(0, Hash::len));
    for field in hash.into_iter().flat_map(Hash::keys) {
        call.replies.bulk(field);
    }
    Ok(())
}

pub fn hvals(store: &mut Store, mut call: Call<'_, '_>) -> Outcome {
    let hash = store.collection::<Hash>(call.next()?, call.now)?;
    Size::check_texts(hash.into_iter().flat_map(Hash::values))?;
    call.replies.array(hash.map_or(0, Hash::len));
    for value in hash.into_iter().flat_map(Hash::values) {
        write_text(value, &mut call.replies);
    }
    Ok(())
}

pub fn hdel(store: &mut Store, mut call: Call<'_, '_>) -> Outcome {
    let key = call.next()?;
    call.replies.count(store.change_if_there::<Hash, _>(key, call.now, |hash| {
        call.arguments.filter(|field| hash.remove(*field).is_some()).count()
    })?);
    Ok(())
}

pub fn hlen(store: &mut Store, mut call: Call<'_, '_>) -> Outcome {
    let hash = store.collection::<Hash>(call.next()?, call.now)?;
    call.replies.count(hash.map_or(0, Hash::len));
    Ok(())
}

pub fn hexists(store: &mut Store, mut call: Call<'_, '_>) -> Outcome {
    let hash = store.collection::<Hash>(call.next()?, call.now)?;
    let field = call.next()?;
    call.replies.integer(hash.is_some_and(|hash| hash.contains_key(field)).into());
    Ok(())
}

pub fn hincrby(store: &mut Store, mut call: Call<'_, '_>) -> Outcome {
    let (key, field) = (call.next()?, call.next()?);
    let number = call.next_integer()?;
    let sum = store.change_quietly::<Hash, _>(key, call.now, |hash| {
        let before = hash.get(field).map_or(Some(0), |value| parse_integer(value));
        let sum = before
            .ok_or(Failure::HashNotAnInteger)?
            .checked_add(number)
            .ok_or(Failure::Overflow)?;
        hash.insert(field.into(), itoa::Buffer::new().format(sum).as_bytes().into());
        Ok::<_, Failure>(sum)
    })??;
    store.touch(key);
    call.replies.integer(sum);
    Ok(())
}
