//! Clients in their own processes, for more connections than one process may have at both ends.
//!
//! A crowd is the test's own program, started again to run the same test, which sees by the
//! environment that it is to be the clients. It does what the lines on its standard input say and
//! answers each with a line on standard error. It ends by itself: when its input ends, or when no
//! line comes for too long.

use std::env;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStderr, ChildStdin, Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use super::DEADLINE;

/// What a crowd is to be: how many connections, and to which addresses.
const JOB: &str = "MILLSTREAM_CROWD";
/// A crowd waits no longer for its next line, nor for a byte.
const PATIENCE: Duration = DEADLINE.saturating_mul(2);
/// How many bytes each client sends for an [`Order::Echo`].
pub const MESSAGE: usize = 28;
/// The answer to an order.
const DONE: &str = "crowd: done";

/// Raises the limit of open files as far as the system allows, and then runs a program.
const WITH_MANY_FILES: &str = r#"ulimit -n "$(ulimit -H -n)" && exec "$0" "$@""#;

/// A crowd, as the test sees it.
pub struct Crowd {
    process: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStderr>,
}

/// What the clients are told.
#[derive(Clone, Copy, Debug)]
pub enum Order {
    /// Each connects.
    Connect,
    /// Each sends some bytes, and gets them back.
    Echo,
    /// Each ends its side, and sees the server's end.
    Close,
}

impl Order {
    const ALL: [Order; 3] = [Order::Connect, Order::Echo, Order::Close];
}

impl Crowd {
    /// Starts a crowd for the test of that name.
    pub fn start(test: &str, clients: usize, addresses: &[SocketAddr]) -> Self {
        let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        let mut process = again(test)
            .env(JOB, format!("{clients},{}", addresses.join(",")))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the crowd starts");
        let orders = process.stdin.take();
        let answers = BufReader::new(process.stderr.take().expect("it is piped"));
        Crowd { process, orders, answers }
    }

    /// Gives an order; [`finish`](Self::finish) waits for it.
    pub fn order(&mut self, order: Order) {
        let orders = self.orders.as_mut().expect("only the drop ends them");
        writeln!(orders, "{order:?}").expect("the crowd listens");
    }

    /// Waits until the last order is done. The crowd has its own deadlines, so this ends.
    #[track_caller]
    pub fn finish(&mut self) {
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("the crowd answers");
        if answer.trim_end() != DONE {
            self.orders = None; // What is left of the answer ends with the process.
            let _ = self.answers.read_to_string(&mut answer);
            panic!("the crowd failed: {answer}");
        }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.orders = None;
        let ended = self.process.wait();
        assert!(thread::panicking() || ended.is_ok_and(|status| status.success()));
    }
}

/// Gives all crowds an order, and waits until each has done it.
#[track_caller]
pub fn order(crowds: &mut [Crowd], order: Order) {
    crowds.iter_mut().for_each(|crowd| crowd.order(order));
    crowds.iter_mut().for_each(Crowd::finish);
}

/// Whether this process is to be a crowd. If it is, it has been one when this returns.
pub fn was_crowd() -> bool {
    let Ok(job) = env::var(JOB) else { return false };
    let mut parts = job.split(',');
    let clients = parts.next().and_then(|count| count.parse().ok()).expect("a number");
    let addresses: Vec<SocketAddr> =
        parts.map(|address| address.parse().expect("an address")).collect();
    serve_orders(clients, &addresses);
    true
}

fn serve_orders(count: usize, addresses: &[SocketAddr]) {
    let (sender, orders) = channel();
    thread::spawn(move || {
        io::stdin().lines().map_while(Result::ok).all(|line| sender.send(line).is_ok())
    });
    let mut clients = Vec::new();
    while let Ok(line) = orders.recv_timeout(PATIENCE) {
        match Order::ALL.into_iter().find(|order| format!("{order:?}") == line) {
            Some(Order::Connect) => clients.extend(connect(count, addresses)),
            Some(Order::Echo) => echo(&mut clients),
            Some(Order::Close) => clients.drain(..).for_each(close),
            None => panic!("no order: {line}"),
        }
        // Written directly: the test harness would capture what the macros print.
        writeln!(io::stderr(), "{DONE}").expect("the test listens");
    }
}

fn connect(count: usize, addresses: &[SocketAddr]) -> impl Iterator<Item = TcpStream> {
    addresses.iter().cycle().take(count).map(|address| {
        let client = TcpStream::connect_timeout(address, PATIENCE).expect("it accepts");
        client.set_read_timeout(Some(PATIENCE)).expect("a socket has timeouts");
        client
    })
}

/// Everyone sends before anyone receives.
fn echo(clients: &mut [TcpStream]) {
    let message = |client: usize| format!("the message of client {client:06}").into_bytes();
    for (number, client) in clients.iter_mut().enumerate() {
        client.write_all(&message(number)).expect("the server reads");
    }
    for (number, client) in clients.iter_mut().enumerate() {
        let expected = message(number);
        let mut echo = [0; MESSAGE];
        client.read_exact(&mut echo).expect("the server answers");
        assert_eq!(echo[..], expected);
    }
}

fn close(mut client: TcpStream) {
    client.shutdown(std::net::Shutdown::Write).expect("it is open");
    assert_eq!(client.read(&mut [0]).expect("the server ends"), 0);
}

/// This program, to run the one test with as many open files as it may have.
fn again(test: &str) -> Command {
    let mut command = Command::new("sh");
    let program = env::current_exe().expect("the system knows");
    command.args(["-c", WITH_MANY_FILES]).arg(program).args(["--exact", test, "--nocapture"]);
    command
}

/// Whether this process can have this many files open. If its limit can be raised to that, the test
/// runs in another process which has it, and the answer is no; it is no as well, with a message, if
/// the limit can't be raised that far.
#[allow(clippy::print_stderr, reason = "a test that is skipped says so")]
pub fn has_files(test: &str, files: usize) -> bool {
    let Some((soft, hard)) = limits() else {
        eprintln!("SKIPPED {test}: the limit of open files is unknown");
        return false;
    };
    if hard < files {
        eprintln!("SKIPPED {test}: it needs {files} open files, the system allows {hard}");
    } else if soft < files {
        let status = again(test).status().expect("it starts");
        assert!(status.success(), "failed in a process of its own");
    }
    soft >= files
}

/// How many files this process may have open, now and at most, where the system tells.
fn limits() -> Option<(usize, usize)> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find(|line| line.starts_with("Max open files"))?;
    let mut values = line.split_whitespace().skip(3);
    let mut value = || values.next()?.parse().ok();
    Some((value()?, value()?))
}
