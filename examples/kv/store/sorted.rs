//! A set whose members have scores, in their order.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::collections::btree_set::Iter;
use std::ops::Bound;
use std::sync::Arc;

use foldhash::quality::RandomState;
use hashbrown::HashMap;

/// The members of a set in the order of their scores, and of their bytes where those are equal.
#[derive(Default)]
pub struct Sorted {
    scores: HashMap<Arc<[u8]>, f64, RandomState>,
    order: BTreeSet<Scored>,
}

/// A member and its score, which is a number.
#[derive(Clone)]
pub struct Scored {
    pub score: f64,
    pub member: Arc<[u8]>,
}

/// The scores from one to another.
#[derive(Clone, Copy)]
pub struct Scores {
    pub least: Bound<f64>,
    pub most: Bound<f64>,
}

impl Sorted {
    pub fn len(&self) -> usize {
        self.scores.len()
    }

    pub fn is_empty(&self) -> bool {
        self.scores.is_empty()
    }

    pub fn score(&self, member: &[u8]) -> Option<f64> {
        self.scores.get(member).copied()
    }

    /// Gives a member a score, whether it is there or not.
    pub fn set(&mut self, member: &[u8], score: f64) {
        let score = score + 0.0; // Zero has no sign.
        let member = match self.scores.get_key_value(member) {
            Some((member, before)) => {
                let member = Arc::clone(member);
                self.order.remove(&Scored { score: *before, member: Arc::clone(&member) });
                member
            }
            None => member.into(),
        };
        self.scores.insert(Arc::clone(&member), score);
        self.order.insert(Scored { score, member });
    }

    /// Removes a member; `false` if there is no such one.
    pub fn remove(&mut self, member: &[u8]) -> bool {
        let Some((member, score)) = self.scores.remove_entry(member) else { return false };
        self.order.remove(&Scored { score, member })
    }

    /// Removes the member with the lowest score, or the one with the highest.
    pub fn pop(&mut self, highest: bool) -> Option<Scored> {
        let popped = if highest { self.order.pop_last() } else { self.order.pop_first() }?;
        self.scores.remove(&popped.member);
        Some(popped)
    }

    /// How many members are in front of one.
    pub fn rank(&self, member: &[u8]) -> Option<usize> {
        let (member, score) = self.scores.get_key_value(member)?;
        Some(self.order.range(..Scored { score: *score, member: Arc::clone(member) }).count())
    }

    pub fn iter(&self) -> Iter<'_, Scored> {
        self.order.iter()
    }

    /// The members with these scores.
    pub fn with(&self, scores: Scores) -> impl DoubleEndedIterator<Item = &Scored> {
        // No member is in front of the empty one with the same score.
        let at = |score| Scored { score, member: Arc::from([]) };
        let above = |score: f64| Bound::Included(at(score.next_up()));
        let begin = match scores.least {
            Bound::Included(score) => Bound::Included(at(score)),
            Bound::Excluded(f64::INFINITY) => return None.into_iter().flatten(),
            Bound::Excluded(score) => above(score),
            Bound::Unbounded => Bound::Unbounded,
        };
        let end = match scores.most {
            Bound::Included(f64::INFINITY) | Bound::Unbounded => Bound::Unbounded,
            Bound::Included(score) => Bound::Excluded(at(score.next_up())),
            Bound::Excluded(score) => Bound::Excluded(at(score)),
        };
        scores.has_any().then(|| self.order.range((begin, end))).into_iter().flatten()
    }
}

impl Scores {
    pub const ALL: Scores = Scores { least: Bound::Unbounded, most: Bound::Unbounded };

    /// Whether there may be numbers between the two ends, which is what a range in a tree asks for.
    fn has_any(&self) -> bool {
        match (self.least, self.most) {
            (Bound::Included(least), Bound::Included(most)) => least <= most,
            (Bound::Included(least) | Bound::Excluded(least), Bound::Excluded(most))
            | (Bound::Excluded(least), Bound::Included(most)) => least < most,
            (Bound::Unbounded, _) | (_, Bound::Unbounded) => true,
        }
    }
}

impl Ord for Scored {
    fn cmp(&self, other: &Self) -> Ordering {
        self.score.total_cmp(&other.score).then_with(|| self.member.cmp(&other.member))
    }
}

impl PartialOrd for Scored {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Scored {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Scored {}
