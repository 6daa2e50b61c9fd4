//! In place of compressed messages, where they are not compiled in: nothing can be agreed on.

use bytes::Bytes;

use super::error::ProtocolError;
use super::prepared::PreparedMessage;

/// The field in which extensions are offered and agreed on.
pub(super) const EXTENSIONS: &str = "Sec-WebSocket-Extensions";

#[derive(Clone, Copy, Debug)]
pub(super) enum PerMessageDeflate {}

#[derive(Debug)]
pub(super) enum DeflateContext {}

#[derive(Clone, Debug, Default)]
pub(super) struct Deflated;

pub(super) struct Malformed;

impl PerMessageDeflate {
    pub(super) fn accept<'a>(
        &self,
        _request: impl Iterator<Item = &'a [u8]>,
    ) -> Result<Option<(Self, String)>, Malformed> {
        match *self {}
    }

    pub(super) fn offer(&self) -> String {
        match *self {}
    }

    pub(super) fn confirm<'a>(
        _offered: Option<&Self>,
        mut answer: impl Iterator<Item = &'a [u8]>,
    ) -> Result<Option<Self>, Malformed> {
        answer.next().map_or(Ok(None), |_| Err(Malformed))
    }
}

impl DeflateContext {
    pub(super) fn new(agreed: PerMessageDeflate) -> Self {
        match agreed {}
    }

    pub(super) fn decompress(
        &mut self,
        _bytes: &[u8],
        _message: &mut Vec<u8>,
        _max: usize,
    ) -> Result<(), ProtocolError> {
        match *self {}
    }

    pub(super) fn end_message(
        &mut self,
        _message: &mut Vec<u8>,
        _max: usize,
    ) -> Result<(), ProtocolError> {
        match *self {}
    }

    pub(super) fn compressed<T>(
        &mut self,
        _payload: &[u8],
        _send: impl FnOnce(Option<&[u8]>) -> T,
    ) -> T {
        match *self {}
    }

    pub(super) fn shared(&mut self, message: &PreparedMessage) -> Option<Bytes> {
        let Deflated = message.deflated();
        match *self {}
    }
}
