//! A plain client, which speaks the protocol as text.

use std::io::{BufRead, BufReader, Read, Write};

use crate::common::connect;
use crate::common::wire::{self, Place};

/// The options of a client that is told nothing but what it asks for.
pub const QUIET: &str = "\"verbose\":false,\"pedantic\":false";
/// The same, with all that newer clients can.
pub const MODERN: &str =
    "\"verbose\":false,\"pedantic\":false,\"headers\":true,\"no_responders\":true,\"protocol\":1";

pub struct Client {
    pub stream: wire::Client,
    pub info: String,
    unread: Vec<u8>,
}

impl Client {
    /// Connects, and says nothing yet. INFO is plain; TLS begins behind it.
    pub fn silent(place: Place) -> Self {
        let (stream, mut info) = (connect(place.address), String::new());
        let mut one_by_one = BufReader::with_capacity(1, &stream);
        one_by_one.read_line(&mut info).expect("it says what it is");
        let stream = wire::Client::new(stream, place.wire.client());
        Client { stream, info, unread: Vec::new() }
    }

    /// Connects with these options.
    pub fn with(place: Place, options: &str) -> Self {
        let mut client = Client::silent(place);
        client.send(format!("CONNECT {{{options}}}\r\n"));
        client
    }

    pub fn connect(place: Place) -> Self {
        Client::with(place, QUIET)
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("it reads");
    }

    /// Reads more; returns whether the server has not ended its side.
    fn read(&mut self) -> bool {
        let mut room = [0; 65_536];
        match self.stream.read(&mut room) {
            Ok(count) => {
                self.unread.extend_from_slice(&room[..count]);
                count > 0
            }
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => false,
            Err(error) => panic!("{error}, after {}", self.unread.escape_ascii()),
        }
    }

    /// The next line, with its end.
    pub fn line(&mut self) -> String {
        loop {
            if let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                return self.unread.drain(..=end).map(char::from).collect();
            }
            assert!(self.read(), "it closed after {}", self.unread.escape_ascii());
        }
    }

    /// Takes exactly these bytes.
    pub fn expect(&mut self, bytes: impl AsRef<[u8]>) {
        let expected = bytes.as_ref();
        while self.unread.len() < expected.len() && self.read() {}
        let count = expected.len().min(self.unread.len());
        let got: Vec<u8> = self.unread.drain(..count).collect();
        assert!(got == expected, "{} instead of {}", text(&got), text(expected));
    }

    /// All that comes before the reply to a PING.
    pub fn flush(&mut self) -> String {
        self.send("PING\r\n");
        while !self.unread.ends_with(b"PONG\r\n") {
            assert!(self.read(), "it closed after {}", text(&self.unread));
        }
        let said = std::mem::take(&mut self.unread);
        text(&said[..said.len() - b"PONG\r\n".len()])
    }

    /// Sends this, and returns what comes before the reply to a PING behind it.
    pub fn ask(&mut self, bytes: impl AsRef<[u8]>) -> String {
        self.send(bytes);
        self.flush()
    }

    /// All that comes until the server ends its side.
    pub fn rest(&mut self) -> String {
        while self.read() {}
        text(&std::mem::take(&mut self.unread))
    }
}

/// Bytes as text, with ends of lines as `|`.
pub fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string().replace("\\r\\n", "|").replace("\\'", "'")
}
