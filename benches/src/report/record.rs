//! All of a run, as it is kept.

use serde::{Deserialize, Serialize};

use crate::stand::{Machine, Metrics, Role, Scenario, geometric_mean};

/// Below this part of its time at work a generator has time to wait, so that the figures are not
/// its own.
const SATURATED: f64 = 0.95;
/// What is noted then.
pub(super) const SATURATED_NOTE: &str = "load generator saturated";
/// From this part of a rate on it counts as kept.
const KEPT: f64 = 0.98;

/// A run of the benchmark: on what, of what, and what came out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The day, as YYYY-MM-DD in UTC.
    pub date: String,
    /// What kind of servers was compared.
    #[serde(default)]
    pub subject: Subject,
    /// The name of the profile.
    pub profile: String,
    /// The command line, without the folders of paths.
    pub command: String,
    /// What it was run on.
    pub machine: Machine,
    /// How it was run.
    pub setup: Setup,
    /// Messages per second of the baseline, where some scenario needed to know.
    pub capacity: Option<f64>,
    /// Who was measured, in the order of each round.
    pub contestants: Vec<Entry>,
    /// Who could not be.
    pub unavailable: Vec<Unavailable>,
    /// What came out, by scenario.
    pub scenarios: Vec<ScenarioResults>,
}

/// How often, how long and where was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Setup {
    /// Rounds, in each of which every contestant was measured once.
    pub rounds: usize,
    /// Seconds of each measurement.
    pub seconds: f64,
    /// Seconds before that.
    pub warm_up: f64,
    /// Event loops of each server.
    pub threads: usize,
    /// Where the server ran.
    pub server_cores: String,
    /// Where the load came from, with one thread on each.
    pub load_cores: String,
}

/// A contestant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// What it is called.
    pub name: String,
    /// What it took part as.
    pub role: Role,
    /// What it is made with.
    pub version: String,
    /// Whether the others are compared with it, besides with the baseline.
    #[serde(default)]
    pub reference: bool,
}

/// What kind of servers was compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// Those that echo bytes.
    #[default]
    Echo,
    /// Those that echo bytes over TLS.
    Tls,
    /// Those that answer calls with the same bytes, compared with a loop that echoes them.
    Rpc,
}

/// A contestant that could not be measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Unavailable {
    /// What it is called.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// What came out of a scenario.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScenarioResults {
    /// The scenario.
    pub scenario: Scenario,
    /// Messages per second that were sent, where that did not depend on the server.
    pub rate: Option<f64>,
    /// One for each contestant, in their order.
    pub results: Vec<Outcome>,
}

/// What came out for one contestant in one scenario.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Messages per second that were sent, where that was a part of its own capacity.
    #[serde(default)]
    pub rate: Option<f64>,
    /// Why it failed, if it did.
    pub failure: Option<String>,
    /// The figures of each round, up to a failure.
    pub rounds: Metrics<Vec<f64>>,
    /// Their medians, if it did not fail.
    pub medians: Option<Metrics<f64>>,
    /// The median of its CPU time to the baseline's in the same round, where that tells something.
    pub ratio: Option<f64>,
}

impl Outcome {
    /// The median of its messages per second; zero if it failed.
    #[must_use]
    pub fn throughput(&self) -> f64 {
        self.medians.as_ref().map_or(0.0, |medians| medians.throughput)
    }
}

impl ScenarioResults {
    /// From the rounds of each contestant and why it failed, the baseline's at `baseline`; and from
    /// the capacity that its rate was a part of.
    #[must_use]
    pub fn new(
        scenario: Scenario,
        capacities: &[f64],
        rounds: Vec<(Metrics<Vec<f64>>, Option<String>)>,
        baseline: usize,
    ) -> Self {
        let base = rounds[baseline].0.clone();
        let own = scenario.has_own_rates();
        let rate = scenario.rate(capacities[baseline]).filter(|_| !own);
        let results = rounds.into_iter().zip(capacities).map(|((rounds, failure), capacity)| {
            let rate = scenario.rate(*capacity).filter(|_| own);
            let whole = failure.is_none();
            let medians = whole.then(|| rounds.medians()).flatten();
            let comparable = whole && scenario.counts_all();
            let ratio = comparable.then(|| rounds.ratio_to(&base)).flatten();
            Outcome { rate, failure, rounds, medians, ratio }
        });
        Self { results: results.collect(), scenario, rate }
    }

    /// The contestants' numbers: the cheapest first, or else the quickest; those that failed last.
    #[must_use]
    pub fn order(&self) -> Vec<usize> {
        let counts_all = self.scenario.counts_all();
        let figure = |medians: &Metrics<f64>| if counts_all { medians.cpu } else { medians.p99 };
        let cost =
            |&index: &usize| self.results[index].medians.as_ref().map_or(f64::INFINITY, figure);
        let mut order: Vec<usize> = (0..self.results.len()).collect();
        order.sort_by(|one, other| cost(one).total_cmp(&cost(other)));
        order
    }

    /// The median of a contestant's CPU time to that of another one in the same round, if both have
    /// figures.
    #[must_use]
    pub fn ratio_to(&self, contestant: usize, other: usize) -> Option<f64> {
        let [one, other] = [contestant, other].map(|index| &self.results[index]);
        // Where there is a ratio to the baseline it tells something.
        one.ratio.and(other.ratio).and_then(|_| one.rounds.ratio_to(&other.rounds))
    }

    /// What is to be known besides the figures: the contestants it is true of, and what it is.
    #[must_use]
    pub fn notes(&self, contestants: &[Entry]) -> Vec<(String, String)> {
        let mut notes: Vec<(String, String)> = Vec::new();
        for (entry, outcome) in contestants.iter().zip(&self.results) {
            for note in self.notes_on(outcome) {
                match notes.iter_mut().find(|(_, other)| *other == note) {
                    Some((names, _)) => *names = format!("{names}, {}", entry.name),
                    None => notes.push((entry.name.clone(), note)),
                }
            }
        }
        notes
    }

    /// Why figures are missing that other scenarios have, if they are.
    #[must_use]
    pub fn remark(&self) -> Option<&'static str> {
        let remark = "no figures per message: what the other connections do is not counted, and the server \
                      works on it, too";
        (!self.scenario.counts_all()).then_some(remark)
    }

    fn notes_on(&self, outcome: &Outcome) -> Vec<String> {
        let failure = outcome.failure.iter().map(|reason| format!("failed, {reason}"));
        let mut notes: Vec<String> = failure.collect();
        if let Some(medians) = &outcome.medians {
            // At a rate the generator polls for the next due time, so it is always busy.
            let rate = outcome.rate.or(self.rate);
            if rate.is_none() && medians.generator_busy >= SATURATED {
                notes.push(SATURATED_NOTE.to_owned());
            }
            let kept = rate.map(|rate| medians.throughput / rate);
            notes.extend(
                kept.filter(|kept| *kept < KEPT)
                    .map(|kept| format!("only {:.0} % of the rate", kept * 100.0)),
            );
        }
        notes
    }
}

impl Record {
    /// The number of the contestant that the others are compared with.
    #[must_use]
    pub fn baseline(&self) -> Option<usize> {
        self.contestants.iter().position(|entry| entry.role == Role::Baseline)
    }

    /// Every contestant's ratios, in the order of scenarios, those of failures left out.
    #[must_use]
    pub fn ratios(&self, contestant: usize) -> Vec<f64> {
        self.scenarios.iter().filter_map(|results| results.results[contestant].ratio).collect()
    }

    /// In how many scenarios CPU time tells something.
    #[must_use]
    pub fn comparable(&self) -> usize {
        self.scenarios.iter().filter(|results| results.scenario.counts_all()).count()
    }

    /// The contestants with their numbers and the mean of their ratios: the cheapest first, those
    /// without one left out.
    #[must_use]
    pub fn ranking(&self) -> Vec<(usize, f64)> {
        let means = (0..self.contestants.len())
            .filter_map(|index| Some((index, geometric_mean(&self.ratios(index))?)));
        let mut means: Vec<(usize, f64)> = means.collect();
        means.sort_by(|(_, one), (_, other)| one.total_cmp(other));
        means
    }

    /// Which lack a figure that must be there: of the baseline, millstream itself and those that
    /// were `requested` by name, all that could not be measured or failed anywhere.
    #[must_use]
    pub fn failures(&self, requested: &[String]) -> Vec<&str> {
        let failed = |&(index, _): &(usize, &Entry)| {
            self.scenarios.iter().any(|results| results.results[index].failure.is_some())
        };
        let failed = self.contestants.iter().enumerate().filter(failed);
        let failed = failed.map(|(_, entry)| (entry.role, &entry.name));
        let absent = self.unavailable.iter().map(|one| (Role::Peer, &one.name));
        let all = failed.chain(absent);
        all.filter(|(role, name)| *role != Role::Peer || requested.contains(name))
            .map(|(_, name)| name.as_str())
            .collect()
    }
}
