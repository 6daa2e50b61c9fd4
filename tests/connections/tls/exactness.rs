//! What holds on plain connections holds with TLS: ends, deadlines, marks, relays, requests of
//! other threads, limits; and what differs.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use millstream::sim::{Faults, Simulation};
use millstream::tls::TlsServer;
use millstream::{
    Action, Builder, CloseReason, Conn, DetachError, Engine, EventHandler, Listen, ReactorAction,
    Remote,
};
use rustls::{ClientConnection, StreamOwned};

use super::authority::{Authority, Client, connect, exchange};
use crate::common::{
    TestEngine, assert_same, eventually, pattern, read_exactly, read_to_end, receive,
};

/// More than one read and one record, less than what the system keeps.
const MUCH: usize = 300_000;

/// Does what the first byte of the input says, and tells what happens.
#[derive(Clone)]
struct Server {
    tell: Sender<Told>,
    tls: TlsServer,
    /// The first of two that are to be relayed to each other.
    first: Arc<Mutex<Option<Remote<Server>>>>,
    bytes: Bytes,
}

enum Told {
    Open(Remote<Server>),
    HighWater(usize),
    LowWater(usize),
    End(Vec<u8>),
    Detach(DetachError),
    Close(String),
}

impl Server {
    fn tell(&self, told: Told) {
        let _ = self.tell.send(told); // The test may have seen enough.
    }

    fn relay(&self, conn: &mut Conn<'_, Self>) -> Action {
        let Some(first) = self.first.lock().unwrap().take() else {
            *self.first.lock().unwrap() = Some(conn.remote());
            conn.pause_reading(); // Until the other one is there.
            return Action::Continue;
        };
        let second = conn.remote();
        conn.relay_to(&first).expect("there is one reactor");
        first.run(move |_, conn| conn.relay_to(&second).into()).into()
    }
}

impl EventHandler for Server {
    type State = Vec<u8>;

    fn on_open(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        self.tell(Told::Open(conn.remote()));
        Action::Continue
    }

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        let unread = conn.input.peek();
        match (conn.state.is_empty(), unread.first()) {
            (true, Some(b'e')) => {
                conn.state.push(b'e');
                conn.output.write(conn.input.take_all());
            }
            (true, Some(b'r')) => {
                conn.input.skip(1);
                return self.relay(conn);
            }
            (true, Some(b's')) => {
                conn.output.write(b"the last word");
                conn.shutdown();
                conn.state.extend_from_slice(conn.input.take_all());
            }
            (true, Some(b'w' | b'c')) => {
                conn.output.write_bytes(self.bytes.clone());
                if conn.input.take_all() == b"c" {
                    return Action::Close;
                }
            }
            (true, Some(b'd')) => {
                conn.input.take_all();
                let error = conn.detach(|_, _, _| ReactorAction::Continue).expect_err("TLS stays");
                self.tell(Told::Detach(error));
            }
            (true, Some(b'p')) => {
                conn.pause_reading();
                conn.state.extend_from_slice(conn.input.take_all());
            }
            _ if conn.state == b"e" => conn.output.write(conn.input.take_all()),
            _ => conn.state.extend_from_slice(conn.input.take_all()),
        }
        Action::Continue
    }

    fn on_high_water(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        self.tell(Told::HighWater(conn.output.pending()));
        Action::Continue
    }

    fn on_low_water(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        self.tell(Told::LowWater(conn.output.pending()));
        Action::Continue
    }

    fn on_end(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        self.tell(Told::End(std::mem::take(conn.state)));
        Action::Close
    }

    fn on_close(&mut self, _conn: &mut Conn<'_, Self>, reason: &CloseReason) {
        self.tell(Told::Close(reason.to_string()));
    }
}

/// An engine with one reactor that listens with TLS first, then without, and who is behind it.
struct Stage {
    engine: TestEngine,
    authority: Authority,
    told: Receiver<Told>,
}

impl Stage {
    fn new(builder: Builder, bytes: Bytes) -> Self {
        let authority = Authority::new();
        let files = authority.files(&["localhost"]);
        let tls = TlsServer::from_pem_files(files.chain, files.key).unwrap();
        let listen = Listen::from("127.0.0.1:0").tls(&tls);
        let (tell, told) = channel();
        let server = Server { tell, tls, first: Arc::default(), bytes };
        let builder = builder.reactors(1).listen(listen);
        let engine = TestEngine::start(builder, move |_| server.clone());
        Stage { engine, authority, told }
    }

    fn tcp(&self, listener: usize) -> TcpStream {
        let stream = TcpStream::connect(self.engine.addresses()[listener]).expect("it accepts");
        stream.set_read_timeout(Some(crate::common::DEADLINE)).expect("a socket has timeouts");
        stream.set_write_timeout(Some(crate::common::DEADLINE)).expect("a socket has timeouts");
        stream
    }

    /// A client with TLS, once its handshake is over.
    fn client(&self) -> Client {
        let mut client = connect(self.tcp(0), self.authority.client(), "localhost");
        client.flush().expect("they shake hands");
        while client.conn.is_handshaking() {
            client.conn.complete_io(&mut client.sock).expect("they shake hands");
        }
        client
    }

    #[track_caller]
    fn opened(&self) -> Remote<Server> {
        let Told::Open(remote) = receive(&self.told) else { panic!("it opens") };
        remote
    }

    #[track_caller]
    fn closed(&self, reason: &str) {
        loop {
            if let Told::Close(why) = receive(&self.told) {
                return assert_eq!(why, reason);
            }
        }
    }
}

/// Ends the client's side in TLS alone; the socket's stays open.
fn end(client: &mut Client) {
    client.conn.send_close_notify();
    client.flush().expect("it is sent");
}

#[test]
fn an_echo_arrives_whole_after_a_half_close() {
    let stage = Stage::new(Engine::builder(), Bytes::new());
    let mut client = stage.client();
    let bytes = [b"e", &pattern(MUCH, 1)[..]].concat();
    client.write_all(&bytes).unwrap();
    end(&mut client);
    assert_same(&read_to_end(&mut client), &bytes);
    drop(client);
    stage.closed("peer");
}

#[test]
fn what_comes_after_our_half_close_arrives_whole() {
    let stage = Stage::new(Engine::builder(), Bytes::new());
    let mut client = stage.client();
    client.write_all(b"s").unwrap();
    assert_eq!(read_to_end(&mut client), b"the last word", "and the end is said");
    let bytes = pattern(MUCH, 2);
    client.write_all(&bytes).unwrap();
    end(&mut client);
    stage.opened();
    let Told::End(received) = receive(&stage.told) else { panic!("it ends") };
    assert_same(&received[1..], &bytes);
    stage.closed("peer");
}

#[test]
fn all_is_flushed_before_our_end_is_said() {
    let bytes = Bytes::from(pattern(4 << 20, 3));
    let stage = Stage::new(Engine::builder(), bytes.clone());
    let mut client = stage.client();
    client.write_all(b"c").unwrap();
    assert_same(&read_to_end(&mut client), &bytes);
    drop(client);
    stage.closed("local");
    drop(stage);
    assert!(bytes.is_unique(), "no reference is left");
}

/// A stop says it as well.
#[test]
fn a_stop_and_an_idle_timeout_say_our_end() {
    let stage = Stage::new(Engine::builder(), Bytes::new());
    let mut client = stage.client();
    stage.opened();
    stage.engine.stop(Duration::from_secs(10)).unwrap();
    assert_eq!(read_to_end(&mut client), b"");
    drop(client);
    stage.closed("shutdown");

    let builder = Engine::builder().idle_timeout(Duration::from_millis(50));
    let stage = Stage::new(builder, Bytes::new());
    let mut client = stage.client();
    assert_eq!(read_to_end(&mut client), b"");
    drop(client);
    stage.closed("idle timeout");
}

#[test]
fn deadlines_of_reading_and_writing_come() {
    let soon = Duration::from_millis(50);
    let stage = Stage::new(Engine::builder().read_timeout(soon), Bytes::new());
    let client = stage.client();
    stage.closed("read timeout");
    drop(client);

    let much = Bytes::from(vec![7; 32 << 20]);
    let builder = Engine::builder().write_timeout(soon).output_cap(64 << 20);
    let stage = Stage::new(builder, much);
    let mut client = stage.client();
    client.write_all(b"w").unwrap();
    stage.closed("write timeout");
    let error = client.read_to_end(&mut Vec::new()).expect_err("a part is not the whole");
    assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof));
}

/// The marks count what the handler wrote, and what waits sealed is little besides.
#[test]
fn marks_count_plain_bytes_and_sealed_ones_are_few() {
    let bytes = Bytes::from(pattern(16 << 20, 4));
    let builder = Engine::builder().water_marks(0, 1 << 20).output_cap(32 << 20);
    let stage = Stage::new(builder, bytes.clone());
    let mut client = stage.client();
    client.write_all(b"w").unwrap();
    stage.opened();
    let Told::HighWater(pending) = receive(&stage.told) else { panic!("it is above the mark") };
    assert!(pending <= bytes.len() && pending > bytes.len() / 2, "{pending} bytes are pending");
    let held = stage.engine.stats().reactors[0].memory_held;
    assert!(held < bytes.len() + (1 << 20), "{held} bytes are held");
    assert_same(&read_exactly(&mut client, bytes.len()), &bytes);
    let Told::LowWater(pending) = receive(&stage.told) else { panic!("it is at the low mark") };
    assert_eq!(pending, 0);
    end(&mut client);
    stage.closed("peer");
}

#[test]
fn what_comes_while_reading_is_paused_is_read_afterwards() {
    let stage = Stage::new(Engine::builder(), Bytes::new());
    let mut client = stage.client();
    client.write_all(b"p").unwrap();
    let remote = stage.opened();
    client.write_all(&pattern(100_000, 5)).unwrap();
    end(&mut client);
    let (tell, told) = channel();
    let resume = move |_: &mut Server, conn: &mut Conn<'_, Server>| {
        let _ = tell.send((conn.is_reading_paused(), conn.state.len()));
        conn.resume_reading();
        Action::Continue
    };
    eventually("it is paused", || {
        let (tell, told) = channel();
        let ask = move |_: &mut Server, conn: &mut Conn<'_, Server>| {
            let _ = tell.send(conn.is_reading_paused());
            Action::Continue
        };
        remote.run(ask).expect("it is open");
        receive(&told)
    });
    remote.run(resume).expect("it is open");
    let (paused, before) = receive(&told);
    assert!(paused && before < 100_000);
    let Told::End(received) = receive(&stage.told) else { panic!("it ends") };
    assert_same(&received[1..], &pattern(100_000, 5));
    stage.closed("peer");
}

#[test]
fn other_threads_write_in_their_order() {
    let stage = Stage::new(Engine::builder(), Bytes::new());
    let mut client = stage.client();
    let remote = stage.opened();
    let (threads, lines) = (4, 500);
    let writers = (0..threads).map(|thread| {
        let remote = remote.clone();
        thread::spawn(move || {
            for line in 0..lines {
                remote.write(format!("{thread} {line:05}\n").into_bytes()).expect("it is open");
            }
        })
    });
    writers.collect::<Vec<_>>().into_iter().for_each(|writer| writer.join().unwrap());
    let received = read_exactly(&mut client, threads * lines * 8);
    let received = String::from_utf8(received).unwrap();
    for thread in 0..threads {
        let prefix = format!("{thread} ");
        let of_thread = received.lines().filter_map(|line| line.strip_prefix(&prefix));
        assert!(of_thread.eq((0..lines).map(|line| format!("{line:05}"))));
    }
    end(&mut client);
    stage.closed("peer");
}

/// A client with or without TLS.
enum Either {
    Tls(Box<Client>),
    Plain(TcpStream),
}

impl Either {
    fn exchange(&mut self, other: &mut Either, bytes: &[u8]) {
        self.stream().write_all(bytes).unwrap();
        assert_same(&read_exactly(&mut other.stream(), bytes.len()), bytes);
    }

    fn stream(&mut self) -> &mut dyn ReadWrite {
        match self {
            Either::Tls(client) => &mut **client,
            Either::Plain(stream) => stream,
        }
    }

    fn end(&mut self) {
        match self {
            Either::Tls(client) => end(client),
            Either::Plain(stream) => stream.shutdown(Shutdown::Write).unwrap(),
        }
    }
}

trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}

#[test]
fn connections_with_tls_and_without_are_relayed_to_each_other() {
    let stage = Stage::new(Engine::builder(), Bytes::new());
    let either = |tls: bool| match tls {
        true => Either::Tls(Box::new(stage.client())),
        false => Either::Plain(stage.tcp(1)),
    };
    for tls in [[true, true], [true, false], [false, true], [false, false]] {
        let mut sides = tls.map(|tls| {
            let mut side = either(tls);
            side.stream().write_all(b"r").unwrap();
            stage.opened();
            side
        });
        let [one, two] = &mut sides;
        for seed in 0..3 {
            one.exchange(two, &pattern(MUCH, seed));
            two.exchange(one, &pattern(MUCH, seed + 10));
        }
        one.end();
        assert_eq!(read_to_end(&mut two.stream()), b"", "{tls:?}: the end is relayed");
        two.exchange(one, &pattern(MUCH, 20));
        two.end();
        assert_eq!(read_to_end(&mut one.stream()), b"");
        stage.closed("peer");
        stage.closed("peer");
    }
}

#[test]
fn it_is_not_detached_and_says_why() {
    let stage = Stage::new(Engine::builder(), Bytes::new());
    let mut client = stage.client();
    stage.opened();
    client.write_all(b"d").unwrap();
    let Told::Detach(error) = receive(&stage.told) else { panic!("it is asked") };
    assert_eq!(error, DetachError::Tls);
    assert!(error.to_string().contains("TLS"), "{error}");
    assert_eq!(exchange(&mut client, b"e"), b"e", "it goes on");
    end(&mut client);
    stage.closed("peer");
}

/// A socket that was made elsewhere gets TLS by a call.
#[test]
fn an_adopted_socket_begins_tls() {
    let stage = Stage::new(Engine::builder(), Bytes::new());
    let (ours, theirs) = UnixStream::pair().unwrap();
    let adopted =
        |server: &mut Server,
         _: &mut millstream::Reactor<'_, Server>,
         adopted: Result<&mut Conn<'_, Server>, millstream::AdoptError>| {
            adopted.expect("it is adopted").start_tls(&server.tls).into()
        };
    stage.engine.reactors::<Server>().unwrap().adopt(0, theirs, adopted).unwrap();
    ours.set_read_timeout(Some(crate::common::DEADLINE)).unwrap();
    let name = "localhost".try_into().unwrap();
    let tls = ClientConnection::new(Arc::new(stage.authority.client()), name).unwrap();
    let mut client = StreamOwned::new(tls, ours);
    client.write_all(b"echo").unwrap();
    assert_eq!(read_exactly(&mut client, 4), b"echo");
    client.conn.send_close_notify();
    client.flush().unwrap();
    assert_eq!(read_to_end(&mut client), b"");
    stage.closed("peer");
}

/// Counts the bytes on the network.
struct Counting {
    stream: TcpStream,
    received: u64,
    sent: u64,
}

impl Read for Counting {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let len = self.stream.read(buffer)?;
        self.received += len as u64;
        Ok(len)
    }
}

impl Write for Counting {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let len = self.stream.write(bytes)?;
        self.sent += len as u64;
        Ok(len)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.stream.flush()
    }
}

#[test]
fn statistics_count_what_is_on_the_network() {
    let stage = Stage::new(Engine::builder(), Bytes::new());
    let name = "localhost".try_into().unwrap();
    let tls = ClientConnection::new(Arc::new(stage.authority.client()), name).unwrap();
    let counting = Counting { stream: stage.tcp(0), received: 0, sent: 0 };
    let mut client = StreamOwned::new(tls, counting);
    client.write_all(&[b'e'; 100_000]).unwrap();
    client.conn.send_close_notify();
    client.flush().unwrap();
    assert_eq!(read_to_end(&mut client).len(), 100_000);
    drop(client.sock.stream.shutdown(Shutdown::Write));
    stage.closed("peer");
    let stats = stage.engine.stats();
    let of_engine = (stats.reactors[0].bytes_in, stats.reactors[0].bytes_out);
    assert_eq!(of_engine, (client.sock.sent, client.sock.received));
    assert!(client.sock.sent > 100_000);
}

#[test]
fn a_handshake_counts_against_the_limit_of_connections() {
    let stage = Stage::new(Engine::builder().max_connections(1), Bytes::new());
    let silent = stage.tcp(0);
    eventually("it is there", || stage.engine.connections() == 1);
    let mut refused = stage.tcp(0);
    let read = refused.read(&mut [0]);
    assert!(matches!(read, Ok(0)) || read.is_err_and(|e| e.kind() == ErrorKind::ConnectionReset));
    drop(silent);
    eventually("its place is free", || stage.engine.connections() == 0);
    let mut client = stage.client();
    assert_eq!(exchange(&mut client, b"e"), b"e");
    end(&mut client);
    stage.closed("peer");
}

/// Takes a turn whenever it can.
struct Wakes(Arc<Mutex<usize>>);

impl EventHandler for Wakes {
    type State = ();

    fn on_open(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        conn.wake();
        Action::Continue
    }

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        conn.input.take_all();
        *self.0.lock().unwrap() += 1;
        conn.wake();
        Action::Continue
    }
}

/// However many handshakes wait, a turn has no more than its share of them, and an established
/// connection has its turn between. In turns, so the machine's speed doesn't count.
#[test]
fn established_connections_have_their_turns_while_many_shake_hands() {
    const HANDSHAKES: usize = 200;
    const MOST_IN_A_TURN: u64 = 64;
    let authority = Authority::new();
    let files = authority.files(&["localhost"]);
    let tls = TlsServer::from_pem_files(files.chain, files.key).unwrap();
    let wakes = Arc::default();
    let builder = millstream::internals::with_tls(Engine::builder(), &tls);
    let handler = Wakes(Arc::clone(&wakes));
    let mut simulation = Simulation::new(0, Faults::none(), builder, handler).expect("it starts");
    let config = Arc::new(authority.client());
    let hello = || {
        let name = "localhost".try_into().unwrap();
        let mut tls = ClientConnection::new(Arc::clone(&config), name).unwrap();
        let mut records = Vec::new();
        tls.write_tls(&mut records).unwrap();
        (tls, records)
    };
    let mut established = simulation.connect().unwrap();
    let (mut client, records) = hello();
    established.send(&records).unwrap();
    while *wakes.lock().unwrap() == 0 {
        simulation.turn(Duration::from_millis(1));
        client.read_tls(&mut &established.receive()[..]).unwrap();
        client.process_new_packets().unwrap();
        let mut records = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut records).unwrap();
        }
        established.send(&records).unwrap();
    }
    let mut peers: Vec<_> = (0..HANDSHAKES).map(|_| simulation.connect().unwrap()).collect();
    let (_, records) = hello();
    peers.iter_mut().for_each(|peer| assert_eq!(peer.send(&records).unwrap(), records.len()));
    let read = |simulation: &Simulation<Wakes>| simulation.engine().stats().reactors[0].messages_in;
    let (before, woken) = (read(&simulation), *wakes.lock().unwrap());
    let mut last = before;
    let mut turns = 0;
    while last < before + HANDSHAKES as u64 {
        simulation.turn(Duration::from_millis(1));
        let now = read(&simulation);
        assert!(now - last <= MOST_IN_A_TURN, "{} handshakes in a turn", now - last);
        turns += usize::from(now > last);
        last = now;
        assert!(turns < HANDSHAKES, "{} of them were read", now - before);
    }
    let woken = *wakes.lock().unwrap() - woken;
    assert!(turns >= HANDSHAKES / MOST_IN_A_TURN as usize, "{turns} turns");
    assert!(woken >= turns - 1, "the established one had {woken} of {turns} turns");
    simulation.stop(Duration::ZERO).unwrap();
}
