//! Restarts under load: a chain of processes that take over from each other, while clients count
//! what gets lost.
//!
//! `MILLSTREAM_RESTARTS=1000 cargo test --test restart under_load` runs more of them.
#![cfg(target_os = "linux")]

use std::collections::BTreeSet;
use std::env;
use std::fs::{self, DirEntry, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::common::certificate::{Certificate, client_side};
use crate::common::example::example;
use crate::common::folder::Folder;
use crate::common::seeds::for_each_seed;
use crate::common::{DEADLINE, eventually, read_to_end, receive};
use millstream::UnixAddress;
use millstream::restart::{ActivationError, Handover, HandoverError, Inherited};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use rustls::{ClientConfig, HandshakeKind, StreamOwned};

/// A server's process, which is ended with the test.
struct Server {
    child: Child,
    lines: Receiver<String>,
}

impl Server {
    fn start(mut command: Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("cargo has built the example");
        let stdout = child.stdout.take().expect("it is piped");
        let (sender, lines) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Server { child, lines }
    }

    /// Waits until it says this, behind its process id; returns what follows.
    #[track_caller]
    fn says(&self, what: &str) -> String {
        let line = receive(&self.lines);
        let rest = line.strip_prefix(&format!("{} {what}", self.child.id()));
        rest.unwrap_or_else(|| panic!("{line:?} is not {what:?}")).trim().to_owned()
    }

    /// Waits until it has ended; returns whether it did so well.
    #[track_caller]
    fn ends_well(mut self) -> bool {
        let mut status = None;
        eventually("the process ends", || {
            status = self.child.try_wait().expect("it is our child");
            status.is_some()
        });
        status.is_some_and(|status| status.success())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// Where clients connect.
#[derive(Clone)]
struct Place {
    socket: Listening,
    /// What its certificate is believed with, if it has one.
    tls: Option<Arc<ClientConfig>>,
}

#[derive(Clone)]
enum Listening {
    Tcp(String),
    Unix(String),
}

/// A connection to whichever process accepts it.
struct Client {
    stream: BufReader<Box<dyn Stream>>,
    asked: usize,
    /// The server has said that it ends.
    bye: bool,
}

impl Client {
    fn connect(place: &Place) -> Result<Self, String> {
        let refused = |error| format!("refused: {error}");
        let mut stream: Box<dyn Stream> = match &place.socket {
            Listening::Tcp(address) => {
                let stream = TcpStream::connect(address).map_err(refused)?;
                stream.set_read_timeout(Some(DEADLINE)).map_err(refused)?;
                Box::new(stream)
            }
            Listening::Unix(path) => {
                let stream = UnixStream::connect(path).map_err(refused)?;
                stream.set_read_timeout(Some(DEADLINE)).map_err(refused)?;
                Box::new(stream)
            }
        };
        if let Some(config) = &place.tls {
            stream = Box::new(StreamOwned::new(client_side(Arc::clone(config)), stream));
        }
        Ok(Client { stream: BufReader::new(stream), asked: 0, bye: false })
    }

    /// Sends a line; returns which process replied.
    fn ask(&mut self) -> Result<u32, String> {
        self.asked += 1;
        let question = format!("question {}", self.asked);
        let sent = self.stream.get_mut().write_all(format!("{question}\n").as_bytes());
        sent.map_err(|error| format!("not sent: {error}"))?;
        loop {
            let line = self.read()?;
            match line.split_once(' ') {
                None if line == "bye" => self.bye = true,
                Some((pid, rest)) if rest == question => {
                    return pid.parse().map_err(|_| format!("no process id: {line}"));
                }
                _ => return Err(format!("not the reply to {question:?}: {line:?}")),
            }
        }
    }

    fn read(&mut self) -> Result<String, String> {
        let mut line = String::new();
        let read = self.stream.read_line(&mut line);
        read.map_err(|error| format!("no reply to {}: {error}", self.asked))?;
        let whole =
            line.strip_suffix('\n').ok_or(format!("the reply to {} is lost", self.asked))?;
        Ok(whole.to_owned())
    }
}

/// Clients that ask until they are stopped.
struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Result<usize, String>>>,
}

impl Load {
    fn start(places: &[Place]) -> Self {
        let mut load = Load { stop: Arc::default(), clients: Vec::new() };
        for place in places {
            load.add(place, 1);
            load.add(place, 1);
            load.add(place, usize::MAX);
            load.add(place, usize::MAX);
        }
        load
    }

    /// Adds a client that connects again after this many questions, and when the server says bye.
    fn add(&mut self, place: &Place, questions: usize) {
        let (place, stop) = (place.clone(), Arc::clone(&self.stop));
        self.clients.push(thread::spawn(move || {
            let mut replies = 0;
            while !stop.load(Ordering::Relaxed) {
                let mut client = Client::connect(&place)?;
                while client.asked < questions && !client.bye && !stop.load(Ordering::Relaxed) {
                    client.ask()?;
                    replies += 1;
                    // sleep: paces the load, so that neither cores nor ports run out.
                    thread::sleep(Duration::from_millis(3));
                }
            }
            Ok(replies)
        }));
    }

    /// Returns how many replies there were. Each question had its own.
    fn finish(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        let client = |client: JoinHandle<_>| client.join().expect("it does not panic");
        let replies: Result<Vec<usize>, String> = self.clients.into_iter().map(client).collect();
        replies.unwrap_or_else(|lost| panic!("{lost}")).into_iter().sum()
    }

    fn has_failed(&self) -> bool {
        self.clients.iter().any(JoinHandle::is_finished)
    }
}

/// How servers are started that take over from each other.
struct Chain {
    folder: Folder,
    listen: Vec<String>,
    certificate: Option<Certificate>,
}

impl Chain {
    fn new() -> Self {
        let folder = Folder::new();
        let unix = format!("unix://{}", folder.path("socket"));
        Chain { folder, listen: vec!["127.0.0.1:0".to_owned(), unix], certificate: None }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(example("restart"));
        command.args(["--handover", &self.folder.path("handover")]).args(arguments);
        command.args(self.listen.iter().flat_map(|listen| ["--listen", listen]));
        command.args(self.certificate.iter().flat_map(|files| files.options(&[])));
        command
    }

    fn first(&self, arguments: &[&str]) -> (Server, [Place; 2]) {
        let server = Server::start(self.command(arguments));
        let tcp = server.says("serves ");
        let unix = server.says("serves ");
        let tls = self.certificate.as_ref().map(Certificate::believed);
        let place = |socket| Place { socket, tls: tls.clone() };
        (server, [Listening::Tcp(tcp), Listening::Unix(unix)].map(place))
    }

    /// Starts a server that takes over; waits until it has.
    fn next(&self, arguments: &[&str]) -> Server {
        let server = Server::start(self.command(arguments));
        server.says("takes over");
        server.says("serves ");
        server.says("serves ");
        server
    }

    /// A process that takes over and is never ready.
    fn hang(&self) -> Server {
        let server = Server::start(self.command(&["--warm-up", "3600"]));
        server.says("takes over");
        server
    }

    /// A process that takes over and can't serve.
    fn fail(&self) {
        let mut command = self.command(&[]);
        command.args(["--listen", "unix:///no such folder/socket"]);
        let server = Server::start(command);
        server.says("takes over");
        assert!(!server.ends_well(), "it can't listen");
    }
}

fn restarts() -> usize {
    let count = env::var("MILLSTREAM_RESTARTS").ok().map(|count| count.parse());
    count.unwrap_or(Ok(100)).expect("MILLSTREAM_RESTARTS is a number")
}

fn restart_under_load(chain: &Chain, restarts: usize, first: &[&str]) {
    const OTHERS: [&[&str]; 4] = [
        &["--reactors", "2"],
        &["--reuse-port", "--reactors", "3"],
        &["--reactors", "1"],
        &["--reuse-port", "--reactors", "2"],
    ];
    let (mut server, places) = chain.first(first);
    let load = Load::start(&places);
    let mut hanging = Vec::new();
    for round in 0..restarts {
        match round % 30 {
            4 => drop(chain.hang()), // Killed.
            14 => hanging.push(chain.hang()),
            24 => chain.fail(),
            _ => {}
        }
        let newcomer = chain.next(OTHERS[round % OTHERS.len()]);
        server.says("is done");
        assert!(server.ends_well(), "restart {round}");
        server = newcomer;
        if load.has_failed() {
            break; // `finish` tells why.
        }
        for place in &places {
            let answered = Client::connect(place).and_then(|mut client| client.ask());
            assert_eq!(answered, Ok(server.child.id()), "restart {round}");
        }
    }
    let replies = load.finish();
    assert!(replies > restarts, "{replies} replies are no load");
}

#[test]
fn nothing_is_lost_when_a_main_acceptor_is_restarted_under_load() {
    restart_under_load(&Chain::new(), restarts() / 2, &["--reactors", "2"]);
}

#[test]
fn nothing_is_lost_when_reactors_that_accept_are_restarted_under_load() {
    restart_under_load(&Chain::new(), restarts() / 2, &["--reuse-port", "--reactors", "3"]);
}

/// The listeners' connections are encrypted by each process in turn, with the same certificate.
#[test]
fn nothing_is_lost_when_listeners_with_tls_are_restarted_under_load() {
    let chain = Chain { certificate: Some(Certificate::new()), ..Chain::new() };
    restart_under_load(&chain, restarts() / 4, &["--reactors", "2"]);
}

/// A session that one process has begun goes on with the next one, if they share the keys of their
/// tickets, and not otherwise.
#[test]
fn sessions_go_on_after_a_restart_with_the_keys_of_tickets() {
    let chain = Chain { certificate: Some(Certificate::new()), ..Chain::new() };
    let keys = chain.folder.path("keys");
    fs::write(&keys, "5".repeat(64)).expect("there is room");
    for (options, goes_on) in [(&["--tls-ticket-keys", &keys][..], true), (&[], false)] {
        let (server, [place, _]) = chain.first(options);
        let Listening::Tcp(address) = &place.socket else { panic!("it is the first one") };
        let is_resumed = || {
            let stream = TcpStream::connect(address).expect("it accepts");
            stream.set_read_timeout(Some(DEADLINE)).expect("a socket has timeouts");
            let config = place.tls.clone().expect("it has TLS");
            let mut client = StreamOwned::new(client_side(config), stream);
            // The tickets come in front of the reply.
            client.write_all(b"question\n").expect("it reads");
            let mut reply = String::new();
            let mut client = BufReader::new(client);
            client.read_line(&mut reply).expect("it replies");
            client.get_ref().conn.handshake_kind() == Some(HandshakeKind::Resumed)
        };
        assert!(!is_resumed(), "it is the first session");
        assert!(is_resumed(), "it is the same process");
        let newcomer = chain.next(options);
        assert!(server.ends_well());
        assert_eq!(is_resumed(), goes_on, "{options:?}");
        drop(newcomer);
    }
}

/// The predecessor goes on, and makes sure that the next one is not kept waiting.
#[test]
fn a_process_that_is_not_ready_in_time_does_not_take_over() {
    let chain = Chain::new();
    let (server, places) = chain.first(&["--timeout", "1"]);
    let late = Server::start(chain.command(&["--warm-up", "2"]));
    late.says("takes over");
    assert!(!late.ends_well(), "it was refused");
    let mut client = Client::connect(&places[0]).expect("the server goes on");
    assert_eq!(client.ask(), Ok(server.child.id()));
    drop(client);
    let newcomer = chain.next(&[]);
    assert!(server.ends_well());
    let mut client = Client::connect(&places[1]).expect("it serves");
    assert_eq!(client.ask(), Ok(newcomer.child.id()));
}

/// A newcomer is let in although clients have all descriptors that the process may have.
#[test]
fn a_process_without_descriptors_hands_over() {
    let chain = Chain::new();
    let (server, places) = chain.first(&[]);
    let pid = Pid::from_child(&server.child);
    let open = || {
        let folder = fs::read_dir(format!("/proc/{}/fd", pid.as_raw_nonzero())).expect("it runs");
        let number =
            |entry: DirEntry| entry.file_name().to_str().and_then(|name| name.parse().ok());
        folder.filter_map(|entry| number(entry.ok()?)).collect::<BTreeSet<u64>>()
    };
    let most = (0..).find(|number| !open().contains(number)).expect("there are many") + 8;
    let limit = Rlimit { current: Some(most), maximum: Some(most) };
    prlimit(Some(pid), Resource::Nofile, limit).expect("it is our child");
    let connect = |_| Client::connect(&places[0]).expect("there is room in the queue");
    let crowd: Vec<Client> = (0..60).map(connect).collect();
    eventually("it has no descriptors left", || open().range(..most).count() as u64 == most);
    let newcomer = chain.next(&[]);
    drop(crowd);
    assert!(server.ends_well());
    let mut client = Client::connect(&places[0]).expect("it serves");
    assert_eq!(client.ask(), Ok(newcomer.child.id()));
}

/// At whatever moment a newcomer is killed, somebody serves; unless it had served for a while
/// itself, and the one before it was gone.
#[test]
fn a_newcomer_that_is_killed_leaves_one_that_serves() {
    for_each_seed(1, |seed| kill_newcomers(fastrand::Rng::with_seed(seed)));
}

fn kill_newcomers(mut random: fastrand::Rng) {
    let mut chain = Chain::new();
    let (mut server, mut places) = chain.first(&[]);
    for _ in 0..env::var("MILLSTREAM_KILLS").map_or(40, |count| count.parse().expect("a number")) {
        let mut newcomer = Server::start(chain.command(&[]));
        newcomer.says("takes over");
        // sleep: when it is killed is chance, which is the subject.
        thread::sleep(Duration::from_micros(random.u64(..20_000)));
        newcomer.child.kill().expect("it is our child");
        newcomer.child.wait().expect("it is our child");
        let answered = places.each_ref().map(|place| Client::connect(place)?.ask());
        if answered != [Ok(server.child.id()), Ok(server.child.id())] {
            let served = newcomer.lines.iter().any(|line| line.contains("serves"));
            assert!(served, "nobody serves: {answered:?}");
            chain = Chain::new();
            (server, places) = chain.first(&[]);
        }
    }
}

/// An idle client is told, and its next request has a reply all the same.
#[test]
fn a_client_is_served_until_it_ends() {
    let chain = Chain::new();
    let (server, places) = chain.first(&[]);
    let mut client = Client::connect(&places[0]).expect("it serves");
    assert_eq!(client.ask(), Ok(server.child.id()));
    let newcomer = chain.next(&[]);
    assert_eq!(client.read().as_deref(), Ok("bye"));
    assert_eq!(client.ask(), Ok(server.child.id()));
    drop(client);
    assert!(server.ends_well());
    // The last one takes the files along.
    let sent = Command::new("kill").arg(newcomer.child.id().to_string()).status();
    assert!(sent.expect("there is a kill").success());
    assert!(newcomer.ends_well());
    for file in ["socket", "handover"] {
        assert!(!Path::new(&chain.folder.path(file)).exists(), "{file}");
    }
}

/// As a service manager starts it: the socket is there, and is descriptor 3.
fn activated(chain: &Chain, socket: OwnedFd, environment: &str) -> Server {
    let inner = chain.command(&[]);
    let mut command = Command::new("sh");
    command.stdin(Stdio::from(socket)).arg("-c");
    command.arg(format!("{environment} exec \"$0\" \"$@\" 3<&0 </dev/null"));
    command.arg(inner.get_program()).args(inner.get_args());
    Server::start(command)
}

#[test]
fn a_service_managers_sockets_are_taken() {
    let chain = Chain::new();
    let path = chain.folder.path("socket");
    let manager = std::os::unix::net::UnixListener::bind(&path).expect("it is a new folder");
    let socket = || manager.try_clone().expect("there are descriptors").into();
    let mut early = UnixStream::connect(&path).expect("the manager listens");
    early.write_all(b"before it ran\n").expect("there is room");
    let server = activated(&chain, socket(), "LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=lines");
    server.says("serves 127.0.0.1:");
    server.says(&format!("serves {path}"));
    let mut client = Client { stream: BufReader::new(Box::new(early)), asked: 0, bye: false };
    assert_eq!(client.read(), Ok(format!("{} before it ran", server.child.id())));
    drop(client);
    // The next one has it from there, and the file stays the manager's.
    let newcomer = chain.next(&[]);
    assert!(server.ends_well());
    drop(newcomer);
    assert!(Path::new(&path).exists());
    // Not for this process: it opens its own, and finds the manager there.
    assert!(!activated(&chain, socket(), "LISTEN_PID=1 LISTEN_FDS=1").ends_well());
    // More than there are.
    assert!(!activated(&chain, socket(), "LISTEN_PID=$$ LISTEN_FDS=2").ends_well());
}

fn is_socket(file: &Path) -> bool {
    file.to_string_lossy().starts_with("socket:")
}

/// Tells [`a_service_managers_sockets_are_taken_once`] that it runs in a process of the manager.
const ACTIVATED: &str = "MILLSTREAM_ACTIVATED";

#[test]
fn a_service_managers_sockets_are_taken_once() {
    if env::var_os(ACTIVATED).is_some() {
        let inherited = Inherited::from_environment().expect("the manager has passed it on");
        assert!(!inherited.is_empty());
        drop(inherited); // Its descriptors are closed; the manager's is not.
        assert!(
            fs::read_link("/proc/self/fd/3").is_ok_and(|file| is_socket(&file))
                || !cfg!(target_os = "linux")
        );
        let error = Inherited::from_environment().expect_err("they are taken");
        return assert!(matches!(error, ActivationError::Taken), "{error}");
    }
    let socket: OwnedFd = TcpListener::bind("127.0.0.1:0").expect("there is a port").into();
    let mut command = Command::new("sh");
    let program = env::current_exe().expect("a test is a program");
    let start = "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" \"$@\" 3<&0 </dev/null";
    command.stdin(Stdio::from(socket)).args(["-c", start]).arg(program);
    command.args(["--exact", "chain::a_service_managers_sockets_are_taken_once"]);
    let output = command.env(ACTIVATED, "").output().expect("there is a shell");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

/// Names the handover to the process that [`another_user_does_not_take_over`] starts.
const STRANGER: &str = "MILLSTREAM_STRANGER";

/// Only the same user takes over, and only from the same user. It takes the superuser to try.
#[test]
fn another_user_does_not_take_over() {
    if let Ok(path) = env::var(STRANGER) {
        return be_the_stranger(&path);
    }
    if fs::metadata("/proc/self").is_ok_and(|process| process.uid() != 0) {
        return;
    }
    let chain = Chain::new();
    let (server, places) = chain.first(&[]);
    let open = |path: &str| {
        fs::set_permissions(path, Permissions::from_mode(0o777)).expect("it is ours");
    };
    open(&chain.folder.path(""));
    open(&chain.folder.path("handover"));
    // A copy, since not everybody may look into the folder of programs.
    let program = chain.folder.path("program");
    fs::copy(env::current_exe().expect("a test is a program"), &program).expect("there is room");
    let mut stranger = Command::new(program);
    stranger.uid(65_534).args(["--exact", "chain::another_user_does_not_take_over"]);
    let output = stranger.env(STRANGER, chain.folder.path("handover")).output();
    let output = output.expect("everybody may run it");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    let mut client = Client::connect(&places[0]).expect("the server goes on");
    assert_eq!(client.ask(), Ok(server.child.id()));
}

fn be_the_stranger(path: &str) {
    let mut stream = UnixStream::connect(path).expect("everybody may connect");
    stream.set_read_timeout(Some(DEADLINE)).expect("a socket has timeouts");
    assert_eq!(read_to_end(&mut stream), b"", "it is handed nothing");
    let address = UnixAddress::path(path).expect("it is short");
    let error = Handover::take(address, DEADLINE).expect_err("it is another user's");
    assert!(matches!(error, HandoverError::Stranger { user: 0, .. }), "{error}");
}
