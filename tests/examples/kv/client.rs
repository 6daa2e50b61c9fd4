//! A plain client.

use std::io::{Read, Write};

use millstream::codec::Codec;
use millstream::codec::resp::{Reply, RespClient};
use millstream::{Input, OutputBuffer};

use crate::common::wire::{self, Place};

pub struct Client {
    pub stream: wire::Client,
    codec: RespClient,
    unread: Vec<u8>,
}

impl Client {
    pub fn connect(place: Place) -> Self {
        let stream = place.connect();
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

    /// The next reply, if it is there.
    pub fn reply_if_there(&mut self) -> Option<Vec<u8>> {
        self.stream.socket().set_nonblocking(true).expect("a socket has the option");
        let mut room = [0; 65_536];
        while let Ok(count @ 1..) = self.stream.read(&mut room) {
            self.unread.extend_from_slice(&room[..count]);
        }
        self.stream.socket().set_nonblocking(false).expect("a socket has the option");
        let mut input = Input::from(&self.unread[..]);
        self.codec.decode(&mut input).expect("a reply").is_some().then(|| self.reply())
    }

    /// Sends a command of words, and returns the reply as text, with its ends of lines as `|`.
    pub fn ask(&mut self, words: &str) -> String {
        self.send(&command(words));
        text(&self.reply())
    }
}

/// A command of words.
pub fn command(words: &str) -> Vec<u8> {
    encode(&words.split(' ').map(str::as_bytes).collect::<Vec<_>>())
}

pub fn encode(words: &[&[u8]]) -> Vec<u8> {
    let mut buffer = OutputBuffer::new();
    RespClient::new().encode(words, &mut buffer.output()).expect("a command");
    buffer.take()
}

pub fn text(reply: &[u8]) -> String {
    reply.escape_ascii().to_string().replace("\\r\\n", "|")
}

/// Whether it is a message to somebody who listens, and no reply.
pub fn is_message(reply: &[u8]) -> bool {
    let Some((Reply::Array(mut parts) | Reply::Push(mut parts), _)) = Reply::split_first(reply)
    else {
        return false;
    };
    matches!(parts.next(), Some(Reply::Bulk(b"message" | b"pmessage")))
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
