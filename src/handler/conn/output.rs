//! What a connection has written and the operating system has not taken yet.

use std::io::{self, ErrorKind, IoSlice, Write};
use std::time::Instant;

use bytes::Bytes;
use millstream_platform::driver::{Link, Token};
use millstream_platform::memory::{OutputPool, OutputQueue};

use crate::config::OutputLimits;
use crate::handler::Relay;
use crate::handler::layered::{Layered, PIECE, Send};

/// Writes of this many bytes or more are offered to the operating system at once, from where they
/// are. Below it, copying them behind what is already gathered costs less than a system call.
const LARGE: usize = 16 * 1024;

/// A connection's output as it is kept between callbacks.
#[derive(Default)]
pub(crate) struct Pending {
    /// Leased from the reactor's pool while there is something in it.
    pub(crate) queue: Option<Box<OutputQueue>>,
    /// How many bytes were written and not sent.
    pub(crate) bytes: usize,
    /// How many bytes were sent since the connection opened.
    pub(crate) sent: u64,
    /// What few connections have on the way of their bytes.
    pub(crate) extra: Option<Box<Extra>>,
    /// Our side has ended, or is about to: nothing more is written.
    pub(crate) ended: bool,
    /// The connection is on the list of what to flush.
    pub(crate) dirty: bool,
    /// Something waits, and none of it was sent since the connection's last tick of sending.
    pub(crate) stuck: bool,
}

/// What few connections have on the way of their bytes.
#[derive(Default)]
pub(crate) struct Extra {
    /// A part in relaying.
    pub(crate) relay: Option<Relay>,
    /// What ends the output early.
    fault: Option<Fault>,
    /// What stands between the output and the socket.
    layer: Option<Layered>,
}

/// Why output can't go on.
#[derive(Debug)]
pub(crate) enum Fault {
    /// More was written than the cap allows.
    Overflow,
    /// The operating system says the connection is broken.
    Broken(io::Error),
}

impl Pending {
    /// What stands between the output and the socket.
    #[inline]
    pub(crate) fn layer(&self) -> Option<&Layered> {
        self.extra.as_ref()?.layer.as_ref()
    }

    pub(crate) fn layer_mut(&mut self) -> Option<&mut Layered> {
        self.extra.as_mut()?.layer.as_mut()
    }

    /// The connection's part in relaying.
    #[inline]
    pub(crate) fn relay(&self) -> Option<&Relay> {
        self.extra.as_ref()?.relay.as_ref()
    }

    pub(crate) fn extra(&mut self) -> &mut Extra {
        self.extra.get_or_insert_default()
    }

    pub(crate) fn put_layer(&mut self, layer: Layered) {
        self.extra().layer = Some(layer);
    }

    pub(crate) fn take_fault(&mut self) -> Option<Fault> {
        self.extra.as_mut()?.fault.take()
    }

    /// Notes that the operating system took `count` bytes.
    pub(crate) fn note_sent(&mut self, count: usize) {
        debug_assert!(count <= self.bytes, "{count} bytes sent of {} written", self.bytes);
        self.bytes -= count;
        self.sent += count as u64;
    }

    /// Notes that the operating system took `count` bytes of what goes to it.
    pub(crate) fn note_taken(&mut self, count: usize) {
        let sent = self.layer_mut().map_or(count, |layer| layer.note_taken(count));
        self.note_sent(sent);
    }

    /// Whether the operating system took all that was written.
    #[inline]
    pub(crate) fn is_sent(&self) -> bool {
        self.bytes == 0 && !self.layer().is_some_and(Layered::waits)
    }

    /// Sends what is pending, by way of the layer if there is one.
    ///
    /// # Errors
    /// The connection is broken, or the layer fails.
    pub(crate) fn pump(&mut self, pool: &mut OutputPool, send: &mut Send<'_>) -> io::Result<()> {
        let layer = self.extra.as_mut().and_then(|extra| extra.layer.as_mut());
        let sent = match (layer, &mut self.queue) {
            (Some(layer), queue) => layer.pump(queue, self.ended, pool, send)?,
            (None, Some(queue)) => {
                let sent = send(queue, pool);
                pool.give_back_if_empty(&mut self.queue);
                sent?
            }
            (None, None) => 0,
        };
        self.note_sent(sent);
        Ok(())
    }

    /// Sends by way of the layer, and behind what is pending as many of these bytes as the
    /// operating system takes soon and as `cap` allows. Returns how many; they are pending until
    /// they are sent.
    ///
    /// # Errors
    /// As for [`pump`](Self::pump).
    fn pump_with(
        &mut self,
        more: &[IoSlice<'_>],
        cap: usize,
        pool: &mut OutputPool,
        send: &mut Send<'_>,
    ) -> io::Result<usize> {
        self.pump(pool, send)?;
        let mut taken = 0;
        for piece in more.iter().flat_map(|slice| slice.chunks(PIECE)) {
            let has_room = piece.len() <= cap.saturating_sub(self.bytes);
            let Some(layer) = self.layer_mut().filter(|layer| has_room && !layer.waits()) else {
                break;
            };
            layer.seal(piece, pool)?;
            self.bytes += piece.len();
            taken += piece.len();
            self.pump(pool, send)?;
        }
        Ok(taken)
    }

    /// Notes why the output can't go on.
    fn fail(&mut self, fault: Fault) {
        self.ended = true;
        self.extra().fault = Some(fault);
    }

    /// Whether more may be written.
    fn is_writable(&self) -> bool {
        !self.ended
    }

    /// The queue, leased now if it wasn't.
    #[inline(always)]
    fn lease(&mut self, pool: &mut OutputPool) -> &mut OutputQueue {
        self.queue.get_or_insert_with(|| pool.queue())
    }

    /// Drops what was not sent, and returns the queue to the pool.
    pub(crate) fn discard(&mut self, pool: &mut OutputPool) {
        self.bytes = 0;
        if let Some(layer) = self.layer_mut() {
            layer.discard(pool);
        }
        if let Some(mut queue) = self.queue.take() {
            queue.clear(pool);
            pool.give_back(queue);
        }
    }

    /// Keeps the queue, or returns it to the pool if nothing is in it.
    #[inline]
    pub(crate) fn keep(&mut self, queue: Box<OutputQueue>, pool: &mut OutputPool) {
        self.queue = Some(queue);
        pool.give_back_if_empty(&mut self.queue);
    }
}

/// A connection's output.
///
/// Writing never blocks. Small writes are gathered and sent together when the callback is over;
/// large ones are offered to the operating system at once, without a copy; [`Bytes`] are kept by
/// reference. What the peer doesn't take yet waits here, up to the
/// [`output_cap`](crate::Builder::output_cap): a write beyond it is dropped, and the connection
/// closes with [`CloseReason::OutputOverflow`](crate::CloseReason::OutputOverflow). Watch
/// [`room`](Self::room), [`pending`](Self::pending) or the water marks to stay below.
///
/// After [`Conn::shutdown`](crate::Conn::shutdown) or a close, what is written is dropped, except
/// for the last word that [`on_closing`](crate::EventHandler::on_closing) may write; see
/// [`is_writable`](Self::is_writable).
pub struct Output<'a> {
    pub(crate) token: Token,
    pub(crate) pending: &'a mut Pending,
    pub(crate) link: &'a mut dyn Link,
    outputs: &'a mut Outputs,
}

/// What the outputs of a reactor's connections share.
pub(crate) struct Outputs {
    pub(crate) pool: OutputPool,
    pub(crate) limits: OutputLimits,
    /// How many bytes were sent by way of an output, and are to be booked.
    pub(crate) sent: u64,
}

impl Outputs {
    /// Lends a connection's output.
    #[inline(always)]
    pub(crate) fn lend<'a>(
        &'a mut self,
        token: Token,
        pending: &'a mut Pending,
        link: &'a mut dyn Link,
    ) -> Output<'a> {
        Output { token, pending, link, outputs: self }
    }
}

impl<'a> Output<'a> {
    /// Writes bytes.
    #[doc(alias = "send")]
    #[inline]
    pub fn write(&mut self, bytes: &[u8]) {
        self.write_parts([bytes]);
    }

    /// Writes a few small slices, one after the other, at the cost of one write.
    #[inline(always)]
    pub fn write_parts<const N: usize>(&mut self, parts: [&[u8]; N]) {
        let total = parts.iter().fold(0, |total: usize, part| total.saturating_add(part.len()));
        if (1..LARGE).contains(&total)
            && self.pending.is_writable()
            && total <= self.outputs.limits.cap - self.pending.bytes
            && self.pending.lease(&mut self.outputs.pool).append_in_place(parts, total)
        {
            self.pending.bytes += total;
        } else {
            self.write_vectored(&parts.map(IoSlice::new));
        }
    }

    /// Writes any number of slices, one after the other. What is large is offered to the operating
    /// system from where it is, and only the rest is copied.
    #[doc(alias = "writev")]
    #[inline(never)]
    pub fn write_vectored(&mut self, slices: &[IoSlice<'_>]) {
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        let mut skip = if total >= LARGE { self.offer(slices) } else { 0 };
        for slice in slices {
            let skipped = skip.min(slice.len());
            skip -= skipped;
            if let Some((queue, pool)) = self.queue_for(slice.len() - skipped) {
                queue.append(&slice[skipped..], pool);
            }
        }
    }

    /// Writes bytes that are kept by reference until they are sent. Small ones are copied instead,
    /// which costs less.
    #[doc(alias = "zero-copy")]
    pub fn write_bytes(&mut self, bytes: impl Into<Bytes>) {
        let bytes = bytes.into();
        if let Some((queue, pool)) = self.queue_for(bytes.len()) {
            queue.append_shared(bytes, pool);
        }
    }

    /// Writes in place: reserves `room` bytes, lets `fill` write into them, and keeps as many as it
    /// returns. The room's first content is unspecified. If the room doesn't fit below the cap, or
    /// nothing may be written any more, `fill` is not called.
    ///
    /// # Panics
    /// If `fill` returns more than `room`.
    pub fn reserve(&mut self, room: usize, fill: impl FnOnce(&mut [u8]) -> usize) {
        if room == 0 || !self.has_room(room) {
            return;
        }
        let queue = self.pending.lease(&mut self.outputs.pool);
        let before = queue.len();
        queue.fill(room, &mut self.outputs.pool, fill);
        self.pending.bytes += queue.len() - before;
    }

    /// How many bytes wait for the operating system to take them.
    pub fn pending(&self) -> usize {
        self.pending.bytes
    }

    /// How many more bytes may be written before the [`output_cap`](crate::Builder::output_cap) is
    /// reached; none if nothing more is sent.
    #[inline]
    pub fn room(&self) -> usize {
        if self.is_writable() {
            self.outputs.limits.cap.saturating_sub(self.pending.bytes)
        } else {
            0
        }
    }

    /// The [`output_cap`](crate::Builder::output_cap) in bytes: what is longer never fits.
    #[inline]
    pub fn cap(&self) -> usize {
        self.outputs.limits.cap
    }

    /// Whether more waits than the [high-water mark](crate::Builder::water_marks), so that
    /// [`on_low_water`](crate::EventHandler::on_low_water) is going to be called.
    pub fn is_above_high_water(&self) -> bool {
        self.pending.bytes > self.outputs.limits.high_water
    }

    /// Whether so much waits that reading is going to pause.
    #[inline]
    pub(crate) fn is_flooded(&self) -> bool {
        self.pending.bytes > self.outputs.limits.high_water
            && self.outputs.limits.pause_reading_at_high_water
    }

    /// How many bytes are in the queue.
    pub(super) fn queued(&self) -> usize {
        self.pending.queue.as_ref().map_or(0, |queue| queue.len())
    }

    /// Takes back what was queued behind the first `len` bytes.
    pub(super) fn take_back(&mut self, len: usize) {
        let Some(queue) = &mut self.pending.queue else { return };
        let before = queue.len();
        queue.truncate(len, &mut self.outputs.pool);
        self.pending.bytes -= before - queue.len();
        if let Some(queue) = self.pending.queue.take() {
            self.pending.keep(queue, &mut self.outputs.pool);
        }
    }

    /// Asks the clock what time it is, which [`Conn::now`](crate::Conn::now) does not: it tells
    /// when this turn began to run callbacks. On a simulated network it is the virtual time.
    pub fn now(&self) -> Instant {
        self.link.now()
    }

    /// Whether bytes that are written now will be sent.
    pub fn is_writable(&self) -> bool {
        self.pending.is_writable()
    }

    /// Offers what is pending to the operating system now, without waiting for the callback's end.
    pub fn flush(&mut self) {
        self.offer(&[]);
    }

    /// The queue to put `count` more bytes into, which are counted as pending from here on. `None`:
    /// they are to be dropped.
    pub(super) fn queue_for(
        &mut self,
        count: usize,
    ) -> Option<(&mut OutputQueue, &mut OutputPool)> {
        if count == 0 || !self.has_room(count) {
            return None;
        }
        self.pending.bytes += count;
        Some((self.pending.lease(&mut self.outputs.pool), &mut self.outputs.pool))
    }

    /// Whether `count` more bytes may be written. If the cap forbids it, that is the connection's
    /// end.
    fn has_room(&mut self, count: usize) -> bool {
        if !self.is_writable() {
            return false;
        }
        let fits = self.pending.bytes.saturating_add(count) <= self.outputs.limits.cap;
        if !fits {
            self.pending.fail(Fault::Overflow);
        }
        fits
    }

    /// Offers the queue and `more` to the operating system; returns how much of `more` it took.
    fn offer(&mut self, more: &[IoSlice<'_>]) -> usize {
        if !self.is_writable() {
            return 0;
        }
        if self.pending.layer().is_some() {
            return self.offer_by_layer(more);
        }
        let mut queue = self.pending.queue.take().unwrap_or_else(|| self.outputs.pool.queue());
        let before = queue.len();
        let offered = self.link.offer(self.token, &mut queue, &mut self.outputs.pool, more);
        let from_queue = before - queue.len();
        self.pending.keep(queue, &mut self.outputs.pool);
        self.pending.note_sent(from_queue);
        self.outputs.sent += from_queue as u64;
        match offered {
            Ok(taken) => {
                self.pending.sent += taken as u64;
                self.outputs.sent += taken as u64;
                taken
            }
            Err(error) => {
                self.pending.fail(Fault::Broken(error));
                0
            }
        }
    }
}

impl Output<'_> {
    #[inline(never)]
    fn offer_by_layer(&mut self, more: &[IoSlice<'_>]) -> usize {
        let Output { token, pending, link, outputs } = self;
        let Outputs { pool, limits, sent } = &mut **outputs;
        let mut send = |queue: &mut OutputQueue, pool: &mut OutputPool| {
            let before = queue.len();
            link.offer(*token, queue, pool, &[])?;
            let taken = before - queue.len();
            *sent += taken as u64;
            Ok(taken)
        };
        let offered = pending.pump_with(more, limits.cap, pool, &mut send);
        offered.unwrap_or_else(|error| {
            pending.fail(Fault::Broken(error));
            0
        })
    }
}

/// Writing takes everything or returns [`ErrorKind::BrokenPipe`] when nothing more will be sent.
/// Flushing offers what is pending to the operating system and does not wait for it.
impl Write for Output<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)]);
        self.written(bytes.len())
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.write_vectored(slices);
        self.written(slices.iter().map(|slice| slice.len()).sum())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.flush();
        self.written(0).map(|_| ())
    }
}

impl Output<'_> {
    pub(super) fn written(&self, count: usize) -> io::Result<usize> {
        if self.is_writable() { Ok(count) } else { Err(ErrorKind::BrokenPipe.into()) }
    }
}
