//! Sets of processor cores.

use std::fmt;
use std::str::FromStr;

/// Cores that something may run on, in the form of `taskset --cpu-list`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cores(Vec<usize>);

impl Cores {
    /// The cores this process may run on.
    #[must_use]
    pub fn available() -> Self {
        let cores = core_affinity::get_core_ids().unwrap_or_default();
        Self(cores.into_iter().map(|core| core.id).collect())
    }

    /// Their numbers.
    #[must_use]
    pub fn ids(&self) -> &[usize] {
        &self.0
    }

    /// Those of `self` that are not in `other`, at most `most` of them.
    #[must_use]
    pub fn without(&self, other: &Self, most: usize) -> Self {
        let others = self.0.iter().filter(|core| !other.0.contains(core));
        Self(others.copied().take(most).collect())
    }

    /// Those that are in `other`, too.
    #[must_use]
    pub fn shared_with(&self, other: &Self) -> Self {
        Self(self.0.iter().copied().filter(|core| other.0.contains(core)).collect())
    }

    /// The first of them, `most` at most.
    #[must_use]
    pub fn first(&self, most: usize) -> Self {
        Self(self.0.iter().copied().take(most).collect())
    }
}

impl FromStr for Cores {
    type Err = String;

    /// Numbers and ranges of them: `0,2-3`.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut cores = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            match (first.parse::<usize>(), last.parse::<usize>()) {
                (Ok(first), Ok(last)) if first <= last && last < 4_096 => {
                    cores.extend(first..=last);
                }
                _ => return Err(format!("`{part}` is neither a core nor a range such as 2-3")),
            }
        }
        let available = Self::available().0;
        match cores.iter().find(|core| !available.contains(core)) {
            Some(core) => Err(format!("there is no core {core} to run on, only {available:?}")),
            None => Ok(Self(cores)),
        }
    }
}

impl fmt::Display for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<String> = self.0.iter().map(usize::to_string).collect();
        f.write_str(&ids.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_ranges_are_read_and_written() {
        let available = Cores::available();
        let text = available.to_string();
        assert_eq!(text.parse(), Ok(available.clone()));
        let first = available.ids()[0];
        assert_eq!(format!("{first}-{first}").parse(), Ok(Cores(vec![first])));
    }

    #[test]
    fn nonsense_and_missing_cores_are_refused() {
        for text in ["", "a", "1-", "3-2", "0,,1", "-1", "0-99999999"] {
            assert!(text.parse::<Cores>().unwrap_err().contains("neither"), "{text}");
        }
        assert!("4095".parse::<Cores>().unwrap_err().contains("4095"));
    }

    #[test]
    fn sets_are_divided() {
        let all = Cores(vec![0, 1, 2, 3, 4]);
        assert_eq!(all.without(&Cores(vec![1]), 3), Cores(vec![0, 2, 3]));
        assert_eq!(all.first(2), Cores(vec![0, 1]));
        assert_eq!(all.shared_with(&Cores(vec![4, 7, 3])), Cores(vec![3, 4]));
    }
}
