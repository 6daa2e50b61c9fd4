//! The codec: messages out of the bytes that arrive, and frames into those that leave.

use std::mem;

use super::buffers::MessageBuffers;
use super::deflate::{DeflateContext, PerMessageDeflate};
use super::error::{EncodeError, ProtocolError};
use super::frame::{COMPRESSED, FrameHead, LONGEST_CONTROL, LONGEST_HEAD, Opcode};
use super::limits::MessageLimits;
use super::mask::{Key, draw_key, mask};
use super::message::{Close, Message};
use super::prepared::PreparedMessage;
use crate::{Input, Output};

/// How much is masked at a time where it is written.
const MASKED_AT_ONCE: usize = 16 * 1024;
/// How much is unmasked at a time where it is decompressed.
const UNMASKED_AT_ONCE: usize = 4 * 1024;

/// Which end of a connection a codec is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebSocketRole {
    /// It reads frames with masks, and writes them without.
    Server,
    /// It writes frames with masks, and reads them without.
    Client,
}

/// Messages of one connection, after its handshake (RFC 6455, section 5), without sockets, clock
/// and threads.
///
/// It takes what there is of a message, so nothing but the beginning of a frame or a control frame
/// waits in the input. A message that comes as one frame without a mask is not copied; another one
/// is unmasked into [`MessageBuffers`], or gathered there. After an error, and behind a close
/// frame, it drops what comes.
///
/// ```
/// use millstream::websocket::{Message, MessageBuffers, MessageLimits, WebSocketRole, WebSocketCodec};
/// use millstream::{Input, OutputBuffer};
///
/// let mut buffers = MessageBuffers::new();
/// let mut client = WebSocketCodec::new(WebSocketRole::Client, MessageLimits::default());
/// let mut sent = OutputBuffer::new();
/// client.encode(Message::Text("hello"), &mut sent.output())?;
/// let sent = sent.take();
/// assert_eq!(sent.len(), 2 + 4 + 5, "with a mask");
///
/// let mut server = WebSocketCodec::new(WebSocketRole::Server, MessageLimits::default());
/// let mut input = Input::from(&sent[..]);
/// assert_eq!(server.decode(&mut input, &mut buffers)?, Some(Message::Text("hello")));
/// assert_eq!(server.decode(&mut input, &mut buffers)?, None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct WebSocketCodec {
    role: WebSocketRole,
    limits: MessageLimits,
    /// The frame that is arriving, if it is a part of a message.
    frame: Option<Arriving>,
    /// What the message is that is arriving.
    kind: Option<Opcode>,
    /// As much of it as came.
    message: Vec<u8>,
    /// How much of it is whole characters, in a text.
    checked: usize,
    /// It is compressed.
    is_compressed: bool,
    /// What compresses, if both ends have agreed on that.
    deflate: Option<Box<DeflateContext>>,
    /// Nothing more is read.
    ended: bool,
    /// A close frame was written.
    closed: bool,
}

/// A frame that is arriving.
#[derive(Debug)]
struct Arriving {
    key: Option<Key>,
    /// How many bytes of it came.
    came: usize,
    left: usize,
    is_final: bool,
}

/// A message that is whole.
struct Found<'i> {
    opcode: Opcode,
    /// Its payload, unless that is in the buffers.
    payload: Option<&'i [u8]>,
}

impl WebSocketCodec {
    /// The codec of a new connection.
    pub fn new(role: WebSocketRole, limits: MessageLimits) -> Self {
        WebSocketCodec {
            role,
            limits,
            frame: None,
            kind: None,
            message: Vec::new(),
            checked: 0,
            is_compressed: false,
            deflate: None,
            ended: false,
            closed: false,
        }
    }

    /// Compresses messages, and reads such that are compressed, as both ends have agreed on.
    #[cfg(feature = "websocket-deflate")]
    #[cfg_attr(docsrs, doc(cfg(feature = "websocket-deflate")))]
    pub fn deflate(self, agreed: PerMessageDeflate) -> Self {
        self.extended(Some(agreed))
    }

    pub(super) fn extended(mut self, agreed: Option<PerMessageDeflate>) -> Self {
        self.deflate = agreed.map(|agreed| Box::new(DeflateContext::new(agreed)));
        self
    }

    /// Whether a close frame was written, behind which nothing is sent any more.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Takes the next message out of the input; `None` if it is not whole yet.
    ///
    /// # Errors
    /// The peer breaks the protocol or a limit. Nothing more is read.
    #[inline]
    pub fn decode<'i: 'b, 'b>(
        &mut self,
        input: &mut Input<'i>,
        buffers: &'b mut MessageBuffers,
    ) -> Result<Option<Message<'b>>, ProtocolError> {
        if self.ended {
            input.take_all();
            return Ok(None);
        }
        let read = match self.find(input, buffers) {
            Ok(None) => return Ok(None),
            Ok(Some(Found { opcode, payload })) => {
                self.ended = opcode == Opcode::Close;
                Message::read(opcode, payload.unwrap_or(buffers.whole())).map(Some)
            }
            Err(error) => Err(error),
        };
        self.ended |= read.is_err();
        read
    }

    fn find<'i>(
        &mut self,
        input: &mut Input<'i>,
        buffers: &mut MessageBuffers,
    ) -> Result<Option<Found<'i>>, ProtocolError> {
        loop {
            if self.frame.is_none() {
                let Some((head, size)) = FrameHead::parse(input.peek())? else { return Ok(None) };
                self.check(&head)?;
                let length = head.length as usize; // It is within the limit.
                let (opcode, is_control) = (head.opcode, head.opcode.is_control());
                let is_plain = head.reserved == 0;
                if (is_control || (head.is_final && is_plain && self.kind.is_none()))
                    && let Some(frame) = input.take(size + length)
                {
                    let payload = unmasked(&frame[size..], head.key, buffers);
                    return Ok(Some(Found { opcode, payload }));
                }
                if is_control {
                    return Ok(None);
                }
                input.skip(size);
                self.begin(&head, buffers);
            }
            if !self.gather(input)? {
                return Ok(None);
            }
            if let Some(opcode) = self.end_frame()? {
                buffers.put(mem::take(&mut self.message));
                return Ok(Some(Found { opcode, payload: None }));
            }
        }
    }

    /// Whether a frame may begin like this.
    fn check(&self, head: &FrameHead) -> Result<(), ProtocolError> {
        let FrameHead { opcode, is_final, reserved, key, length } = *head;
        let starts = matches!(opcode, Opcode::Text | Opcode::Binary);
        let is_compressed = starts && reserved == COMPRESSED && self.deflate.is_some();
        if reserved != 0 && !is_compressed {
            return Err(ProtocolError::ReservedBits { bits: reserved });
        }
        match (self.role, key) {
            (WebSocketRole::Server, None) => return Err(ProtocolError::NotMasked),
            (WebSocketRole::Client, Some(_)) => return Err(ProtocolError::Masked),
            _ => {}
        }
        if opcode.is_control() {
            return match is_final {
                false => Err(ProtocolError::ControlNotFinal),
                true if length > LONGEST_CONTROL as u64 => {
                    Err(ProtocolError::ControlTooLong { length })
                }
                true => Ok(()),
            };
        }
        match (opcode, self.kind) {
            (Opcode::Continuation, None) => return Err(ProtocolError::NothingToContinue),
            (Opcode::Text | Opcode::Binary, Some(_)) => return Err(ProtocolError::WithinMessage),
            _ => {}
        }
        let MessageLimits { frame, message } = self.limits;
        if length > frame as u64 {
            return Err(ProtocolError::FrameTooLong { length, max: frame });
        }
        if is_compressed || (!starts && self.is_compressed) {
            return Ok(()); // It counts as what becomes of it.
        }
        let before = self.message.len() as u64;
        if length.saturating_add(before) > message as u64 {
            return Err(ProtocolError::MessageTooLong { max: message });
        }
        Ok(())
    }

    /// Begins to gather a frame.
    fn begin(&mut self, head: &FrameHead, buffers: &mut MessageBuffers) {
        if self.kind.is_none() {
            self.kind = Some(head.opcode);
            self.message = buffers.lease();
            self.checked = 0;
            self.is_compressed = head.reserved == COMPRESSED;
        }
        let FrameHead { key, is_final, length, .. } = *head;
        self.frame = Some(Arriving { key, came: 0, left: length as usize, is_final });
    }

    /// Takes what there is of a frame; returns whether it is whole.
    fn gather(&mut self, input: &mut Input<'_>) -> Result<bool, ProtocolError> {
        let Some(frame) = &mut self.frame else { return Ok(false) };
        let count = frame.left.min(input.len());
        let bytes = input.take(count).unwrap_or_default();
        match self.deflate.as_deref_mut().filter(|_| self.is_compressed) {
            Some(deflate) => {
                let Arriving { key, came, .. } = *frame;
                decompress(deflate, bytes, key, came, &mut self.message, self.limits.message)?;
            }
            None => {
                let start = self.message.len();
                self.message.extend_from_slice(bytes);
                if let Some(key) = frame.key {
                    mask(&mut self.message[start..], key, frame.came);
                }
            }
        }
        frame.came += count;
        frame.left -= count;
        let is_whole = frame.left == 0;
        if self.kind == Some(Opcode::Text) {
            self.check_text()?;
        }
        Ok(is_whole)
    }

    /// Fails at the first byte that no text can have.
    fn check_text(&mut self) -> Result<(), ProtocolError> {
        match str::from_utf8(&self.message[self.checked..]) {
            Ok(text) => self.checked += text.len(),
            Err(error) if error.error_len().is_some() => return Err(ProtocolError::NotUtf8),
            Err(error) => self.checked += error.valid_up_to(),
        }
        Ok(())
    }

    /// A frame is whole. Returns what the message is if that is whole, too.
    fn end_frame(&mut self) -> Result<Option<Opcode>, ProtocolError> {
        if !self.frame.take().is_some_and(|frame| frame.is_final) {
            return Ok(None);
        }
        if self.is_compressed
            && let Some(deflate) = &mut self.deflate
        {
            deflate.end_message(&mut self.message, self.limits.message)?;
        }
        Ok(self.kind.take())
    }

    /// From here on nothing is sent.
    pub(super) fn end(&mut self) {
        self.closed = true;
    }

    /// Writes a message as one frame.
    ///
    /// # Errors
    /// It can't be sent, or a close frame was written before.
    #[inline]
    pub fn encode(
        &mut self,
        message: Message<'_>,
        output: &mut Output<'_>,
    ) -> Result<(), EncodeError> {
        if self.closed {
            return Err(EncodeError::Closed);
        }
        match message {
            Message::Text(text) => self.write_data(Opcode::Text, text.as_bytes(), output),
            Message::Binary(bytes) => self.write_data(Opcode::Binary, bytes, output),
            Message::Ping(bytes) => self.write_control(Opcode::Ping, bytes, output),
            Message::Pong(bytes) => self.write_control(Opcode::Pong, bytes, output),
            Message::Close(close) => self.write_close(close, output),
        }
    }

    /// Writes a message that is sent to others as well.
    pub(super) fn encode_prepared(
        &mut self,
        message: &PreparedMessage,
        output: &mut Output<'_>,
    ) -> Result<(), EncodeError> {
        let shared = match (self.role, &mut self.deflate) {
            _ if self.closed => return Err(EncodeError::Closed),
            (WebSocketRole::Server, None) => Some(message.frame().clone()),
            (WebSocketRole::Server, Some(deflate)) => deflate.shared(message),
            (WebSocketRole::Client, _) => None,
        };
        match shared {
            Some(frame) => output.write_bytes(frame),
            None => self.write_data(message.opcode(), message.payload(), output)?,
        }
        Ok(())
    }

    fn write_close(
        &mut self,
        close: Option<Close<'_>>,
        output: &mut Output<'_>,
    ) -> Result<(), EncodeError> {
        let (mut payload, mut length) = ([0; LONGEST_CONTROL], 0);
        if let Some(Close { code, reason }) = close {
            length = 2 + reason.len();
            let to = payload.get_mut(2..length).ok_or(EncodeError::ControlTooLong { length })?;
            to.copy_from_slice(reason.as_bytes());
            payload[..2].copy_from_slice(&code.number().to_be_bytes());
        }
        self.write(Opcode::Close, &payload[..length], output)?;
        self.closed = true;
        Ok(())
    }

    fn write_control(
        &self,
        opcode: Opcode,
        payload: &[u8],
        output: &mut Output<'_>,
    ) -> Result<(), EncodeError> {
        if payload.len() > LONGEST_CONTROL {
            return Err(EncodeError::ControlTooLong { length: payload.len() });
        }
        self.write(opcode, payload, output)
    }

    #[inline]
    fn write_data(
        &mut self,
        opcode: Opcode,
        payload: &[u8],
        output: &mut Output<'_>,
    ) -> Result<(), EncodeError> {
        let Some(deflate) = &mut self.deflate else { return self.write(opcode, payload, output) };
        deflate.compressed(payload, |compressed| {
            let payload = compressed.unwrap_or(payload);
            let mut head = FrameHead::whole(opcode, payload.len());
            head.reserved = if compressed.is_some() { COMPRESSED } else { 0 };
            write_frame(self.role, head, payload, output)
        })
    }

    #[inline]
    fn write(
        &self,
        opcode: Opcode,
        payload: &[u8],
        output: &mut Output<'_>,
    ) -> Result<(), EncodeError> {
        write_frame(self.role, FrameHead::whole(opcode, payload.len()), payload, output)
    }
}

#[inline]
fn write_frame(
    role: WebSocketRole,
    mut head: FrameHead,
    payload: &[u8],
    output: &mut Output<'_>,
) -> Result<(), EncodeError> {
    let mut written = [0; LONGEST_HEAD];
    if role == WebSocketRole::Server {
        let size = head.write(&mut written);
        output.write_parts([&written[..size], payload]);
        return Ok(());
    }
    let key = draw_key().map_err(EncodeError::Key)?;
    head.key = Some(key);
    let size = head.write(&mut written);
    output.write(&written[..size]);
    for (index, part) in payload.chunks(MASKED_AT_ONCE).enumerate() {
        output.reserve(part.len(), |room| {
            room[..part.len()].copy_from_slice(part);
            mask(&mut room[..part.len()], key, index * MASKED_AT_ONCE);
            part.len()
        });
    }
    Ok(())
}

/// Adds to a message what becomes of these bytes of a frame, which begin at its `at`th.
fn decompress(
    deflate: &mut DeflateContext,
    bytes: &[u8],
    key: Option<Key>,
    at: usize,
    message: &mut Vec<u8>,
    max: usize,
) -> Result<(), ProtocolError> {
    let Some(key) = key else { return deflate.decompress(bytes, message, max) };
    let mut room = [0; UNMASKED_AT_ONCE];
    for (index, part) in bytes.chunks(UNMASKED_AT_ONCE).enumerate() {
        let unmasked = &mut room[..part.len()];
        unmasked.copy_from_slice(part);
        mask(unmasked, key, at + index * UNMASKED_AT_ONCE);
        deflate.decompress(unmasked, message, max)?;
    }
    Ok(())
}

/// A payload as it was meant: `None` if it is in the buffers now.
#[inline]
fn unmasked<'i>(
    payload: &'i [u8],
    key: Option<Key>,
    buffers: &mut MessageBuffers,
) -> Option<&'i [u8]> {
    let Some(key) = key else { return Some(payload) };
    let whole = buffers.clear();
    whole.extend_from_slice(payload);
    mask(whole, key, 0);
    None
}
