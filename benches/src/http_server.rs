//! A hand-written server of HTTP/1.1 for the loop on epoll: httparse, a buffer that all connections
//! share, and one `recv` and one `send` for all requests that came at once.
//!
//! It is the limit that servers are compared with, so it does what each of them must: it takes
//! requests in pieces, knows their lengths, closes when asked to and says the date; and no more.

use std::cell::RefCell;
use std::io::{self, ErrorKind, Read, Write};
use std::mem::MaybeUninit;
use std::net::TcpStream;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use crate::echo::{Ready, retry};
use crate::epoll_server::EpollConnection;

/// How many fields a request may have.
const FIELDS: usize = 64;
/// How much of a request may wait for its rest.
const LONGEST: usize = 64 * 1024;

const NOT_FOUND: &[u8] = b"404 Not Found";
const OK: &[u8] = b"200 OK";

/// What all connections of a loop share.
#[derive(Debug)]
pub struct Responses {
    /// Those that are being made.
    bytes: Vec<u8>,
    date: String,
    date_until: Instant,
}

/// A connection to it.
#[derive(Debug)]
pub struct HttpConnection {
    stream: TcpStream,
    /// The beginning of a request.
    unread: Vec<u8>,
    unsent: Vec<u8>,
    is_last: bool,
    responses: Rc<RefCell<Responses>>,
}

impl Responses {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Rc<RefCell<Self>> {
        let responses = Self { bytes: Vec::new(), date: String::new(), date_until: Instant::now() };
        Rc::new(RefCell::new(responses))
    }

    fn look_at_clock(&mut self) {
        let now = Instant::now();
        if now >= self.date_until {
            self.date = httpdate::fmt_http_date(SystemTime::now());
            self.date_until = now + Duration::from_millis(500);
        }
    }

    fn add(&mut self, status: &[u8], kind: &str, body: &[u8]) {
        let Self { bytes, date, .. } = self;
        bytes.extend_from_slice(b"HTTP/1.1 ");
        bytes.extend_from_slice(status);
        bytes.extend_from_slice(b"\r\nContent-Type: ");
        bytes.extend_from_slice(kind.as_bytes());
        bytes.extend_from_slice(b"\r\nDate: ");
        bytes.extend_from_slice(date.as_bytes());
        bytes.extend_from_slice(b"\r\nContent-Length: ");
        bytes.extend_from_slice(itoa::Buffer::new().format(body.len()).as_bytes());
        bytes.extend_from_slice(b"\r\n\r\n");
        bytes.extend_from_slice(body);
    }

    /// Responds to the first request of `bytes`; returns how long it is, if it is whole, and
    /// whether it is the last.
    fn respond(&mut self, bytes: &[u8]) -> io::Result<Option<(usize, bool)>> {
        let mut fields = [const { MaybeUninit::uninit() }; FIELDS];
        let mut request = httparse::Request::new(&mut []);
        let parsed = request.parse_with_uninit_headers(bytes, &mut fields);
        let parsed = parsed.map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
        let httparse::Status::Complete(head) = parsed else { return Ok(None) };
        let (mut length, mut is_last) = (0, request.version == Some(0));
        for field in request.headers.iter() {
            match field.name.len() {
                14 if field.name.eq_ignore_ascii_case("content-length") => {
                    let value = str::from_utf8(field.value).ok().and_then(|it| it.parse().ok());
                    length = value.filter(|length| *length <= LONGEST).ok_or_else(invalid)?;
                }
                10 if field.name.eq_ignore_ascii_case("connection") => {
                    is_last = field.value.eq_ignore_ascii_case(b"close");
                }
                17 if field.name.eq_ignore_ascii_case("transfer-encoding") => {
                    return Err(invalid());
                }
                _ => {}
            }
        }
        let Some(body) = bytes.get(head..head + length) else { return Ok(None) };
        match (request.method, request.path) {
            (Some("GET"), Some("/plaintext")) => self.add(OK, "text/plain", b"Hello, World!"),
            (Some("GET"), Some("/json")) => {
                self.add(OK, "application/json", br#"{"message":"Hello, World!"}"#);
            }
            (Some("POST"), Some("/echo")) => self.add(OK, "application/octet-stream", body),
            _ => self.add(NOT_FOUND, "text/plain", b""),
        }
        Ok(Some((head + length, is_last)))
    }
}

fn invalid() -> io::Error {
    ErrorKind::InvalidData.into()
}

impl HttpConnection {
    /// Takes over a non-blocking `stream`.
    pub fn new(stream: TcpStream, responses: Rc<RefCell<Responses>>) -> Self {
        Self { stream, unread: Vec::new(), unsent: Vec::new(), is_last: false, responses }
    }

    /// Responds to what came, behind what was left of it the last time.
    fn serve(&mut self, came: &[u8]) -> io::Result<()> {
        let mut kept = std::mem::take(&mut self.unread);
        let bytes = if kept.is_empty() {
            came
        } else {
            kept.extend_from_slice(came);
            &kept
        };
        let responses = Rc::clone(&self.responses);
        let mut responses = responses.borrow_mut();
        responses.bytes.clear();
        responses.look_at_clock();
        let mut taken = 0;
        while taken < bytes.len() && !self.is_last {
            let Some((length, is_last)) = responses.respond(&bytes[taken..])? else { break };
            taken += length;
            self.is_last = is_last;
        }
        if bytes.len() - taken > 2 * LONGEST {
            return Err(invalid());
        }
        self.unread = bytes[taken..].to_vec();
        self.send(&responses.bytes)
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let sent = match bytes {
            [] => 0,
            bytes => retry(|| self.stream.write(bytes))?.unwrap_or(0),
        };
        self.unsent.extend_from_slice(&bytes[sent..]);
        Ok(())
    }

    /// False if the socket is full.
    fn flush(&mut self) -> io::Result<bool> {
        while !self.unsent.is_empty() {
            match retry(|| self.stream.write(&self.unsent))? {
                Some(sent) => drop(self.unsent.drain(..sent)),
                None => return Ok(false),
            }
        }
        self.unsent = Vec::new();
        Ok(true)
    }
}

impl EpollConnection for HttpConnection {
    fn ready(&mut self, event: Ready, buffer: &mut [u8]) -> io::Result<bool> {
        let was_blocked = !self.unsent.is_empty();
        if was_blocked && !self.flush()? {
            return Ok(true);
        }
        if !(was_blocked || event.readable) {
            return Ok(true);
        }
        loop {
            let count = match retry(|| self.stream.read(buffer))? {
                None => return Ok(true),
                Some(0) => return Ok(false),
                Some(count) => count,
            };
            self.serve(&buffer[..count])?;
            if !self.unsent.is_empty() {
                return Ok(true);
            }
            if self.is_last {
                return Ok(false);
            }
            if count < buffer.len() && !event.read_closed {
                return Ok(true);
            }
        }
    }
}
