//! A peer that speaks in frames, and what peers do that takes time.

use std::fmt;
use std::io::{self, ErrorKind};
use std::time::Duration;

use millstream_platform::driver::sim::SimPeer;

use super::Simulation;
use crate::codec::Codec;
use crate::handler::{EventHandler, Input, OutputBuffer};

/// What a peer waits for comes within this much virtual time, or not at all.
const PATIENCE: Duration = Duration::from_secs(60);

/// A peer whose bytes are the frames of a codec, often the one that the handler has:
/// [`Simulation::send_frame`] and [`Simulation::receive_frame`].
///
/// ```
/// # use std::time::Duration;
/// use millstream::Engine;
/// # use millstream::Action;
/// # use millstream::codec::{FrameHandler, Framed, FramedConn};
/// use millstream::codec::Lines;
/// use millstream::sim::{Faults, FramedPeer, Simulation};
///
/// # struct Echo;
/// # impl FrameHandler for Echo {
/// #     type Codec = Lines;
/// #     type State = ();
/// #     fn codec(&self) -> Lines { Lines::new() }
/// #     fn on_frame(&mut self, conn: &mut FramedConn<'_, Self>, line: &[u8]) -> Action {
/// #         conn.send(line).into()
/// #     }
/// # }
/// // `Echo` is a FrameHandler that sends each line back.
/// let handler = Framed::new(Echo);
/// let mut simulation = Simulation::new(7, Faults::harmless(), Engine::builder(), handler)?;
/// let mut peer = FramedPeer::new(simulation.connect()?, Lines::new());
/// simulation.send_frame(&mut peer, b"hello")?;
/// simulation.receive_frame(&mut peer, |line| assert_eq!(line, b"hello"))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct FramedPeer<C> {
    peer: SimPeer,
    codec: C,
    /// What has arrived, from `taken` on not yet as frames.
    received: Vec<u8>,
    taken: usize,
    output: OutputBuffer,
}

impl<C> fmt::Debug for FramedPeer<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unread = self.received.len() - self.taken;
        f.debug_struct("FramedPeer").field("unread", &unread).finish_non_exhaustive()
    }
}

/// Why a peer could not send or receive a frame.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError<E> {
    /// The connection has ended, or nothing came in time.
    #[error(transparent)]
    Connection(#[from] io::Error),
    /// The codec can't make a frame of what is to be sent, or of what has arrived.
    #[error("the codec: {0}")]
    Codec(#[source] E),
}

impl<C: Codec> FramedPeer<C> {
    /// A peer that speaks in the frames of `codec`, on a connection of which nothing has been
    /// received yet.
    pub fn new(peer: SimPeer, codec: C) -> Self {
        let (received, output) = (Vec::new(), OutputBuffer::new());
        FramedPeer { peer, codec, received, taken: 0, output }
    }

    /// The connection, to end it, or to send bytes that are not frames.
    pub fn peer(&mut self) -> &mut SimPeer {
        &mut self.peer
    }

    /// The next frame of what has arrived.
    fn decode(&mut self) -> Result<Option<C::Frame<'_>>, C::Error> {
        self.received.drain(..self.taken);
        self.received.extend(self.peer.receive());
        let mut input = Input::from(&self.received[..]);
        let frame = match self.peer.ended() {
            true => self.codec.decode_end(&mut input),
            false => self.codec.decode(&mut input),
        };
        self.taken = input.taken();
        frame
    }
}

/// What peers do until it is done. Nothing of it takes more than a minute of virtual time.
impl<H: EventHandler> Simulation<H> {
    /// Sends bytes, and runs the engine until all of them are on their way.
    ///
    /// # Errors
    /// The connection was reset, the peer's side has ended, or the engine does not receive:
    /// `TimedOut`. An engine may wait for the peer to receive first.
    pub fn send_all(&mut self, peer: &mut SimPeer, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        self.until(|| {
            rest = &rest[peer.send(rest)?..];
            Ok(rest.is_empty().then_some(()))
        })
    }

    /// Runs the engine until this many bytes have arrived at the peer, and returns them.
    ///
    /// # Errors
    /// The connection was reset or ended before, or they don't come: `TimedOut`. What has arrived
    /// is lost.
    pub fn receive_exact(&mut self, peer: &mut SimPeer, count: usize) -> io::Result<Vec<u8>> {
        let mut received = Vec::new();
        self.until(|| {
            received.extend(peer.receive_up_to(count - received.len()));
            let is_whole = received.len() == count;
            if is_whole { Ok(Some(())) } else { goes_on(peer) }
        })?;
        Ok(received)
    }

    /// Runs the engine until it has ended its side of the connection, and returns what arrived
    /// before that.
    ///
    /// # Errors
    /// The connection was reset, or does not end: `TimedOut`. What has arrived is lost.
    pub fn receive_to_end(&mut self, peer: &mut SimPeer) -> io::Result<Vec<u8>> {
        let mut received = Vec::new();
        self.until(|| {
            received.extend(peer.receive());
            if peer.ended() { Ok(Some(())) } else { goes_on(peer) }
        })?;
        Ok(received)
    }

    /// Sends a frame, and runs the engine until all of it is on its way. Meanwhile the peer
    /// receives.
    ///
    /// # Errors
    /// The codec can't make a frame of it, or as for [`send_all`](Self::send_all).
    pub fn send_frame<C: Codec>(
        &mut self,
        peer: &mut FramedPeer<C>,
        item: C::Item<'_>,
    ) -> Result<(), FrameError<C::Error>> {
        peer.codec.encode(item, &mut peer.output.output()).map_err(FrameError::Codec)?;
        let (bytes, mut sent) = (peer.output.take(), 0);
        self.until(|| {
            sent += peer.peer.send(&bytes[sent..])?;
            peer.received.extend(peer.peer.receive());
            Ok((sent == bytes.len()).then_some(()))
        })
    }

    /// Runs the engine until a frame has arrived at the peer, and returns what `see` returns for
    /// it. The frame borrows from what has arrived, so it is shown and not returned.
    ///
    /// # Errors
    /// What has arrived is not a frame; the connection was reset or ended before there was one; or
    /// none comes: `TimedOut`.
    pub fn receive_frame<C: Codec, T>(
        &mut self,
        peer: &mut FramedPeer<C>,
        see: impl FnOnce(C::Frame<'_>) -> T,
    ) -> Result<T, FrameError<C::Error>> {
        let mut see = Some(see);
        self.until(|| {
            if let Some(frame) = peer.decode().map_err(FrameError::Codec)? {
                return Ok(see.take().map(|see| see(frame)));
            }
            Ok(goes_on(&peer.peer)?)
        })
    }

    /// Runs the engine until there is a result.
    fn until<T, E: From<io::Error>>(
        &mut self,
        mut result: impl FnMut() -> Result<Option<T>, E>,
    ) -> Result<T, E> {
        let mut outcome = Ok(None);
        self.run_until(PATIENCE, || {
            outcome = result();
            !matches!(outcome, Ok(None))
        });
        let late = || io::Error::new(ErrorKind::TimedOut, "not within a minute of virtual time");
        outcome?.ok_or_else(|| late().into())
    }
}

/// Whether more can come: an error if not.
fn goes_on<T>(peer: &SimPeer) -> io::Result<Option<T>> {
    match (peer.was_reset(), peer.ended()) {
        (true, _) => Err(ErrorKind::ConnectionReset.into()),
        (_, true) => Err(ErrorKind::UnexpectedEof.into()),
        _ => Ok(None),
    }
}
