//! The tree against a list that is searched from its front.

use super::*;

/// All subscribers, in order, one entry for each subscription.
#[derive(Default)]
struct Naive(Vec<(Vec<u8>, Option<Vec<u8>>, Subscriber)>);

impl Naive {
    fn of(&self, subject: &[u8]) -> Vec<(Option<Vec<u8>>, Subscriber)> {
        let matching = self
            .0
            .iter()
            .filter(|(filter, ..)| is_valid(subject) && subject::matches(filter, subject));
        let mut all: Vec<_> = matching.map(|(_, queue, who)| (queue.clone(), *who)).collect();
        // A reactor gets a message once, however many of its subscriptions want it.
        all.sort_unstable();
        all.dedup_by(|a, b| a == b && a.0.is_none());
        all
    }
}

/// The same of what the tree returns.
fn flat(matched: &Matched) -> Vec<(Option<Vec<u8>>, Subscriber)> {
    let local = matched.groups.iter().flatten().map(|key| (None, Subscriber::Local(*key)));
    let elsewhere = matched.reactors.iter().map(|one| (None, Subscriber::Elsewhere(*one)));
    let queues = matched
        .queues
        .iter()
        .flat_map(|queue| queue.members.iter().map(|member| (Some(queue.name.to_vec()), *member)));
    let mut all: Vec<_> = local.chain(elsewhere).chain(queues).collect();
    all.sort_unstable();
    all
}

fn random_subject(rng: &mut fastrand::Rng, tokens: &[&str]) -> Vec<u8> {
    let count = rng.usize(1..5);
    let tokens: Vec<&str> = (0..count).map(|_| tokens[rng.usize(..tokens.len())]).collect();
    tokens.join(".").into_bytes()
}

fn run(seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let (mut interest, mut naive) = (Interest::default(), Naive::default());
    for step in 0..2_000 {
        match rng.u8(..4) {
            0 => {
                let filter = random_subject(&mut rng, &["a", "b", "c", "*", "*", ">"]);
                let queue = [None, None, Some(b"q".to_vec()), Some(b"r".to_vec())];
                let queue = queue[rng.usize(..4)].clone();
                let who = match rng.bool() {
                    true => Subscriber::Local(step),
                    false => Subscriber::Elsewhere(rng.usize(..3)),
                };
                if subject::is_filter(&filter) {
                    interest.add(&filter, queue.as_deref(), who);
                    naive.0.push((filter, queue, who));
                }
            }
            1 if !naive.0.is_empty() => {
                let (filter, queue, who) = naive.0.swap_remove(rng.usize(..naive.0.len()));
                interest.remove(&filter, queue.as_deref(), who);
            }
            _ => {
                let subject = random_subject(&mut rng, &["a", "b", "c", "d", ""]);
                let matched = interest.of(&subject, |key| key % 3);
                let groups = matched.groups.iter();
                assert!(
                    groups.clone().all(|group| group.iter().all(|key| key % 3 == group[0] % 3))
                );
                assert!(groups.len() <= 3, "seed {seed}");
                let shown = subject.escape_ascii().to_string();
                assert_eq!(flat(&matched), naive.of(&subject), "seed {seed}, step {step}: {shown}");
            }
        }
    }
    for (filter, queue, who) in naive.0.drain(..) {
        interest.remove(&filter, queue.as_deref(), who);
    }
    let Level { tokens, any, rest } = &interest.root;
    assert!(tokens.is_empty() && any.is_none() && rest.is_none(), "seed {seed}: something is left");
    let kept = interest.kept.values().map(|matched| matched.size()).sum::<usize>();
    assert_eq!(interest.size, kept, "seed {seed}");
}

#[test]
fn results_are_those_of_a_list() {
    (0..50).for_each(run);
}

/// What is kept has a limit, whatever is asked for.
#[test]
fn results_are_kept_as_far_as_there_is_room() {
    let mut interest = Interest::default();
    interest.add(b">", None, Subscriber::Local(1));
    for number in 0..10_000 {
        interest.of(format!("subject.{number}").as_bytes(), |key| key);
    }
    assert!(interest.size <= MOST_KEPT && interest.kept.len() <= MOST_KEPT / RESULT);
    assert!(interest.kept.len() > 100);
}

#[test]
fn a_long_subject_is_searched_in_time() {
    let mut interest = Interest::default();
    let mut deep = b"a".to_vec();
    for _ in 0..500 {
        interest.add(&deep, None, Subscriber::Local(0));
        let starred: Vec<u8> =
            deep.iter().map(|byte| if *byte == b'a' { b'*' } else { *byte }).collect();
        interest.add(&starred, None, Subscriber::Local(1));
        deep.extend_from_slice(b".a");
    }
    deep.truncate(deep.len() - 2);
    assert_eq!(interest.of(&deep, |key| key).groups, [[0], [1]]);
}
