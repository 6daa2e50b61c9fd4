//! What a server answers (RFC 6455, section 4.1).

use std::sync::Arc;

use super::error::WebSocketConnectError;
use super::request::WebSocketRequest;
use crate::Input;
use crate::http::StatusCode;
use crate::websocket::deflate::{EXTENSIONS, PerMessageDeflate};
use crate::websocket::link::Agreement;

/// The longest head.
const LONGEST: usize = 16 * 1024;
/// The most fields.
const MOST_FIELDS: usize = 100;
const END: &[u8] = b"\r\n\r\n";

/// What an answer has to fit to.
pub(super) struct Expected {
    pub(super) accept: String,
    pub(super) request: WebSocketRequest,
    pub(super) deflate: Option<PerMessageDeflate>,
    /// No end of the head begins in this many bytes.
    pub(super) searched: usize,
}

impl Expected {
    /// Takes the head of the answer; `None` if it is not whole.
    pub(super) fn read(
        &mut self,
        input: &mut Input<'_>,
    ) -> Result<Option<Agreement>, WebSocketConnectError> {
        let unread = input.peek();
        let found = memchr::memmem::find(unread.get(self.searched..).unwrap_or_default(), END);
        let Some(at) = found else {
            self.searched = unread.len().saturating_sub(END.len() - 1);
            return match unread.len() < LONGEST {
                true => Ok(None),
                false => Err(WebSocketConnectError::HeadTooLong { max: LONGEST }),
            };
        };
        let length = self.searched + at + END.len();
        if length > LONGEST {
            return Err(WebSocketConnectError::HeadTooLong { max: LONGEST });
        }
        self.check(input.take(length).unwrap_or_default()).map(Some)
    }

    fn check(&self, head: &[u8]) -> Result<Agreement, WebSocketConnectError> {
        let mut slots = [httparse::EMPTY_HEADER; MOST_FIELDS];
        let mut response = httparse::Response::new(&mut slots);
        let parsed = response.parse(head);
        let is_whole = parsed == Ok(httparse::Status::Complete(head.len()));
        let (1.., true) = (response.version.unwrap_or_default(), is_whole) else {
            return Err(WebSocketConnectError::NotHttp);
        };
        match response.code.unwrap_or_default() {
            101 => self.agree(&AnswerFields(response.headers)),
            code => Err(match StatusCode::new(code) {
                Some(status) => WebSocketConnectError::Refused { status },
                None => WebSocketConnectError::NotHttp,
            }),
        }
    }

    fn agree(&self, answer: &AnswerFields<'_, '_>) -> Result<Agreement, WebSocketConnectError> {
        let wrong = |name| Err(WebSocketConnectError::Field { name });
        if !answer.only("Upgrade").is_some_and(|name| name.eq_ignore_ascii_case(b"websocket")) {
            return wrong("Upgrade");
        }
        let mut options =
            answer.all("Connection").flat_map(|list| list.split(|byte| *byte == b','));
        if !options.any(|option| option.trim_ascii().eq_ignore_ascii_case(b"upgrade")) {
            return wrong("Connection");
        }
        if answer.only("Sec-WebSocket-Accept") != Some(self.accept.as_bytes()) {
            return wrong("Sec-WebSocket-Accept");
        }
        let (name, protocols) = ("Sec-WebSocket-Protocol", self.request.protocols());
        let subprotocol = match (answer.all(name).next(), answer.only(name)) {
            (None, _) => None,
            (_, chosen) => {
                let is_chosen = |protocol: &String| Some(protocol.as_bytes()) == chosen;
                match protocols.iter().position(is_chosen) {
                    Some(index) => Some((Arc::clone(protocols), index)),
                    None => return wrong(name),
                }
            }
        };
        let deflate = PerMessageDeflate::confirm(self.deflate.as_ref(), answer.all(EXTENSIONS));
        match deflate {
            Ok(deflate) => Ok(Agreement { subprotocol, deflate }),
            Err(_) => wrong(EXTENSIONS),
        }
    }
}

/// The fields of an answer.
struct AnswerFields<'f, 'a>(&'f [httparse::Header<'a>]);

impl<'a> AnswerFields<'_, 'a> {
    fn all(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let fields = self.0.iter().filter(move |field| field.name.eq_ignore_ascii_case(name));
        fields.map(|field| field.value.trim_ascii())
    }

    /// The value of a field that is there once.
    fn only(&self, name: &str) -> Option<&'a [u8]> {
        let mut values = self.all(name);
        let value = values.next()?;
        values.next().is_none().then_some(value)
    }
}
