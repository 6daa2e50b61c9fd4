//! Answering a call while it is being run.

use std::io;
use std::thread;
use std::time::Instant;

use bytes::Bytes;

use super::backlog::{fits, reserve};
use super::session::{Session, unsendable};
use crate::Output;
use crate::rpc::call::{Body, Call, Exchange, Fill, Handler, Parts};
use crate::rpc::compression::Packed;
use crate::rpc::frame::{self, Format, Frame, Request, Response, longest_response};
use crate::rpc::metadata::Metadata;
use crate::rpc::reply::{self, Reply};
use crate::rpc::status::Status;

/// What a method answers a call with.
struct Answering<'s, 'o, 'a> {
    session: &'s mut Session,
    output: &'o mut Output<'a>,
    id: u64,
    one_way: bool,
    /// How the request was compressed.
    compression: u8,
    /// The caller has its answer, or wants none.
    is_answered: bool,
    /// There is a reply.
    is_later: bool,
    /// The answer waits for room.
    is_waiting: bool,
}

impl Session {
    #[inline]
    pub(super) fn run(
        &mut self,
        arrived: Instant,
        deadline: Option<Instant>,
        request: &Request<'_>,
        handler: &mut impl Handler,
        output: &mut Output<'_>,
    ) {
        let packed = (request.format.compression != 0)
            .then(|| Packed::new(request.format, request.body, self.limits.max_body));
        let parts = Parts {
            method: request.method,
            metadata: request.metadata,
            format: Format { compression: 0, ..request.format },
            body: request.body,
            packed: packed.as_ref(),
            one_way: request.one_way,
            is_retry: request.is_retry,
            now: arrived,
            deadline,
        };
        let mut answering = Answering::new(self, request, output);
        let mut call = Call::new(parts, &mut answering);
        let result = handler.handle(&mut call);
        let not_run = result.as_ref().is_err_and(|status| call.is_not_run(status));
        let deadline = call.deadline(); // Layers and the method may have a shorter one.
        let hooks = call.into_hooks();
        let Answering { is_answered, is_later, is_waiting, .. } = answering;
        drop(answering);
        let status = match result {
            _ if is_waiting => return self.keep(request.id, hooks, deadline),
            _ if is_answered => None,
            Ok(_) if is_later => return self.keep(request.id, hooks, None),
            Ok(_) => Some(Status::internal("the method did not answer")),
            Err(status) => Some(status),
        };
        if is_later {
            self.take(request.id); // The holder of the reply comes too late.
        }
        match status {
            None => self.end(hooks, None),
            Some(status) if not_run && !is_later => {
                self.turn_away(request, &status, output);
                self.end(hooks, Some(&status));
            }
            Some(status) => self.fail(request, hooks, status, output),
        }
    }
}

impl<'s, 'o, 'a> Answering<'s, 'o, 'a> {
    #[inline]
    fn new(session: &'s mut Session, request: &Request<'_>, output: &'o mut Output<'a>) -> Self {
        let &Request { id, one_way, format: Format { compression, .. }, .. } = request;
        Answering {
            session,
            output,
            id,
            one_way,
            compression,
            is_answered: false,
            is_later: false,
            is_waiting: false,
        }
    }

    /// The response's frame, without its body.
    fn response<'m>(&self, metadata: &'m Metadata, format: Format) -> Response<'m> {
        Response::ok(self.id, metadata.view(), format)
    }

    /// Makes an answer wait for which there is no room now.
    #[cold]
    fn wait(&mut self, metadata: &Metadata, format: Format, body: Bytes) -> Result<(), Status> {
        let body = reply::Body { metadata: metadata.clone(), format, bytes: body };
        self.session.wait(self.id, body, self.output)?;
        (self.is_answered, self.is_waiting) = (true, true);
        Ok(())
    }

    /// Nothing is answered twice.
    #[inline]
    fn check(&self) -> Result<(), Status> {
        if self.is_answered {
            return Err(Status::internal("the call was answered before"));
        }
        Ok(())
    }
}

/// Counts a call whose method panics and takes its connection along.
impl Drop for Answering<'_, '_, '_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.session.count_a_panic();
        }
    }
}

impl Exchange for Answering<'_, '_, '_> {
    fn is_client(&self) -> bool {
        false
    }

    fn now(&self) -> Instant {
        self.output.now()
    }

    #[inline]
    fn answer(
        &mut self,
        metadata: &Metadata,
        format: Format,
        body: Body<'_>,
    ) -> Result<(), Status> {
        self.check()?;
        if !self.one_way {
            let packed = self.session.compressed(self.compression, format, &body);
            let (format, body) = match packed {
                Some((format, packed)) => (format, Body::Shared(packed)),
                None => (format, body),
            };
            let (response, length) = (self.response(metadata, format), body.len());
            if !fits(longest_response("", metadata.view(), length), self.output) {
                return self.wait(metadata, format, body.into_bytes());
            }
            match body {
                Body::Borrowed(body) => {
                    frame::write(&Frame::Response(Response { body, ..response }), self.output)
                }
                Body::Shared(body) => frame::write_with_bytes(&response, body, self.output),
            }
            .map_err(|error| unsendable(&error))?;
        }
        self.is_answered = true;
        Ok(())
    }

    fn answer_with(
        &mut self,
        metadata: &Metadata,
        format: Format,
        fill: &mut Fill<'_>,
    ) -> Result<(), Status> {
        self.check()?;
        if self.one_way {
            fill(&mut io::sink())?;
        } else if self.compression != 0 {
            let mut body = Vec::new();
            fill(&mut body)?;
            return self.answer(metadata, format, Body::Shared(body.into()));
        } else {
            let (response, reserve) = (self.response(metadata, format), reserve(self.output));
            let left = frame::write_in_place(&response, self.output, reserve, |body| fill(body))?;
            if let Some(body) = left {
                return self.wait(metadata, format, body.into());
            }
        }
        self.is_answered = true;
        Ok(())
    }

    fn answer_later(&mut self, deadline: Option<Instant>) -> Reply {
        if self.is_answered {
            return self.session.late_reply(self.id, deadline);
        }
        self.is_later = true;
        let (caller, line) = self.session.open(self.id, self.one_way, self.compression, deadline);
        Reply::new(self.id, deadline, caller, line)
    }
}
