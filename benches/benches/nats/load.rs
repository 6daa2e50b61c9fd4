//! The loads: one thread with all publishers and subscribers.

use std::error::Error;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::{Events, Poll};

use super::client::{Client, PATIENCE};

/// How many idle connections are made to see what they take.
pub(crate) const IDLE: usize = 2_000;
/// How many messages of a publisher are on their way at a time: enough that it is not the waking of
/// the server that is measured.
const PIPELINE: usize = 100;
/// The same with one subscriber and no other publisher.
const LONG_PIPELINE: usize = 1_000;

/// What is asked of a server.
pub(crate) struct Load {
    pub(crate) name: &'static str,
    kind: Kind,
    /// The bytes of a message.
    size: usize,
}

impl Load {
    /// How many messages of a publisher are on their way at a time.
    fn pipeline(&self) -> usize {
        match self.kind {
            Kind::Publish { publishers: 1, subscribers: 1 } => LONG_PIPELINE,
            _ => PIPELINE,
        }
    }
}

enum Kind {
    /// Each publisher has its own subject, with this many subscribers.
    Publish { publishers: usize, subscribers: usize },
    /// A client has this many requests at a service in flight.
    Request { in_flight: usize },
}

const fn publish(name: &'static str, publishers: usize, subscribers: usize, size: usize) -> Load {
    Load { name, kind: Kind::Publish { publishers, subscribers }, size }
}

const fn request(name: &'static str, in_flight: usize) -> Load {
    Load { name, kind: Kind::Request { in_flight }, size: 64 }
}

pub(crate) const LOADS: [Load; 10] = [
    publish("1 to 1, 64 B", 1, 1, 64),
    publish("1 to 50, 64 B", 1, 50, 64),
    publish("1 to 1000, 64 B", 1, 1_000, 64),
    publish("50 to 50, 64 B", 50, 1, 64),
    publish("1 to 1, 1 KiB", 1, 1, 1_024),
    publish("1 to 50, 1 KiB", 1, 50, 1_024),
    publish("1 to 1000, 1 KiB", 1, 1_000, 1_024),
    publish("50 to 50, 1 KiB", 50, 1, 1_024),
    request("1 request", 1),
    request("50 requests", 50),
];

/// Connections under a load.
pub(crate) struct Traffic {
    load: &'static Load,
    poll: Poll,
    events: Events,
    room: Vec<u8>,
    clients: Vec<Client>,
    /// What a publisher sends at a time.
    batch: Vec<Vec<u8>>,
    /// How many requests were made.
    requests: usize,
}

impl Traffic {
    /// Connects all clients. Publishers come first, each followed by its subscribers; a requesting
    /// client is followed by its service.
    pub(crate) fn start(load: &'static Load, address: SocketAddr) -> Result<Self, Box<dyn Error>> {
        let (mut clients, mut batch) = (Vec::new(), Vec::new());
        let payload = "x".repeat(load.size);
        match load.kind {
            Kind::Publish { publishers, subscribers } => {
                for publisher in 0..publishers {
                    let message = format!("PUB subject.{publisher} {}\r\n{payload}\r\n", load.size);
                    batch.push(message.repeat(load.pipeline()).into_bytes());
                    clients.push(Client::connect(address, "")?);
                    for _ in 0..subscribers {
                        let operation = format!("SUB subject.{publisher} 1\r\n");
                        clients.push(Client::connect(address, &operation)?);
                    }
                }
            }
            Kind::Request { .. } => {
                clients.push(Client::connect(address, "SUB _INBOX.client.* 1\r\n")?);
                clients.push(Client::connect(address, "SUB service 1\r\n")?);
            }
        }
        let poll = Poll::new()?;
        for (token, client) in clients.iter_mut().enumerate() {
            client.register(poll.registry(), token)?;
        }
        let (events, room) = (Events::with_capacity(1_024), vec![0; 1024 * 1024]);
        Ok(Traffic { load, poll, events, room, clients, batch, requests: 0 })
    }

    /// Runs for this long, and until all is there that was sent. Returns how many messages
    /// subscribers got, and in what time.
    pub(crate) fn run(&mut self, time: Duration) -> Result<(usize, Duration), Box<dyn Error>> {
        let begin = Instant::now();
        let before = self.received();
        match self.load.kind {
            Kind::Publish { publishers, subscribers } => {
                let begun = (0..publishers).map(|publisher| self.publish(publisher, subscribers));
                let mut waiting = begun.collect::<Result<Vec<usize>, _>>()?;
                while waiting.iter().any(|waiting| *waiting > 0) {
                    for index in self.wait()? {
                        let (publisher, member) =
                            (index / (subscribers + 1), index % (subscribers + 1));
                        let client = &mut self.clients[index];
                        client.flush()?;
                        client.receive(&mut self.room, |_| {})?;
                        if member == 0 || client.expected == 0 || client.received < client.expected
                        {
                            continue;
                        }
                        client.expected = 0;
                        waiting[publisher] -= 1;
                        if waiting[publisher] == 0 && begin.elapsed() < time {
                            waiting[publisher] = self.publish(publisher, subscribers)?;
                        }
                    }
                }
            }
            Kind::Request { in_flight } => {
                self.request(in_flight)?;
                let end = self.requests;
                self.serve_requests(end, |_| begin.elapsed() < time)?;
            }
        }
        Ok((self.received() - before, begin.elapsed()))
    }

    fn received(&self) -> usize {
        self.clients.iter().map(|client| client.received).sum()
    }

    /// Those that have something.
    fn wait(&mut self) -> Result<Vec<usize>, Box<dyn Error>> {
        self.poll.poll(&mut self.events, Some(PATIENCE))?;
        if self.events.is_empty() {
            return Err(format!("nothing came for {PATIENCE:?}").into());
        }
        Ok(self.events.iter().map(|event| event.token().0).collect())
    }

    /// Publishes as much as may be on its way; returns to how many.
    fn publish(&mut self, publisher: usize, subscribers: usize) -> Result<usize, Box<dyn Error>> {
        let first = publisher * (subscribers + 1);
        for subscriber in &mut self.clients[first + 1..=first + subscribers] {
            subscriber.expected = subscriber.received + self.load.pipeline();
        }
        self.clients[first].send(&self.batch[publisher])?;
        Ok(subscribers)
    }

    /// Makes requests, in one piece.
    fn request(&mut self, count: usize) -> Result<(), Box<dyn Error>> {
        let (size, payload) = (self.load.size, "x".repeat(self.load.size));
        let numbers = self.requests..self.requests + count;
        self.requests += count;
        let requests = numbers
            .map(|number| format!("PUB service _INBOX.client.{number} {size}\r\n{payload}\r\n"));
        Ok(self.clients[0].send(requests.collect::<String>().as_bytes())?)
    }

    fn serve_requests(
        &mut self,
        mut end: usize,
        goes_on: impl Fn(usize) -> bool,
    ) -> Result<(), Box<dyn Error>> {
        let payload = "x".repeat(self.load.size);
        while self.clients[0].received < end {
            for index in self.wait()? {
                let mut replies = String::new();
                let client = &mut self.clients[index];
                let before = client.received;
                client.flush()?;
                client.receive(&mut self.room, |reply| {
                    let reply = String::from_utf8_lossy(reply);
                    replies += &format!("PUB {reply} {}\r\n{payload}\r\n", payload.len());
                })?;
                let received = client.received - before;
                if index == 1 && received > 0 {
                    client.send(replies.as_bytes())?;
                } else if goes_on(received) {
                    end += received;
                    self.request(received)?;
                }
            }
        }
        Ok(())
    }
}

/// Connections that have said who they are, and nothing more.
pub(crate) fn idle(count: usize, address: SocketAddr) -> Result<Vec<Client>, Box<dyn Error>> {
    (0..count).map(|_| Client::connect(address, "")).collect()
}
