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
    /// It is above the high-water mark and was not at the low one since.
    pub(crate) above_high_water: bool,
    /// The lower half of the tick in which reading was paused, or held by something else than
    /// before. This is the one place where it makes an idle connection no larger.
    pub(crate) paused_since: u32,
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

impl Extra {
    /// Whether it is only a layer that has nothing to do.
    #[inline]
    pub(crate) fn is_at_rest(&self) -> bool {
        self.relay.is_none()
            && self.fault.is_none()
            && self.layer.as_ref().is_some_and(Layered::is_at_rest)
    }
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

    /// Whether the layer's handshake is not over: what is written waits for that.
    #[inline]
    pub(crate) fn awaits_layer(&self) -> bool {
        self.layer().is_some_and(|layer| !layer.is_ready())
    }

    /// Drops what a layer is never going to seal: no handshake will be over, or it has failed.
    pub(crate) fn drop_unsealed(&mut self, pool: &mut OutputPool) {
        if self.layer().is_some_and(|layer| !layer.seals())
            && let Some(mut queue) = self.queue.take()
        {
            self.bytes -= queue.len();
            queue.clear(pool);
            pool.give_back(queue);
        }
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

    /// Whether the operating system was offered what is pending, and did not take all of it. What
    /// is to be flushed in this turn does not wait for the peer.
    #[inline]
    pub(crate) fn waits_for_peer(&self) -> bool {
        self.stuck && !self.is_sent()
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
        if self.layer().is_some_and(Layered::waits) {
            return Ok(taken);
        }
        for piece in more.iter().flat_map(|slice| slice.chunks(PIECE)) {
            if self.layer().is_some_and(Layered::is_ahead) {
                self.pump(pool, send)?;
            }
            let has_room = piece.len() <= cap.saturating_sub(self.bytes);
            let takes = |layer: &&mut Layered| has_room && layer.seals() && !layer.is_ahead();
            let Some(layer) = self.layer_mut().filter(takes) else { break };
            layer.seal(piece, pool)?;
            self.bytes += piece.len();
            taken += piece.len();
        }
        self.pump(pool, send)?;
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
///
/// ```
/// use std::io::Write;
/// use millstream::Output;
///
/// fn respond(output: &mut Output<'_>, body: bytes::Bytes) {
///     output.write_parts([b"HTTP/1.1 200 OK\r\n", b"Content-Type: text/plain\r\n"]);
///     // Formatting fails only where nothing is sent any more.
///     let _ = write!(output, "Content-Length: {}\r\n\r\n", body.len());
///     output.write_bytes(body); // By reference, if it isn't small.
/// }
///
/// # let mut buffer = millstream::OutputBuffer::new();
/// # respond(&mut buffer.output(), "hello".into());
/// # assert!(buffer.take().ends_with(b"Content-Length: 5\r\n\r\nhello"));
/// ```
#[doc(alias = "write buffer")]
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
    /// The same, for a shorter time.
    #[inline]
    pub(crate) fn reborrow(&mut self) -> Output<'_> {
        let Output { token, pending, link, outputs } = self;
        Output { token: *token, pending, link: &mut **link, outputs }
    }

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

    /// As [`write_bytes`](Self::write_bytes), for bytes that are sent to others as well.
    #[inline]
    pub(crate) fn write_shared(&mut self, bytes: &Bytes) {
        if bytes.len() < OutputQueue::SHARE_FROM {
            self.write(bytes);
        } else {
            self.write_bytes(bytes.clone());
        }
    }

    /// The same for bytes that are sent to many others and are no part of something larger. Where
    /// nothing waits, few bytes are not worth a chunk: with many connections at once it would come
    /// from the system and go back.
    #[inline]
    pub(crate) fn write_reference(&mut self, bytes: &Bytes) {
        if self.pending.queue.is_some() {
            self.write_shared(bytes);
        } else if let Some((queue, pool)) = self.queue_for(bytes.len()) {
            queue.append_reference(bytes.clone(), pool);
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

    /// How many of the bytes written the operating system took since the connection opened.
    pub fn sent(&self) -> u64 {
        self.pending.sent
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
