//! What the connections of one thread share.

use std::net::SocketAddr;
use std::sync::Arc;

use super::clock::Clock;
use super::pace::Pace;
use super::pattern::Pattern;
use super::tally::Tally;
use super::tls::TlsClient;
use super::{Framing, Verify};

/// What the connections of one thread share.
pub(super) struct Context {
    pub(super) address: SocketAddr,
    pub(super) framing: Framing,
    pub(super) tls: Option<TlsClient>,
    pub(super) message_size: usize,
    pub(super) verify: Verify,
    pub(super) pattern: Arc<Pattern>,
    /// Where all of them receive into.
    pub(super) buffer: Box<[u8]>,
    pub(super) clock: Clock,
    /// What the clock said when last looked at.
    pub(super) now: u64,
    pub(super) next: Next,
    pub(super) tally: Tally,
}

/// What a complete message makes way for.
#[derive(Clone, Copy)]
pub(super) enum Next {
    Nothing,
    /// A new message at once.
    Message,
    /// The next message, if it is due.
    WhenDue(Pace),
    /// A new connection, if that was its last message.
    Connection,
}

/// A message in flight.
#[derive(Clone, Copy)]
pub(super) struct Awaited {
    /// Its number on the connection, from 0.
    pub(super) number: u64,
    /// When it was offered, or was due.
    pub(super) since: u64,
}
