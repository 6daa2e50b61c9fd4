//! The loads: one thread with all clients of a server.

use std::error::Error;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use mio::event::Source;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

/// No response is waited for longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is asked of a server.
pub(crate) struct Load {
    pub(crate) name: &'static str,
    connections: usize,
    /// How many requests a client sends at once; when all are answered, it sends as many again.
    in_flight: usize,
    request: Request,
}

enum Request {
    Plaintext,
    Json,
    /// Sends a content of this many bytes, which comes back.
    Post(usize),
}

pub(crate) const LOADS: [Load; 6] = [
    Load { name: "50", connections: 50, in_flight: 1, request: Request::Plaintext },
    Load { name: "1000", connections: 1_000, in_flight: 1, request: Request::Plaintext },
    Load { name: "50, 16 in flight", connections: 50, in_flight: 16, request: Request::Plaintext },
    Load { name: "50, JSON", connections: 50, in_flight: 1, request: Request::Json },
    Load { name: "50, POST 1 KiB", connections: 50, in_flight: 1, request: Request::Post(1_024) },
    Load { name: "50, POST 16 KiB", connections: 50, in_flight: 1, request: Request::Post(16_384) },
];

impl Request {
    fn bytes(&self) -> Vec<u8> {
        match *self {
            Request::Plaintext => request("GET /plaintext", ""),
            Request::Json => request("GET /json", ""),
            Request::Post(size) => request("POST /echo", &"x".repeat(size)),
        }
    }

    fn content(&self) -> Vec<u8> {
        match *self {
            Request::Plaintext => b"Hello, World!".to_vec(),
            Request::Json => br#"{"message":"Hello, World!"}"#.to_vec(),
            Request::Post(size) => vec![b'x'; size],
        }
    }
}

/// What a usual client sends.
fn request(line: &str, content: &str) -> Vec<u8> {
    let length = match content.len() {
        0 => String::new(),
        length => format!("Content-Length: {length}\r\n"),
    };
    let fields = "Host: localhost:8080\r\nUser-Agent: load\r\nAccept: */*\r\n";
    format!("{line} HTTP/1.1\r\n{fields}{length}\r\n{content}").into_bytes()
}

/// How all responses of a server to a request are.
struct Expected {
    length: usize,
    content: Vec<u8>,
}

struct Client {
    stream: TcpStream,
    /// A part of a response that has come.
    part: Vec<u8>,
    /// What of the last requests is still to be sent.
    unsent: usize,
    /// How many responses are to come.
    waits: usize,
    sent: Instant,
}

/// Connections to one server under a load.
pub(crate) struct HttpClients {
    load: &'static Load,
    poll: Poll,
    events: Events,
    room: Vec<u8>,
    clients: Vec<Client>,
    requests: Vec<u8>,
    expected: Expected,
    /// From a client's sending to each of its responses, in microseconds.
    pub(crate) latencies: Histogram<u64>,
}

impl HttpClients {
    /// Connects all clients, and looks at the first response.
    pub(crate) fn start(load: &'static Load, address: SocketAddr) -> Result<Self, Box<dyn Error>> {
        let expected = Expected::of(&load.request, address)?;
        let poll = Poll::new()?;
        let mut clients = Vec::with_capacity(load.connections);
        for token in 0..load.connections {
            let mut stream = TcpStream::from_std(connect(address)?);
            let interest = Interest::READABLE | Interest::WRITABLE;
            stream.register(poll.registry(), Token(token), interest)?;
            let (part, sent) = (Vec::new(), Instant::now());
            clients.push(Client { stream, part, unsent: 0, waits: 0, sent });
        }
        let requests = load.request.bytes().repeat(load.in_flight);
        let (events, room) = (Events::with_capacity(1_024), vec![0; 1024 * 1024]);
        let latencies = Histogram::new_with_bounds(1, 60_000_000, 2)?;
        Ok(HttpClients { load, poll, events, room, clients, requests, expected, latencies })
    }

    /// Sends requests for this long, and waits for the responses to all of them. Returns how many
    /// there were.
    pub(crate) fn run(&mut self, time: Duration) -> Result<usize, Box<dyn Error>> {
        let end = Instant::now() + time;
        let (mut responses, mut busy) = (0, self.clients.len());
        for client in &mut self.clients {
            client.send(&self.requests, self.load.in_flight)?;
        }
        while busy > 0 {
            self.poll.poll(&mut self.events, Some(PATIENCE))?;
            if self.events.is_empty() {
                return Err(format!("nothing came for {PATIENCE:?}").into());
            }
            for event in &self.events {
                let client = &mut self.clients[event.token().0];
                client.flush(&self.requests)?;
                let count = client.receive(&mut self.room, &self.expected)?;
                if count == 0 {
                    continue;
                }
                responses += count;
                let now = Instant::now();
                let microseconds = now.duration_since(client.sent).as_micros() as u64;
                self.latencies.saturating_record_n(microseconds, count as u64);
                match client.waits {
                    0 if now < end => client.send(&self.requests, self.load.in_flight)?,
                    0 => busy -= 1,
                    _ => {}
                }
            }
        }
        Ok(responses)
    }
}

impl Client {
    fn send(&mut self, requests: &[u8], count: usize) -> io::Result<()> {
        (self.unsent, self.waits, self.sent) = (requests.len(), count, Instant::now());
        self.flush(requests)
    }

    fn flush(&mut self, requests: &[u8]) -> io::Result<()> {
        while self.unsent > 0 {
            match self.stream.write(&requests[requests.len() - self.unsent..]) {
                Ok(count) => self.unsent -= count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Receives what there is; returns how many responses that were.
    fn receive(&mut self, room: &mut [u8], expected: &Expected) -> Result<usize, Box<dyn Error>> {
        let mut responses = 0;
        while self.waits > 0 {
            let count = match self.stream.read(room) {
                Ok(0) => return Err("the server closed a connection".into()),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            };
            let taken = if self.part.is_empty() {
                let taken = expected.check(&room[..count])?;
                self.part.extend_from_slice(&room[taken * expected.length..count]);
                taken
            } else {
                self.part.extend_from_slice(&room[..count]);
                let taken = expected.check(&self.part)?;
                self.part.drain(..taken * expected.length);
                taken
            };
            self.waits = self.waits.checked_sub(taken).ok_or("more came than was asked for")?;
            responses += taken;
        }
        Ok(responses)
    }
}

impl Expected {
    /// The first response, from a connection of its own.
    fn of(request: &Request, address: SocketAddr) -> Result<Self, Box<dyn Error>> {
        let mut stream = connect(address)?;
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(&request.bytes())?;
        let (mut came, mut room, content) = (Vec::new(), [0; 64 * 1024], request.content());
        loop {
            let count = stream.read(&mut room)?;
            came.extend_from_slice(&room[..count]);
            if count == 0 {
                return Err(format!("the server says {}", came.escape_ascii()).into());
            }
            let mut fields = [httparse::EMPTY_HEADER; 32];
            let mut response = httparse::Response::new(&mut fields);
            let httparse::Status::Complete(head) = response.parse(&came)? else { continue };
            let is_length =
                |field: &&httparse::Header<'_>| field.name.eq_ignore_ascii_case("content-length");
            let length = response.headers.iter().find(is_length).ok_or("no length is said")?;
            let length: usize = str::from_utf8(length.value)?.parse()?;
            if came.len() >= head + length {
                let expected = Expected { length: head + length, content };
                return match expected.check(&came)? {
                    1 => Ok(expected),
                    _ => Err("more came than was asked for".into()),
                };
            }
        }
    }

    /// How many responses `bytes` begin with; each must be as it should.
    fn check(&self, bytes: &[u8]) -> Result<usize, Box<dyn Error>> {
        let responses = bytes.chunks_exact(self.length);
        let count = responses.len();
        for response in responses {
            if !response.starts_with(b"HTTP/1.1 200 ") || !response.ends_with(&self.content) {
                return Err(format!("the server says {}", response.escape_ascii()).into());
            }
        }
        Ok(count)
    }
}

fn connect(address: SocketAddr) -> io::Result<std::net::TcpStream> {
    let stream = std::net::TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    Ok(stream)
}

/// Connections that were served once, and then say nothing.
pub(crate) fn idle(
    count: usize,
    address: SocketAddr,
) -> Result<Vec<std::net::TcpStream>, Box<dyn Error>> {
    let request = Request::Plaintext;
    let expected = Expected::of(&request, address)?;
    let mut streams = Vec::with_capacity(count);
    for _ in 0..count {
        let mut stream = connect(address)?;
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(&request.bytes())?;
        stream.read_exact(&mut vec![0; expected.length])?;
        streams.push(stream);
    }
    Ok(streams)
}
