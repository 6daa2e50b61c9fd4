//! Several clients of a server, of which some may wait.

use std::collections::BTreeMap;
use std::time::Instant;

use super::client::{Client, encode, is_message};
use super::programs::Server;
use crate::common::{DEADLINE, eventually};

/// The clients of a server, and one more that asks how many of them wait.
pub struct Clients {
    clients: Vec<Client>,
    asks: Client,
    /// Who has not got its reply.
    pending: Vec<usize>,
}

impl Clients {
    /// This many clients. There are no others by then, which wait, listen or show commands: those
    /// of the test before are gone also for the server, which may learn it later than they do.
    pub fn connect(server: &Server, count: usize) -> Self {
        let clients = (0..count).map(|_| Client::connect(server.address)).collect();
        let asks = Client::connect(server.address);
        let mut clients = Clients { clients, asks, pending: Vec::new() };
        eventually("others are gone", || clients.figure("connected_clients") == count + 1);
        clients
    }

    pub fn of(&mut self, client: usize) -> &mut Client {
        &mut self.clients[client]
    }

    pub fn is_waiting(&self, client: usize) -> bool {
        self.pending.contains(&client)
    }

    pub fn send(&mut self, client: usize, bytes: &[u8]) {
        self.clients[client].send(bytes);
        self.pending.push(client);
    }

    /// The reply of a client, when it comes.
    pub fn last_reply(&mut self, client: usize) -> Vec<u8> {
        self.pending.retain(|pending| *pending != client);
        self.clients[client].reply()
    }

    /// The replies that come now, and whose they are: all but those of clients that wait. Messages
    /// that came to a client before are in front of its reply.
    pub fn replies(&mut self) -> BTreeMap<usize, Vec<u8>> {
        let mut replies = BTreeMap::<usize, Vec<u8>>::new();
        let began = Instant::now();
        loop {
            let before = self.pending.len();
            self.pending.retain(|client| {
                while let Some(reply) = self.clients[*client].reply_if_there() {
                    replies.entry(*client).or_default().extend_from_slice(&reply);
                    if !is_message(&reply) {
                        return false;
                    }
                }
                true
            });
            // Replies are looked for first: one that comes later is missed here, and waited for.
            if self.pending.is_empty() || before == self.pending.len() && before == self.blocked() {
                return replies;
            }
            assert!(began.elapsed() < DEADLINE, "{:?} have no reply", self.pending);
        }
    }

    /// How many clients of the server wait.
    fn blocked(&mut self) -> usize {
        self.figure("blocked_clients")
    }

    fn figure(&mut self, name: &str) -> usize {
        self.asks.send(&encode(&[b"INFO", b"clients"]));
        let info = String::from_utf8(self.asks.reply()).expect("it is text");
        let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|number| number.parse().ok()).expect("a number of clients")
    }
}
