//! Lists.

use millstream::codec::resp::parse_integer;

use super::keys::position;
use super::size::Size;
use super::{Call, Failure, Outcome, write_text, write_text_or_null};
use crate::store::{List, Millis, Store, Text};

pub fn push(store: &mut Store, mut call: Call<'_, '_>, push: fn(&mut List, Text)) -> Outcome {
    let key = call.next()?;
    call.replies.count(store.change::<List, _>(key, call.now, |list| {
        call.arguments.for_each(|element| push(list, element.into()));
        list.len()
    })?);
    Ok(())
}

#[derive(Clone, Copy)]
pub enum End {
    Front,
    Back,
}

impl End {
    pub fn pop(self, list: &mut List) -> Option<Text> {
        match self {
            End::Front => list.pop_front(),
            End::Back => list.pop_back(),
        }
    }

    fn push(self, list: &mut List, element: Text) {
        match self {
            End::Front => list.push_front(element),
            End::Back => list.push_back(element),
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

/// Takes elements; the command's name is for its errors.
pub fn pop(store: &mut Store, mut call: Call<'_, '_>, end: End, command: &str) -> Outcome {
    let (key, count) = (call.next()?, call.arguments.next());
    if call.arguments.len() > 0 {
        return Err(Failure::Arguments(command.into()));
    }
    let Some(count) = count else {
        let popped = store.change_if_there::<List, _>(key, call.now, |list| end.pop(list))?;
        write_text_or_null(popped.as_ref(), &mut call.replies);
        return Ok(());
    };
    let count = parse_integer(count).and_then(|count| usize::try_from(count).ok());
    let count = count.ok_or(Failure::NotPositive)?;
    let Some(list) = store.collection::<List>(key, call.now)? else {
        call.replies.null_array();
        return Ok(());
    };
    end.check(list, count)?;
    if count == 0 {
        call.replies.array(0);
        return Ok(());
    }
    store.change::<List, _>(key, call.now, |list| {
        let count = count.min(list.len());
        call.replies.array(count);
        let popped = (0..count).filter_map(|_| end.pop(list));
        popped.for_each(|element| write_text(&element, &mut call.replies));
    })?;
    Ok(())
}

pub fn lrange(store: &mut Store, mut call: Call<'_, '_>) -> Outcome {
    let (key, first, last) = (call.next()?, call.next()?, call.next()?);
    position(first, 0)?;
    position(last, 0)?;
    let Some(list) = store.collection::<List>(key, call.now)? else {
        call.replies.array(0);
        return Ok(());
    };
    let first = usize::try_from(position(first, list.len())?.max(0)).unwrap_or(usize::MAX);
    let end = usize::try_from(position(last, list.len())?.saturating_add(1).max(0));
    let end = end.unwrap_or(usize::MAX).min(list.len());
    let first = first.min(end);
    Size::check_texts(list.range(first..end))?;
    call.replies.array(end - first);
    list.range(first..end).for_each(|element| write_text(element, &mut call.replies));
    Ok(())
}

pub fn llen(store: &mut Store, mut call: Call<'_, '_>) -> Outcome {
    let list = store.collection::<List>(call.next()?, call.now)?;
    call.replies.count(list.map_or(0, List::len));
    Ok(())
}

pub fn lindex(store: &mut Store, mut call: Call<'_, '_>) -> Outcome {
    let list = store.collection::<List>(call.next()?, call.now)?;
    let index = call.next()?;
    let element = match list {
        Some(list) => {
            usize::try_from(position(index, list.len())?).ok().and_then(|index| list.get(index))
        }
        None => None,
    };
    write_text_or_null(element, &mut call.replies);
    Ok(())
}

pub fn parse_end(text: &[u8]) -> Result<End, Failure> {
    match text.to_ascii_uppercase().as_slice() {
        b"LEFT" => Ok(End::Front),
        b"RIGHT" => Ok(End::Back),
        _ => Err(Failure::Syntax),
    }
}

pub fn lmove(store: &mut Store, mut call: Call<'_, '_>) -> Outcome {
    let keys = (call.next()?, call.next()?);
    let ends = (parse_end(call.next()?)?, parse_end(call.next()?)?);
    write_text_or_null(move_element(store, keys, ends, call.now)?.as_ref(), &mut call.replies);
    Ok(())
}

pub fn rpoplpush(store: &mut Store, mut call: Call<'_, '_>) -> Outcome {
    let keys = (call.next()?, call.next()?);
    let ends = (End::Back, End::Front);
    write_text_or_null(move_element(store, keys, ends, call.now)?.as_ref(), &mut call.replies);
    Ok(())
}

/// Moves an element from one list to another, or within one; returns it if there was one.
pub fn move_element(
    store: &mut Store,
    (from, to): (&[u8], &[u8]),
    (out, back): (End, End),
    now: Millis,
) -> Result<Option<Text>, Failure> {
    if store.collection::<List>(from, now)?.is_none() {
        return Ok(None);
    }
    store.collection::<List>(to, now)?;
    if from == to {
        // It is not gone in between.
        return Ok(store.change::<List, _>(from, now, |list| {
            let element = out.pop(list)?;
            back.push(list, element.clone());
            Some(element)
        })?);
    }
    let Some(element) = store.change_if_there::<List, _>(from, now, |list| out.pop(list))? else {
        return Ok(None);
    };
    store.change::<List, _>(to, now, |list| back.push(list, element.clone()))?;
    Ok(Some(element))
}
