//! Sets.

use millstream::codec::resp::{Arguments, Replies};

use super::size::Size;
use super::{Outcome, next};
use crate::store::{Millis, Set, Store};

pub fn sadd(
    store: &mut Store,
    mut arguments: Arguments<'_>,
    replies: &mut Replies<'_, '_>,
    now: Millis,
) -> Outcome {
    let key = next(&mut arguments)?;
    replies.count(store.change::<Set, _>(key, now, |set| {
        let before = set.len();
        for member in arguments {
            set.get_or_insert_with(member, |member| member.into());
        }
        set.len() - before
    })?);
    Ok(())
}

pub fn srem(
    store: &mut Store,
    mut arguments: Arguments<'_>,
    replies: &mut Replies<'_, '_>,
    now: Millis,
) -> Outcome {
    let key = next(&mut arguments)?;
    replies.count(store.change_if_there::<Set, _>(key, now, |set| {
        arguments.filter(|member| set.remove(*member)).count()
    })?);
    Ok(())
}

pub fn smembers(
    store: &mut Store,
    mut arguments: Arguments<'_>,
    replies: &mut Replies<'_, '_>,
    now: Millis,
) -> Outcome {
    let set = store.collection::<Set>(next(&mut arguments)?, now)?;
    Size::check_copied(set.into_iter().flatten())?;
    replies.set(set.map_or(0, Set::len));
    for member in set.into_iter().flatten() {
        replies.bulk(member);
    }
    Ok(())
}

pub fn sismember(
    store: &mut Store,
    mut arguments: Arguments<'_>,
    replies: &mut Replies<'_, '_>,
    now: Millis,
) -> Outcome {
    let set = store.collection::<Set>(next(&mut arguments)?, now)?;
    let member = next(&mut arguments)?;
    replies.integer(set.is_some_and(|set| set.contains(member)).into());
    Ok(())
}

pub fn scard(
    store: &mut Store,
    mut arguments: Arguments<'_>,
    replies: &mut Replies<'_, '_>,
    now: Millis,
) -> Outcome {
    replies.count(store.collection::<Set>(next(&mut arguments)?, now)?.map_or(0, Set::len));
    Ok(())
}
