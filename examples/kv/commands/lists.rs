//! Lists.

use millstream::codec::resp::{Arguments, Replies, parse_integer};

use super::keys::position;
use super::size::Size;
use super::{Failure, Outcome, next, write_text, write_text_or_null};
use crate::store::{List, Millis, Store, Text};

pub fn lpush(
    store: &mut Store,
    arguments: Arguments<'_>,
    replies: &mut Replies<'_, '_>,
    now: Millis,
) -> Outcome {
    push(store, arguments, replies, List::push_front, now)
}

pub fn rpush(
    store: &mut Store,
    arguments: Arguments<'_>,
    replies: &mut Replies<'_, '_>,
    now: Millis,
) -> Outcome {
    push(store, arguments, replies, List::push_back, now)
}

fn push(
    store: &mut Store,
    mut arguments: Arguments<'_>,
    replies: &mut Replies<'_, '_>,
    push: fn(&mut List, Text),
    now: Millis,
) -> Outcome {
    let key = next(&mut arguments)?;
    replies.count(store.change::<List, _>(key, now, |list| {
        arguments.for_each(|element| push(list, element.into()));
        list.len()
    })?);
    Ok(())
}

pub fn lpop(
    store: &mut Store,
    arguments: Arguments<'_>,
    replies: &mut Replies<'_, '_>,
    now: Millis,
) -> Outcome {
    pop(store, arguments, replies, (End::Front, "lpop"), now)
}

pub fn rpop(
    store: &mut Store,
    arguments: Arguments<'_>,
    replies: &mut Replies<'_, '_>,
    now: Millis,
) -> Outcome {
    pop(store, arguments, replies, (End::Back, "rpop"), now)
}

#[derive(Clone, Copy)]
enum End {
    Front,
    Back,
}

impl End {
    fn pop(self, list: &mut List) -> Option<Text> {
        match self {
            End::Front => list.pop_front(),
            End::Back => list.pop_back(),
        }
    }

    /// Fails if a reply of this many elements from here on is too long.
    fn check(self, list: &List, count: usize) -> Outcome {
        match self {
            End::Front => Size::check_texts(list.iter().take(count)),
            End::Back => Size::check_texts(list.iter().rev().take(count)),
        }
    }
}

fn pop(
    store: &mut Store,
    mut arguments: Arguments<'_>,
    replies: &mut Replies<'_, '_>,
    (end, command): (End, &str),
    now: Millis,
) -> Outcome {
    let (key, count) = (next(&mut arguments)?, arguments.next());
    if arguments.len() > 0 {
        return Err(Failure::Arguments(command.into()));
    }
    let Some(count) = count else {
        let popped = store.change_if_there::<List, _>(key, now, |list| end.pop(list))?;
        write_text_or_null(popped.as_ref(), replies);
        return Ok(());
    };
    let count = parse_integer(count).and_then(|count| usize::try_from(count).ok());
    let count = count.ok_or(Failure::NotPositive)?;
    let Some(list) = store.collection::<List>(key, now)? else {
        replies.null_array();
        return Ok(());
    };
    end.check(list, count)?;
    store.change::<List, _>(key, now, |list| {
        let count = count.min(list.len());
        replies.array(count);
        let popped = (0..count).filter_map(|_| end.pop(list));
        popped.for_each(|element| write_text(&element, replies));
    })?;
    Ok(())
}

pub fn lrange(
    store: &mut Store,
    mut arguments: Arguments<'_>,
    replies: &mut Replies<'_, '_>,
    now: Millis,
) -> Outcome {
    let (key, first, last) = (next(&mut arguments)?, next(&mut arguments)?, next(&mut arguments)?);
    position(first, 0)?;
    position(last, 0)?;
    let Some(list) = store.collection::<List>(key, now)? else {
        replies.array(0);
        return Ok(());
    };
    let first = usize::try_from(position(first, list.len())?.max(0)).unwrap_or(usize::MAX);
    let end = usize::try_from(position(last, list.len())?.saturating_add(1).max(0));
    let end = end.unwrap_or(usize::MAX).min(list.len());
    let first = first.min(end);
    Size::check_texts(list.range(first..end))?;
    replies.array(end - first);
    list.range(first..end).for_each(|element| write_text(element, replies));
    Ok(())
}

pub fn llen(
    store: &mut Store,
    mut arguments: Arguments<'_>,
    replies: &mut Replies<'_, '_>,
    now: Millis,
) -> Outcome {
    replies.count(store.collection::<List>(next(&mut arguments)?, now)?.map_or(0, List::len));
    Ok(())
}

pub fn lindex(
    store: &mut Store,
    mut arguments: Arguments<'_>,
    replies: &mut Replies<'_, '_>,
    now: Millis,
) -> Outcome {
    let list = store.collection::<List>(next(&mut arguments)?, now)?;
    let index = next(&mut arguments)?;
    let element = match list {
        Some(list) => {
            usize::try_from(position(index, list.len())?).ok().and_then(|index| list.get(index))
        }
        None => None,
    };
    write_text_or_null(element, replies);
    Ok(())
}
