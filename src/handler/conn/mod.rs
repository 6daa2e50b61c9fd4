//! What a callback may touch: the connection, its input and its output; and the handle of it that
//! may leave the thread.

// The documentation shows the methods of `Conn` in this order: what most handlers use comes first.
mod basics;

mod terms;

mod relaying;

mod descriptor;
mod detached;

mod input;
mod output;
mod output_buffer;
mod prefixed;
mod remote;
#[cfg(any(feature = "internals", feature = "tls", feature = "tls-ring"))]
mod upgrading;

use std::fmt;

use millstream_platform::address::Transport;

pub use self::descriptor::SendDescriptorsError;
pub(crate) use self::detached::Detach;
pub use self::detached::{DetachError, Detached};
pub use self::input::Input;
pub use self::output::Output;
pub(crate) use self::output::{Extra, Fault, Outputs, Pending};
pub use self::output_buffer::OutputBuffer;
pub use self::prefixed::Prefixed;
pub use self::remote::Remote;
pub(crate) use self::remote::RemoteState;
pub use self::terms::Hold;
#[cfg(any(feature = "internals", feature = "tls", feature = "tls-ring"))]
pub use self::upgrading::StartTlsError;
use super::Control;
use crate::base::ConnId;
use crate::handler::EventHandler;

/// A connection, for the time of one callback, on its reactor's thread. It is not `Send`: what
/// leaves the thread is a [`Remote`].
///
/// The three public parts borrow separately, so bytes that were taken from `input` can be written
/// to `output` and noted in `state` while they are borrowed.
///
/// ```
/// # use millstream::{Action, Conn, EventHandler};
/// # struct Echo;
/// # impl EventHandler for Echo {
/// #     type State = usize;
/// fn on_traffic(&mut self, conn: &mut Conn<'_, Self>) -> Action {
///     let bytes = conn.input.take_all();
///     *conn.state += bytes.len();
///     conn.output.write(bytes);
///     if *conn.state > 1_000_000 {
///         conn.close(); // When what was written is sent.
///     }
///     Action::Continue
/// }
/// # }
/// ```
#[doc(alias("channel", "context", "session", "stream"))]
pub struct Conn<'a, H: EventHandler> {
    /// What was received and not read.
    pub input: Input<'a>,
    /// What is to be sent.
    pub output: Output<'a>,
    /// The handler's own data for this connection.
    pub state: &'a mut H::State,
    pub(crate) control: Control<'a, H>,
}

impl<H: EventHandler> Conn<'_, H> {
    /// Keeps the connection from reading, and from closing or having too much unread, while its
    /// handler has something left to look at.
    #[inline]
    pub(crate) fn hold_input(&mut self, holds: bool) {
        self.control.status.holds_input = holds;
    }

    /// Calls [`EventHandler::go_on`] after this callback and the other connections' input.
    pub(crate) fn go_on_later(&mut self) {
        self.control.go_on_later();
    }

    /// How much of what a connection may do at a time it may do now: less if many others have
    /// something to do.
    pub(crate) fn share_of(&self, units: usize) -> usize {
        self.control.common.share.of(units)
    }
}

impl<H: EventHandler> fmt::Debug for Conn<'_, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conn")
            .field("id", &self.id())
            .field("peer", &self.peer_addr())
            .field("unread", &self.input.len())
            .field("pending", &self.output.pending())
            .finish()
    }
}

/// A connection is on another reactor, or in another engine, than what it was to be reached from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the connection {connection} is not one of this engine's reactor {reactor}")]
pub struct OtherReactor {
    /// The reactor that asked.
    pub reactor: usize,
    /// The connection.
    pub connection: ConnId,
}

/// What a callback asks of its connection, for when it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Change {
    /// A layer came in, and its handshake is to begin.
    Upgrade,
    /// It closes once the output is flushed; there may be a last word if our side had not ended
    /// before.
    Close { last_word: bool },
    /// It closes at the end of the turn.
    CloseNow,
    /// The same with a reset.
    Reset,
    /// It leaves the engine at the end of the turn.
    Detach,
}
