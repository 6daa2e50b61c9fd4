//! A run: all contestants in all scenarios.

use std::error::Error;
use std::fs::{self, File};
use std::path::PathBuf;
use std::time::Instant;

use core_affinity::CoreId;
use millstream_benches::load;
use millstream_benches::load::progress_line::ProgressLine;
use millstream_benches::process::raise_open_files;
use millstream_benches::report::{
    self, Entry, Metrics, Outcome, Record, ScenarioResults, Setup, Unavailable, command_line,
    waiting_time,
};
use millstream_benches::stand::{
    self, Contestant, Cores, Folders, Machine, MeasureError, Plan, Program, Role, Scenario, Stand,
    TimeLeft,
};

use super::Comparison;

/// Measures everything that was asked for, and prints each scenario's table.
pub(super) fn run(
    comparison: &Comparison<'_>,
    folders: &Folders,
) -> Result<Record, Box<dyn Error>> {
    let cores = comparison.shared.cores()?;
    let (contestants, unavailable) = contestants(comparison, folders)?;
    let scenarios = comparison.scenarios.clone();
    // Before this thread is pinned, which would seem to be all cores there are.
    let machine = Machine::this();
    let mut runner = Runner::new(comparison, folders, cores, contestants.len())?;
    let setup = runner.setup(comparison);
    let baseline = contestants.iter().position(|contestant| contestant.role == Role::Baseline);
    let baseline = baseline.ok_or("there is no baseline")?;
    let entries: Vec<Entry> = contestants.iter().map(entry).collect();
    let capacities = runner.capacities(&contestants, &scenarios, baseline)?;
    let results = scenarios.into_iter().map(|scenario| {
        let results = runner.scenario(&contestants, scenario, &capacities, baseline);
        runner.line.clear();
        println!("\n{}", report::table(&entries, &results));
        results
    });
    let results = results.collect();
    Ok(Record {
        date: jiff::Timestamp::now().strftime("%Y-%m-%d").to_string(),
        subject: comparison.subject,
        profile: comparison.profile.into(),
        command: command_line(typed(comparison.benchmark)),
        machine,
        setup,
        capacity: capacities.baseline,
        contestants: entries,
        unavailable,
        scenarios: results,
    })
}

/// The command that cargo was called with.
fn typed(benchmark: &'static str) -> impl Iterator<Item = String> {
    let tls = ["-p", "millstream-benches", "--features", "tls"];
    let tls = tls.into_iter().filter(move |_| benchmark == "tls");
    let cargo = ["cargo", "bench"].into_iter().chain(tls).chain(["--bench", benchmark, "--"]);
    cargo
        .map(str::to_owned)
        .chain(std::env::args().skip(1).filter(|argument| argument != "--bench"))
}

fn contestants(
    comparison: &Comparison<'_>,
    folders: &Folders,
) -> Result<(Vec<Contestant>, Vec<Unavailable>), Box<dyn Error>> {
    let known = &comparison.known;
    eprintln!("building {} servers", known.len());
    let threads = comparison.shared.threads();
    let (mut contestants, missing) = stand::build(known, folders, threads)?;
    contestants.extend(comparison.commands.iter().cloned());
    for word in contestants.iter_mut().flat_map(|contestant| &mut contestant.command) {
        for (placeholder, value) in &comparison.placeholders {
            *word = word.replace(placeholder, value);
        }
    }
    let unavailable = missing.iter().map(|known| {
        let reason = match known.program {
            Program::Proxy(_) => "it is not installed",
            _ => "the library it needs is not installed",
        };
        let reason = reason.to_owned();
        eprintln!("{} is left out: {reason}", known.name);
        Unavailable { name: known.name.into(), reason }
    });
    Ok((contestants, unavailable.collect()))
}

fn entry(contestant: &Contestant) -> Entry {
    let Contestant { name, role, version, reference, .. } = contestant.clone();
    Entry { name, role, version, reference }
}

/// How many messages per second can be echoed, as far as the scenarios need to know.
#[derive(Default)]
struct Capacities {
    /// By the baseline.
    baseline: Option<f64>,
    /// By each contestant.
    own: Vec<f64>,
}

impl Capacities {
    /// What each contestant's rate is a part of.
    fn of(&self, scenario: &Scenario, contestants: usize) -> Vec<f64> {
        match scenario.has_own_rates() {
            true => self.own.clone(),
            false => vec![self.baseline.unwrap_or_default(); contestants],
        }
    }
}

/// Measures, and tells how far it is.
struct Runner {
    stand: Stand,
    /// Of the stand's log.
    log_path: PathBuf,
    plan: Plan,
    left: TimeLeft,
    line: ProgressLine,
}

impl Runner {
    fn new(
        comparison: &Comparison<'_>,
        folders: &Folders,
        (server_cores, load_cores): (Cores, Cores),
        contestants: usize,
    ) -> Result<Self, Box<dyn Error>> {
        let scenarios = &comparison.scenarios;
        let (warm_up, duration) = (comparison.warm_up(), comparison.duration);
        raise_open_files()?;
        let connections = scenarios.iter().map(Scenario::all_connections).max();
        load::check_open_files(connections.unwrap_or_default())?;
        stand::end_on_signals()?;
        // What observes the server must not get into its way.
        let observer = load_cores.ids().last().copied();
        if !observer.is_some_and(|id| core_affinity::set_for_current(CoreId { id })) {
            return Err(format!("the load could not be pinned to cores {load_cores}").into());
        }
        let scratch = comparison.scratch(folders);
        fs::create_dir_all(&scratch)?;
        let log_path = scratch.join("servers.log");
        let log = File::create(&log_path)?;
        let stand = Stand { server_cores, load_cores, warm_up, duration, log };
        let rounds = comparison.rounds;
        let plan = Plan { contestants, rounds, warm_up, duration };
        let total = plan.total(scenarios);
        let (count, time) = (scenarios.len(), waiting_time(total));
        eprintln!("{count} scenarios, {rounds} rounds, {contestants} servers: {time}");
        Ok(Self { stand, log_path, plan, left: TimeLeft::new(total), line: ProgressLine::new() })
    }

    fn setup(&self, comparison: &Comparison<'_>) -> Setup {
        Setup {
            rounds: self.plan.rounds,
            seconds: self.plan.duration.as_secs_f64(),
            warm_up: self.plan.warm_up.as_secs_f64(),
            threads: comparison.shared.threads(),
            server_cores: self.stand.server_cores.to_string(),
            load_cores: self.stand.load_cores.to_string(),
        }
    }

    /// Those that the scenarios need, medians over the rounds of messages per second.
    fn capacities(
        &mut self,
        contestants: &[Contestant],
        scenarios: &[Scenario],
        baseline: usize,
    ) -> Result<Capacities, Box<dyn Error>> {
        let needed = |own| {
            let mut scenarios = scenarios.iter().filter(move |one| one.has_own_rates() == own);
            scenarios.find_map(Scenario::capacity)
        };
        let own = needed(true).map(|scenario| {
            let results = self.scenario(contestants, scenario, &Capacities::default(), baseline);
            results.results.iter().map(Outcome::throughput).collect()
        });
        let baseline = needed(false).map(|scenario| {
            let alone = std::slice::from_ref(&contestants[baseline]);
            let results = self.scenario(alone, scenario, &Capacities::default(), 0);
            let failure = results.results[0].failure.clone();
            failure.map_or_else(|| Ok(results.results[0].throughput()), Err)
        });
        Ok(Capacities { baseline: baseline.transpose()?, own: own.unwrap_or_default() })
    }

    /// All rounds of a scenario. One that fails is not measured again.
    fn scenario(
        &mut self,
        contestants: &[Contestant],
        scenario: Scenario,
        capacities: &Capacities,
        baseline: usize,
    ) -> ScenarioResults {
        let capacities = capacities.of(&scenario, contestants.len());
        let mut outcomes = vec![(Metrics::default(), None); contestants.len()];
        for round in 1..=self.plan.rounds {
            // Each round begins with another one, so that nobody always has the same predecessor.
            let first = round % contestants.len();
            for place in (0..contestants.len()).map(|place| (first + place) % contestants.len()) {
                let (contestant, (rounds, failure)) = (&contestants[place], &mut outcomes[place]);
                if failure.is_some() {
                    self.left.skip(self.plan.step(&scenario));
                    continue;
                }
                let name = format!("{}: round {round} of {}", scenario.name, self.plan.rounds);
                match self.measure(&name, contestant, &scenario, capacities[place]) {
                    Ok(metrics) => rounds.push(metrics),
                    Err(error) => *failure = Some(error.to_string()),
                }
            }
        }
        ScenarioResults::new(scenario, &capacities, outcomes, baseline)
    }

    fn measure(
        &mut self,
        name: &str,
        contestant: &Contestant,
        scenario: &Scenario,
        capacity: f64,
    ) -> Result<Metrics<f64>, MeasureError> {
        let (started, left) = (Instant::now(), self.left);
        let logged = self.stand.log.metadata().map_or(0, |log| log.len());
        let contestant_name = &contestant.name;
        let line = &mut self.line;
        let measured = self.stand.measure(contestant, scenario, capacity, |progress| {
            let left = waiting_time(left.left(started.elapsed()));
            line.show(&format!("{left} left; {name}: {contestant_name}: {progress}"));
        });
        self.left.finish(self.plan.step(scenario), started.elapsed());
        if let Err(error) = &measured {
            self.line.clear();
            eprintln!("{name}: {contestant_name} failed: {error}");
            let last = stand::last_line(&self.log_path, logged);
            let last = last.as_deref().unwrap_or("nothing");
            eprintln!("  the server wrote last: {last}\n  all of it: {}", self.log_path.display());
        }
        measured
    }
}
