//! One connection's calls without an engine, for tests that pass bytes and time on by hand.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::Server;
use super::session::{Outlook, Session};
use super::stats::Counters;
use crate::codec::Codec;
use crate::rpc::call::{Handler, Unpacking};
use crate::rpc::frame::FrameCodec;
use crate::rpc::reply::{Body, Line};
use crate::rpc::status::Status;
use crate::{Input, Output};

/// The server's end of a connection that is made of memory: bytes come in, bytes go out, and the
/// output tells the time ([`OutputBuffer::set_now`](crate::OutputBuffer::set_now)).
pub struct BareServer<H> {
    codec: FrameCodec,
    session: Session,
    handler: H,
    replies: Arc<Replies>,
}

/// The replies that were given and not yet written.
#[derive(Default)]
struct Replies(Mutex<Vec<(u64, Result<Body, Status>)>>);

impl Line for Replies {
    fn answer(&self, id: u64, answer: Result<Body, Status>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((id, answer));
    }
}

impl<H: Handler> BareServer<H> {
    /// A connection that begins at `now`, under the server's limits and without its middleware.
    pub fn new<M>(now: Instant, server: &Server<M>, handler: H) -> Self {
        let counters = Arc::new(Counters::default());
        server.lock_counters().push(Arc::clone(&counters));
        let replies = Arc::new(Replies::default());
        let line = Arc::clone(&replies) as Arc<dyn Line>;
        let session = Session::new(now, &server.limits, &counters, line);
        BareServer { codec: FrameCodec::new(server.frame_limits), session, handler, replies }
    }

    /// Takes the whole frames out of `input` and runs them; returns whether the connection goes on.
    pub fn receive(&mut self, input: &mut Input<'_>, output: &mut Output<'_>) -> bool {
        let BareServer { codec, session, handler, .. } = self;
        loop {
            let outlook = match codec.decode(input) {
                Ok(None) => {
                    session.note_place(codec.place(input.len()), output.now());
                    return true;
                }
                Ok(Some(frame)) => {
                    let handler = &mut Unpacking(handler);
                    session.receive(output.now(), frame, handler, output)
                }
                Err(error) => session.on_error(&error, output),
            };
            if outlook == Outlook::Over {
                return false;
            }
        }
    }

    /// Writes the replies that were given; returns whether the connection goes on.
    pub fn write_replies(&mut self, output: &mut Output<'_>) -> bool {
        let replies =
            std::mem::take(&mut *self.replies.0.lock().unwrap_or_else(PoisonError::into_inner));
        let mut outlook = Outlook::Open;
        for (id, answer) in replies {
            outlook = self.session.answer(id, answer, output);
        }
        if outlook == Outlook::Open {
            outlook = self.session.catch_up(output);
        }
        outlook == Outlook::Open
    }

    /// Does what is due; returns whether the connection goes on.
    pub fn on_time(&mut self, output: &mut Output<'_>) -> bool {
        self.session.on_time(output) == Outlook::Open
    }

    /// When [`on_time`](Self::on_time) is to be called.
    pub fn next_time(&self) -> Option<Instant> {
        self.session.next_time()
    }

    /// Takes no more requests; returns whether the connection goes on.
    pub fn go_away(&mut self, output: &mut Output<'_>) -> bool {
        self.session.go_away(output) == Outlook::Open
    }

    /// The peer sends nothing more; returns whether the connection goes on.
    pub fn peer_ended(&mut self, output: &mut Output<'_>) -> bool {
        self.session.peer_ended(output) == Outlook::Open
    }

    /// The handler.
    pub fn handler(&mut self) -> &mut H {
        &mut self.handler
    }
}
