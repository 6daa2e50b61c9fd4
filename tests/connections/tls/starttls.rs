//! TLS that begins on an open connection, in both roles: a server for mail and its clients, on
//! loopback, on the simulated network, and from other libraries.

use std::io::{Read, Write};
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use millstream::sim::{Faults, SimPeer, Simulation};
use millstream::tls::{TlsClient, TlsServer};
use millstream::{
    Action, CloseReason, Conn, Connect, Engine, EventHandler, HandshakeError, Reactors,
};
use rustls::ClientConnection;

use super::authority::{Authority, connect};
use super::peers::{first_line, has};
use crate::common::seeds::for_each_seed;
use crate::common::{TestEngine, assert_same, pattern, read_exactly, receive};

const TIMEOUT: Duration = Duration::from_secs(3);

/// Serves mail, and as a client asks for TLS.
struct Mail {
    server: TlsServer,
    client: TlsClient,
    tell: Sender<Told>,
    /// What the server says in the callback in which the handshake begins.
    meanwhile: Vec<u8>,
}

#[derive(Debug, PartialEq, Eq)]
enum Told {
    /// A line that came to the client, and whether it came through TLS.
    Line(String, bool),
    Close {
        outgoing: bool,
        reason: String,
    },
}

#[derive(Default)]
struct Session {
    /// What is read comes through TLS.
    secure: bool,
}

impl Mail {
    fn new(
        authority: &Authority,
        meanwhile: Vec<u8>,
    ) -> (impl Fn() -> Self + use<>, Receiver<Told>) {
        let files = authority.files(&["localhost"]);
        let server = TlsServer::builder().pem_files(files.chain, files.key);
        let server = server.handshake_timeout(TIMEOUT).build().unwrap();
        let client = TlsClient::builder().authorities_file(authority.file()).build().unwrap();
        let (tell, told) = channel();
        let make = move || Mail {
            server: server.clone(),
            client: client.clone(),
            tell: tell.clone(),
            meanwhile: meanwhile.clone(),
        };
        (make, told)
    }

    fn serve(&self, conn: &mut Conn<'_, Self>, line: &[u8]) -> Action {
        match line {
            b"STARTTLS\r\n" => {
                conn.output.write(b"220 go ahead\r\n");
                let started = conn.start_tls(&self.server);
                conn.output.write(&self.meanwhile);
                started.into()
            }
            b"QUIT\r\n" => {
                conn.output.write(b"221 bye\r\n");
                Action::Close
            }
            _ if conn.state.secure => {
                conn.output.write(b"250 secure\r\n");
                Action::Continue
            }
            _ => {
                conn.output.write(b"250-plain\r\n250 STARTTLS\r\n");
                Action::Continue
            }
        }
    }

    fn ask(&self, conn: &mut Conn<'_, Self>, line: &[u8]) -> Action {
        let text = String::from_utf8_lossy(line).trim_end().to_owned();
        let _ = self.tell.send(Told::Line(text, conn.state.secure)); // The test may have ended.
        match line {
            b"220 mail\r\n" => conn.output.write(b"STARTTLS\r\n"),
            b"220 go ahead\r\n" => return conn.start_tls_to(&self.client, "localhost").into(),
            b"250 secure\r\n" => conn.output.write(b"QUIT\r\n"),
            _ => {}
        }
        Action::Continue
    }
}

impl EventHandler for Mail {
    type State = Session;

    fn on_open(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        if !conn.is_outgoing() {
            conn.output.write(b"220 mail\r\n");
        }
        Action::Continue
    }

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        while let Some(line) = conn.input.take_through(b"\r\n") {
            let action = match conn.is_outgoing() {
                true => self.ask(conn, line),
                false => self.serve(conn, line),
            };
            if action != Action::Continue {
                return action;
            }
        }
        Action::Continue
    }

    fn on_tls(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        assert!(conn.tls().is_some_and(|tls| tls.version().is_some()));
        conn.state.secure = true;
        if conn.is_outgoing() {
            conn.output.write(b"NOOP\r\n");
        }
        Action::Continue
    }

    fn on_close(&mut self, conn: &mut Conn<'_, Self>, reason: &CloseReason) {
        let _ = self
            .tell
            .send(Told::Close { outgoing: conn.is_outgoing(), reason: reason.to_string() });
    }
}

fn start(authority: &Authority) -> (TestEngine, Receiver<Told>) {
    let (make, told) = Mail::new(authority, Vec::new());
    (TestEngine::start(Engine::builder().reactors(1), move |_| make()), told)
}

fn simulate(
    authority: &Authority,
    seed: u64,
    faults: Faults,
    meanwhile: Vec<u8>,
) -> (Simulation<Mail>, Receiver<Told>) {
    let (make, told) = Mail::new(authority, meanwhile);
    let builder = Engine::builder().water_marks(0, 1000);
    (Simulation::new(seed, faults, builder, make()).expect("it starts"), told)
}

fn visit(reactors: &Reactors<Mail>, address: std::net::SocketAddr) {
    let connected =
        |_: &mut Mail,
         _: &mut millstream::Reactor<'_, Mail>,
         connected: Result<&mut Conn<'_, Mail>, _>| { connected.map(|_| ()).into() };
    reactors.connect(0, Connect::to(address), connected).expect("it runs");
}

fn line(text: &str, secure: bool) -> Told {
    Told::Line(text.to_owned(), secure)
}

fn closed(outgoing: bool, reason: &str) -> Told {
    Told::Close { outgoing, reason: reason.to_owned() }
}

/// What a client is told that asks for TLS and gets it.
fn whole_visit() -> Vec<Told> {
    let told = [("220 mail", false), ("220 go ahead", false), ("250 secure", true)];
    told.map(|(text, secure)| line(text, secure))
        .into_iter()
        .chain([line("221 bye", true)])
        .collect()
}

#[test]
fn an_engine_talks_to_itself() {
    let authority = Authority::new();
    let (engine, told) = start(&authority);
    visit(&engine.reactors().unwrap(), engine.address());
    for expected in whole_visit() {
        assert_eq!(receive(&told), expected);
    }
    let mut ends = [receive(&told), receive(&told)];
    ends.sort_by_key(|told| *told == closed(true, "peer"));
    assert_eq!(ends, [closed(false, "local"), closed(true, "peer")]);
}

#[test]
fn an_engine_talks_to_itself_on_a_bad_network() {
    let authority = Authority::new();
    for_each_seed(20, |seed| {
        let (mut simulation, told) = simulate(&authority, seed, Faults::harmless(), Vec::new());
        visit(&simulation.engine().reactors().unwrap(), ([10, 0, 0, 1], 7000).into());
        simulation.run(TIMEOUT);
        let mut all: Vec<Told> = told.try_iter().collect();
        let ends = all.split_off(all.len() - 2);
        assert_eq!(all, whole_visit());
        assert!(ends.contains(&closed(false, "local")) && ends.contains(&closed(true, "peer")));
    });
}

/// A client of rustls on the simulated network.
struct Client {
    peer: SimPeer,
    tls: ClientConnection,
}

impl Client {
    /// Asks for TLS.
    fn asks(simulation: &mut Simulation<Mail>, authority: &Authority) -> Self {
        let mut peer = simulation.connect().expect("it listens");
        assert_eq!(simulation.receive_exact(&mut peer, 10).unwrap(), b"220 mail\r\n");
        let name = "localhost".try_into().unwrap();
        let tls = ClientConnection::new(Arc::new(authority.client()), name).unwrap();
        Client { peer, tls }
    }

    /// What rustls wants to send.
    fn records(&mut self) -> Vec<u8> {
        let mut records = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut records).unwrap();
        }
        records
    }

    /// Sends what there is to send, byte by byte if `bytewise`, and receives this many bytes
    /// through TLS.
    fn receive(
        &mut self,
        simulation: &mut Simulation<Mail>,
        len: usize,
        bytewise: bool,
    ) -> Vec<u8> {
        let mut plain = Vec::new();
        let end = simulation.now() + 2 * TIMEOUT;
        while plain.len() < len {
            assert!(simulation.now() < end, "{} of {len} bytes came", plain.len());
            let records = self.records();
            for piece in records.chunks(if bytewise { 1 } else { usize::MAX }) {
                simulation.send_all(&mut self.peer, piece).unwrap();
                simulation.run(Duration::from_millis(1));
            }
            assert!(simulation.run(Duration::from_millis(1)), "the engine has ended");
            let mut received = &self.peer.receive()[..];
            while !received.is_empty() {
                self.tls.read_tls(&mut received).unwrap();
                let state = self.tls.process_new_packets().unwrap();
                let mut more = vec![0; state.plaintext_bytes_to_read()];
                self.tls.reader().read_exact(&mut more).unwrap();
                plain.extend(more);
            }
        }
        plain
    }
}

/// The first flight comes with the request, and what the server wrote meanwhile, above the
/// high-water mark, behind the handshake.
#[test]
fn a_handshake_comes_in_one_piece_with_the_request_or_in_single_bytes() {
    let authority = Authority::new();
    let meanwhile = pattern(100_000, 1);
    for bytewise in [false, true] {
        let (mut simulation, _told) = simulate(&authority, 0, Faults::none(), meanwhile.clone());
        let mut client = Client::asks(&mut simulation, &authority);
        let first = [&b"STARTTLS\r\n"[..], &client.records()].concat();
        for piece in first.chunks(if bytewise { 1 } else { usize::MAX }) {
            simulation.send_all(&mut client.peer, piece).unwrap();
            simulation.run(Duration::from_millis(1));
        }
        let reply = simulation.receive_exact(&mut client.peer, 14).unwrap();
        assert_eq!(reply, b"220 go ahead\r\n");
        client.tls.writer().write_all(b"NOOP\r\n").unwrap();
        let received = client.receive(&mut simulation, meanwhile.len() + 12, bytewise);
        assert_same(&received, &[&meanwhile[..], b"250 secure\r\n"].concat());
    }
}

/// CVE-2011-0411: what anyone in between has put behind the request would be taken for what the
/// client says in TLS. What looks like HTTP is no reason to speak that here.
#[test]
fn commands_that_are_put_behind_the_request_are_not_served() {
    let authority = Authority::new();
    for evil in ["NOOP\r\n", "CONNECT {}\r\n", "GET / HTTP/1.1\r\n\r\n"] {
        let held = b"250 held\r\n".to_vec();
        let (mut simulation, told) = simulate(&authority, 0, Faults::none(), held);
        let mut client = Client::asks(&mut simulation, &authority);
        let injected = [b"STARTTLS\r\n", evil.as_bytes(), &client.records()].concat();
        simulation.send_all(&mut client.peer, &injected).unwrap();
        let received = simulation.receive_to_end(&mut client.peer).unwrap();
        let alert = received.strip_prefix(b"220 go ahead\r\n").expect("it is plain");
        assert_eq!((alert[0], alert.len()), (0x15, 7), "an alert and nothing else: {alert:?}");
        drop(client);
        simulation.run(TIMEOUT);
        let Ok(Told::Close { reason, .. }) = told.try_recv() else { panic!("it closes") };
        assert!(reason.starts_with("handshake: "), "{reason}");
    }
}

/// The same on the other side: a reply that anyone has put behind the server's.
#[test]
fn replies_that_are_put_behind_the_servers_are_not_heard() {
    let authority = Authority::new();
    let (mut simulation, told) = simulate(&authority, 0, Faults::none(), Vec::new());
    let address = ([10, 0, 0, 2], 25).into();
    let listener = simulation.listen(address).unwrap();
    visit(&simulation.engine().reactors().unwrap(), address);
    let mut peer = None;
    simulation.run_until(TIMEOUT, || {
        peer = listener.accept();
        peer.is_some()
    });
    let mut peer = peer.expect("it connects");
    simulation.send_all(&mut peer, b"220 mail\r\n").unwrap();
    assert_eq!(simulation.receive_exact(&mut peer, 10).unwrap(), b"STARTTLS\r\n");
    simulation.send_all(&mut peer, b"220 go ahead\r\n250 evil\r\n").unwrap();
    let received = simulation.receive_to_end(&mut peer).unwrap();
    assert_eq!(received[0], 0x16, "its hello, then an alert");
    assert_eq!(received[received.len() - 7], 0x15, "{received:?}");
    drop(peer);
    simulation.run(TIMEOUT);
    let mut all: Vec<Told> = told.try_iter().collect();
    let Some(Told::Close { reason, .. }) = all.pop() else { panic!("it closes") };
    assert!(reason.starts_with("handshake: "), "{reason}");
    assert_eq!(all, [line("220 mail", false), line("220 go ahead", false)]);
}

#[test]
fn who_leaves_or_is_silent_in_the_handshake_is_gone() {
    let authority = Authority::new();
    for len in [0, 1, 5, 100] {
        for leaves in [true, false] {
            let (mut simulation, told) = simulate(&authority, 0, Faults::none(), Vec::new());
            let mut client = Client::asks(&mut simulation, &authority);
            let hello = client.records();
            let asks = [&b"STARTTLS\r\n"[..], &hello[..len]].concat();
            simulation.send_all(&mut client.peer, &asks).unwrap();
            simulation.receive_exact(&mut client.peer, 14).unwrap();
            let begun = simulation.now();
            if leaves {
                client.peer.shutdown();
            }
            simulation.run_until(2 * TIMEOUT, || client.peer.ended() || client.peer.was_reset());
            let why = if leaves { HandshakeError::Ended } else { HandshakeError::TimedOut };
            let took = simulation.now() - begun;
            assert_eq!(took >= TIMEOUT - Duration::from_millis(10), !leaves, "{took:?}");
            simulation.run(TIMEOUT);
            let reason = CloseReason::Handshake(why).to_string();
            assert_eq!(told.try_recv(), Ok(closed(false, &reason)));
        }
    }
}

#[test]
fn python_and_openssl_ask_for_tls() {
    let authority = Authority::new();
    let (engine, _told) = start(&authority);
    let (port, file) = (engine.address().port().to_string(), authority.file());
    if has("python3") {
        let mut python = Command::new("timeout");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/connections/tls/starttls.py");
        python.args(["60", "python3", script, &port]).arg(&file);
        let output = python.output().expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    if has("openssl") {
        let mut openssl = Command::new("timeout");
        openssl.args(["60", "openssl", "s_client", "-starttls", "smtp", "-quiet", "-crlf"]);
        openssl.args(["-verify_return_error", "-verify_hostname", "localhost"]);
        openssl.args(["-connect", &format!("127.0.0.1:{port}"), "-CAfile"]).arg(&file);
        assert_eq!(first_line(openssl), "250 secure\r\n");
    }
}

/// A client that speaks nothing else than what its protocol says, on loopback.
#[test]
fn a_client_with_a_certificate_of_another_name_is_told() {
    let authority = Authority::new();
    let (engine, told) = start(&authority);
    let mut stream = engine.connect();
    stream.write_all(b"STARTTLS\r\n").unwrap();
    assert_eq!(read_exactly(&mut stream, 24), b"220 mail\r\n220 go ahead\r\n");
    let mut client = connect(stream, authority.client(), "another.name");
    client.write_all(b"NOOP\r\n").and_then(|()| client.flush()).expect_err("another name");
    drop(client);
    let Told::Close { reason, .. } = receive(&told) else { panic!("it closes") };
    assert!(reason.starts_with("handshake: ") && reason.contains("alert"), "{reason}");
}
