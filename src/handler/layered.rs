//! A connection's layer, and what it has sealed.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::ops::Range;
use std::time::Duration;

use millstream_platform::memory::{OutputPool, OutputQueue};

use crate::config::Layer;

/// How many of the handler's bytes are sealed at a time.
pub(super) const PIECE: usize = 16 * 1024;
/// No more is sealed while as much waits for the socket.
const AHEAD: usize = 64 * 1024;

/// A layer, and what it has sealed and the operating system has not taken. The handler's bytes in
/// that are pending until the whole piece that they are in was taken.
pub(crate) struct Layered {
    layer: Box<dyn Layer>,
    /// Leased from the reactor's pool while there is something in it.
    sealed: Option<Box<OutputQueue>>,
    /// How many bytes each piece has that is not taken yet, and how many of the handler's.
    pieces: VecDeque<(usize, usize)>,
    /// Its handshake is over. It is asked for often, and so is not asked of the layer.
    ready: bool,
    /// What came can't be opened. It is asked for nothing more.
    failed: bool,
    end_sealed: bool,
    /// What was received for its handshake, which was put off.
    put_off: Option<Vec<u8>>,
    /// How many bytes these were, and the layer held, when that was last booked.
    booked: usize,
}

impl Layered {
    pub(crate) fn new(layer: Box<dyn Layer>) -> Self {
        Layered::with(layer, None, VecDeque::new())
    }

    /// One that comes in while this many of the handler's bytes are pending, of which the operating
    /// system has taken what is not in the queue: they go first, as they are.
    #[cfg(any(feature = "internals", feature = "tls", feature = "tls-ring"))]
    pub(crate) fn behind(
        layer: Box<dyn Layer>,
        queue: Option<Box<OutputQueue>>,
        bytes: usize,
    ) -> Self {
        let pieces = (0..bytes).step_by(PIECE).map(|at| PIECE.min(bytes - at));
        let pieces = pieces.map(|len| (len, len)).collect();
        Layered::with(layer, queue, pieces)
    }

    fn with(
        layer: Box<dyn Layer>,
        sealed: Option<Box<OutputQueue>>,
        pieces: VecDeque<(usize, usize)>,
    ) -> Self {
        let ready = layer.is_ready();
        let (failed, end_sealed, put_off, booked) = (false, false, None, 0);
        Layered { layer, sealed, pieces, ready, failed, end_sealed, put_off, booked }
    }

    /// Whether something sealed waits for the operating system.
    pub(crate) fn waits(&self) -> bool {
        self.sealed.is_some()
    }

    /// How many bytes that are sealed wait for the operating system.
    pub(crate) fn sealed(&self) -> usize {
        self.sealed.as_ref().map_or(0, |sealed| sealed.len())
    }

    /// Whether no more is to be sealed before the operating system takes some of it.
    pub(super) fn is_ahead(&self) -> bool {
        self.sealed() >= AHEAD
    }

    /// Whether reading is to pause until what waits is sent. The handler's bytes are never as many;
    /// what the layer sends by itself may be, and nothing else limits that.
    pub(crate) fn is_flooded(&self) -> bool {
        self.sealed() >= 2 * AHEAD
    }

    /// How many bytes of memory it holds for what is sealed, and for what is not opened.
    pub(crate) fn held(&self) -> usize {
        self.sealed.as_ref().map_or(0, |sealed| sealed.held()) + self.booked
    }

    /// Books what the layer holds by now in what all layers hold.
    pub(crate) fn book_held(&mut self, all: &mut usize) {
        self.book(self.layer.held() + self.put_off.as_ref().map_or(0, Vec::capacity), all);
    }

    /// Keeps what was received for its handshake until that has its turn.
    pub(crate) fn put_off(&mut self, bytes: &[u8], all: &mut usize) {
        self.put_off.get_or_insert_default().extend_from_slice(bytes);
        self.book_held(all);
    }

    pub(crate) fn is_put_off(&self) -> bool {
        self.put_off.is_some()
    }

    /// Its handshake has its turn: returns what was kept.
    pub(crate) fn take_put_off(&mut self, all: &mut usize) -> Vec<u8> {
        let bytes = self.put_off.take().unwrap_or_default();
        self.book_held(all);
        bytes
    }

    /// Takes it out of that: the connection goes.
    pub(crate) fn unbook_held(&mut self, all: &mut usize) {
        self.book(0, all);
    }

    fn book(&mut self, held: usize, all: &mut usize) {
        *all = *all + held - mem::replace(&mut self.booked, held);
    }

    /// For what knows the layer.
    #[cfg(any(feature = "tls", feature = "tls-ring"))]
    pub(crate) fn layer(&self) -> &dyn Layer {
        &*self.layer
    }

    pub(crate) fn handshake_timeout(&self) -> Duration {
        self.layer.handshake_timeout()
    }

    /// Whether its handshake is over.
    #[inline]
    pub(crate) fn is_ready(&self) -> bool {
        self.ready
    }

    /// Whether what is written is sealed now: what waits for that goes out at its handshake's end,
    /// or never.
    #[inline]
    pub(crate) fn seals(&self) -> bool {
        self.ready && !self.failed
    }

    /// Whether that is so, and nothing sealed waits.
    #[inline]
    pub(crate) fn is_at_rest(&self) -> bool {
        self.seals() && self.sealed.is_none()
    }

    pub(crate) fn is_resumed(&self) -> bool {
        self.layer.is_resumed()
    }

    /// Begins the handshake.
    ///
    /// # Errors
    /// The layer's.
    pub(crate) fn begin(&mut self, pool: &mut OutputPool) -> io::Result<()> {
        let begun = self.add(0, pool, Layer::begin);
        self.ready = self.layer.is_ready();
        begun
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.layer.has_ended()
    }

    /// Takes bytes that the socket received: see [`Layer::receive`].
    pub(crate) fn receive(
        &mut self,
        bytes: &mut [u8],
        plain: &mut Vec<u8>,
        pool: &mut OutputPool,
    ) -> (Range<usize>, io::Result<()>) {
        let received =
            self.add(0, pool, |layer, queue, pool| layer.receive(bytes, plain, queue, pool));
        self.ready = self.layer.is_ready();
        self.failed = received.1.is_err();
        received
    }

    /// The socket's end came.
    ///
    /// # Errors
    /// It came too early.
    pub(crate) fn receive_end(&mut self) -> io::Result<()> {
        self.layer.receive_end()
    }

    /// Sends what is sealed, and seals more as the operating system takes it: the bytes of `plain`,
    /// and our end once `ended` says so. Returns how many of the handler's bytes were sent.
    ///
    /// # Errors
    /// Those of `send` and of the layer.
    pub(crate) fn pump(
        &mut self,
        plain: &mut Option<Box<OutputQueue>>,
        ended: bool,
        pool: &mut OutputPool,
        send: &mut Send<'_>,
    ) -> io::Result<usize> {
        let mut sent = 0;
        loop {
            let sealed = self.seal_ahead(plain, ended, pool);
            let Some(queue) = &mut self.sealed else { return sealed.map(|()| sent) };
            let taken = send(queue, pool)?;
            sent += self.note_taken(taken);
            pool.give_back_if_empty(&mut self.sealed);
            sealed?; // What the layer had to say before, such as an alert, was offered.
            if self.waits() {
                return Ok(sent);
            }
        }
    }

    /// The operating system took this many bytes: returns how many of the handler's were the last
    /// of their pieces.
    pub(crate) fn note_taken(&mut self, bytes: usize) -> usize {
        let (mut rest, mut plain) = (bytes, 0);
        while let Some((sealed, of_handler)) = self.pieces.front_mut() {
            let now = rest.min(*sealed);
            rest -= now;
            *sealed -= now;
            if *sealed > 0 {
                break;
            }
            plain += *of_handler;
            self.pieces.pop_front();
        }
        plain
    }

    /// Drops what is sealed.
    pub(crate) fn discard(&mut self, pool: &mut OutputPool) {
        if let Some(mut queue) = self.sealed.take() {
            queue.clear(pool);
            pool.give_back(queue);
        }
    }

    fn seal_ahead(
        &mut self,
        plain: &mut Option<Box<OutputQueue>>,
        ended: bool,
        pool: &mut OutputPool,
    ) -> io::Result<()> {
        if !self.seals() {
            return Ok(());
        }
        while let Some(queue) = plain
            && !self.is_ahead()
        {
            let front = queue.front();
            let len = front.len().min(PIECE);
            if len > 0 {
                self.seal(&front[..len], pool)?;
                queue.advance(len, pool);
            }
            pool.give_back_if_empty(plain);
        }
        if ended && plain.is_none() && !self.end_sealed {
            self.end_sealed = true;
            self.add(0, pool, Layer::seal_end);
        }
        Ok(())
    }

    /// Seals some of the handler's bytes, at most [`PIECE`].
    ///
    /// # Errors
    /// The layer's, and that it has made nothing of them: they would be pending for ever.
    pub(super) fn seal(&mut self, piece: &[u8], pool: &mut OutputPool) -> io::Result<()> {
        let pieces = self.pieces.len();
        self.add(piece.len(), pool, |layer, queue, pool| layer.seal(piece, queue, pool))?;
        if self.pieces.len() == pieces {
            return Err(io::Error::other("the layer made nothing of what was written"));
        }
        Ok(())
    }

    /// Makes the layer put something into the queue, with this many of the handler's bytes in it.
    fn add<R>(
        &mut self,
        of_handler: usize,
        pool: &mut OutputPool,
        fill: impl FnOnce(&mut dyn Layer, &mut OutputQueue, &mut OutputPool) -> R,
    ) -> R {
        let queue = self.sealed.get_or_insert_with(|| pool.queue());
        let before = queue.len();
        let result = fill(&mut *self.layer, queue, pool);
        let added = queue.len() - before;
        if added > 0 {
            self.pieces.push_back((added, of_handler));
        }
        pool.give_back_if_empty(&mut self.sealed);
        result
    }
}

/// Offers a queue to the operating system: takes what that took out of it, and returns how much.
pub(crate) type Send<'a> = dyn FnMut(&mut OutputQueue, &mut OutputPool) -> io::Result<usize> + 'a;
