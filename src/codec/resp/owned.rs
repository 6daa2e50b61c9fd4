//! Replies that are kept.

use std::fmt;

use bytes::Bytes;

use super::{Protocol, Replies, Reply};
use crate::handler::OutputBuffer;

/// A [`Reply`] in its own memory, which may be kept and go to any thread. Clones share the memory.
///
/// ```
/// use millstream::codec::Codec;
/// use millstream::codec::resp::{OwnedReply, Reply, RespClient};
/// use millstream::Input;
///
/// let mut input = Input::from(&b"*2\r\n:7\r\n$5\r\nvalue\r\n"[..]);
/// let reply = RespClient::new().decode(&mut input)?.expect("it is complete");
/// let owned: OwnedReply = reply.into_owned();
/// let Reply::Array(elements) = owned.get() else { panic!("an array came") };
/// assert!(elements.eq([Reply::Integer(7), Reply::Bulk(b"value")]));
/// # Ok::<(), millstream::codec::resp::ReplyError>(())
/// ```
// It is one piece of memory, not a tree: a reply may be nested as deep as its peer likes, and
// dropping a tree takes stack for that.
#[derive(Clone, PartialEq, Eq)]
pub struct OwnedReply(Bytes);

impl OwnedReply {
    /// The reply.
    pub fn get(&self) -> Reply<'_> {
        let decoded = Reply::split_first(&self.0);
        // `into_owned` has encoded it, and what is encoded can be decoded: there is nothing to tell
        // a caller, and nothing worth a panic in production.
        debug_assert!(matches!(decoded, Some((_, []))), "{:?}", self.0);
        decoded.map_or(Reply::Null, |(reply, _)| reply)
    }
}

impl Reply<'_> {
    /// The same reply in its own memory.
    pub fn into_owned(self) -> OwnedReply {
        let mut buffer = OutputBuffer::new();
        // The version that has all kinds.
        Replies::new(&mut buffer.output(), Protocol::Resp3).reply(&self);
        OwnedReply(buffer.take().into())
    }
}

impl fmt::Debug for OwnedReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OwnedReply").field(&self.get()).finish()
    }
}
