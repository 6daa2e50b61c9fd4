//! A plain client.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use millstream::codec::Codec;
use millstream::codec::resp::{Reply, RespClient};
use millstream::{Input, OutputBuffer};

use crate::common::DEADLINE;

pub struct Client {
    pub stream: TcpStream,
    codec: RespClient,
    unread: Vec<u8>,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&address, DEADLINE).expect("it accepts");
        stream.set_read_timeout(Some(DEADLINE)).expect("a socket has timeouts");
        stream.set_write_timeout(Some(DEADLINE)).expect("a socket has timeouts");
        stream.set_nodelay(true).expect("a socket has the option");
        Client { stream, codec: RespClient::new(), unread: Vec::new() }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("it reads");
    }

    /// The next reply, as it was encoded.
    pub fn reply(&mut self) -> Vec<u8> {
        loop {
            let mut input = Input::from(&self.unread[..]);
            if self.codec.decode(&mut input).expect("a reply").is_some() {
                let taken = input.taken();
                return self.unread.drain(..taken).collect();
            }
            let mut room = [0; 65_536];
            let count = self.stream.read(&mut room).expect("it answers in time");
            assert!(
                count > 0,
                "it closed in front of {:?}",
                self.unread.escape_ascii().to_string()
            );
            self.unread.extend_from_slice(&room[..count]);
        }
    }

    /// Sends a command of words, and returns the reply as text, with its ends of lines as `|`.
    pub fn ask(&mut self, command: &str) -> String {
        let words: Vec<&[u8]> = command.split(' ').map(str::as_bytes).collect();
        self.send(&encode(&words));
        text(&self.reply())
    }
}

pub fn encode(words: &[&[u8]]) -> Vec<u8> {
    let mut buffer = OutputBuffer::new();
    RespClient::new().encode(words, &mut buffer.output()).expect("a command");
    buffer.take()
}

pub fn text(reply: &[u8]) -> String {
    reply.escape_ascii().to_string().replace("\\r\\n", "|")
}

/// The integer that a reply is.
pub fn number(reply: &[u8]) -> i64 {
    match Reply::split_first(reply) {
        Some((Reply::Integer(number), _)) => number,
        _ => panic!("no integer: {}", text(reply)),
    }
}

/// The same for a reply whose elements come in any order; those of a map stay together.
pub fn unordered(reply: &[u8], pairs: bool) -> String {
    let Some((reply, _)) = Reply::split_first(reply) else { panic!("no reply") };
    let (elements, pairs) = match &reply {
        Reply::Array(elements) | Reply::Set(elements) => (elements.clone(), pairs),
        Reply::Map(elements) => (elements.clone(), true),
        other => return format!("{other:?}"),
    };
    let elements: Vec<String> = elements.map(|element| format!("{element:?}")).collect();
    let mut groups: Vec<&[String]> = elements.chunks(if pairs { 2 } else { 1 }).collect();
    groups.sort_unstable();
    format!("{reply:?}{groups:?}")
}
