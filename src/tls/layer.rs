//! A connection's TLS: rustls as a layer, in the form of its interface that has no buffers. Nothing
//! else here knows how rustls is driven.

use std::cell::RefCell;
use std::error::Error;
use std::io;
use std::mem;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use millstream_platform::memory::{OutputPool, OutputQueue};
use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::ServerName;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, InsufficientSizeError,
    UnbufferedStatus, WriteTraffic,
};
use rustls::{ClientConfig, CommonState, HandshakeKind, ServerConfig};

use super::noted::{self, Noted};
use crate::config::Layer;
use crate::log::limited;
use crate::unwind::catch;

/// How many bytes may have come of a record or a message that is not whole. A chain of certificates
/// takes some; who sends more wants something else. Records whose bytes are mostly padding, or
/// their own heads, would otherwise make a message of 64 KiB take a gigabyte.
const MOST_BEGUN: usize = 32 * 1024;
/// What a client gets that speaks plain HTTP: a person reads it who has forgotten an `s`.
const NO_HTTP: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\n\
    Content-Length: 34\r\nConnection: close\r\n\r\nThis port speaks TLS: use https.\r\n";
/// How many bytes a record may have more than what is sealed in it, in any version.
const OVERHEAD: usize = 64;
/// What a record begins with: its kind, a version, and the length of what follows.
const HEADER: usize = 5;
/// How much memory is kept for what has begun: of how many connections, and how large at most.
const SPARES: usize = 16;
const LARGEST_SPARE: usize = MOST_BEGUN;

thread_local! {
    /// Memory for what has begun, of connections whose records have all come whole since.
    static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// A connection's TLS.
pub(super) struct TlsLayer {
    side: Side,
    handshake_timeout: Duration,
    /// A client that speaks plain HTTP is told that it should not.
    explains_https: bool,
    /// The beginning of a record or a message that has not come whole. It takes no memory while
    /// there is none.
    begun: Vec<u8>,
    /// What was noted in the handshake.
    noted: Noted,
    ready: bool,
    /// The peer has said its end.
    ended: bool,
}

enum Side {
    Server(UnbufferedServerConnection),
    Client(UnbufferedClientConnection),
    /// It could not be made, or has panicked.
    Broken(rustls::Error),
}

impl TlsLayer {
    pub(super) fn server(
        config: Arc<ServerConfig>,
        handshake_timeout: Duration,
        explains_https: bool,
    ) -> Self {
        let side = UnbufferedServerConnection::new(config).map_or_else(Side::Broken, Side::Server);
        let layer = TlsLayer::new(side, Noted::default(), handshake_timeout);
        TlsLayer { explains_https, ..layer }
    }

    pub(super) fn client(
        config: Arc<ClientConfig>,
        name: &str,
        handshake_timeout: Duration,
    ) -> Self {
        let side = match ServerName::try_from(name.to_owned()) {
            Ok(name) => UnbufferedClientConnection::new(config, name),
            Err(_) => Err(rustls::Error::General(format!("{name:?} is no name of a server"))),
        };
        let side = side.map_or_else(Side::Broken, Side::Client);
        let noted = Noted { server_name: Some(name.into()), ..Noted::default() };
        TlsLayer::new(side, noted, handshake_timeout)
    }

    fn new(side: Side, noted: Noted, handshake_timeout: Duration) -> Self {
        TlsLayer {
            side,
            handshake_timeout,
            explains_https: false,
            begun: Vec::new(),
            noted,
            ready: false,
            ended: false,
        }
    }

    /// What the client asked for.
    pub(super) fn server_name(&self) -> Option<&str> {
        self.noted.server_name.as_deref()
    }

    /// What both sides know of the connection.
    pub(super) fn state(&self) -> Option<&CommonState> {
        match &self.side {
            Side::Server(connection) => Some(connection),
            Side::Client(connection) => Some(connection),
            Side::Broken(_) => None,
        }
    }

    /// Whether it is a server's to whom the client has said nothing yet.
    fn has_heard_nothing(&self) -> bool {
        matches!(&self.side, Side::Server(connection) if connection.protocol_version().is_none())
    }

    /// Does what is wanted, and returns how many bytes of the records it has used. What rustls
    /// refuses it has an alert for, which is written behind the rest.
    ///
    /// # Errors
    /// TLS has failed.
    fn run(
        &mut self,
        records: &mut [u8],
        wanted: &mut Wanted<'_>,
        output: &mut Records<'_>,
    ) -> (usize, io::Result<()>) {
        let (mut used, mut failed) = (0, None);
        loop {
            let has_alert = || self.state().is_some_and(CommonState::wants_write);
            if let Some(error) = failed.take_if(|_| !has_alert()) {
                return (used, Err(error)); // Asked for more, rustls would fail once more.
            }
            let rest = &mut records[used..]; // Also after it has failed: rustls looks there.
            let (discard, next) = match &mut self.side {
                Side::Server(connection) => {
                    advance(connection.process_tls_records(rest), wanted, output)
                }
                Side::Client(connection) => {
                    advance(connection.process_tls_records(rest), wanted, output)
                }
                Side::Broken(error) => (0, Err(io::Error::other(error.clone()))),
            };
            used += discard;
            match next {
                Ok(Next::Again) => {}
                // There is nothing more to be learnt, and to ask for it would take a while.
                Ok(Next::Opened)
                    if used == records.len() && matches!(wanted, Wanted::Received(_)) =>
                {
                    return (used, failed.map_or(Ok(()), Err));
                }
                Ok(Next::Opened) => {}
                Ok(Next::PeerEnded) => self.ended = true,
                Ok(Next::Done) => return (used, failed.map_or(Ok(()), Err)),
                Err(error) => failed = Some(failed.unwrap_or(error)),
            }
        }
    }

    /// The same. What a peer sends meets code here that is not ours: a panic breaks this connection
    /// alone.
    fn run_caught(
        &mut self,
        records: &mut [u8],
        wanted: &mut Wanted<'_>,
        output: &mut Records<'_>,
    ) -> (usize, io::Result<()>) {
        let len = records.len();
        catch(|| self.run(records, wanted, output)).unwrap_or_else(|_| {
            limited!(error, "rustls panicked, which ends the connection");
            let error = rustls::Error::General("it panicked".to_owned());
            self.side = Side::Broken(error.clone());
            (len, Err(io::Error::other(error)))
        })
    }

    /// The same with what has begun in place of records, which it takes what is used out of.
    fn run_begun(&mut self, wanted: &mut Wanted<'_>, output: &mut Records<'_>) -> io::Result<()> {
        if self.begun.is_empty() {
            return self.run_caught(&mut [], wanted, output).1;
        }
        let mut begun = mem::take(&mut self.begun);
        let (used, done) = self.run_caught(&mut begun, wanted, output);
        begun.drain(..used);
        if begun.is_empty() || self.ended {
            spare(begun); // Behind the end nothing is looked at.
        } else {
            self.begun = begun;
        }
        done
    }

    /// Opens what has come. What has begun gets no more of it than it lacks: the rest is opened
    /// where it is.
    fn open(
        &mut self,
        sealed: &mut [u8],
        wanted: &mut Wanted<'_>,
        output: &mut Records<'_>,
    ) -> io::Result<()> {
        let mut rest = sealed;
        while !self.begun.is_empty() && !rest.is_empty() && !self.ended {
            let room = MOST_BEGUN.saturating_sub(self.begun.len()).max(1);
            let (now, later) = rest.split_at_mut(missing(&self.begun).min(room).min(rest.len()));
            self.keep(now)?;
            rest = later;
            self.run_begun(wanted, output)?;
        }
        if !self.begun.is_empty() || self.ended {
            return Ok(());
        }
        let (used, opened) = self.run_caught(rest, wanted, output);
        opened?;
        if self.ended { Ok(()) } else { self.keep(&rest[used..]) }
    }

    /// Keeps what has begun, within bounds.
    fn keep(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let len = self.begun.len() + bytes.len();
        if len > MOST_BEGUN {
            return Err(invalid("a message is too long"));
        }
        if self.begun.is_empty() {
            self.begun = SPARE.with_borrow_mut(Vec::pop).unwrap_or_default();
        }
        if len > self.begun.capacity() {
            let room = len.max((2 * self.begun.capacity()).min(MOST_BEGUN));
            self.begun.reserve_exact(room - self.begun.len());
        }
        self.begun.extend_from_slice(bytes);
        Ok(())
    }
}

/// How many bytes are missing of the last record that has begun; any number, but not 0, once rustls
/// has moved the parts of a message together, over the headers between them.
fn missing(begun: &[u8]) -> usize {
    let mut end = 0;
    while let Some(header) = begun.get(end..end + HEADER) {
        end += HEADER + usize::from(u16::from_be_bytes([header[3], header[4]]));
        if end > begun.len() {
            return end - begun.len();
        }
    }
    end + HEADER - begun.len()
}

/// Keeps memory that is not used now, unless there is enough.
fn spare(mut memory: Vec<u8>) {
    memory.clear();
    SPARE.with_borrow_mut(|spares| {
        if spares.len() < SPARES && (1..=LARGEST_SPARE).contains(&memory.capacity()) {
            spares.push(memory);
        }
    });
}

impl Layer for TlsLayer {
    fn handshake_timeout(&self) -> Duration {
        self.handshake_timeout
    }

    fn begin(&mut self, queue: &mut OutputQueue, pool: &mut OutputPool) -> io::Result<()> {
        let mut plain = Vec::new();
        self.receive(&mut [], &mut plain, queue, pool).1
    }

    fn is_ready(&self) -> bool {
        self.ready
    }

    fn is_resumed(&self) -> bool {
        let kind = self.state().and_then(CommonState::handshake_kind);
        kind == Some(HandshakeKind::Resumed)
    }

    fn receive(
        &mut self,
        sealed: &mut [u8],
        plain: &mut Vec<u8>,
        queue: &mut OutputQueue,
        pool: &mut OutputPool,
    ) -> (Range<usize>, io::Result<()>) {
        if !self.ready {
            if self.explains_https && self.has_heard_nothing() {
                match is_http(&self.begun.iter().chain(&*sealed)) {
                    Some(true) => {
                        queue.append(NO_HTTP, pool);
                        return (0..0, Err(invalid("the client speaks plain HTTP")));
                    }
                    Some(false) => {}
                    None => return (0..0, self.keep(sealed)),
                }
            }
            noted::go_on(mem::take(&mut self.noted));
        }
        let (wanted, output) = (&mut Wanted::Received(plain), &mut Records { queue, pool });
        let received = self.open(sealed, wanted, output);
        if !self.ready {
            self.noted = noted::take();
            self.ready = self.state().is_some_and(|state| !state.is_handshaking());
        }
        (0..plain.len(), received)
    }

    fn held(&self) -> usize {
        self.begun.capacity()
    }

    fn has_ended(&self) -> bool {
        self.ended
    }

    fn receive_end(&mut self) -> io::Result<()> {
        if self.ended { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    fn seal(
        &mut self,
        plain: &[u8],
        queue: &mut OutputQueue,
        pool: &mut OutputPool,
    ) -> io::Result<()> {
        self.run_begun(&mut Wanted::Sealed(plain), &mut Records { queue, pool })
    }

    fn seal_end(&mut self, queue: &mut OutputQueue, pool: &mut OutputPool) {
        // A connection that is broken has no end to say.
        let _ = self.run_begun(&mut Wanted::End, &mut Records { queue, pool });
    }
}

/// What rustls is to do.
enum Wanted<'a> {
    /// Open what was received.
    Received(&'a mut Vec<u8>),
    /// Seal this.
    Sealed(&'a [u8]),
    /// Say our end.
    End,
}

/// What comes after a step.
enum Next {
    Again,
    /// The same, behind what is in a record.
    Opened,
    PeerEnded,
    Done,
}

/// Does the next step of what is wanted, and returns how many bytes that has used.
fn advance<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    wanted: &mut Wanted<'_>,
    output: &mut Records<'_>,
) -> (usize, io::Result<Next>) {
    let mut used = status.discard;
    let next = match status.state {
        Err(error) => Err(invalid(error)),
        Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
            match traffic.next_record() {
                Some(Ok(record)) => {
                    used += record.discard;
                    if let Wanted::Received(plain) = wanted {
                        plain.extend_from_slice(record.payload);
                    }
                }
                Some(Err(error)) => break Err(invalid(error)),
                None => break Ok(Next::Opened),
            }
        },
        Ok(ConnectionState::EncodeTlsData(data)) => output.encode(data).map(|()| Next::Again),
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done();
            Ok(Next::Again)
        }
        Ok(ConnectionState::PeerClosed) => Ok(Next::PeerEnded),
        Ok(ConnectionState::WriteTraffic(traffic)) => {
            output.write_traffic(traffic, wanted).map(|()| Next::Done)
        }
        // Early data is not accepted, and so does not come.
        Ok(_) => Ok(Next::Done),
    };
    (used, next)
}

fn invalid(error: impl Into<Box<dyn Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// Whether what came first is a request of plain HTTP; `None` while it may become one.
fn is_http<'a>(came: &(impl Iterator<Item = &'a u8> + Clone)) -> Option<bool> {
    let methods = ["GET ", "HEAD ", "POST ", "PUT ", "DELETE ", "OPTIONS ", "PATCH ", "CONNECT "];
    for method in methods {
        let begun = came.clone().take(method.len());
        let alike = begun.clone().zip(method.as_bytes()).take_while(|(a, b)| a == b).count();
        if alike == method.len() {
            return Some(true);
        }
        if alike > 0 && alike == begun.count() {
            return None;
        }
    }
    Some(false)
}

/// Where records go that are written.
struct Records<'a> {
    queue: &'a mut OutputQueue,
    pool: &'a mut OutputPool,
}

impl Records<'_> {
    fn encode<Data>(&mut self, mut data: EncodeTlsData<'_, Data>) -> io::Result<()> {
        self.write(OVERHEAD, |room| match data.encode(room) {
            Ok(len) => Ok(len),
            Err(EncodeError::InsufficientSize(size)) => Err(size.into()),
            Err(EncodeError::AlreadyEncoded) => Ok(0),
        })
    }

    fn write_traffic<Data>(
        &mut self,
        mut traffic: WriteTraffic<'_, Data>,
        wanted: &Wanted<'_>,
    ) -> io::Result<()> {
        match wanted {
            Wanted::Received(_) => Ok(()),
            Wanted::Sealed(plain) => {
                self.write(plain.len() + OVERHEAD, |room| traffic.encrypt(plain, room))
            }
            Wanted::End => self.write(OVERHEAD, |room| traffic.queue_close_notify(room)),
        }
    }

    /// Writes into this much room, or as much as it says then that it needs.
    fn write(
        &mut self,
        mut room: usize,
        mut write: impl FnMut(&mut [u8]) -> Result<usize, EncryptError>,
    ) -> io::Result<()> {
        loop {
            let mut failed = None;
            self.queue.fill(room, self.pool, |room| {
                write(room).unwrap_or_else(|error| {
                    failed = Some(error);
                    0
                })
            });
            match failed {
                None => return Ok(()),
                Some(EncryptError::InsufficientSize(InsufficientSizeError { required_size }))
                    if required_size > room =>
                {
                    room = required_size;
                }
                Some(error) => return Err(io::Error::other(error)),
            }
        }
    }
}
