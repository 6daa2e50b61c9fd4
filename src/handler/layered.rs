//! A connection's layer, and what it has sealed.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;

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
    end_sealed: bool,
}

impl Layered {
    pub(crate) fn new(layer: Box<dyn Layer>) -> Self {
        let (sealed, pieces) = (None, VecDeque::new());
        Layered { layer, sealed, pieces, end_sealed: false }
    }

    /// Whether something sealed waits for the operating system.
    pub(crate) fn waits(&self) -> bool {
        self.sealed.is_some()
    }

    /// Whether reading is to pause until what waits is sent. The handler's bytes are never as many;
    /// what the layer sends by itself may be, and nothing else limits that.
    pub(crate) fn is_flooded(&self) -> bool {
        self.sealed.as_ref().is_some_and(|sealed| sealed.len() >= 2 * AHEAD)
    }

    /// How many bytes of memory it holds for what is sealed.
    pub(crate) fn held(&self) -> usize {
        self.sealed.as_ref().map_or(0, |sealed| sealed.held())
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.layer.has_ended()
    }

    /// Takes bytes that the socket received.
    ///
    /// # Errors
    /// The layer's.
    pub(crate) fn receive(
        &mut self,
        bytes: &[u8],
        plain: &mut Vec<u8>,
        pool: &mut OutputPool,
    ) -> io::Result<Range<usize>> {
        self.add(0, pool, |layer, queue, pool| layer.receive(bytes, plain, queue, pool))
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
            self.seal_ahead(plain, ended, pool)?;
            let Some(queue) = &mut self.sealed else { return Ok(sent) };
            let taken = send(queue, pool)?;
            sent += self.note_taken(taken);
            self.give_back_empty(pool);
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
        while let Some(queue) = plain
            && self.sealed.as_ref().map_or(0, |sealed| sealed.len()) < AHEAD
        {
            let front = queue.front();
            let len = front.len().min(PIECE);
            self.seal(&front[..len], pool)?;
            queue.advance(len, pool);
            if let Some(empty) = plain.take_if(|queue| queue.is_empty()) {
                pool.give_back(empty);
            }
        }
        if ended && plain.is_none() && !self.end_sealed {
            self.end_sealed = true;
            self.add(0, pool, |layer, queue, pool| layer.seal_end(queue, pool));
        }
        Ok(())
    }

    /// Seals some of the handler's bytes, at most [`PIECE`].
    ///
    /// # Errors
    /// The layer's.
    pub(super) fn seal(&mut self, piece: &[u8], pool: &mut OutputPool) -> io::Result<()> {
        self.add(piece.len(), pool, |layer, queue, pool| layer.seal(piece, queue, pool))
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
        self.give_back_empty(pool);
        result
    }

    fn give_back_empty(&mut self, pool: &mut OutputPool) {
        if let Some(empty) = self.sealed.take_if(|queue| queue.is_empty()) {
            pool.give_back(empty);
        }
    }
}

/// Offers a queue to the operating system: takes what that took out of it, and returns how much.
pub(crate) type Send<'a> = dyn FnMut(&mut OutputQueue, &mut OutputPool) -> io::Result<usize> + 'a;
