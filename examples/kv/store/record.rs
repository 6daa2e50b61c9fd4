//! A key and its scalar value in one piece of memory.

use bytes::Bytes;

use super::text::LONG_TEXT;

/// A value that is text or a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scalar<'a> {
    Text(&'a [u8]),
    Integer(i64),
    /// Text that a reply may share.
    Long(&'a Bytes),
}

impl Scalar<'_> {
    /// Whether it is kept in a [`Record`].
    #[inline]
    pub fn fits_record(&self) -> bool {
        match self {
            Scalar::Text(text) => text.len() < LONG_TEXT,
            Scalar::Integer(_) => true,
            Scalar::Long(_) => false,
        }
    }
}

/// The time in milliseconds since 1970.
pub type Millis = i64;

/// A key, a scalar and, if it has one, the deadline at which it is gone, in one allocation:
///
/// ```text
/// | head | key's length: 1 or 5 bytes | deadline: 0 or 8 | key | value | padding |
/// ```
///
/// An allocation per key is what small values cost most, in memory and in cache misses. The padding
/// makes sizes multiples of eight, so that most overwriting is done in place.
pub struct Record(Box<[u8]>);

/// In the head: the value is an integer of eight bytes.
const INTEGER: u8 = 1;
/// In the head: there is a deadline.
const DEADLINE: u8 = 2;
/// Above these bits the head has the length of the padding.
const FLAGS: u32 = 2;
/// A key's length from here on takes four more bytes.
const LONG: u8 = u8::MAX;

impl Record {
    pub fn new(key: &[u8], value: Scalar<'_>, deadline: Option<Millis>) -> Self {
        let integer;
        let (kind, bytes) = match value {
            Scalar::Text(text) => (0, text),
            Scalar::Long(text) => (0, &text[..]),
            Scalar::Integer(number) => {
                integer = number.to_le_bytes();
                (INTEGER, &integer[..])
            }
        };
        let long = key.len() >= LONG.into();
        let head = 2 + if long { 4 } else { 0 } + if deadline.is_some() { 8 } else { 0 };
        let used = head + key.len() + bytes.len();
        let size = used.next_multiple_of(8);
        let mut memory = Vec::with_capacity(size);
        let padding = (size - used) as u8;
        memory.push(kind | if deadline.is_some() { DEADLINE } else { 0 } | padding << FLAGS);
        if long {
            memory.push(LONG);
            let length = u32::try_from(key.len()).expect("a request is shorter than 4 GiB");
            memory.extend_from_slice(&length.to_le_bytes());
        } else {
            memory.push(key.len() as u8);
        }
        if let Some(deadline) = deadline {
            memory.extend_from_slice(&deadline.to_le_bytes());
        }
        memory.extend_from_slice(key);
        memory.extend_from_slice(bytes);
        memory.resize(size, 0);
        Record(memory.into_boxed_slice())
    }

    /// Where the deadline would be, and how long the key is.
    #[inline]
    fn head(&self) -> (usize, usize) {
        if self.0[1] < LONG { (2, self.0[1].into()) } else { (6, self.number::<4>(2) as usize) }
    }

    /// Where the key begins, and where it ends.
    #[inline]
    fn key_range(&self) -> (usize, usize) {
        let (head, length) = self.head();
        let begin = head + if self.0[0] & DEADLINE != 0 { 8 } else { 0 };
        (begin, begin + length)
    }

    fn number<const N: usize>(&self, at: usize) -> u64 {
        let mut bytes = [0; 8];
        bytes[..N].copy_from_slice(&self.0[at..at + N]);
        u64::from_le_bytes(bytes)
    }

    #[inline]
    pub fn key(&self) -> &[u8] {
        let (begin, end) = self.key_range();
        &self.0[begin..end]
    }

    #[inline]
    pub fn value(&self) -> Scalar<'_> {
        let (_, begin) = self.key_range();
        if self.0[0] & INTEGER != 0 {
            return Scalar::Integer(self.number::<8>(begin) as i64);
        }
        Scalar::Text(&self.0[begin..self.0.len() - usize::from(self.0[0] >> FLAGS)])
    }

    #[inline]
    pub fn deadline(&self) -> Option<Millis> {
        let (at, _) = self.head();
        (self.0[0] & DEADLINE != 0).then(|| self.number::<8>(at) as Millis)
    }

    pub fn set_deadline(&mut self, deadline: Option<Millis>) {
        match deadline {
            Some(deadline) if self.0[0] & DEADLINE != 0 => {
                let (at, _) = self.head();
                self.0[at..at + 8].copy_from_slice(&deadline.to_le_bytes());
            }
            None if self.0[0] & DEADLINE == 0 => {}
            deadline => *self = Record::new(self.key(), self.value(), deadline),
        }
    }

    /// Replaces the value, in place if the new one needs as much memory.
    #[inline]
    pub fn set_value(&mut self, value: Scalar<'_>) {
        let (_, begin) = self.key_range();
        match value {
            Scalar::Text(text) => self.set_bytes(begin, 0, text),
            Scalar::Long(text) => self.set_bytes(begin, 0, text),
            Scalar::Integer(number) => self.set_bytes(begin, INTEGER, &number.to_le_bytes()),
        }
    }

    #[inline]
    fn set_bytes(&mut self, begin: usize, kind: u8, bytes: &[u8]) {
        let used = begin + bytes.len();
        let size = used.next_multiple_of(8);
        if size != self.0.len() {
            self.resize(begin, size);
        }
        self.0[begin..used].copy_from_slice(bytes);
        self.0[0] = kind | self.0[0] & DEADLINE | ((size - used) as u8) << FLAGS;
    }

    #[cold]
    fn resize(&mut self, keep: usize, size: usize) {
        let mut memory = std::mem::take(&mut self.0).into_vec();
        memory.truncate(keep.max(size));
        memory.reserve_exact(size.saturating_sub(memory.len()));
        memory.resize(size, 0);
        self.0 = memory.into_boxed_slice();
    }

    /// Puts text behind the value; returns how long it is then.
    pub fn append(&mut self, text: &[u8]) -> usize {
        let mut digits = itoa::Buffer::new();
        if let Scalar::Integer(number) = self.value() {
            self.set_value(Scalar::Text(digits.format(number).as_bytes()));
        }
        let (_, begin) = self.key_range();
        let end = self.0.len() - usize::from(self.0[0] >> FLAGS);
        let used = end + text.len();
        let size = used.next_multiple_of(8);
        if size != self.0.len() {
            self.resize(end, size);
        }
        self.0[end..used].copy_from_slice(text);
        self.0[0] = self.0[0] & DEADLINE | ((size - used) as u8) << FLAGS;
        used - begin
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Random changes, compared with plain fields.
    #[test]
    fn a_record_is_what_was_put_in() {
        let mut rng = fastrand::Rng::with_seed(7);
        for length in [0, 1, 16, 254, 255, 256, 70_000] {
            let key = vec![b'k'; length];
            let (mut value, mut deadline) = (b"first".to_vec(), None);
            let mut record = Record::new(&key, Scalar::Text(&value), deadline);
            for _ in 0..500 {
                let longest = [4, 40, 400][rng.usize(..3)];
                let text = vec![rng.u8(..); rng.usize(..longest)];
                match rng.u8(..5) {
                    0 => {
                        value = text;
                        record.set_value(Scalar::Text(&value));
                    }
                    1 => {
                        let number = rng.i64(..);
                        value = number.to_string().into_bytes();
                        record.set_value(Scalar::Integer(number));
                        assert_eq!(record.value(), Scalar::Integer(number));
                    }
                    2 => {
                        value.extend_from_slice(&text);
                        assert_eq!(record.append(&text), value.len());
                    }
                    _ => {
                        deadline = rng.bool().then(|| rng.i64(..));
                        record.set_deadline(deadline);
                    }
                }
                let text = match record.value() {
                    Scalar::Text(text) => text.to_vec(),
                    Scalar::Long(text) => text.to_vec(),
                    Scalar::Integer(number) => number.to_string().into_bytes(),
                };
                assert_eq!(
                    (record.key(), text, record.deadline()),
                    (&key[..], value.clone(), deadline)
                );
            }
        }
    }
}
