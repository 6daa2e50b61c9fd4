//! The RPC servers answer their loads, and a load finds out which answers are wrong.

#[allow(dead_code, reason = "only its server is used here")]
mod contestant;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use contestant::Server;
use millstream_benches::load::{AnswerError, Deadlines, Figures, Load, LoadError, Mode, Verify};
use millstream_benches::program::{LoadProgram, ProgramError};
use millstream_peers::calls::{Client, put};

fn load(address: SocketAddr) -> Load {
    Load {
        connections: 4,
        in_flight: 20,
        duration: Duration::from_millis(400),
        warm_up: Duration::from_millis(50),
        deadlines: Deadlines { connect: Duration::from_secs(20), ..Deadlines::default() },
        ..Load::new(address)
    }
}

fn figures(program: &str, load: &Load) -> Result<Figures, ProgramError> {
    let mut measuring = false;
    let program = LoadProgram::start(Path::new(program), load)?;
    let figures = program.figures(|progress| measuring |= progress.measuring)?;
    assert!(measuring, "no progress was told");
    Ok(figures)
}

/// Runs the server, and each kind of load against it, which checks every byte.
fn check(server: &str, program: &str) {
    let server = Server::start(Path::new(server), 1);
    let load = load(server.address);
    let rate = Mode::Open { rate: 500.0 };
    let thousand = Load { connections: 1, in_flight: 1_000, ..load.clone() };
    let large = Load { message_size: 200_000, in_flight: 3, ..load.clone() };
    let threads = Load { threads: 2, verify: Verify::Sample, ..load.clone() };
    for load in [load.clone(), thousand, large, threads] {
        let figures = figures(program, &load).unwrap();
        assert!(figures.messages >= 10 && figures.errors == 0, "{load}: {figures:?}");
        let latencies = ["p50", "p99", "p99.9"].map(|name| figures.latency(name));
        assert!(latencies[0] > Duration::ZERO && latencies.is_sorted(), "{load}: {latencies:?}");
    }
    let rate = Load { mode: rate, warm_up: Duration::ZERO, ..load.clone() };
    assert_eq!(figures(program, &rate).unwrap().messages, 200);
    server.end();
    let error = figures(program, &load).unwrap_err();
    assert!(error.to_string().contains("could not be opened"), "{error}");
}

#[test]
fn tonic() {
    check(env!("CARGO_BIN_EXE_tonic_echo"), env!("CARGO_BIN_EXE_tonic_load"));
}

#[test]
fn tarpc() {
    check(env!("CARGO_BIN_EXE_tarpc_echo"), env!("CARGO_BIN_EXE_tarpc_load"));
}

#[test]
fn what_is_no_load_is_refused() {
    let text = std::process::Command::new(env!("CARGO_BIN_EXE_tarpc_load")).arg("{}").output();
    let output = text.unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("{\"failure\":\"the argument is no load: "), "{text}");
}

/// A client whose server echoes what `MANNER` makes of it.
struct Fake<const MANNER: u8>;

const HONEST: u8 = 0;
const CORRUPT: u8 = 1;
const SHORT: u8 = 2;
const FAILING: u8 = 3;
const SILENT: u8 = 4;
/// It makes other calls wait, too.
const PAUSING: u8 = 5;

/// When they begin with it.
const BAD_START: u64 = 100;

thread_local! {
    static CALLS: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

impl<const MANNER: u8> Client for Fake<MANNER> {
    type Error = io::Error;

    async fn connect(_: SocketAddr, _: usize) -> io::Result<Self> {
        Ok(Self)
    }

    async fn echo(&self, body: Bytes) -> io::Result<Bytes> {
        tokio::task::yield_now().await;
        let call = CALLS.replace(CALLS.get() + 1);
        if call < BAD_START || MANNER == HONEST {
            return Ok(body);
        }
        match MANNER {
            CORRUPT => Ok(body.iter().map(|byte| byte ^ 1).collect()),
            SHORT => Ok(body.slice(1..)),
            FAILING => Err(io::Error::other("no")),
            SILENT => std::future::pending::<Result<Bytes, Infallible>>().await.or(Ok(body)),
            _ if call == BAD_START => {
                // sleep: the pause whose cost is to be seen.
                std::thread::sleep(Duration::from_millis(200));
                Ok(body)
            }
            _ => Ok(body),
        }
    }
}

fn nowhere() -> Load {
    let load = load(SocketAddr::from(([127, 0, 0, 1], 9)));
    let drain = Duration::from_millis(100);
    Load { deadlines: Deadlines { drain, ..load.deadlines }, ..load }
}

#[test]
fn a_load_finds_out_who_answers_wrongly() {
    let load = nowhere();
    assert_eq!(put::<Fake<HONEST>>(&load, |_| {}).unwrap().failure(), None);
    let error = |outcome: Result<_, LoadError>| outcome.map(|_| "it succeeded").unwrap_err();
    let corrupt = error(put::<Fake<CORRUPT>>(&load, |_| {}));
    assert!(matches!(corrupt, LoadError::Mismatch { .. }), "{corrupt:?}");
    match error(put::<Fake<SHORT>>(&load, |_| {})) {
        LoadError::Answer { source: AnswerError::Length { expected: 64, got: 63, .. }, .. } => {}
        other => panic!("{other:?}"),
    }
    let failing = error(put::<Fake<FAILING>>(&load, |_| {}));
    assert!(matches!(failing, LoadError::Call { .. }), "{failing:?}");
}

#[test]
fn calls_that_are_not_answered_are_counted() {
    let load = Load { warm_up: Duration::ZERO, ..nowhere() };
    let report = put::<Fake<SILENT>>(&load, |_| {}).unwrap();
    assert_eq!(report.errors, 80, "all that are in flight: {report}");
    let mode = Mode::Open { rate: 1_000.0 };
    let report = put::<Fake<SILENT>>(&Load { mode, ..load }, |_| {}).unwrap();
    assert_eq!(report.errors + report.messages, 400, "all that were due: {report}");
    assert!(report.errors > 200, "{report}");
}

#[test]
fn what_waits_for_a_paused_server_is_late() {
    let mode = Mode::Open { rate: 1_000.0 };
    let load = Load { mode, warm_up: Duration::ZERO, ..nowhere() };
    let report = put::<Fake<PAUSING>>(&load, |_| {}).unwrap();
    assert_eq!(report.messages, 400, "{report}");
    assert!(report.p90() > Some(Duration::from_millis(50)), "not only the one call: {report}");
}

#[test]
fn only_calls_are_made() {
    let churn = put::<Fake<HONEST>>(&Load { mode: Mode::Churn, ..nowhere() }, |_| {});
    assert!(matches!(churn, Err(LoadError::ChurnElsewhere)), "{churn:?}");
}
