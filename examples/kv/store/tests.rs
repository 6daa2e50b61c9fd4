//! The store, compared with a plain map.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

fn text(store: &mut Store, key: &[u8], now: Millis) -> Option<Vec<u8>> {
    match store.scalar(key, now).ok()?? {
        Scalar::Text(text) => Some(text.to_vec()),
        Scalar::Long(text) => Some(text.to_vec()),
        Scalar::Integer(number) => Some(number.to_string().into_bytes()),
    }
}

/// Random steps from a seed give what a map of values and deadlines has.
#[test]
fn a_store_is_a_map_with_deadlines() {
    for seed in 0..20 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let (mut store, mut model, mut now) = (Store::new(), BTreeMap::new(), 0);
        for _ in 0..5_000 {
            let key = rng.u16(..500).to_string().into_bytes();
            let length = if rng.u8(..50) == 0 { 2 * LONG_TEXT } else { 30 };
            let value = vec![b'v'; rng.usize(..length)];
            let deadline = rng.bool().then(|| now + rng.i64(0..200));
            model.retain(|_, (_, deadline): &mut (_, Option<i64>)| {
                deadline.is_none_or(|at| at > now)
            });
            match rng.u8(..6) {
                0 | 1 => {
                    store.set(&key, Scalar::Text(&value), deadline);
                    model.insert(key, (value, deadline));
                }
                2 => assert_eq!(
                    store.remove(&key, now).is_some(),
                    model.remove(&key).is_some(),
                    "seed {seed}"
                ),
                3 => {
                    let there = model.get_mut(&key).map(|entry| entry.1 = deadline).is_some();
                    assert_eq!(store.set_deadline(&key, deadline, now), there, "seed {seed}");
                }
                4 => drop(store.sweep(now, rng.usize(..2_000))),
                _ => now += rng.i64(0..20),
            }
            let key = rng.u16(..500).to_string().into_bytes();
            let expected = model.get(&key).filter(|(_, at)| at.is_none_or(|at| at > now));
            assert_eq!(
                text(&mut store, &key, now),
                expected.map(|(value, _)| value.clone()),
                "seed {seed}"
            );
        }
        store.sweep(now, usize::MAX);
        store.sweep(now, usize::MAX);
        model.retain(|_, (_, deadline)| deadline.is_none_or(|at| at > now));
        assert_eq!(store.len(), model.len(), "seed {seed}");
    }
}

/// Whatever is added and removed meanwhile, a scan visits all that stays.
#[test]
fn a_scan_misses_nothing_that_stays() {
    let mut rng = fastrand::Rng::with_seed(3);
    let mut store = Store::new();
    let stay: BTreeSet<Vec<u8>> = (0..3_000).map(|n| format!("stay{n}").into_bytes()).collect();
    for key in &stay {
        store.set(key, Scalar::Integer(1), None);
    }
    let (mut seen, mut cursor, mut calls) = (BTreeSet::new(), 0, 0);
    loop {
        cursor = store.scan(cursor, 10, 0, |entry| {
            seen.insert(entry.key().to_vec());
            false
        });
        calls += 1;
        if cursor == 0 {
            break;
        }
        for _ in 0..20 {
            store.set(format!("other{}", rng.u16(..)).as_bytes(), Scalar::Integer(2), None);
            store.remove(format!("other{}", rng.u16(..)).as_bytes(), 0);
        }
    }
    assert!(stay.is_subset(&seen));
    assert!((100..5_000).contains(&calls), "{calls} calls");
}

#[test]
fn collections_are_made_and_removed() {
    let mut store = Store::new();
    store.change::<List, _>(b"list", 0, |list| list.push_back(b"a"[..].into())).unwrap();
    assert_eq!(store.collection::<List>(b"list", 0).unwrap().map(VecDeque::len), Some(1));
    assert!(store.collection::<Set>(b"list", 0).is_err());
    assert!(store.scalar(b"list", 0).is_err());
    assert!(store.set_deadline(b"list", Some(10), 0));
    store.change_if_there::<List, _>(b"list", 10, |list| list.push_back(b"b"[..].into())).unwrap();
    assert_eq!(store.len(), 0, "it was gone");
    store.change::<List, _>(b"list", 0, |list| list.push_back(b"a"[..].into())).unwrap();
    store.change::<List, _>(b"list", 0, |list| drop(list.pop_front())).unwrap();
    assert!(store.get(b"list", 0).is_none());
    assert!(store.random(0, &mut fastrand::Rng::with_seed(1)).is_none());
}

#[test]
fn entries_and_elements_take_sixteen_bytes() {
    assert_eq!((size_of::<Entry>(), size_of::<Text>()), (16, 16));
}

/// Text that grows beyond what a record has, while a reply shares it.
#[test]
fn text_grows_and_what_was_shared_stays() {
    let (mut store, mut expected) = (Store::new(), Vec::new());
    let mut shared = Vec::new();
    for round in 0..40 {
        let more = vec![b'a' + round; 1_000];
        expected.extend_from_slice(&more);
        assert_eq!(store.append(b"k", &more, 0).unwrap(), expected.len());
        assert_eq!(text(&mut store, b"k", 0), Some(expected.clone()));
        if let Some(Scalar::Long(long)) = store.scalar(b"k", 0).unwrap()
            && round % 3 == 0
        {
            shared.push((long.clone(), expected.clone()));
        }
    }
    assert!(shared.len() > 5);
    assert!(shared.iter().all(|(long, before)| long[..] == before[..]));
    store.append(b"n", b"1", 0).unwrap();
    assert_eq!(text(&mut store, b"n", 0), Some(b"1".to_vec()));
    store.change::<List, _>(b"list", 0, |list| list.push_back(b"a"[..].into())).unwrap();
    assert!(store.append(b"list", b"x", 0).is_err());
}
