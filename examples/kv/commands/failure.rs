//! What a command may answer instead of a reply, in Redis' words.

use millstream::codec::resp::Replies;
use thiserror::Error;

use crate::store::WrongType;

/// An error repeats this many bytes of what was sent.
pub const MOST_SHOWN: usize = 128;

#[derive(Debug, Error)]
pub enum Failure {
    #[error("WRONGTYPE Operation against a key holding the wrong kind of value")]
    WrongType,
    #[error("ERR value is not an integer or out of range")]
    NotAnInteger,
    #[error("ERR value is not a valid float")]
    NotAFloat,
    #[error("ERR hash value is not an integer")]
    HashNotAnInteger,
    #[error("ERR value is out of range, must be positive")]
    NotPositive,
    #[error("ERR increment or decrement would overflow")]
    Overflow,
    #[error("ERR decrement would overflow")]
    DecrementOverflow,
    #[error("ERR syntax error")]
    Syntax,
    #[error("ERR invalid cursor")]
    Cursor,
    #[error("ERR invalid expire time in '{0}' command")]
    ExpireTime(&'static str),
    #[error("ERR wrong number of arguments for '{0}' command")]
    Arguments(String),
    #[error("ERR string exceeds maximum allowed size (proto-max-bulk-len)")]
    TooLong,
    #[error("ERR the reply would be too long; ask for it in parts")]
    ReplyTooLong,
    /// It is not told, but the client waits.
    #[error("ERR there is nothing")]
    WouldBlock,
    #[error("CROSSSLOT Keys in request don't hash to the same slot")]
    SeveralShards,
    #[error("{0}")]
    Other(&'static str),
    /// It repeats what the peer sent, whatever bytes these are.
    #[error("{}", .0.escape_ascii())]
    Told(Vec<u8>),
}

impl Failure {
    /// It says something about what the peer sent.
    pub fn about(before: &str, sent: &[u8], behind: &str) -> Self {
        Failure::Told([before.as_bytes(), shown(sent, MOST_SHOWN), behind.as_bytes()].concat())
    }

    /// Writes it as a reply.
    #[cold]
    pub fn reply(&self, replies: &mut Replies<'_, '_>) {
        match self {
            Failure::Told(text) => replies.error(text),
            failure => replies.error(failure.to_string().as_bytes()),
        }
    }
}

/// What an error repeats of something that was sent: as C does, what is in front of a zero.
pub fn shown(sent: &[u8], most: usize) -> &[u8] {
    let sent = &sent[..sent.len().min(most)];
    sent.split(|byte| *byte == 0).next().unwrap_or_default()
}

impl From<WrongType> for Failure {
    fn from(_: WrongType) -> Self {
        Failure::WrongType
    }
}
