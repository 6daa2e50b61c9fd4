//! What other threads ask of a connection.

use bytes::Bytes;
use millstream_platform::driver::Token;

use super::inbox::Inbox;
use crate::conn::{Completion, Conn};
use crate::handler::{Action, EventHandler};

/// The inbox of a reactor for what its connections are asked, from any thread.
pub(crate) type Mailbox<H> = Inbox<Command<H>>;

/// Something that a connection is asked.
pub(crate) struct Command<H: EventHandler> {
    pub(crate) token: Token,
    pub(crate) order: Order<H>,
}

/// What it is asked. A completion that is dropped says that the connection is closed.
pub(crate) enum Order<H: EventHandler> {
    Write { bytes: Bytes, done: Option<Completion> },
    Wake,
    Close { done: Option<Completion> },
    Run(Closure<H>),
}

type Closure<H> = Box<dyn FnOnce(&mut H, &mut Conn<'_, H>) -> Action + Send>;
