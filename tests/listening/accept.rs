//! How connections come in: how many there may be, and what doesn't stop the engine from accepting.
//!
//! - Limits are exact in every mode, refused connections are counted, and places are given back.
//! - F9, the open-files limit is reached, and F10, connections are reset before they are accepted.
//! - Listening: the backlog, several addresses, IPv6, two engines on one port.

mod balancing;

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use millstream::balance::Balance;
use millstream::{AcceptMode, Action, Address, Builder, Conn, Engine, EventHandler, StartError};
use socket2::{Domain, Socket, Type};

use crate::common::{DEADLINE, Echo, TestEngine, eventually, modes, read_exactly, receive, reset};

const BOTH: [AcceptMode; 2] = [AcceptMode::MainAcceptor, AcceptMode::ReusePort];
const REACTORS: usize = 3;

/// Greets with its own byte, then echoes.
struct Greeter(u8);

impl Greeter {
    /// Greets with the index of the reactor.
    fn of_reactor(reactor: usize) -> Self {
        Greeter(reactor as u8)
    }
}

impl EventHandler for Greeter {
    type State = ();

    fn on_open(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        conn.output.write(&[self.0]);
        Action::Continue
    }

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        conn.output.write(conn.input.take_all());
        Action::Continue
    }
}

// --- clients -------------------------------------------------------------------------------------

/// Connects to an address from a source address, whose port the system chooses.
fn connect_from(source: [u8; 4], to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("there is a socket");
    socket.bind(&SocketAddr::from((source, 0)).into()).expect("the source is this machine");
    socket.connect_timeout(&to.into(), DEADLINE).expect("it accepts");
    with_deadlines(socket.into())
}

fn connect_to(address: SocketAddr) -> TcpStream {
    with_deadlines(TcpStream::connect_timeout(&address, DEADLINE).expect("it accepts"))
}

fn with_deadlines(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(DEADLINE)).expect("a socket has timeouts");
    stream.set_write_timeout(Some(DEADLINE)).expect("a socket has timeouts");
    stream
}

/// The greeting of the connection's engine; `None` if it was refused instead.
#[track_caller]
fn greeting(mut stream: &TcpStream) -> Option<usize> {
    let mut byte = [0];
    match stream.read(&mut byte) {
        Ok(0) => None,
        Ok(_) => Some(byte[0].into()),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => None,
        Err(error) => panic!("neither a greeting nor an end: {error}"),
    }
}

/// Connects this many clients, one after the other, each once the last one is greeted; returns them
/// with their greetings.
#[track_caller]
fn greeted(engine: &TestEngine, count: usize) -> Vec<(TcpStream, usize)> {
    let client = || {
        let stream = engine.connect();
        let greeting = greeting(&stream).expect("it is served");
        (stream, greeting)
    };
    std::iter::repeat_with(client).take(count).collect()
}

#[track_caller]
fn assert_echoes(mut stream: &TcpStream) {
    stream.write_all(b"ping").expect("the client sends");
    assert_eq!(read_exactly(&mut stream, 4), b"ping");
}

// --- limits --------------------------------------------------------------------------------------

/// Connects until it is served: the place that was given back is taken again.
fn take_place(connect: impl Fn() -> TcpStream) -> TcpStream {
    let mut served = None;
    eventually("a place is given back", || {
        let client = connect();
        served = greeting(&client).map(|_| client);
        served.is_some()
    });
    served.expect("just seen")
}

#[test]
fn the_limit_of_connections_is_exact_and_places_are_given_back() {
    for (name, builder) in modes() {
        let engine = TestEngine::start(builder.max_connections(5), Greeter::of_reactor);
        let mut clients: Vec<TcpStream> =
            greeted(&engine, 5).into_iter().map(|(client, _)| client).collect();
        for refused in 1..=4 {
            assert_eq!(greeting(&engine.connect()), None, "{name}: one too many");
            assert_eq!(engine.stats().refused, refused, "{name}");
        }
        let accepted: u64 = engine.stats().reactors.iter().map(|reactor| reactor.accepted).sum();
        assert_eq!((accepted, engine.connections()), (5, 5), "{name}: a refused one was opened");
        clients.iter().for_each(assert_echoes);

        drop(clients.drain(..2));
        for _ in 0..2 {
            clients.push(take_place(|| engine.connect()));
        }
        assert_eq!(greeting(&engine.connect()), None, "{name}: full again");
        clients.iter().for_each(assert_echoes);
    }
}

/// All at once: reactors that accept for themselves race for the last places.
#[test]
fn the_limit_of_connections_is_exact_in_a_rush() {
    for (name, builder) in modes() {
        let builder = builder.max_connections(20);
        let engine = TestEngine::start(builder, Greeter::of_reactor);
        let clients: Vec<TcpStream> =
            std::iter::repeat_with(|| engine.connect()).take(100).collect();
        let served = clients.iter().filter(|client| greeting(client).is_some()).count();
        assert_eq!((served, engine.stats().refused), (20, 80), "{name}");
    }
}

#[cfg(target_os = "linux")] // Where all of 127.0.0.0/8 is this machine.
#[test]
fn the_limit_per_source_is_exact_and_places_are_given_back() {
    for (name, builder) in modes() {
        let builder = builder.max_connections_per_source(2);
        let engine = TestEngine::start(builder, Greeter::of_reactor);
        let address = engine.address();
        let mut clients = Vec::new();
        for source in 1..=4 {
            let connect = || connect_from([127, 0, 0, source], address);
            for _ in 0..2 {
                let client = connect();
                assert!(greeting(&client).is_some(), "{name}: source {source} has a place");
                clients.push(client);
            }
            assert_eq!(greeting(&connect()), None, "{name}: one too many of source {source}");
        }
        assert_eq!((engine.stats().refused, engine.connections()), (4, 8), "{name}");

        drop(clients.remove(0)); // One of the first source.
        clients.push(take_place(|| connect_from([127, 0, 0, 1], address)));
        for source in 1..=4 {
            let client = connect_from([127, 0, 0, source], address);
            assert_eq!(greeting(&client), None, "{name}: source {source} is full again");
        }
    }
}

#[cfg(target_os = "linux")] // Where all of 127.0.0.0/8 is this machine.
#[test]
fn a_connection_that_its_source_may_not_have_takes_no_place_in_the_total() {
    let builder = Engine::builder().reactors(1).max_connections(2).max_connections_per_source(1);
    let engine = TestEngine::start(builder, Greeter::of_reactor);
    let address = engine.address();
    let first = connect_from([127, 0, 0, 1], address);
    assert!(greeting(&first).is_some());
    for _ in 0..3 {
        assert_eq!(greeting(&connect_from([127, 0, 0, 1], address)), None, "the source is full");
    }
    let second = connect_from([127, 0, 0, 2], address);
    assert!(greeting(&second).is_some(), "the total is not full");
    assert_eq!(greeting(&connect_from([127, 0, 0, 3], address)), None, "the total is full");
    assert_eq!(engine.stats().refused, 4);
}

// --- a thread that is kept from accepting --------------------------------------------------------

/// Keeps the thread that accepts in its first callback until it is let go.
struct Gate {
    entered: Sender<()>,
    release: Receiver<()>,
    open: bool,
}

impl Gate {
    /// A gate, the news that it was reached, and what opens it.
    fn new() -> (Gate, Receiver<()>, Sender<()>) {
        let (entered, reached) = channel();
        let (open, release) = channel();
        (Gate { entered, release, open: false }, reached, open)
    }

    fn pass(&mut self) {
        if !self.open {
            self.open = true;
            let _ = self.entered.send(());
            // A test that failed opens it by dropping its end.
            let _ = self.release.recv_timeout(DEADLINE);
        }
    }
}

impl Balance for Gate {
    fn choose(&mut self, _peer: Address, _connections: &[usize]) -> usize {
        self.pass();
        0
    }
}

/// Echoes, behind a gate if its reactor accepts for itself.
struct GatedEcho(Option<Gate>);

impl EventHandler for GatedEcho {
    type State = ();

    fn on_open(&mut self, _conn: &mut Conn<'_, Self>) -> Action {
        if let Some(gate) = &mut self.0 {
            gate.pass();
        }
        Action::Continue
    }

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        conn.output.write(conn.input.take_all());
        Action::Continue
    }
}

/// An engine that accepts a first connection, and no other until it is told to: the main acceptor
/// waits in its balancer, and a reactor that accepts for itself in a callback.
fn gated(mode: AcceptMode, builder: Builder) -> (TestEngine, TcpStream, Sender<()>) {
    let (gate, reached, open) = Gate::new();
    let builder = builder.accept_mode(mode);
    let (builder, gate) = match mode {
        AcceptMode::MainAcceptor => (builder.reactors(2).balance(gate), None),
        _ => (builder.reactors(1), Some(gate)),
    };
    let gate = Mutex::new(gate);
    let engine = TestEngine::start(builder, move |_| {
        GatedEcho(gate.lock().expect("one reactor takes it").take())
    });
    let first = engine.connect();
    receive(&reached);
    (engine, first, open)
}

/// F10: connections that are reset while they wait to be accepted.
#[test]
fn connections_reset_before_they_are_accepted_do_not_end_accepting() {
    for mode in BOTH {
        let (engine, first, open) = gated(mode, Engine::builder());
        for _ in 0..300 {
            reset(engine.connect());
        }
        open.send(()).expect("the gate is there");
        let last = engine.connect();
        assert_echoes(&last);
        assert_echoes(&first);
        eventually("those that were reset are gone", || engine.connections() == 2);
        assert_eq!(engine.stats().accept_errors, 0, "{mode:?}");
    }
}

/// With `n` connections to wait, Linux lets `n + 1` wait and leaves the next one without an answer.
#[cfg(target_os = "linux")]
#[test]
fn no_more_connections_wait_than_the_backlog_allows() {
    for mode in BOTH {
        let (engine, first, open) = gated(mode, Engine::builder().backlog(4));
        let waiting: Vec<TcpStream> = std::iter::repeat_with(|| engine.connect()).take(5).collect();
        let address = engine.address();
        let patience = Duration::from_millis(150); // For what is not going to happen.
        let error = TcpStream::connect_timeout(&address, patience).expect_err("one too many");
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{mode:?}");
        open.send(()).expect("the gate is there");
        waiting.iter().chain([&first]).for_each(assert_echoes);
        assert_echoes(&engine.connect());
    }
}

// --- listening -----------------------------------------------------------------------------------

#[test]
fn each_of_several_listeners_gets_a_port_and_is_served() {
    for (name, builder) in modes() {
        let builder = builder.listen(([127, 0, 0, 1], 0)).listen("tcp://127.0.0.1:0");
        let builder = builder.listen(SocketAddr::from(([127, 0, 0, 1], 0)));
        let engine = TestEngine::echo(builder);
        let ports: BTreeSet<u16> = engine.addresses().iter().map(SocketAddr::port).collect();
        assert_eq!((engine.local_addrs().len(), ports.len()), (4, 4), "{name}: {ports:?}");
        assert!(!ports.contains(&0), "{name}: a port is not resolved");
        for address in engine.addresses() {
            for _ in 0..4 {
                assert_echoes(&connect_to(address));
            }
        }
    }
}

#[cfg(target_os = "linux")] // Where all of 127.0.0.0/8 is this machine.
#[test]
fn addresses_are_told_in_the_order_they_were_given() {
    for (name, builder) in modes() {
        let hosts = [[127, 0, 0, 3], [127, 0, 0, 1], [127, 0, 0, 2], [127, 0, 0, 1]];
        let [third, first, second, _] = hosts.map(|host| (host, 0));
        let builder = builder.listen(third).listen(first).listen(second);
        let engine = TestEngine::echo(builder);
        let told: Vec<_> = engine.addresses().iter().map(SocketAddr::ip).collect();
        assert_eq!(told, hosts.map(IpAddr::from), "{name}");
    }
}

#[test]
fn the_ipv6_loopback_is_served() {
    if TcpListener::bind("[::1]:0").is_err() {
        return; // A machine without IPv6.
    }
    for (name, builder) in modes() {
        let engine = TestEngine::start(builder.listen("[::1]:0"), Greeter::of_reactor);
        let address = engine.address();
        assert!(address.is_ipv6() && address.port() != 0, "{name}: {address}");
        let client = connect_to(address);
        assert!(greeting(&client).is_some(), "{name}");
        assert_echoes(&client);
    }
}

#[test]
fn the_unspecified_ipv6_address_takes_ipv4_from_the_same_sources() {
    if TcpListener::bind("[::1]:0").is_err() {
        return; // A machine without IPv6.
    }
    for (name, builder) in modes() {
        let builder = builder.listen("[::]:0").max_connections_per_source(1);
        let engine = TestEngine::start(builder, Greeter::of_reactor);
        let port = engine.address().port();
        let mapped = connect_to(([127, 0, 0, 1], port).into());
        assert!(greeting(&mapped).is_some(), "{name}: IPv4 to an IPv6 listener");
        assert_eq!(greeting(&engine.connect()), None, "{name}: the same source to an IPv4 one");
    }
}

/// A filter or a balancer that compares addresses finds those of IPv4 in their own form.
#[test]
fn ipv4_that_is_mapped_into_ipv6_is_ipv4_to_filter_and_balancer() {
    struct Only(Sender<Address>);
    impl Balance for Only {
        fn choose(&mut self, peer: Address, _connections: &[usize]) -> usize {
            self.0.send(peer).expect("it waits");
            0
        }
    }
    if TcpListener::bind("[::1]:0").is_err() {
        return; // A machine without IPv6.
    }
    let (send, seen) = channel();
    let filter = send.clone();
    let builder = Engine::builder().reactors(2).listen("[::]:0").balance(Only(send));
    let builder = builder.accept_filter(move |accepting| {
        filter.send(accepting.peer_addr()).expect("it waits");
        true
    });
    let engine = TestEngine::start_exactly(builder, Greeter::of_reactor);
    let port = engine.address().port();
    for host in [IpAddr::from([127, 0, 0, 1]), Ipv6Addr::LOCALHOST.into()] {
        let client = connect_to((host, port).into());
        let own = Address::from(client.local_addr().expect("it is connected"));
        assert_eq!([receive(&seen), receive(&seen)], [own; 2]);
    }
}

#[test]
fn a_port_with_a_main_acceptor_is_not_shared() {
    let first = TestEngine::echo(Engine::builder().reactors(1));
    let address = first.address();
    for mode in BOTH {
        let second = Engine::builder().accept_mode(mode).reactors(2).listen(address);
        match second.start(|_| Echo) {
            Err(StartError::Listen { address: named, source }) => {
                assert_eq!(
                    (named, source.kind()),
                    (address.into(), ErrorKind::AddrInUse),
                    "{mode:?}"
                );
            }
            other => panic!("{mode:?}: {other:?}"),
        }
        assert_echoes(&first.connect());
    }
}

#[test]
fn two_engines_share_a_port_in_reuse_port_mode_and_stop_separately() {
    let engine = |address: SocketAddr, name| {
        let builder = Engine::builder().reactors(2).accept_mode(AcceptMode::ReusePort);
        TestEngine::start(builder.listen(address), move |_| Greeter(name))
    };
    let first = engine(([127, 0, 0, 1], 0).into(), 1);
    let shared = first.address();
    let _second = engine(shared, 2);
    let mut clients = Vec::new();
    eventually("both engines are given connections", || {
        let client = connect_to(shared);
        let name = greeting(&client).expect("it is served");
        clients.push((client, name));
        [1, 2].iter().all(|name| clients.iter().any(|(_, served_by)| served_by == name))
    });

    first.stop(DEADLINE).expect("the first stop");
    let (firsts, seconds): (Vec<_>, Vec<_>) = clients.into_iter().partition(|(_, name)| *name == 1);
    firsts.iter().for_each(|(client, _)| assert_eq!(greeting(client), None, "it was closed"));
    drop(firsts);
    first.wait().expect("it ends well");
    seconds.iter().for_each(|(client, _)| assert_echoes(client));
    for _ in 0..20 {
        assert_eq!(greeting(&connect_to(shared)), Some(2), "the other engine is alone now");
    }
}

// --- the open-files limit ------------------------------------------------------------------------

/// F9, with an engine in another process whose limit is low. The clients are in this one.
#[cfg(target_os = "linux")] // The processor's time is read from /proc.
mod out_of_files {
    use std::io::{self, BufRead, BufReader};
    use std::process::{Child, Command, Stdio};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::{env, fs, thread};

    use super::*;

    /// Tells the child where to connect to, and that it is one.
    const CONTROL: &str = "MILLSTREAM_OUT_OF_FILES";
    const FILES: usize = 64;
    const CLIENTS: usize = 100;

    #[test]
    fn the_engine_waits_without_spinning_and_then_accepts_again() {
        match env::var(CONTROL) {
            Ok(control) => serve(&control),
            Err(_) => BOTH.into_iter().for_each(exhaust),
        }
    }

    fn exhaust(mode: AcceptMode) {
        let mut server = Server::start(mode);
        let begin = Instant::now();
        let connect = || {
            let mut client = connect_to(server.address);
            client.write_all(b"!").expect("the client sends");
            client
        };
        let mut clients: Vec<TcpStream> = std::iter::repeat_with(connect).take(CLIENTS).collect();
        eventually("it runs out of files", || server.ask().accept_errors > 0);
        let open = server.ask().connections;
        assert!((FILES / 2..FILES).contains(&open), "{mode:?}: {open} connections");

        let (errors, cpu) = (server.ask().accept_errors, server.cpu());
        // sleep: how much of the processor is used in a while is what is measured.
        thread::sleep(Duration::from_secs(1));
        let (errors, cpu) = (server.ask().accept_errors - errors, server.cpu() - cpu);
        assert!(cpu < Duration::from_millis(200), "{mode:?}: it spins, {cpu:?} in a second");
        assert!((1..=20).contains(&errors), "{mode:?}: tried {errors} times in a second");
        let most = begin.elapsed().as_secs() as usize + 2;
        assert!((1..=most).contains(&server.ask().warnings), "{mode:?}: the log is flooded");

        let waiting = clients.split_off(open);
        for client in &mut clients {
            assert_eq!(read_exactly(client, 1), b"!", "{mode:?}: the open ones are served");
            assert_echoes(client);
        }
        drop(clients);
        for mut client in waiting {
            assert_eq!(read_exactly(&mut client, 1), b"!", "{mode:?}: the waiting ones are, too");
        }
        eventually("all are gone", || server.ask().connections == 0);
        server.end();
    }

    /// The engine's process, as the test sees it.
    struct Server {
        process: Child,
        control: BufReader<TcpStream>,
        address: SocketAddr,
    }

    /// The engine's numbers.
    struct Report {
        accept_errors: u64,
        connections: usize,
        /// How often the log says that a connection could not be accepted.
        warnings: usize,
    }

    impl Server {
        fn start(mode: AcceptMode) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").expect("there is a port");
            let control = listener.local_addr().expect("it is bound");
            let test = thread::current();
            let process = Command::new("sh")
                .args(["-c", &format!("ulimit -n {FILES} && exec \"$0\" \"$@\"")])
                .arg(env::current_exe().expect("the system tells"))
                .args(["--exact", test.name().expect("a test has a name"), "--nocapture"])
                .env(CONTROL, format!("{control} {}", mode == AcceptMode::ReusePort))
                .stdout(Stdio::null())
                .spawn()
                .expect("it starts");
            listener.set_nonblocking(true).expect("a socket has the option");
            let mut accepted = None;
            eventually("the process reports", || {
                accepted = listener.accept().ok();
                accepted.is_some()
            });
            let (stream, _) = accepted.expect("just seen");
            stream.set_nonblocking(false).expect("a socket has the option");
            let mut control = BufReader::new(with_deadlines(stream));
            let address = read_line(&mut control).parse().expect("an address");
            Server { process, control, address }
        }

        fn ask(&mut self) -> Report {
            self.control.get_mut().write_all(b"?").expect("the process lives");
            let line = read_line(&mut self.control);
            let numbers: Vec<u64> =
                line.split(' ').map(|number| number.parse().expect("a number")).collect();
            let [accept_errors, connections, warnings] = numbers[..] else {
                panic!("no report: {line:?}")
            };
            let (connections, warnings) = (connections as usize, warnings as usize);
            Report { accept_errors, connections, warnings }
        }

        /// How much of the processor it has used, from the 14th and 15th field of its /proc/…/stat.
        fn cpu(&self) -> Duration {
            let path = format!("/proc/{}/stat", self.process.id());
            let text = fs::read_to_string(path).expect("the process lives");
            let (_, fields) = text.rsplit_once(") ").expect("the name is in parentheses");
            let ticks = fields.split(' ').skip(11).take(2).map(str::parse::<u64>);
            let ticks: u64 = ticks.map(|ticks| ticks.expect("a number")).sum();
            Duration::from_millis(ticks * 10) // Linux counts hundredths of a second here.
        }

        /// Makes it stop its engine, which must go well.
        fn end(mut self) {
            self.control.get_mut().shutdown(std::net::Shutdown::Both).expect("the process lives");
            let status = self.process.wait().expect("it is our child");
            assert!(status.success(), "the engine's process failed: {status}");
        }
    }

    impl Drop for Server {
        fn drop(&mut self) {
            let _ = self.process.kill(); // After its end there is nothing to kill.
            let _ = self.process.wait();
        }
    }

    fn read_line(from: &mut impl BufRead) -> String {
        let mut line = String::new();
        from.read_line(&mut line).expect("a line arrives");
        line.trim_end().to_owned()
    }

    /// The engine's process: replies to each byte of the control connection with a report, until it
    /// ends.
    fn serve(control: &str) {
        tracing_subscriber::fmt().with_writer(|| Log).init();
        let (control, reuse_port) = control.split_once(' ').expect("an address and a mode");
        let mut control = TcpStream::connect(control).expect("the test is there");
        let mode = BOTH[usize::from(reuse_port == "true")];
        let engine = TestEngine::echo(Engine::builder().reactors(1).accept_mode(mode));
        writeln!(control, "{}", engine.address()).expect("the test is there");
        while let Ok(1) = control.read(&mut [0]) {
            let errors = engine.stats().accept_errors;
            let warnings = WARNINGS.load(Ordering::Relaxed);
            let report = format!("{errors} {} {warnings}\n", engine.connections());
            control.write_all(report.as_bytes()).expect("the test is there");
        }
    }

    static WARNINGS: AtomicUsize = AtomicUsize::new(0);

    /// Counts the lines of the log that are about accepting.
    struct Log;

    impl Write for Log {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            if String::from_utf8_lossy(line).contains("could not be accepted") {
                WARNINGS.fetch_add(1, Ordering::Relaxed);
            }
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}
