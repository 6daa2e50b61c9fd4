//! The beginning of a frame (RFC 6455, section 5.2).

use super::error::ProtocolError;
use super::mask::Key;

/// The longest payload of a control frame.
pub(super) const LONGEST_CONTROL: usize = 125;
/// The longest beginning of a frame.
pub(super) const LONGEST_HEAD: usize = 14;

/// The reserved bit that a compressed message has in its first frame (RFC 7692, section 6).
pub(super) const COMPRESSED: u8 = 0x40;

const FINAL: u8 = 0x80;
const RESERVED: u8 = 0x70;
const MASKED: u8 = 0x80;
/// Stands for a length in the next two bytes.
const TWO_BYTES: u8 = 126;
/// Stands for a length in the next eight bytes.
const EIGHT_BYTES: u8 = 127;

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opcode {
    Continuation = 0,
    Text = 1,
    Binary = 2,
    Close = 8,
    Ping = 9,
    Pong = 10,
}

impl Opcode {
    fn of(number: u8) -> Option<Self> {
        Some(match number {
            0 => Opcode::Continuation,
            1 => Opcode::Text,
            2 => Opcode::Binary,
            8 => Opcode::Close,
            9 => Opcode::Ping,
            10 => Opcode::Pong,
            _ => return None,
        })
    }

    pub(super) fn is_control(self) -> bool {
        self as u8 >= Opcode::Close as u8
    }
}

/// The beginning of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameHead {
    pub(super) opcode: Opcode,
    /// It is the last of its message.
    pub(super) is_final: bool,
    /// Those of the three reserved bits that are set, where they are in the first byte.
    pub(super) reserved: u8,
    pub(super) key: Option<Key>,
    /// How long the payload is.
    pub(super) length: u64,
}

impl FrameHead {
    /// A frame that is a whole message, without a mask.
    pub(super) fn whole(opcode: Opcode, length: usize) -> Self {
        FrameHead { opcode, is_final: true, reserved: 0, key: None, length: length as u64 }
    }

    /// Reads what a frame begins with, and how long that is; `None` if a part of it is missing.
    pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, ProtocolError> {
        let &[first, second, ref rest @ ..] = bytes else { return Ok(None) };
        let number = first & 0x0f;
        let opcode = Opcode::of(number).ok_or(ProtocolError::Opcode { opcode: number })?;
        let (length, rest) = match second & !MASKED {
            TWO_BYTES => match rest.split_first_chunk() {
                Some((length, rest)) => (minimal(u16::from_be_bytes(*length), 126)?, rest),
                None => return Ok(None),
            },
            EIGHT_BYTES => match rest.split_first_chunk() {
                Some((length, rest)) => (minimal(u64::from_be_bytes(*length), 1 << 16)?, rest),
                None => return Ok(None),
            },
            length => (u64::from(length), rest),
        };
        let (key, rest) = match rest.split_first_chunk() {
            _ if second & MASKED == 0 => (None, rest),
            Some((key, rest)) => (Some(*key), rest),
            None => return Ok(None),
        };
        let (is_final, reserved) = (first & FINAL != 0, first & RESERVED);
        let size = bytes.len() - rest.len();
        Ok(Some((FrameHead { opcode, is_final, reserved, key, length }, size)))
    }

    /// Writes it, and returns how long it is.
    pub(super) fn write(&self, to: &mut [u8; LONGEST_HEAD]) -> usize {
        let is_final = if self.is_final { FINAL } else { 0 };
        to[0] = is_final | self.reserved | self.opcode as u8;
        let mut size = 2;
        let short = match self.length {
            length @ 0..126 => length as u8,
            length @ 126..0x1_0000 => {
                to[2..4].copy_from_slice(&(length as u16).to_be_bytes());
                size = 4;
                TWO_BYTES
            }
            length => {
                to[2..10].copy_from_slice(&length.to_be_bytes());
                size = 10;
                EIGHT_BYTES
            }
        };
        to[1] = short;
        if let Some(key) = self.key {
            to[1] |= MASKED;
            to[size..size + 4].copy_from_slice(&key);
            size += 4;
        }
        size
    }
}

/// A length that is not below the least that needs as many bytes.
fn minimal(length: impl Into<u64>, least: u64) -> Result<u64, ProtocolError> {
    let length = length.into();
    if length < least || length >> 63 != 0 {
        return Err(ProtocolError::Length { length });
    }
    Ok(length)
}
