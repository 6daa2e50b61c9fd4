//! The PROXY protocol in front of TLS: its header is outside.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use millstream::tls::TlsServer;
use millstream::{
    Action, Address, CloseReason, Conn, Engine, EventHandler, Listen, ProxyHeader, ProxyVersion,
};

use super::authority::{Authority, connect, exchange, refused};
use crate::common::{DEADLINE, TestEngine, eventually, modes, pattern, receive};

/// The beginning of a record that is an alert.
const ALERT: u8 = 0x15;

/// Who a connection is from, when it opens, and which name it asked for.
type Seen = (Address, Option<String>);

/// Echoes, and tells what it saw.
struct Telling(Sender<Seen>);

impl EventHandler for Telling {
    type State = ();

    fn on_open(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        let name = conn.tls().and_then(|tls| tls.server_name().map(str::to_owned));
        let _ = self.0.send((conn.peer_addr(), name));
        Action::Continue
    }

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        conn.output.write(conn.input.take_all());
        Action::Continue
    }
}

fn start(
    builder: millstream::Builder,
    authority: &Authority,
    patience: Duration,
) -> (TestEngine, Receiver<Seen>) {
    let files = authority.files(&["localhost"]);
    let tls = TlsServer::builder().pem_files(files.chain, files.key);
    let tls = tls.handshake_timeout(patience).build().expect("it is right");
    let listen = Listen::from("127.0.0.1:0").proxy_protocol(DEADLINE, 536).tls(&tls);
    let (tell, seen) = channel();
    let start = TestEngine::start_exactly(builder.listen(listen), move |_| Telling(tell.clone()));
    (start, seen)
}

fn header(version: ProxyVersion) -> (Address, Vec<u8>) {
    let address = |text: &str| text.parse::<SocketAddr>().expect("it is an address").into();
    let (source, destination) = (address("192.0.2.7:50000"), address("198.51.100.1:443"));
    let mut bytes = Vec::new();
    let header = ProxyHeader { source, destination };
    header.write_to(version, &mut bytes).expect("a vector takes all");
    (source, bytes)
}

/// How what a client says first comes.
#[derive(Clone, Copy, Debug)]
enum Pieces {
    /// The header on its own.
    Apart,
    /// The header in one piece with the first record.
    Together,
    /// Byte by byte.
    Bytes,
}

/// A socket on which something comes before what the client says first.
struct Prefixed {
    stream: TcpStream,
    prefix: Vec<u8>,
    pieces: Pieces,
}

impl Write for Prefixed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.prefix.is_empty() {
            return self.stream.write(bytes);
        }
        let prefix = std::mem::take(&mut self.prefix);
        match self.pieces {
            Pieces::Apart => self.stream.write_all(&prefix).and(self.stream.write_all(bytes))?,
            Pieces::Together => self.stream.write_all(&[&prefix, bytes].concat())?,
            Pieces::Bytes => {
                let mut all = prefix.iter().chain(bytes);
                all.try_for_each(|byte| self.stream.write_all(&[*byte]))?;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Prefixed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer)
    }
}

#[test]
fn the_header_comes_outside_and_the_rest_is_encrypted() {
    let authority = Authority::new();
    for (mode, builder) in modes() {
        let (engine, seen) = start(builder, &authority, DEADLINE);
        for version in [ProxyVersion::V1, ProxyVersion::V2] {
            for pieces in [Pieces::Apart, Pieces::Together, Pieces::Bytes] {
                let (source, prefix) = header(version);
                let stream = engine.connect();
                stream.set_nodelay(true).expect("a socket has the option");
                let stream = Prefixed { stream, prefix, pieces };
                let mut client = connect(stream, authority.client(), "localhost");
                let bytes = pattern(100_000, 3);
                assert_eq!(exchange(&mut client, &bytes), bytes, "{mode} {version:?} {pieces:?}");
                assert_eq!(receive(&seen), (source, Some("localhost".to_owned())));
            }
        }
    }
}

#[test]
fn what_does_not_begin_with_a_header_or_has_no_tls_behind_it_is_refused() {
    let authority = Authority::new();
    let (engine, seen) = start(Engine::builder(), &authority, DEADLINE);
    let closed = |name: &str| {
        let reason = CloseReason::NAMES.iter().position(|known| *known == name);
        let reactors = engine.stats().reactors;
        reactors.iter().map(|stats| stats.closed[reason.expect("it is one")]).sum::<u64>()
    };
    // TLS without a header, and with the header inside of it.
    let mut client = connect(engine.connect(), authority.client(), "localhost");
    let sent = client.write_all(&header(ProxyVersion::V2).1).and_then(|()| client.read(&mut [0]));
    assert!(!matches!(sent, Ok(1..)), "{sent:?}");
    eventually("it is counted", || closed("proxy header") == 1);
    // A header, and then something else.
    let mut plain = engine.connect();
    let request = [&header(ProxyVersion::V1).1[..], b"hello, server\r\n"].concat();
    plain.write_all(&request).expect("it is sent");
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer); // By an end or by a reset.
    assert_eq!(answer.first(), Some(&ALERT), "{answer:?}");
    eventually("it is counted", || refused(&engine) == 1);
    assert!(seen.try_recv().is_err(), "no handler was told");
    // A header, and then nothing.
    let (engine, seen) = start(Engine::builder(), &authority, Duration::from_millis(300));
    let mut silent = engine.connect();
    silent.write_all(&header(ProxyVersion::V2).1).expect("it is sent");
    eventually("its time is over", || refused(&engine) == 1);
    assert!(seen.try_recv().is_err(), "no handler was told");
}
