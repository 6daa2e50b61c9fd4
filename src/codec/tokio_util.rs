//! The codecs that are there for tokio.

use std::error::Error;
use std::fmt;
use std::marker::PhantomData;

use bytes::BytesMut;
use thiserror::Error;
use tokio_util::codec::{Decoder, Encoder};

use super::Codec;
use super::scratch::with_scratch;
use crate::handler::{Input, Output};

/// How much a decoder is given at a time, and what a connection keeps.
const PORTION: usize = 8 * 1024;
/// How long a part of a frame may be.
const MAX_BUFFERED: usize = 16 * 1024 * 1024;

/// A codec made for tokio-util: a [`Decoder`] and [`Encoder`] as a [`Codec`]. Feature `tokio-util`.
///
/// `I` is what is encoded, for one codec of tokio-util can often encode several types.
///
/// A decoder needs its own memory, so what arrives is copied, once. Whole frames wait in the
/// connection's input; only a part of a frame is kept here, up to
/// [`max_buffered`](Self::max_buffered). Between frames at most 8 KiB stay allocated.
///
/// When the peer ends, the decoder's `decode_eof` is asked. By default it returns an error if a
/// frame is incomplete. A connection can go on behind an error if the decoder can; one that returns
/// errors without taking anything ends it.
///
/// ```
/// use millstream::codec::{Compat, FrameHandler, Framed, FramedConn};
/// use millstream::{Action, Engine};
/// use tokio_util::codec::LinesCodec;
///
/// /// Sends every line back in capital letters.
/// struct Shout;
///
/// impl FrameHandler for Shout {
///     type Codec = Compat<LinesCodec>;
///     type State = ();
///
///     fn codec(&self) -> Self::Codec {
///         Compat::new(LinesCodec::new_with_max_length(1024))
///     }
///
///     fn on_frame(&mut self, conn: &mut FramedConn<'_, Self>, line: String) -> Action {
///         conn.send(line.to_uppercase()).into()
///     }
/// }
///
/// let engine = Engine::builder().listen("127.0.0.1:0").start(|_reactor| Framed::new(Shout))?;
/// # use std::io::{Read, Write};
/// # let mut client = std::net::TcpStream::connect(engine.local_addrs()[0])?;
/// # client.set_read_timeout(Some(std::time::Duration::from_secs(10)))?;
/// # client.write_all(b"hello\n")?;
/// # let mut answer = [0; 6];
/// # client.read_exact(&mut answer)?;
/// # assert_eq!(&answer, b"HELLO\n");
/// # engine.stop(std::time::Duration::from_secs(5))?;
/// # engine.wait()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[cfg_attr(docsrs, doc(cfg(feature = "tokio-util")))]
pub struct Compat<T: Decoder, I = <T as Decoder>::Item> {
    codec: T,
    /// A part of a frame, and behind it a copy of what is next in the input.
    received: BytesMut,
    /// How many bytes of `received` are such a copy.
    copied: usize,
    max_buffered: usize,
    item: PhantomData<fn(I)>,
}

/// What can go wrong in a [`Compat`].
#[derive(Debug, Error)]
#[cfg_attr(docsrs, doc(cfg(feature = "tokio-util")))]
#[non_exhaustive]
pub enum CompatError<E: Error + 'static> {
    /// The codec's own error.
    #[error("the codec failed: {0}")]
    Codec(#[source] E),
    /// A frame does not end.
    #[error("a frame is longer than the limit of {limit} buffered bytes")]
    TooLong {
        /// What [`Compat::max_buffered`] allows.
        limit: usize,
    },
}

impl<T: Decoder, I> Compat<T, I> {
    /// Uses `codec`.
    pub fn new(codec: T) -> Self {
        let (received, max_buffered) = (BytesMut::new(), MAX_BUFFERED);
        Compat { codec, received, copied: 0, max_buffered, item: PhantomData }
    }

    /// How many bytes the decoder may leave waiting for the rest of their frame; by default 16 MiB.
    /// A frame that needs more is an error that ends the connection.
    ///
    /// What the decoder reserves for itself is beyond this: limit its frames as well.
    pub fn max_buffered(mut self, bytes: usize) -> Self {
        self.max_buffered = bytes;
        self
    }

    /// Copies the next portion of the input behind the part of a frame that is here: as much again,
    /// so that a decoder that looks at everything again rarely does so.
    fn copy_portion(&mut self, input: &Input<'_>) -> Result<(), CompatError<T::Error>>
    where
        T::Error: Error + 'static,
    {
        let limit = self.max_buffered;
        let room = limit.saturating_sub(self.received.len());
        if room == 0 {
            return Err(CompatError::TooLong { limit });
        }
        let portion = self.received.len().max(PORTION).min(room).min(input.len());
        self.received.extend_from_slice(&input.peek()[..portion]);
        self.copied = portion;
        Ok(())
    }
}

impl<T, I> Codec for Compat<T, I>
where
    T: Decoder + Encoder<I, Error = <T as Decoder>::Error>,
    <T as Decoder>::Error: Error + 'static,
{
    type Frame<'a> = T::Item;
    type Item<'a> = I;
    type Error = CompatError<<T as Decoder>::Error>;

    fn decode<'a>(&mut self, input: &mut Input<'a>) -> Result<Option<T::Item>, Self::Error> {
        loop {
            let decoded = self.codec.decode(&mut self.received);
            let left = self.copied.min(self.received.len());
            input.skip(self.copied - left);
            self.copied = left;
            if let Ok(Some(frame)) = decoded {
                return Ok(Some(frame));
            }
            // What is left is a part of a frame.
            input.skip(std::mem::take(&mut self.copied));
            decoded.map_err(CompatError::Codec)?;
            if input.is_empty() {
                break;
            }
            self.copy_portion(input)?;
        }
        if self.received.is_empty() && self.received.capacity() > PORTION {
            self.received = BytesMut::new();
        }
        Ok(None)
    }

    fn decode_end<'a>(&mut self, input: &mut Input<'a>) -> Result<Option<T::Item>, Self::Error> {
        match self.decode(input)? {
            None => self.codec.decode_eof(&mut self.received).map_err(CompatError::Codec),
            frame => Ok(frame),
        }
    }

    fn is_within_frame(&self) -> bool {
        !self.received.is_empty()
    }

    fn encode(&mut self, item: I, output: &mut Output<'_>) -> Result<(), Self::Error> {
        with_scratch(|frame| {
            self.codec.encode(item, frame).map_err(CompatError::Codec)?;
            output.write(frame);
            Ok(())
        })
    }
}

impl<T: Decoder + fmt::Debug, I> fmt::Debug for Compat<T, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compat")
            .field("codec", &self.codec)
            .field("buffered", &self.received.len())
            .field("max_buffered", &self.max_buffered)
            .finish_non_exhaustive()
    }
}
