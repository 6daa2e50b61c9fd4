//! What can be wrong with what a peer sends, and with what is to be sent.

use std::io;

use thiserror::Error;

use super::close::CloseCode;

/// Why a connection can't go on: each has the [code](Self::close_code) that the peer is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// A reserved bit is set, and no extension gives it a meaning.
    #[error("a frame has the reserved bits {bits:#04x}")]
    ReservedBits {
        /// Those that are set, where they are in the frame's first byte.
        bits: u8,
    },
    /// There is no such frame.
    #[error("a frame has the unknown opcode {opcode}")]
    Opcode {
        /// Its number.
        opcode: u8,
    },
    /// A length is written in more bytes than it needs, or has its highest bit set.
    #[error("a frame has its length {length} in the wrong form")]
    Length {
        /// The length.
        length: u64,
    },
    /// A client's frame is not masked.
    #[error("a client's frame is not masked")]
    NotMasked,
    /// A server's frame is masked.
    #[error("a server's frame is masked")]
    Masked,
    /// A control frame is a part of a message.
    #[error("a control frame is not final")]
    ControlNotFinal,
    /// A control frame is longer than 125 bytes.
    #[error("a control frame has {length} bytes, at most 125 may be")]
    ControlTooLong {
        /// How long its payload is.
        length: u64,
    },
    /// A frame continues a message, and none has begun.
    #[error("a frame continues no message")]
    NothingToContinue,
    /// A message begins within another one.
    #[error("a message begins within another one")]
    WithinMessage,
    /// A frame is longer than [`MessageLimits::frame`](super::MessageLimits::frame).
    #[error("a frame has {length} bytes, at most {max} may be")]
    FrameTooLong {
        /// How long its payload is.
        length: u64,
        /// How long it may be.
        max: usize,
    },
    /// A message is longer than [`MessageLimits::message`](super::MessageLimits::message).
    #[error("a message has more than {max} bytes")]
    MessageTooLong {
        /// How long it may be.
        max: usize,
    },
    /// A compressed message is not DEFLATE.
    #[error("a message is not compressed as it says")]
    NotDeflate,
    /// A text, or the reason in a close frame, is not UTF-8.
    #[error("a text is not UTF-8")]
    NotUtf8,
    /// A close frame has one byte, where a code has two.
    #[error("a close frame has half a code")]
    HalfCode,
    /// A close frame has a code that may not be sent.
    #[error("a close frame has the code {code}")]
    Code {
        /// Its number.
        code: u16,
    },
}

impl ProtocolError {
    /// What the peer is told.
    pub fn close_code(&self) -> CloseCode {
        match self {
            ProtocolError::FrameTooLong { .. } | ProtocolError::MessageTooLong { .. } => {
                CloseCode::TOO_LONG
            }
            ProtocolError::NotUtf8 | ProtocolError::NotDeflate => CloseCode::INVALID_DATA,
            _ => CloseCode::PROTOCOL_ERROR,
        }
    }
}

/// Why a message can't be sent. Nothing of it was written.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The payload of a ping or a pong is longer than 125 bytes, or the reason of a close than 123.
    #[error("a control frame would have {length} bytes, at most 125 may be")]
    ControlTooLong {
        /// How long the payload would be.
        length: usize,
    },
    /// A close frame was sent, behind which nothing is.
    #[error("the connection closes")]
    Closed,
    /// The operating system has no random numbers to mask with.
    #[error("there is no key to mask with: {0}")]
    Key(#[source] io::Error),
}
