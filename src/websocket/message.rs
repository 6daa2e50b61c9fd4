//! What connections tell each other.

use super::close::CloseCode;
use super::error::ProtocolError;
use super::frame::Opcode;

/// What comes, and what is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// A text.
    Text(&'a str),
    /// Bytes.
    Binary(&'a [u8]),
    /// Asks the peer for a pong with the same bytes, at most 125.
    Ping(&'a [u8]),
    /// The reply to a ping; or, if there was none, a sign of life.
    Pong(&'a [u8]),
    /// The last that a side says: why it closes, if it says so.
    Close(Option<Close<'a>>),
}

/// Why a side closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Close<'a> {
    /// For programs.
    pub code: CloseCode,
    /// For people, at most 123 bytes.
    pub reason: &'a str,
}

impl<'a> Message<'a> {
    /// What a whole message of this kind says.
    pub(super) fn read(opcode: Opcode, payload: &'a [u8]) -> Result<Self, ProtocolError> {
        Ok(match opcode {
            Opcode::Text => Message::Text(text(payload)?),
            Opcode::Ping => Message::Ping(payload),
            Opcode::Pong => Message::Pong(payload),
            Opcode::Close => Message::Close(Close::read(payload)?),
            Opcode::Binary | Opcode::Continuation => Message::Binary(payload),
        })
    }
}

impl<'a> Close<'a> {
    fn read(payload: &'a [u8]) -> Result<Option<Self>, ProtocolError> {
        let (number, reason) = match payload {
            [] => return Ok(None),
            [_] => return Err(ProtocolError::HalfCode),
            [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
        };
        let code = CloseCode::new(number).ok_or(ProtocolError::Code { code: number })?;
        Ok(Some(Close { code, reason: text(reason)? }))
    }
}

fn text(bytes: &[u8]) -> Result<&str, ProtocolError> {
    str::from_utf8(bytes).map_err(|_| ProtocolError::NotUtf8)
}
