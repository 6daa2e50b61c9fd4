//! Which of its connections a call takes.

use fastrand::Rng;

/// Which of the connections a call takes, of those that are open and have room for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Choice {
    /// Each in turn.
    #[default]
    RoundRobin,
    /// Any, by chance: [`ClientBuilder::seed`](super::ClientBuilder::seed) makes it repeatable.
    Random,
    /// The one with the fewest calls under way; of several, each in turn.
    LeastLoaded,
}

/// Chooses among numbered things.
pub(super) struct Chooser {
    choice: Choice,
    rng: Rng,
    /// The one that was chosen last.
    last: usize,
}

impl Chooser {
    pub(super) fn new(choice: Choice, rng: Rng) -> Self {
        Chooser { choice, rng, last: usize::MAX }
    }

    /// Chooses one of these, which come in ascending order, each with its load.
    pub(super) fn choose(
        &mut self,
        candidates: impl Iterator<Item = (usize, usize)> + Clone,
    ) -> Option<usize> {
        // Those behind the last one come before the others.
        let turn = |place: usize| (place <= self.last, place);
        let chosen = match self.choice {
            Choice::RoundRobin => candidates.min_by_key(|(place, _)| turn(*place)),
            Choice::LeastLoaded => candidates.min_by_key(|(place, load)| (*load, turn(*place))),
            Choice::Random => match candidates.clone().count() {
                0 => None,
                count => candidates.clone().nth(self.rng.usize(..count)),
            },
        };
        let (place, _) = chosen?;
        self.last = place;
        Some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOADS: [(usize, usize); 3] = [(1, 7), (4, 2), (5, 2)];

    fn chosen(choice: Choice, seed: u64, count: usize) -> Vec<usize> {
        let mut chooser = Chooser::new(choice, Rng::with_seed(seed));
        (0..count).filter_map(|_| chooser.choose(LOADS.into_iter())).collect()
    }

    #[test]
    fn each_in_turn() {
        assert_eq!(chosen(Choice::RoundRobin, 0, 7), [1, 4, 5, 1, 4, 5, 1]);
    }

    #[test]
    fn the_least_loaded_in_turn() {
        assert_eq!(chosen(Choice::LeastLoaded, 0, 5), [4, 5, 4, 5, 4]);
    }

    #[test]
    fn by_chance_and_repeatable() {
        let one = chosen(Choice::Random, 3, 3000);
        assert_eq!(one, chosen(Choice::Random, 3, 3000));
        assert_ne!(one, chosen(Choice::Random, 4, 3000));
        for (place, _) in LOADS {
            let times = one.iter().filter(|chosen| **chosen == place).count();
            assert!((900..1100).contains(&times), "{place}: {times} times");
        }
    }

    #[test]
    fn none_of_none() {
        for choice in [Choice::RoundRobin, Choice::Random, Choice::LeastLoaded] {
            assert_eq!(Chooser::new(choice, Rng::with_seed(0)).choose([].into_iter()), None);
        }
    }
}
