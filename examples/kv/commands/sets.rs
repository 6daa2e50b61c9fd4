//! Sets.

use millstream::codec::resp::parse_integer;

use super::size::Size;
use super::{Call, Failure, Outcome};
use crate::store::{Bytes, Set, Store};

pub fn sadd(store: &mut Store, mut call: Call<'_, '_>) -> Outcome {
    let key = call.next()?;
    let added = store.change_quietly::<Set, _>(key, call.now, |set| {
        let before = set.len();
        call.arguments.for_each(|member| set.insert(member));
        set.len() - before
    })?;
    if added > 0 {
        store.touch(key);
    }
    call.replies.count(added);
    Ok(())
}

pub fn srem(store: &mut Store, mut call: Call<'_, '_>) -> Outcome {
    let key = call.next()?;
    call.replies.count(store.change_if_there::<Set, _>(key, call.now, |set| {
        call.arguments.filter(|member| set.remove(member)).count()
    })?);
    Ok(())
}

pub fn smembers(store: &mut Store, mut call: Call<'_, '_>) -> Outcome {
    let set = store.collection::<Set>(call.next()?, call.now)?;
    Size::check_copied(set.into_iter().flatten())?;
    call.replies.set(set.map_or(0, Set::len));
    for member in set.into_iter().flatten() {
        call.replies.bulk(member);
    }
    Ok(())
}

pub fn sismember(store: &mut Store, mut call: Call<'_, '_>) -> Outcome {
    let set = store.collection::<Set>(call.next()?, call.now)?;
    let member = call.next()?;
    call.replies.integer(set.is_some_and(|set| set.contains(member)).into());
    Ok(())
}

pub fn smismember(store: &mut Store, mut call: Call<'_, '_>) -> Outcome {
    let set = store.collection::<Set>(call.next()?, call.now)?;
    call.replies.array(call.arguments.len());
    for member in call.arguments {
        call.replies.integer(set.is_some_and(|set| set.contains(member)).into());
    }
    Ok(())
}

pub fn spop(store: &mut Store, mut call: Call<'_, '_>) -> Outcome {
    let (key, count) = (call.next()?, call.arguments.next());
    if call.arguments.len() > 0 {
        return Err(Failure::Syntax);
    }
    let mut rng = fastrand::Rng::new();
    let Some(count) = count else {
        let popped = store.change_if_there::<Set, _>(key, call.now, |set| set.pop(&mut rng))?;
        call.replies.bulk_or_null(popped.as_deref());
        return Ok(());
    };
    let count = parse_integer(count).and_then(|count| usize::try_from(count).ok());
    let count = count.ok_or(Failure::NotPositive)?;
    // What is popped can't be known before, so all may have to fit.
    let set = store.collection::<Set>(key, call.now)?;
    Size::check_copied(set.into_iter().flatten())?;
    let popped: Vec<Bytes> = store.change_if_there::<Set, _>(key, call.now, |set| {
        (0..count).map_while(|_| set.pop(&mut rng)).collect()
    })?;
    call.replies.set(popped.len());
    popped.iter().for_each(|member| call.replies.bulk(member));
    Ok(())
}

pub fn scard(store: &mut Store, mut call: Call<'_, '_>) -> Outcome {
    let set = store.collection::<Set>(call.next()?, call.now)?;
    call.replies.count(set.map_or(0, Set::len));
    Ok(())
}
