//! What an engine can be started with, and what becomes of it when it can't.
//!
//! - Every value that can't be used is refused before anything is started, by its name, with what
//!   was given and what is wrong with it; the values at the edges of what is allowed are taken.
//! - A start that fails names what failed (a panic of the user's code, an address) and leaves
//!   nothing behind: no thread, no handler, no port.
//! - The driver is chosen by the builder, or by the environment of an operator, which is stronger.
//! - A callback can stop an engine that has only just booted, which is the earliest part of F20.

use std::env;
use std::io::{ErrorKind, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use millstream::sim::{Faults, Simulation};
use millstream::{
    AcceptMode, Action, Address, AlreadyStopping, Builder, ConfigError, Conn, DriverChoice, Engine,
    EventHandler, InputOverflow, Pinning, Reactor, ReactorAction, SocketOptions, StartError,
    UnknownDriver,
};

use crate::common::{DEADLINE, Echo, TestEngine, modes, read_exactly, receive};

const MILLISECOND: Duration = Duration::from_millis(1);
/// The largest size that is allowed.
const LARGEST: usize = isize::MAX as usize / 4;

// --- values --------------------------------------------------------------------------------------

/// What a builder is refused for: the field, the value, the reason.
type Refusal = (Builder, &'static str, &'static str, &'static str);

fn builder() -> Builder {
    Engine::builder().reactors(1)
}

#[track_caller]
fn config_error(builder: Builder) -> ConfigError {
    match builder.start(|_| Echo) {
        Err(StartError::Config(error)) => error,
        other => panic!("the value is not refused: {other:?}"),
    }
}

#[track_caller]
fn assert_refused(refusals: impl IntoIterator<Item = Refusal>) {
    for (builder, field, value, reason) in refusals {
        let error = config_error(builder);
        assert_eq!((error.field, error.value.as_str(), error.reason), (field, value, reason));
    }
}

#[test]
fn a_bad_count_is_refused() {
    let reactors = "it must be from 1 to 1024";
    let cores = "each reactor needs a core";
    let one = "it must be at least 1";
    let bits = "it must be from 1 to 128";
    assert_refused([
        (builder().reactors(0), "reactors", "0", reactors),
        (builder().reactors(1025), "reactors", "1025", reactors),
        (builder().pinning(Pinning::Cores(vec![])), "pinning", "[]", cores),
        (builder().reactors(3).pinning(Pinning::Cores(vec![0, 1])), "pinning", "[0, 1]", cores),
        (builder().max_connections(0), "max_connections", "0", one),
        (builder().max_connections_per_source(0), "max_connections_per_source", "0", one),
        (builder().ipv6_source_prefix(0), "ipv6_source_prefix", "0", bits),
        (builder().ipv6_source_prefix(129), "ipv6_source_prefix", "129", bits),
        (builder().backlog(0), "backlog", "0", one),
        (builder().accept_budget(0), "accept_budget", "0", one),
        (builder().inbox_budget(0), "inbox_budget", "0", one),
        (builder().handshake_budget(0), "handshake_budget", "0", one),
    ]);
}

#[test]
fn a_bad_time_is_refused() {
    let reason = "it must be at least a millisecond";
    let short = MILLISECOND - Duration::from_nanos(1);
    assert_refused([
        (builder().idle_timeout(Duration::ZERO), "idle_timeout", "0ns", reason),
        (builder().read_timeout(short), "read_timeout", "999.999µs", reason),
        (builder().write_timeout(short), "write_timeout", "999.999µs", reason),
        (builder().tick(short), "tick", "999.999µs", reason),
        (builder().busy_poll(Duration::ZERO), "busy_poll", "0ns", "it must not be zero"),
    ]);
}

type SetSize = fn(Builder, usize) -> Builder;

#[test]
fn a_bad_size_is_refused() {
    let reason = "it must be at least 1, and less than a quarter of the address space";
    let buffer = "it must be from 1 byte to 1 GiB";
    let setters: [(&str, SetSize, usize, &str); 4] = [
        (
            "input_cap",
            |builder, size| builder.input_cap(size, InputOverflow::Pause),
            LARGEST,
            reason,
        ),
        ("output_cap", Builder::output_cap, LARGEST, reason),
        ("receive_buffer", Builder::receive_buffer, 1 << 30, buffer),
        ("read_budget", Builder::read_budget, LARGEST, reason),
    ];
    for (field, set, largest, reason) in setters {
        for size in [0, largest + 1, usize::MAX] {
            let error = config_error(set(builder(), size));
            assert_eq!((error.field, error.reason), (field, reason));
            assert_eq!(error.value, size.to_string());
        }
    }
}

#[test]
fn marks_out_of_order_are_refused() {
    let order = "the low mark must not be above the high one";
    let cap = "the high mark must not be above output_cap";
    assert_refused([
        (builder().water_marks(11, 10), "water_marks", "(11, 10)", order),
        (builder().water_marks(1, 11).output_cap(10), "water_marks", "(1, 11)", cap),
        // The default marks count, too.
        (builder().output_cap(1000), "water_marks", "(32768, 65536)", cap),
    ]);
}

#[test]
fn a_text_that_is_no_address_is_refused() {
    let port = "the port is not a number from 0 to 65535";
    let host = "the host is not an IP address";
    let scheme = "the scheme is none of tcp, tcp4, tcp6, udp, udp4, udp6, unix and unixgram";
    let bad = [
        ("", "it is empty"),
        ("tcp://", "it is empty"),
        ("127.0.0.1", "it has no port"),
        ("127.0.0.1:", port),
        ("127.0.0.1:65536", port),
        ("127.0.0.1:-1", port),
        ("127.0.0.1:http", port),
        ("::1:80", "an IPv6 address with a port needs brackets, as in [::1]:7000"),
        ("[::1]", "it has no port"),
        ("localhost:80", "names are not looked up: write 127.0.0.1 or [::1] for this machine"),
        ("256.0.0.1:80", host),
        ("quic://127.0.0.1:80", scheme),
        ("TCP://127.0.0.1:80", scheme),
    ];
    for (text, reason) in bad {
        // A good address before a bad one must not hide it.
        let error = config_error(builder().listen("127.0.0.1:0").listen(text));
        assert_eq!((error.field, error.reason), ("listen", reason), "{text:?}");
        assert_eq!(error.value, format!("{text:?}"));
    }
}

#[test]
fn a_refusal_reads_as_one_sentence() {
    let error = builder().listen("nowhere").start(|_| Echo).expect_err("it is refused");
    let sentence = "the configuration is unusable: listen = \"nowhere\": it has no port";
    assert_eq!(error.to_string(), sentence);
}

#[test]
fn a_bad_value_is_refused_before_anything_is_done() {
    let holder = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("there is a port");
    let taken = holder.local_addr().expect("it is bound");
    let factory = |_| -> Echo { unreachable!("the factory was called") };
    let started = builder().listen(taken).inbox_budget(0).start(factory);
    assert!(matches!(started, Err(StartError::Config(_))), "{started:?}");
}

/// Whether the engine runs with these values, as a client sees it.
#[track_caller]
fn assert_runs(builder: Builder) {
    let engine = TestEngine::echo(builder);
    let mut client = engine.connect();
    client.write_all(b"hello").expect("the client sends");
    assert_eq!(read_exactly(&mut client, 5), b"hello");
}

#[test]
fn the_smallest_values_are_taken() {
    assert_runs(
        builder()
            .backlog(1)
            .max_connections(1)
            .max_connections_per_source(1)
            .ipv6_source_prefix(1)
            .receive_buffer(1)
            .read_budget(1)
            .accept_budget(1)
            .inbox_budget(1)
            .handshake_budget(1)
            .socket_options(SocketOptions::new().receive_buffer(1).send_buffer(1))
            .tick(MILLISECOND)
            .close_timeout(Duration::ZERO)
            .stop_timeout(Duration::ZERO)
            .stall_threshold(Some(Duration::ZERO)),
    );
    // Echoing five bytes at once needs room for them.
    assert_runs(builder().input_cap(1, InputOverflow::Close).output_cap(5).water_marks(5, 5));
    assert_runs(builder().water_marks(0, 0));
    for timeout in [Builder::idle_timeout, Builder::read_timeout, Builder::write_timeout] {
        let engine = timeout(builder(), MILLISECOND).start(|_| Echo).expect("it is taken");
        engine.stop(DEADLINE).expect("the first stop");
        engine.wait().expect("it ends well");
    }
}

#[test]
fn the_largest_values_are_taken() {
    assert_runs(
        builder()
            .backlog(u32::MAX)
            .max_connections(usize::MAX)
            .max_connections_per_source(usize::MAX)
            .input_cap(LARGEST, InputOverflow::Close)
            .output_cap(LARGEST)
            .water_marks(LARGEST, LARGEST)
            .read_budget(LARGEST)
            .accept_budget(usize::MAX)
            .inbox_budget(usize::MAX)
            .handshake_budget(usize::MAX)
            .idle_timeout(Duration::MAX)
            .read_timeout(Duration::MAX)
            .write_timeout(Duration::MAX)
            .close_timeout(Duration::MAX)
            .stop_timeout(Duration::MAX)
            .tick(Duration::MAX)
            .stall_threshold(Some(Duration::MAX)),
    );
}

#[test]
fn pinning_takes_a_core_for_each_reactor_and_more() {
    for cores in [vec![0, 0], vec![0, 0, 0]] {
        assert_runs(builder().reactors(2).pinning(Pinning::Cores(cores)));
    }
    assert_runs(builder().reactors(2).pinning(Pinning::Off));
}

#[test]
fn a_core_that_does_not_exist_leaves_the_reactor_unpinned() {
    // The first fits into the system's set of cores, which no machine fills; the others don't.
    for core in [1023, 1024, 1_000_000, usize::MAX] {
        assert_runs(builder().pinning(Pinning::Cores(vec![core])));
    }
}

#[test]
fn the_defaults_are_taken_and_use_every_core() {
    let engine = TestEngine::echo(Engine::builder());
    let cores = thread::available_parallelism().expect("the system tells").get();
    assert_eq!(engine.stats().reactors.len(), cores);
}

#[test]
fn an_engine_need_not_listen() {
    for (name, builder) in modes() {
        let engine = builder.start(|_| Echo).expect("it starts");
        assert!(engine.local_addrs().is_empty(), "{name}");
        engine.stop(DEADLINE).expect("the first stop");
        engine.wait().expect("it ends well");
    }
}

// --- the user's code at start --------------------------------------------------------------------

/// A handler whose `on_boot` is given, and that says when it exists no more.
struct Booting {
    on_boot: fn(usize) -> ReactorAction,
    _alive: Arc<()>,
}

impl EventHandler for Booting {
    type State = ();

    fn on_boot(&mut self, reactor: &mut Reactor<'_, Self>) -> ReactorAction {
        (self.on_boot)(reactor.index())
    }

    fn on_traffic(&mut self, _conn: &mut Conn<'_, Self>) -> Action {
        Action::Close
    }
}

/// What a start with panicking code fails with, after it was seen that nothing is left of it.
fn start_that_panics(
    mode: AcceptMode,
    factory: fn(usize),
    on_boot: fn(usize) -> ReactorAction,
) -> (usize, &'static str, String) {
    let address = free_address();
    let alive = Arc::new(());
    let kept = Arc::clone(&alive);
    let started = builder().reactors(3).accept_mode(mode).listen(address).start(move |reactor| {
        let _alive = Arc::clone(&kept);
        factory(reactor);
        Booting { on_boot, _alive }
    });
    assert_eq!(Arc::strong_count(&alive), 1, "{mode:?}: a handler or the factory is left");
    TcpListener::bind(address).expect("the port is free again at once");
    match started {
        Err(StartError::Panicked { reactor, callback, message }) => (reactor, callback, message),
        other => panic!("{mode:?}: {other:?}"),
    }
}

const BOTH: [AcceptMode; 2] = [AcceptMode::MainAcceptor, AcceptMode::ReusePort];

/// An address that nobody uses. Where all of 127.0.0.0/8 is this machine, it is on its own host,
/// so that no port the system gives to another test is in the way.
fn free_address() -> SocketAddr {
    let host = if cfg!(target_os = "linux") { [127, 0, 0, 77] } else { [127, 0, 0, 1] };
    let listener = TcpListener::bind(SocketAddr::from((host, 0))).expect("there is a port");
    listener.local_addr().expect("it is bound")
}

#[test]
fn a_factory_that_panics_fails_the_start_and_leaves_nothing() {
    let panics = |reactor| assert!(reactor != 1, "no {reactor}");
    for mode in BOTH {
        let failure = start_that_panics(mode, panics, |_| ReactorAction::Continue);
        assert_eq!(failure, (1, "factory", "no 1".to_owned()), "{mode:?}");
    }
}

#[test]
fn an_on_boot_that_panics_fails_the_start_and_leaves_nothing() {
    let panics =
        |reactor| if reactor == 2 { panic!("a plain text") } else { ReactorAction::Continue };
    for mode in BOTH {
        let failure = start_that_panics(mode, drop, panics);
        assert_eq!(failure, (2, "on_boot", "a plain text".to_owned()), "{mode:?}");
    }
}

#[test]
fn a_panic_without_text_has_no_message() {
    let failure = start_that_panics(
        AcceptMode::MainAcceptor,
        |reactor| {
            if reactor == 0 {
                std::panic::panic_any(7)
            }
        },
        |_| ReactorAction::Continue,
    );
    assert_eq!(failure, (0, "factory", String::new()));
}

#[test]
fn a_failed_start_waits_for_a_reactor_that_boots_slowly() {
    let slow = |reactor| {
        assert!(reactor != 1, "no {reactor}");
        // sleep: stands for an on_boot that takes longer than the engine waits after a stop.
        thread::sleep(Duration::from_millis(1200));
        ReactorAction::Continue
    };
    let failure = start_that_panics(AcceptMode::MainAcceptor, drop, slow);
    assert_eq!(failure, (1, "on_boot", "no 1".to_owned()));
}

/// Counts its boots.
struct Counting(Arc<AtomicUsize>);

impl EventHandler for Counting {
    type State = ();

    fn on_boot(&mut self, _reactor: &mut Reactor<'_, Self>) -> ReactorAction {
        self.0.fetch_add(1, Ordering::Relaxed);
        ReactorAction::Continue
    }

    fn on_traffic(&mut self, _conn: &mut Conn<'_, Self>) -> Action {
        Action::Continue
    }
}

#[test]
fn every_on_boot_has_run_when_start_returns() {
    for (name, builder) in modes() {
        let boots = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&boots);
        let engine = TestEngine::start(builder, move |_| Counting(Arc::clone(&counted)));
        assert_eq!(boots.load(Ordering::Relaxed), engine.stats().reactors.len(), "{name}");
        assert!(!engine.is_stopping(), "{name}");
    }
}

/// Stops the engine from `on_boot`, on the first reactor.
fn shuts_down_at_boot(_: usize) -> Booting {
    let on_boot =
        |reactor| if reactor == 0 { ReactorAction::Shutdown } else { ReactorAction::Continue };
    Booting { on_boot, _alive: Arc::new(()) }
}

/// F20: a stop at the earliest moment, before the engine knows all of its threads.
#[test]
fn a_shutdown_from_on_boot_stops_the_engine() {
    for (name, builder) in modes() {
        let engine = TestEngine::start(builder, shuts_down_at_boot);
        engine.wait().expect("it ends well");
        assert_eq!(engine.stop(DEADLINE), Err(AlreadyStopping), "{name}");
        let address = engine.local_addrs()[0];
        TcpListener::bind(address).unwrap_or_else(|error| panic!("{name}: in use: {error}"));
    }
}

#[test]
fn run_returns_when_a_callback_has_stopped_the_engine() {
    for (name, builder) in modes() {
        let (done, finished) = channel();
        let runner = thread::spawn(move || done.send(builder.run(shuts_down_at_boot).is_ok()));
        assert!(receive(&finished), "{name}");
        runner.join().expect("it sent").expect("the test waited for it");
    }
}

// --- addresses -----------------------------------------------------------------------------------

/// What a start that can't listen fails with.
fn listen_error(builder: Builder) -> (Address, ErrorKind) {
    match builder.start(|_| -> Echo { unreachable!("the factory was called") }) {
        Err(error @ StartError::Listen { .. }) => {
            let text = error.to_string();
            let StartError::Listen { address, source } = error else { unreachable!("just seen") };
            assert_eq!(text, format!("cannot listen on {address}: {source}"));
            (address, source.kind())
        }
        other => panic!("it did not fail to listen: {other:?}"),
    }
}

#[test]
fn an_address_in_use_fails_the_start_by_name_and_frees_the_others() {
    let holder = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("there is a port");
    let taken = holder.local_addr().expect("it is bound");
    for mode in BOTH {
        let free = free_address();
        let builder = builder().reactors(2).accept_mode(mode).listen(free).listen(taken);
        assert_eq!(listen_error(builder), (taken.into(), ErrorKind::AddrInUse), "{mode:?}");
        TcpListener::bind(free).expect("the first address is free again");
    }
}

#[test]
fn an_address_of_another_machine_fails_the_start_by_name() {
    let foreign = SocketAddr::from(([192, 0, 2, 1], 80)); // Reserved for documentation.
    let expected = (foreign.into(), ErrorKind::AddrNotAvailable);
    assert_eq!(listen_error(builder().listen(foreign)), expected);
}

// --- the driver ----------------------------------------------------------------------------------

/// What an operator forces a driver with.
const VARIABLE: &str = "MILLSTREAM_DRIVER";

/// Runs the calling test once more for each of these values, alone in a process whose
/// environment has it. Returns what they print.
fn for_values(values: &[&str], test: fn(value: &str)) -> Vec<String> {
    const INSIDE: &str = "MILLSTREAM_DRIVER_TEST";
    if let Ok(value) = env::var(INSIDE) {
        test(&value);
        return Vec::new();
    }
    let run = |value: &&str| {
        let process = Command::new(env::current_exe().expect("a test is a program"))
            .args(["--exact", thread::current().name().expect("a test has a name"), "--nocapture"])
            .env(INSIDE, value)
            .env(VARIABLE, value)
            .output()
            .expect("it is a program");
        let text = String::from_utf8_lossy(&process.stdout).into_owned();
        let errors = String::from_utf8_lossy(&process.stderr);
        assert!(process.status.success(), "with {value:?}: {text}{errors}");
        text
    };
    values.iter().map(run).collect()
}

#[test]
fn a_driver_that_there_is_not_starts_no_engine_whatever_the_program_says() {
    for_values(&["epoll", "Readiness", "readiness ", "simulated"], |value| {
        for choice in [DriverChoice::Automatic, DriverChoice::Readiness] {
            let started = builder().driver(choice).listen(free_address()).start(|_| Echo);
            let error = started.expect_err("there is no such driver");
            let text = error.to_string();
            for part in [VARIABLE, &format!("{value:?}"), "automatic, readiness"] {
                assert!(text.contains(part), "{text}");
            }
            let StartError::UnknownDriver(unknown) = error else { panic!("{error:?}") };
            assert_eq!(unknown.name, value);
        }
    });
}

#[test]
fn a_driver_can_be_forced_and_is_named_by_the_statistics_and_the_log() {
    let logs = for_values(&["readiness", "automatic", ""], |_| {
        tracing_subscriber::fmt().with_ansi(false).init();
        for choice in [DriverChoice::Automatic, DriverChoice::Readiness] {
            let engine = TestEngine::echo(builder().driver(choice));
            assert_eq!(engine.stats().driver, "readiness");
        }
    });
    for log in logs {
        let starts = log.lines().filter(|line| line.contains("the engine runs"));
        let named = starts.filter(|line| line.contains("driver=\"readiness\""));
        assert_eq!(named.count(), 2, "{log}");
    }
}

#[test]
fn a_simulation_has_a_driver_of_its_own_whatever_is_forced() {
    for_values(&["readiness", "epoll"], |_| {
        let simulation = Simulation::new(0, Faults::none(), builder(), Echo).expect("it starts");
        assert_eq!(simulation.engine().stats().driver, "simulated");
    });
}

#[test]
fn a_drivers_text_is_its_name() {
    for choice in [DriverChoice::Automatic, DriverChoice::Readiness] {
        assert_eq!(choice.to_string().parse(), Ok(choice));
    }
    assert_eq!(DriverChoice::default().to_string(), "automatic");
    let unknown = "io".parse::<DriverChoice>().expect_err("there is no such driver");
    assert_eq!(unknown, UnknownDriver { name: "io".to_owned() });
}
