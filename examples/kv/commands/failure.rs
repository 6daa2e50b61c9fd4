//! What a command may answer instead of a reply, in Redis' words.

use thiserror::Error;

use crate::store::WrongType;

#[derive(Debug, Error)]
pub enum Failure {
    #[error("WRONGTYPE Operation against a key holding the wrong kind of value")]
    WrongType,
    #[error("ERR value is not an integer or out of range")]
    NotAnInteger,
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
    #[error("ERR unknown subcommand '{subcommand}'. Try {command} HELP.")]
    Subcommand { command: &'static str, subcommand: String },
    #[error("ERR string exceeds maximum allowed size (proto-max-bulk-len)")]
    TooLong,
    #[error("{0}")]
    Other(&'static str),
    #[error("{0}")]
    Told(String),
}

impl From<WrongType> for Failure {
    fn from(_: WrongType) -> Self {
        Failure::WrongType
    }
}
