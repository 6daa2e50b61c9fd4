//! What is known of a response before it is made.

use std::fmt;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use crate::LogLimit;
use crate::http::body::{Recoding, recode};
use crate::http::fields::FieldLines;
use crate::http::response::OwnedResponse;
use crate::http::status::StatusCode;
use crate::unwind::catch;

/// The response to the request that is being handled, as far as layers and the handler have come
/// with it.
#[derive(Default)]
pub(in crate::http) struct Draft {
    /// Its fields so far.
    pub(super) fields: FieldLines,
    /// How long the fields were when the handler began its answer.
    own: Option<usize>,
    pub(super) hooks: Hooks,
    /// How long an answer that comes later may take.
    pub(super) timeout: Option<Duration>,
    /// What changes its content.
    pub(super) recoding: Option<Arc<dyn Recoding>>,
    /// Memory to put a content together in, empty.
    #[cfg(feature = "http-json")]
    pub(super) scratch: Vec<u8>,
}

/// A content's memory that grew beyond this size is not kept.
#[cfg(feature = "http-json")]
const KEPT: usize = 256 * 1024;

impl Draft {
    #[cfg(feature = "http-json")]
    pub(super) fn keep_scratch(&mut self, mut scratch: Vec<u8>) {
        if scratch.capacity() <= KEPT {
            scratch.clear();
            self.scratch = scratch;
        }
    }

    /// Begins that of another request.
    pub(super) fn clear(&mut self) {
        self.fields.truncate(0);
        (self.own, self.timeout, self.recoding) = (None, None, None);
        self.hooks = Hooks::default();
    }

    /// The handler begins its answer.
    #[inline]
    pub(super) fn begin_answer(&mut self) {
        self.own = Some(self.fields.as_bytes().len());
    }

    /// The handler's answer is dropped for this one.
    pub(super) fn replace_answer(&mut self, response: &OwnedResponse) {
        if let Some(own) = self.own {
            self.fields.truncate(own);
        }
        self.fields.append(&response.fields);
    }

    /// The response is about to be written.
    #[inline]
    pub(super) fn end(&mut self, status: StatusCode) {
        if !self.hooks.is_empty() {
            mem::take(&mut self.hooks).tell(status, &mut self.fields);
        }
    }

    /// What waits for an answer that comes later, if anything does.
    pub(super) fn take_along(&mut self) -> Option<Box<Along>> {
        let is_empty = self.fields.as_bytes().is_empty() && self.hooks.is_empty();
        if is_empty && self.recoding.is_none() {
            return None;
        }
        let (fields, hooks) = (self.fields.clone(), mem::take(&mut self.hooks));
        Some(Box::new(Along { fields, hooks, recoding: self.recoding.take() }))
    }
}

/// What goes along with a response that comes later.
pub(super) struct Along {
    fields: FieldLines,
    hooks: Hooks,
    recoding: Option<Arc<dyn Recoding>>,
}

impl Along {
    /// Adds it to the response.
    pub(super) fn join(self, response: &mut OwnedResponse) {
        let Along { mut fields, hooks, recoding } = self;
        fields.append(&response.fields);
        hooks.tell(response.status, &mut fields);
        response.fields = fields;
        if let Some(recoding) = recoding {
            recode(&recoding, response);
        }
    }
}

/// How a request ends, as the hooks of [`Exchange::on_end`](super::Exchange::on_end) are told.
#[derive(Debug)]
pub struct End<'a> {
    response: Option<(StatusCode, &'a mut FieldLines)>,
}

impl End<'_> {
    /// The response's status; `None` if the connection was gone before there was one.
    pub fn status(&self) -> Option<StatusCode> {
        self.response.as_ref().map(|(status, _)| *status)
    }

    /// The response's fields, to which some may still be added; `None` without a response.
    pub fn fields(&mut self) -> Option<&mut FieldLines> {
        self.response.as_mut().map(|(_, fields)| &mut **fields)
    }
}

type EndHook = Box<dyn FnOnce(&mut End<'_>)>;

/// What learns how a request ends; the one that was added last comes first.
#[derive(Default)]
pub(super) struct Hooks(Option<Box<(EndHook, Hooks)>>);

impl Hooks {
    pub(super) fn add(&mut self, hook: EndHook) {
        let earlier = mem::take(self);
        self.0 = Some(Box::new((hook, earlier)));
    }

    #[inline]
    fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    #[cold]
    fn tell(self, status: StatusCode, fields: &mut FieldLines) {
        self.run(&mut End { response: Some((status, fields)) });
    }

    /// Runs all of them, even if one panics.
    fn run(mut self, end: &mut End<'_>) {
        while let Some(first) = self.0.take() {
            let (hook, earlier) = *first;
            if catch(|| hook(end)).is_err() {
                static LIMIT: LogLimit = LogLimit::new();
                if let Some(left_out) = LIMIT.admit() {
                    tracing::error!(left_out, "a hook panicked at the end of a request");
                }
            }
            self = earlier;
        }
    }
}

/// The connection is gone.
impl Drop for Hooks {
    #[inline]
    fn drop(&mut self) {
        if !self.is_empty() {
            mem::take(self).run(&mut End { response: None });
        }
    }
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooks").field("is_empty", &self.is_empty()).finish()
    }
}
