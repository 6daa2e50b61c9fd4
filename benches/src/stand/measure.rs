//! One measurement of one server.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use super::metrics::Metrics;
use super::{Contestant, Cores, Protocol, Scenario, Server, StartError, Traffic};
use crate::load::{self, Crowd, Figures, Framing, Load, LoadError, Mode, Progress, Tls, Verify};
use crate::process::{ProcessFigures, ProcessMeter};
use crate::program::{LoadProgram, ProgramError};

/// Nanoseconds that nobody echoes a message in.
const LEAST_CPU: f64 = 1.0;

/// Where and how long servers are measured.
#[derive(Debug)]
pub struct Stand {
    /// Where the server runs.
    pub server_cores: Cores,
    /// Where the load comes from, with one thread on each.
    pub load_cores: Cores,
    /// Before measuring.
    pub warm_up: Duration,
    /// Measuring.
    pub duration: Duration,
    /// Takes what servers write.
    pub log: File,
}

/// Why there is no measurement.
#[derive(Debug, thiserror::Error)]
pub enum MeasureError {
    /// The server did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The server ended under the load.
    #[error("the server ended under the load with {0}")]
    Ended(ExitStatus),
    /// The load failed.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The program failed that puts the load on servers of this kind, or its load.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// Not everything came back.
    #[error("{0}")]
    Unanswered(String),
    /// The server could not be observed.
    #[error("what the server spends could not be read: {0}")]
    Meter(#[from] io::Error),
    /// Too little happened between two looks at the server.
    #[error("it was measured too shortly")]
    Nothing,
    /// The server's processes did nothing, so others must have.
    #[error(
        "the process that was started spends no CPU time: the command must be the server itself"
    )]
    Idle,
}

impl Stand {
    /// Starts a server, puts `scenario` on it, and ends it. Where messages are sent at a rate it is
    /// a part of `capacity`.
    ///
    /// # Errors
    ///
    /// If the server fails in any way.
    pub fn measure(
        &self,
        contestant: &Contestant,
        scenario: &Scenario,
        capacity: f64,
        progress: impl FnMut(Progress),
    ) -> Result<Metrics<f64>, MeasureError> {
        let mut server = Server::start(&contestant.command, &self.server_cores, &self.log)?;
        let load = self.load(server.address(), contestant, scenario, capacity);
        let outcome = match &contestant.protocol {
            Protocol::Own(program) => measure_program(&server, program, &load, progress),
            Protocol::Echo | Protocol::Tls | Protocol::Rpc | Protocol::Http => {
                measure_here(&server, &load, progress)
            }
        };
        let Measured { figures, server, generator } =
            outcome.map_err(|error| match (&error, server.ended()) {
                (MeasureError::Load(_) | MeasureError::Program(_), Some(status)) => {
                    MeasureError::Ended(status)
                }
                _ => error,
            })?;
        if server.cpu_per_message < LEAST_CPU {
            return Err(MeasureError::Idle);
        }
        Ok(self.metrics(scenario, &figures, &server, &generator))
    }

    fn load(
        &self,
        address: SocketAddr,
        contestant: &Contestant,
        scenario: &Scenario,
        capacity: f64,
    ) -> Load {
        let rate = scenario.rate(capacity);
        Load {
            connections: scenario.connections,
            message_size: scenario.message_size,
            framing: match (&contestant.protocol, scenario.length_field) {
                (Protocol::Rpc, _) => Framing::Rpc,
                (_, true) => Framing::LengthField,
                (_, false) => Framing::None,
            },
            tls: match (&contestant.protocol, scenario.resumed) {
                (Protocol::Tls, true) => Tls::Resumed,
                (Protocol::Tls, false) => Tls::Full,
                _ => Tls::Off,
            },
            in_flight: scenario.in_flight,
            duration: self.duration,
            warm_up: self.warm_up,
            threads: self.load_cores.ids().len(),
            cores: self.load_cores.ids().to_vec(),
            mode: match scenario.traffic {
                Traffic::Churn => Mode::Churn,
                _ => rate.map_or(Mode::Closed, |rate| Mode::Open { rate }),
            },
            crowd: Crowd {
                idle: scenario.idle,
                flooding: scenario.flooding,
                handshakes: scenario.handshakes,
                ..Crowd::default()
            },
            verify: Verify::Sample,
            ..Load::new(address)
        }
    }

    fn metrics(
        &self,
        scenario: &Scenario,
        figures: &Figures,
        server: &ProcessFigures,
        generator: &ProcessFigures,
    ) -> Metrics<f64> {
        let throughput = match scenario.traffic {
            Traffic::Churn => figures.connections_per_second,
            _ => figures.messages_per_second,
        };
        let threads = self.load_cores.ids().len().min(scenario.connections);
        let microseconds = |name| figures.latency(name).as_secs_f64() * 1e6;
        Metrics {
            cpu: server.cpu_per_message,
            user_share: server.user_share,
            throughput,
            p50: microseconds("p50"),
            p99: microseconds("p99"),
            p999: microseconds("p99.9"),
            context_switches: server.context_switches_per_message,
            memory_per_connection: server.memory_per_connection,
            generator_cpu: generator.cpu_per_message,
            generator_busy: generator.cpu_per_message * throughput / 1e9 / threads as f64,
        }
    }
}

/// What came out of one measurement.
struct Measured {
    figures: Figures,
    server: ProcessFigures,
    generator: ProcessFigures,
}

/// The load comes from this process.
fn measure_here(
    server: &Server,
    load: &Load,
    mut progress: impl FnMut(Progress),
) -> Result<Measured, MeasureError> {
    let mut meters = Meters::new(server, std::process::id())?;
    let report = load::run(load, |state| {
        progress(state);
        meters.sample(&state);
    })?;
    match report.failure() {
        Some(failure) => Err(MeasureError::Unanswered(failure)),
        None => meters.measured(report.figures()),
    }
}

/// The load comes from a program.
fn measure_program(
    server: &Server,
    program: &Path,
    load: &Load,
    mut progress: impl FnMut(Progress),
) -> Result<Measured, MeasureError> {
    let program = LoadProgram::start(program, load)?;
    let mut meters = Meters::new(server, program.id())?;
    let figures = program.figures(|state| {
        progress(state);
        meters.sample(&state);
    })?;
    meters.measured(figures)
}

/// What the server and the generator spend.
struct Meters {
    both: [ProcessMeter; 2],
    sampled: io::Result<()>,
}

impl Meters {
    fn new(server: &Server, generator: u32) -> io::Result<Self> {
        let both = [ProcessMeter::with_descendants(server.id())?, ProcessMeter::new(generator)?];
        Ok(Self { both, sampled: Ok(()) })
    }

    fn sample(&mut self, state: &Progress) {
        if self.sampled.is_ok() {
            self.sampled = self.both.iter_mut().try_for_each(|meter| meter.sample(state));
        }
    }

    fn measured(self, figures: Figures) -> Result<Measured, MeasureError> {
        self.sampled?;
        let [server, generator] = self.both.map(|meter| meter.figures());
        let nothing = || MeasureError::Nothing;
        let (server, generator) = (server.ok_or_else(nothing)?, generator.ok_or_else(nothing)?);
        Ok(Measured { figures, server, generator })
    }
}
