//! What is carried between reactors: work, and the replies to it.

use std::sync::Arc;

use millstream::codec::Framed;
use millstream::codec::resp::Protocol;
use millstream::{Bytes, Remote};

use super::queue::{Copied, Ticket};
use crate::commands::{Command, OnReactor, OnStore, Transaction};
use crate::encoded::Encoded;
use crate::pubsub::Message;
use crate::server::Server;

/// Instead of a reply that can't come any more.
const ABORTED: &[u8] =
    b"-ERR aborted, maybe in part: where the key is, the server failed or stops\r\n";

/// Work for another reactor. It is answered in any case, also if it is dropped without being done.
pub struct Request {
    pub from: Remote<Framed<Server>>,
    pub ticket: Ticket,
    pub protocol: Protocol,
    pub work: Work,
    pub is_answered: bool,
}

/// A reactor's replies to a connection. They are sent when this is dropped, also by a panic.
pub struct Answers {
    pub to: Remote<Framed<Server>>,
    pub replies: Vec<(Ticket, Encoded)>,
    /// The shard that has withheld the requests behind these.
    pub more: Option<usize>,
}

pub enum Work {
    Command {
        run: OnStore,
        bulks: Vec<u8>,
        len: usize,
    },
    Exec {
        client: u64,
        transaction: Arc<Transaction>,
    },
    /// A command that waits if there is nothing.
    Block {
        command: &'static Command,
        run: OnStore,
        copied: Copied,
        client: u64,
    },
    /// To end the wait of this connection, which is not answered itself.
    Unblock(Unblock),
    /// What each reactor is asked.
    Ask {
        ask: OnReactor,
        copied: Copied,
    },
    /// To watch nothing for a client any more, which is not answered.
    Forget {
        client: u64,
    },
    Publish(Arc<Message>),
    /// A line for those who want to see all commands.
    Show(Bytes),
}

/// Why a client waits no more.
#[derive(Clone, Copy)]
pub enum Unblock {
    /// Its time is over.
    Time,
    /// Another client wants it.
    Error,
}

impl Work {
    pub fn size(&self) -> usize {
        match self {
            Work::Command { bulks, .. } => bulks.len(),
            Work::Block { copied, .. } | Work::Ask { copied, .. } => copied.size(),
            Work::Exec { transaction, .. } => transaction.size(),
            Work::Forget { .. } | Work::Unblock(_) => 0,
            Work::Publish(message) => message.size(),
            Work::Show(line) => line.len(),
        }
    }
}

impl Request {
    pub fn new(
        from: Remote<Framed<Server>>,
        ticket: Ticket,
        protocol: Protocol,
        work: Work,
    ) -> Self {
        Request { from, ticket, protocol, work, is_answered: false }
    }

    /// Sends its reply back alone.
    pub fn answer(&mut self, reply: Encoded) {
        Answers::new(self.from.clone()).replies.push((self.ticket, reply));
        self.is_answered = true;
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        if !self.is_answered {
            self.answer(ABORTED.into());
        }
    }
}

impl Answers {
    pub fn new(to: Remote<Framed<Server>>) -> Self {
        Answers { to, replies: Vec::new(), more: None }
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        let (replies, more) = (std::mem::take(&mut self.replies), self.more);
        // Who is closed by now needs no reply.
        let _ = self.to.run(move |server, conn| {
            for (ticket, reply) in replies {
                conn.state.queue.answer(ticket, reply);
            }
            conn.state.queue.withheld.extend(more);
            server.go_on(conn)
        });
    }
}
