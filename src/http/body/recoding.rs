//! What changes the contents of responses on their way out.

use std::mem;
use std::sync::Arc;

use bytes::Bytes;

use super::outgoing::Streamed;
use crate::http::fields::FieldLines;
use crate::http::response::OwnedResponse;
use crate::http::status::StatusCode;

/// The longest content that is changed at once; a longer one, in pieces as it is sent.
const AT_ONCE: usize = 64 * 1024;

/// A change of contents that a layer has chosen for a request: their compression.
pub(in crate::http) trait Recoding: Send + Sync {
    /// Whether it changes a response with this status, these fields and this length, if that is
    /// known.
    fn is_for(&self, status: StatusCode, fields: &FieldLines, length: Option<u64>) -> bool;

    /// Says in the fields that it does.
    fn mark(&self, fields: &mut FieldLines);

    /// Changes a whole content; `None` if that fails.
    fn recode(&self, content: &[u8]) -> Option<Vec<u8>>;

    /// Begins one that comes in pieces; `None` if there are too many already.
    fn begin(&self) -> Option<Box<dyn Recoder>>;
}

/// Changes one content, piece by piece. Each function returns what there is to be sent, and `None`
/// if it fails.
pub(in crate::http) trait Recoder {
    fn put(&mut self, piece: &[u8]) -> Option<Vec<u8>>;

    /// Holds back nothing of what was put.
    fn flush(&mut self) -> Option<Vec<u8>>;

    fn finish(&mut self) -> Option<Vec<u8>>;
}

/// Changes a response whose fields are complete, or has it changed while it is sent.
pub(in crate::http) fn recode(recoding: &Arc<dyn Recoding>, response: &mut OwnedResponse) {
    if let Some(stream) = &mut response.stream {
        stream.recode_with(recoding);
        return;
    }
    if response.status == StatusCode::NOT_MODIFIED {
        // The tag that the client knows it by is weak, or else matches weakly.
        response.fields.weaken_tag();
    }
    let length = response.body.len();
    if !recoding.is_for(response.status, &response.fields, Some(length as u64)) {
        return;
    }
    if length > AT_ONCE {
        let mut stream = Streamed::of_bytes(mem::take(&mut response.body));
        stream.recode_with(recoding);
        response.stream = Some(stream);
    } else if let Some(recoded) = recoding.recode(&response.body) {
        recoding.mark(&mut response.fields);
        response.body = Bytes::from(recoded);
    }
}
