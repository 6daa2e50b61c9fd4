//! A publisher and its subscribers on a reactor that the calling thread steps.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use bytes::Bytes;
use millstream::internals::Stepper;
use millstream::{Action, Conn, ConnId, Engine, EventHandler, Remote};

use super::WARM_UP;

/// How a message comes to the subscribers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    /// By one call of `Neighbours::write_to_all`.
    Neighbours,
    /// By a call of `Remote::write` for each.
    Remotes,
}

/// Whatever the first connection says, all the others are sent a message.
pub(crate) struct Publish {
    way: Way,
    message: Bytes,
    ids: Vec<ConnId>,
    remotes: Vec<Remote<Self>>,
    has_publisher: bool,
}

impl EventHandler for Publish {
    type State = ();

    fn on_open(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        if std::mem::replace(&mut self.has_publisher, true) {
            self.ids.push(conn.id());
            self.remotes.push(conn.remote());
        }
        Action::Continue
    }

    fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
        conn.input.take_all();
        match self.way {
            Way::Neighbours => {
                let ids = self.ids.iter().copied();
                conn.neighbours().write_to_all(ids, self.message.clone());
            }
            Way::Remotes => {
                for remote in &self.remotes {
                    remote.write(self.message.clone()).expect("it is open");
                }
            }
        }
        Action::Continue
    }
}

/// A reactor, a publisher and subscribers.
pub(crate) struct FanOut {
    stepper: Stepper<Publish>,
    publisher: TcpStream,
    subscribers: Vec<TcpStream>,
    message: Bytes,
}

impl FanOut {
    /// This many subscribers, and messages of this many bytes. All is warm.
    pub(crate) fn warm(way: Way, subscribers: usize, message: usize) -> Self {
        let message = Bytes::from(vec![1; message]);
        let (ids, remotes) = (Vec::new(), Vec::new());
        let handler = Publish { way, message: message.clone(), ids, remotes, has_publisher: false };
        // Under callgrind a turn takes long, and is to be whole all the same.
        let builder =
            Engine::builder().inbox_budget(subscribers).turn_time(Duration::from_secs(60));
        let mut stepper = Stepper::new(builder, handler).expect("a reactor starts");
        let mut connect = || stepper.connect().expect("a peer connects");
        let publisher = connect();
        let subscribers: Vec<_> = (0..subscribers).map(|_| connect()).collect();
        let last = subscribers.last().expect("there are some");
        last.set_nonblocking(true).expect("a socket has the option");
        let mut fan_out = FanOut { stepper, publisher, subscribers, message };
        let start = Instant::now();
        while start.elapsed() < WARM_UP {
            fan_out.round(Stepper::turn);
        }
        fan_out
    }

    /// Has `turn` run turns until the last subscriber has a message, and returns what came of each.
    pub(crate) fn round<T>(&mut self, mut turn: impl FnMut(&mut Stepper<Publish>) -> T) -> Vec<T> {
        self.publisher.write_all(b"x").expect("it is sent");
        let mut outcomes = Vec::new();
        while !self.has_come() {
            outcomes.push(turn(&mut self.stepper));
        }
        let mut received = vec![0; self.message.len()];
        for subscriber in &mut self.subscribers {
            subscriber.read_exact(&mut received).expect("all have the message");
            assert_eq!(received, self.message, "another message");
        }
        outcomes
    }

    /// Whether the last subscriber has the message.
    fn has_come(&self) -> bool {
        let last = self.subscribers.last().expect("there are some");
        match last.peek(&mut [0]) {
            Ok(_) => true,
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            Err(error) => panic!("{error}"),
        }
    }
}
