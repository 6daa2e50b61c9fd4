//! One measurement of one server.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::process::ExitStatus;
use std::time::Duration;

use super::{Cores, Scenario, Server, StartError, Traffic};
use crate::load::{self, Crowd, Framing, Load, LoadError, Mode, Progress, Report, Verify};
use crate::process::{ProcessFigures, ProcessMeter};
use crate::report::Metrics;

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
    /// Not everything came back.
    #[error("{0}")]
    Unanswered(String),
    /// The server could not be observed.
    #[error("what the server spends could not be read")]
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
    /// Starts a server, puts `scenario` on it, and ends it. Where messages are sent at a rate it is a
    /// part of `capacity`.
    ///
    /// # Errors
    ///
    /// If the server fails in any way.
    pub fn measure(
        &self,
        command: &[String],
        scenario: &Scenario,
        capacity: f64,
        mut progress: impl FnMut(Progress),
    ) -> Result<Metrics<f64>, MeasureError> {
        let mut server = Server::start(command, &self.server_cores, &self.log)?;
        let mut meters =
            [ProcessMeter::with_descendants(server.id())?, ProcessMeter::new(std::process::id())?];
        let mut sampled = Ok(());
        let load = self.load(server.address(), scenario, capacity);
        let outcome = load::run(&load, |state| {
            progress(state);
            if sampled.is_ok() {
                sampled = meters.iter_mut().try_for_each(|meter| meter.sample(&state));
            }
        });
        let report = outcome.map_err(|error| match server.ended() {
            Some(status) => MeasureError::Ended(status),
            None => error.into(),
        })?;
        sampled?;
        if let Some(failure) = report.failure() {
            return Err(MeasureError::Unanswered(failure));
        }
        let [server, generator] = meters.map(|meter| meter.figures());
        let nothing = || MeasureError::Nothing;
        let (server, generator) = (server.ok_or_else(nothing)?, generator.ok_or_else(nothing)?);
        if server.cpu_per_message < LEAST_CPU {
            return Err(MeasureError::Idle);
        }
        Ok(self.metrics(scenario, &report, &server, &generator))
    }

    fn load(&self, address: SocketAddr, scenario: &Scenario, capacity: f64) -> Load {
        let rate = scenario.rate(capacity);
        Load {
            connections: scenario.connections,
            message_size: scenario.message_size,
            framing: match scenario.length_field {
                true => Framing::LengthField,
                false => Framing::None,
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
            crowd: Crowd { idle: scenario.idle, flooding: scenario.flooding, ..Crowd::default() },
            verify: Verify::Sample,
            ..Load::new(address)
        }
    }

    fn metrics(
        &self,
        scenario: &Scenario,
        report: &Report,
        server: &ProcessFigures,
        generator: &ProcessFigures,
    ) -> Metrics<f64> {
        let throughput = match scenario.traffic {
            Traffic::Churn => report.connections_per_second(),
            _ => report.messages_per_second(),
        };
        let threads = self.load_cores.ids().len().min(scenario.connections);
        let microseconds =
            |latency: Option<Duration>| latency.unwrap_or_default().as_secs_f64() * 1e6;
        Metrics {
            cpu: server.cpu_per_message,
            user_share: server.user_share,
            throughput,
            p50: microseconds(report.p50()),
            p99: microseconds(report.p99()),
            p999: microseconds(report.p999()),
            context_switches: server.context_switches_per_message,
            memory_per_connection: server.memory_per_connection,
            generator_cpu: generator.cpu_per_message,
            generator_busy: generator.cpu_per_message * throughput / 1e9 / threads as f64,
        }
    }
}
