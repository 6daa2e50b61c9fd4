//! Whether a server that is compared with the engine does its work at all: whatever the peers do,
//! each gets back exactly what it sent, and a signal ends the server.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use fastrand::Rng;
use rustix::process::{Pid, Signal, kill_process};
use socket2::{Domain, Socket, Type};

/// How long anything may take, on a machine that is busy with other tests.
const DEADLINE: Duration = Duration::from_secs(30);
/// When nothing has been taken for this long, a peer counts as blocked.
const BLOCKED: Duration = Duration::from_millis(100);
/// Of the client's sockets; small, so that the server's fill up, too.
const SOCKET_BUFFER: usize = 64 * 1024;
const FLOODS: u64 = 3;
const FLOOD: usize = 7_000_000;

/// Runs the program with each number of threads, and everything against it that it has to bear.
pub(crate) fn check(program: impl AsRef<Path>, threads: &[usize]) {
    for threads in threads {
        let server = Server::start(program.as_ref(), *threads);
        ping_pong(server.address);
        come_and_go(server.address);
        vanish(server.address);
        flood(server.address);
        ping_pong(server.address);
        server.end();
    }
}

pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    /// The lines it prints; disconnected when it has ended.
    output: Receiver<String>,
}

impl Server {
    pub(crate) fn start(program: &Path, threads: usize) -> Self {
        Self::start_with(program, threads, &[])
    }

    pub(crate) fn start_with(program: &Path, threads: usize, more: &[&OsStr]) -> Self {
        let mut child = Command::new(program)
            .args(["--listen", "127.0.0.1:0", "--threads", &threads.to_string()])
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        let (sender, output) = mpsc::channel();
        let stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        thread::spawn(move || {
            stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        // From here on, the server ends with this value.
        let mut server = Self { child, address: SocketAddr::from(([0; 4], 0)), output };
        let line = server.output.recv_timeout(DEADLINE).expect("the server says where it listens");
        let address = line.strip_prefix("listening on ").and_then(|text| text.parse().ok());
        server.address = address.unwrap_or_else(|| panic!("the server says {line:?}"));
        server
    }

    pub(crate) fn end(mut self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("the server runs");
        let ended = self.output.recv_timeout(DEADLINE);
        assert_eq!(ended, Err(RecvTimeoutError::Disconnected), "the server has not ended");
        let status = self.child.wait().expect("it is our child");
        let by_signal = status.signal() == Some(Signal::TERM.as_raw());
        assert!(by_signal || status.success(), "the server ended with {status}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(SOCKET_BUFFER).expect("a small buffer");
    socket.set_send_buffer_size(SOCKET_BUFFER).expect("a small buffer");
    socket.connect_timeout(&address.into(), DEADLINE).expect("the server accepts");
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true).expect("an option");
    stream.set_read_timeout(Some(DEADLINE)).expect("a time-out");
    stream.set_write_timeout(Some(DEADLINE)).expect("a time-out");
    stream
}

fn random_bytes(seed: u64, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    Rng::with_seed(seed).fill(&mut bytes);
    bytes
}

/// Receives what was sent, and nothing else.
fn expect(stream: &mut TcpStream, sent: &[u8]) {
    let mut buffer = vec![0; 64 * 1024];
    let mut done = 0;
    while done < sent.len() {
        let room = buffer.len().min(sent.len() - done);
        let count = stream.read(&mut buffer[..room]).expect("the server answers");
        assert_ne!(count, 0, "the server closed after {done} of {} bytes", sent.len());
        let right = buffer[..count] == sent[done..done + count];
        assert!(right, "wrong bytes between {done} and {} of {}", done + count, sent.len());
        done += count;
    }
}

fn shut_down(stream: &TcpStream) {
    stream.shutdown(Shutdown::Write).expect("the connection is open");
}

/// Receives the end of the stream, as our side has ended.
fn expect_end(mut stream: TcpStream) {
    let end = stream.read(&mut [0]).expect("the server ends the connection");
    assert_eq!(end, 0, "there are bytes after the last");
}

/// Messages of all sizes, from many connections at a time.
fn ping_pong(address: SocketAddr) {
    let mut streams: Vec<_> = (0..100).map(|_| connect(address)).collect();
    for (round, size) in [1, 64, 1_000, 1_001, 5_000, 64].into_iter().enumerate() {
        let seed = |index: usize| (round * streams.len() + index) as u64;
        let messages: Vec<_> =
            (0..streams.len()).map(|index| random_bytes(seed(index), size)).collect();
        for (stream, message) in streams.iter_mut().zip(&messages) {
            stream.write_all(message).expect("the server receives");
        }
        for (stream, message) in streams.iter_mut().zip(&messages) {
            expect(stream, message);
        }
    }
    streams.iter().for_each(shut_down);
    streams.into_iter().for_each(expect_end);
}

/// Connections of one message, which is followed by the end of the stream at once.
fn come_and_go(address: SocketAddr) {
    for seed in 0..300 {
        let mut stream = connect(address);
        let message = random_bytes(seed, 100);
        stream.write_all(&message).expect("the server receives");
        shut_down(&stream);
        expect(&mut stream, &message);
        expect_end(stream);
    }
}

/// Connections that are reset while the server has bytes for them that they never read.
fn vanish(address: SocketAddr) {
    for seed in 0..FLOODS {
        let stream = connect(address);
        fill(&stream, &random_bytes(seed, FLOOD));
    }
}

/// Connections that send as much as they can before they read anything, all at the same time.
fn flood(address: SocketAddr) {
    let blocked = thread::scope(|scope| {
        let flood = |seed| scope.spawn(move || flood_one(address, seed));
        let floods: Vec<_> = (0..FLOODS).map(flood).collect();
        let ends = floods.into_iter().map(|flood| flood.join().expect("the bytes come back"));
        ends.filter(|blocked| *blocked).count()
    });
    assert_ne!(blocked, 0, "the server took everything, and so never was blocked");
}

/// Whether it was blocked before it read.
fn flood_one(address: SocketAddr, seed: u64) -> bool {
    let bytes = random_bytes(seed, FLOOD);
    let mut stream = connect(address);
    let written = fill(&stream, &bytes);
    let mut writer = stream.try_clone().expect("a second handle");
    thread::scope(|scope| {
        scope.spawn(|| {
            writer.write_all(&bytes[written..]).expect("the server receives");
            shut_down(&writer);
        });
        expect(&mut stream, &bytes);
    });
    expect_end(stream);
    written < bytes.len()
}

/// Writes until nothing more is taken, and says how much was.
fn fill(mut stream: &TcpStream, bytes: &[u8]) -> usize {
    stream.set_write_timeout(Some(BLOCKED)).expect("a time-out");
    let mut written = 0;
    while written < bytes.len() {
        match stream.write(&bytes[written..]) {
            Ok(count) => written += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("the server does not receive: {error}"),
        }
    }
    stream.set_write_timeout(Some(DEADLINE)).expect("a time-out");
    written
}
