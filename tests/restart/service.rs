//! An engine as a service: what signals do to it, and what the service manager is told. Signals and
//! the environment are the process's, so each test runs this very program once more, as [`child`].

#![allow(clippy::print_stdout, reason = "the child tells the test what happens by it")]

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::common::{DEADLINE, Echo, eventually, read_exactly, receive};
use millstream::{Action, Conn, Engine, EventHandler};

/// The environment variable that says what the child is to do.
const ROLE: &str = "MILLSTREAM_TEST_ROLE";
/// What stands before all that the child says.
const SAYS: &str = "child: ";
/// Longer than any test.
const LONG: Duration = Duration::from_secs(600);
/// SIGTERM's number.
const TERM: i32 = 15;

// --- the child -----------------------------------------------------------------------------------

fn say(text: impl std::fmt::Display) {
    println!("{SAYS}{text}");
}

#[test]
#[ignore = "it is the child of the other tests"]
fn child() {
    crate::common::silence_expected_panics();
    match env::var(ROLE).as_deref() {
        Ok("drain") => drain(),
        Ok("hangup") => hangup(),
        Ok("two engines") => two_engines(),
        Ok("service") => service(false),
        Ok("polling service") => service(true),
        _ => {}
    }
}

/// Starts an engine that echoes, and waits for long for connections that don't end.
fn start() -> Engine {
    let builder = Engine::builder().reactors(2).listen("127.0.0.1:0").close_timeout(LONG);
    let engine = builder.start(|_| Echo).expect("it starts");
    engine.stop_on_signals(LONG).expect("there are handlers");
    engine
}

fn drain() {
    let engine = start();
    engine.notify_service_manager().expect("there is none");
    say(engine.local_addrs()[0]);
    engine.wait().expect("it ends well");
    crate::common::assert_empty(&engine);
    say("ended");
}

/// Ends only if it is made to.
fn stay() -> ! {
    loop {
        thread::park();
    }
}

fn hangup() {
    let engine = start();
    let mut count = 0;
    let reload = move || {
        count += 1;
        say(format!("reload {count}"));
        assert!(count != 2, "expected: the closure panics");
    };
    engine.on_hangup(reload).expect("there is a handler");
    say(engine.local_addrs()[0]);
    engine.wait().expect("it ends well");
    say("ended");
}

fn two_engines() {
    let engines = [start(), start()];
    engines[0].on_hangup(|| say("reload 1")).expect("there is a handler");
    engines[1].on_hangup(|| say("reload 2")).expect("there is a handler");
    say("running");
    engines.iter().for_each(|engine| engine.wait().expect("it ends well"));
    let [third, fourth] = [start(), start()];
    third.on_hangup(|| say("it has ended")).expect("there is a handler");
    fourth.on_hangup(|| say("reload 4")).expect("there is a handler");
    third.stop(DEADLINE).expect("nobody stopped it before");
    third.wait().expect("it ends well");
    say("ended by itself");
    fourth.wait().expect("it ends well");
    eventually("all threads end", || threads() == 0);
    say("ended");
    stay();
}

/// How many threads of engines there are.
fn threads() -> usize {
    let Ok(tasks) = fs::read_dir("/proc/self/task") else { return 0 };
    let names = tasks.flatten().map(|task| fs::read_to_string(task.path().join("comm")));
    names.flatten().filter(|name| name.starts_with("millstream-")).count()
}

/// Blocks its reactor until SIGHUP comes.
struct Blocks(Arc<Mutex<Receiver<()>>>);

impl EventHandler for Blocks {
    type State = ();

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        let released = self.0.lock().expect("no panic").recv_timeout(DEADLINE);
        released.expect("it is released");
        conn.output.write(conn.input.take_all());
        Action::Continue
    }
}

fn service(polls: bool) {
    let (release, released) = channel();
    let released = Arc::new(Mutex::new(released));
    let mut builder = Engine::builder().reactors(2).listen("127.0.0.1:0").stall_threshold(None);
    if polls {
        builder = builder.busy_poll(Duration::MAX);
    }
    let engine = builder.start(move |_| Blocks(Arc::clone(&released))).expect("it starts");
    engine.stop_on_signals(DEADLINE).expect("there are handlers");
    let reload = move || release.send(()).expect("the engine runs");
    engine.on_hangup(reload).expect("there is a handler");
    match engine.notify_service_manager() {
        Ok(()) => say(engine.local_addrs()[0]),
        Err(error) => say(format!("not told: {error}")),
    }
    engine.wait().expect("it ends well");
    say("ended");
}

// --- and its tests -------------------------------------------------------------------------------

/// The child process, which is ended with the test.
struct Child {
    process: std::process::Child,
    said: Receiver<String>,
}

impl Child {
    fn start(role: &str, environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env::current_exe().expect("a test is a program"));
        command.args(["--exact", "service::child", "--ignored", "--nocapture"]).env(ROLE, role);
        command
            .env_remove("NOTIFY_SOCKET")
            .env_remove("WATCHDOG_USEC")
            .envs(environment.iter().copied());
        let mut process = command.stdout(Stdio::piped()).spawn().expect("it starts");
        let stdout = process.stdout.take().expect("it is piped");
        let (tell, said) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // The test harness writes before it into the same line.
                if let Some((_, text)) = line.split_once(SAYS) {
                    let _ = tell.send(text.to_owned()); // The test may be over.
                }
            }
        });
        Child { process, said }
    }

    #[track_caller]
    fn says(&self, text: &str) {
        assert_eq!(receive(&self.said), text);
    }

    /// Connects to where it says that it listens.
    fn connect(&self) -> TcpStream {
        let client = TcpStream::connect(receive(&self.said)).expect("it listens");
        client.set_read_timeout(Some(DEADLINE)).expect("a socket has timeouts");
        client
    }

    fn signal(&self, name: &str) {
        let id = self.process.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &id]).status();
        assert!(sent.expect("there is a kill").success());
    }

    fn runs(&mut self) -> bool {
        self.process.try_wait().expect("it is our child").is_none()
    }

    fn end(&mut self) -> ExitStatus {
        eventually("the child ends", || !self.runs());
        self.process.wait().expect("it is our child")
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn echo(client: &mut TcpStream) {
    client.write_all(b"hello").expect("it reads");
    assert_eq!(read_exactly(client, 5), b"hello");
}

#[test]
fn a_signal_drains_and_a_second_one_cuts_off() {
    for (first, second) in [("TERM", "INT"), ("INT", "INT")] {
        let mut child = Child::start("drain", &[]);
        let mut client = child.connect();
        echo(&mut client);
        child.signal(first);
        let end = client.read(&mut [0]).expect("an orderly end");
        assert_eq!(end, 0, "the connection is drained");
        assert!(child.runs(), "the client has not ended its side");
        child.signal(second);
        child.says("ended");
        assert!(child.end().success());
    }
}

#[test]
fn a_signal_ends_an_engine_that_has_nothing_to_drain() {
    let mut child = Child::start("drain", &[]);
    let mut client = child.connect();
    echo(&mut client);
    drop(client);
    child.signal("TERM");
    child.says("ended");
    assert!(child.end().success());
}

#[test]
fn a_hangup_runs_the_closure_each_time() {
    let mut child = Child::start("hangup", &[]);
    let mut client = child.connect();
    for count in 1..=3 {
        child.signal("HUP");
        child.says(&format!("reload {count}"));
        echo(&mut client);
    }
    drop(client);
    child.signal("TERM");
    child.says("ended");
    assert!(child.end().success());
}

#[test]
fn several_engines_share_signals_until_they_end() {
    let mut child = Child::start("two engines", &[]);
    child.says("running");
    child.signal("HUP");
    let mut reloads = [receive(&child.said), receive(&child.said)];
    reloads.sort();
    assert_eq!(reloads, ["reload 1", "reload 2"]);
    child.signal("TERM");
    child.says("ended by itself");
    child.signal("HUP");
    child.says("reload 4");
    child.signal("INT");
    child.says("ended");
    assert!(child.runs(), "it stays");
    // Nobody listens any more.
    child.signal("TERM");
    assert_eq!(child.end().signal(), Some(TERM));
}

/// A socket in the place of the service manager's.
struct Manager {
    path: PathBuf,
    socket: UnixDatagram,
}

impl Manager {
    fn new(name: &str) -> Self {
        let path = env::temp_dir().join(format!("millstream-{}-{name}", std::process::id()));
        let socket = UnixDatagram::bind(&path).expect("the name is free");
        socket.set_read_timeout(Some(DEADLINE)).expect("a socket has timeouts");
        Manager { path, socket }
    }

    fn path(&self) -> &str {
        self.path.to_str().expect("it is text")
    }

    fn told(&self) -> String {
        let mut text = [0; 200];
        let len = self.socket.recv(&mut text).expect("it is told something");
        String::from_utf8_lossy(&text[..len]).trim().to_owned()
    }

    /// What it is told next that does not feed the watchdog.
    fn told_news(&self) -> String {
        let mut told = String::new();
        eventually("something else is told", || {
            told = self.told();
            told != "WATCHDOG=1"
        });
        told
    }

    /// Waits until it is told nothing for this long.
    fn wait_for_silence(&self, time: Duration) {
        self.socket.set_read_timeout(Some(time)).expect("a socket has timeouts");
        eventually("nothing is told", || {
            let received = self.socket.recv(&mut [0; 200]);
            received.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
        });
        self.socket.set_read_timeout(Some(DEADLINE)).expect("a socket has timeouts");
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

#[test]
fn the_manager_is_told_of_the_start_each_reload_and_the_stop() {
    let manager = Manager::new("told");
    let mut child = Child::start("service", &[("NOTIFY_SOCKET", manager.path())]);
    assert_eq!(manager.told(), "READY=1");
    receive(&child.said);
    child.signal("HUP");
    let reloading = manager.told();
    let time = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=");
    assert!(time.is_some_and(|time| time.parse::<u64>().is_ok()), "{reloading}");
    assert_eq!(manager.told(), "READY=1");
    child.signal("TERM");
    assert_eq!(manager.told(), "STOPPING=1");
    child.says("ended");
    assert!(child.end().success());
    manager.wait_for_silence(Duration::from_millis(1));
}

#[test]
fn the_watchdog_is_fed_unless_a_reactor_is_stuck() {
    let watchdog = Duration::from_millis(400);
    let manager = Manager::new("watchdog");
    let micros = watchdog.as_micros().to_string();
    let environment = [("NOTIFY_SOCKET", manager.path()), ("WATCHDOG_USEC", &micros)];
    let mut child = Child::start("service", &environment);
    assert_eq!(manager.told(), "READY=1");
    for _ in 0..3 {
        assert_eq!(manager.told(), "WATCHDOG=1");
    }
    let mut client = child.connect();
    client.write_all(b"block").expect("it is read later");
    manager.wait_for_silence(watchdog);
    child.signal("HUP");
    assert!(manager.told_news().starts_with("RELOADING=1"));
    assert_eq!(manager.told_news(), "READY=1");
    assert_eq!(read_exactly(&mut client, 5), b"block");
    assert_eq!(manager.told(), "WATCHDOG=1");
    drop(client);
    child.signal("TERM");
    assert_eq!(manager.told_news(), "STOPPING=1");
    child.says("ended");
    assert!(child.end().success());
}

/// A reactor that looks instead of waiting comes round all the same.
#[test]
fn the_watchdog_is_fed_by_reactors_that_poll() {
    let manager = Manager::new("polling");
    let environment = [("NOTIFY_SOCKET", manager.path()), ("WATCHDOG_USEC", "400000")];
    let mut child = Child::start("polling service", &environment);
    assert_eq!(manager.told(), "READY=1");
    receive(&child.said);
    for _ in 0..3 {
        assert_eq!(manager.told(), "WATCHDOG=1");
    }
    child.signal("TERM");
    assert_eq!(manager.told_news(), "STOPPING=1");
    child.says("ended");
    assert!(child.end().success());
}

#[test]
fn a_manager_that_cannot_be_reached_is_an_error() {
    let manager = Manager::new("gone");
    let path = manager.path().to_owned();
    drop(manager);
    let mut child = Child::start("service", &[("NOTIFY_SOCKET", &path)]);
    let said = receive(&child.said);
    assert!(said.starts_with("not told: "), "{said}");
    child.signal("TERM");
    child.says("ended");
    assert!(child.end().success());
}
