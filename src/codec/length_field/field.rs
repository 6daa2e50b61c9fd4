//! The field that has a length.

/// The most bytes that a field has: those of a varint of 64 bits.
pub(super) const MAX_WIDTH: usize = 10;

/// How a length is written.
#[derive(Clone, Copy, Debug)]
pub(super) enum Field {
    /// In 1 to 8 bytes.
    Fixed { width: usize, little_endian: bool },
    /// In LEB128.
    Varint,
}

/// More bytes than a varint of 64 bits has, or a higher value.
pub(super) struct NotVarint;

impl Field {
    /// The length at the beginning of `bytes`, and how many bytes it takes; `None` if a part is
    /// missing.
    #[inline]
    pub(super) fn read(self, bytes: &[u8]) -> Result<Option<(u64, usize)>, NotVarint> {
        match self {
            Field::Fixed { width, little_endian } => {
                Ok(read_fixed(bytes, width, little_endian).map(|value| (value, width)))
            }
            Field::Varint => read_varint(bytes),
        }
    }

    /// Writes a length, which must not be higher than [`max_value`](Self::max_value), into the
    /// front bytes; returns how many they are.
    #[inline]
    pub(super) fn write(self, value: u64, bytes: &mut [u8; MAX_WIDTH]) -> usize {
        match self {
            Field::Fixed { width, little_endian } => {
                let value = if little_endian {
                    value.to_le_bytes()
                } else {
                    (value << unused_bits(width)).to_be_bytes()
                };
                bytes[..8].copy_from_slice(&value);
                width
            }
            Field::Varint => write_varint(value, 1, bytes),
        }
    }

    /// Like `write`, with as many bytes as the highest of some values takes.
    pub(super) fn write_padded(self, value: u64, max: u64, bytes: &mut [u8; MAX_WIDTH]) -> usize {
        match self {
            Field::Fixed { .. } => self.write(value, bytes),
            Field::Varint => write_varint(value, varint_width(max), bytes),
        }
    }

    /// How many bytes `write_padded` writes.
    pub(super) fn padded_width(self, max: u64) -> usize {
        match self {
            Field::Fixed { width, .. } => width,
            Field::Varint => varint_width(max),
        }
    }

    /// The highest length that can be written.
    pub(super) fn max_value(self) -> u64 {
        match self {
            Field::Fixed { width, .. } => u64::MAX >> unused_bits(width),
            Field::Varint => u64::MAX,
        }
    }
}

fn unused_bits(width: usize) -> usize {
    u64::BITS as usize - 8 * width
}

#[inline]
fn read_fixed(bytes: &[u8], width: usize, little_endian: bool) -> Option<u64> {
    // Usually the beginning of the frame is there, too. So eight bytes are read at once, and those
    // which are not the field's are shifted out.
    let eight = match bytes.first_chunk() {
        Some(eight) => *eight,
        None => padded(bytes.get(..width)?),
    };
    let unused = unused_bits(width);
    Some(if little_endian {
        u64::from_le_bytes(eight) << unused >> unused
    } else {
        u64::from_be_bytes(eight) >> unused
    })
}

fn padded(bytes: &[u8]) -> [u8; 8] {
    let mut eight = [0; 8];
    eight[..bytes.len()].copy_from_slice(bytes);
    eight
}

#[inline]
fn read_varint(bytes: &[u8]) -> Result<Option<(u64, usize)>, NotVarint> {
    let mut value = 0;
    for (index, &byte) in bytes.iter().take(MAX_WIDTH).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            // The tenth byte has room for the last of 64 bits.
            let fits = index + 1 < MAX_WIDTH || byte <= 1;
            return if fits { Ok(Some((value, index + 1))) } else { Err(NotVarint) };
        }
    }
    if bytes.len() < MAX_WIDTH { Ok(None) } else { Err(NotVarint) }
}

/// Writes a varint of at least `width` bytes.
#[inline]
fn write_varint(mut value: u64, width: usize, bytes: &mut [u8; MAX_WIDTH]) -> usize {
    let mut last = 0;
    while value >= 0x80 || last + 1 < width {
        bytes[last] = (value & 0x7f) as u8 | 0x80;
        value >>= 7;
        last += 1;
    }
    bytes[last] = value as u8;
    last + 1
}

fn varint_width(value: u64) -> usize {
    let bits = (u64::BITS - value.leading_zeros()).max(1);
    bits.div_ceil(7) as usize
}
