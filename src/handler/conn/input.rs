//! What a connection has received and its handler has not read yet.

use std::io::{self, BufRead, Read};

use memchr::memmem;

/// A connection's unread bytes, always one contiguous slice, whatever their number.
///
/// Taking is a cursor that moves: nothing is copied, and the slices that were taken stay valid
/// until the callback returns. What is not taken is there again in the next callback.
///
/// ```
/// # use millstream::Input;
/// /// Takes a message: its length, in one byte, and that many bytes.
/// fn take_message<'a>(input: &mut Input<'a>) -> Option<&'a [u8]> {
///     let length = usize::from(*input.peek().first()?);
///     let message = input.take(1 + length)?; // Nothing is taken until all of it is there.
///     Some(&message[1..])
/// }
///
/// let mut input = Input::from(&b"\x05hello\x05wor"[..]);
/// assert_eq!(take_message(&mut input), Some(&b"hello"[..]));
/// assert_eq!(take_message(&mut input), None);
/// assert_eq!(input.peek(), b"\x05wor");
/// ```
#[doc(alias = "read buffer")]
#[derive(Clone, Debug)]
pub struct Input<'a> {
    unread: &'a [u8],
    taken: usize,
}

impl<'a> Input<'a> {
    /// How many bytes were taken since the callback began.
    pub fn taken(&self) -> usize {
        self.taken
    }

    /// How many bytes are unread.
    pub fn len(&self) -> usize {
        self.unread.len()
    }

    /// Whether nothing is unread.
    pub fn is_empty(&self) -> bool {
        self.unread.is_empty()
    }

    /// All unread bytes, without taking them.
    pub fn peek(&self) -> &'a [u8] {
        self.unread
    }

    /// The next `count` bytes, without taking them; `None` if fewer are there.
    pub fn peek_exact(&self, count: usize) -> Option<&'a [u8]> {
        self.unread.get(..count)
    }

    /// Takes the next `count` bytes; `None`, and nothing taken, if fewer are there.
    pub fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.unread.split_at_checked(count)?;
        self.unread = rest;
        self.taken += count;
        Some(taken)
    }

    /// Takes all unread bytes.
    #[doc(alias("read", "recv"))]
    pub fn take_all(&mut self) -> &'a [u8] {
        let taken = std::mem::take(&mut self.unread);
        self.taken += taken.len();
        taken
    }

    /// Takes up to and including the next `delimiter`; `None`, and nothing taken, if it is not
    /// there yet. An empty delimiter is found at once.
    #[doc(alias("read_line", "read_until"))]
    pub fn take_through(&mut self, delimiter: &[u8]) -> Option<&'a [u8]> {
        let end = self.find(delimiter)? + delimiter.len();
        self.take(end)
    }

    /// Drops up to `count` bytes; returns how many there were to drop.
    pub fn skip(&mut self, count: usize) -> usize {
        let count = count.min(self.unread.len());
        self.unread = &self.unread[count..];
        self.taken += count;
        count
    }

    /// Where `needle` begins, counted from the first unread byte.
    pub fn find(&self, needle: &[u8]) -> Option<usize> {
        match needle {
            [byte] => memchr::memchr(*byte, self.unread),
            needle => memmem::find(self.unread, needle),
        }
    }

    /// A reader of the standard library, which takes what it reads. With nothing unread it returns
    /// 0, which here means "nothing yet" rather than "the end".
    pub fn reader<'r>(&'r mut self) -> impl BufRead + use<'r, 'a> {
        Reader(self)
    }
}

/// An input that is not a connection's.
impl<'a> From<&'a [u8]> for Input<'a> {
    fn from(unread: &'a [u8]) -> Self {
        Input { unread, taken: 0 }
    }
}

/// [`Input`] for the standard library's reading traits. `Input` itself does not implement them:
/// their `take` is another one than its own, and would be found first.
struct Reader<'r, 'a>(&'r mut Input<'a>);

impl Read for Reader<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = buffer.len().min(self.0.unread.len());
        buffer[..count].copy_from_slice(&self.0.unread[..count]);
        Ok(self.0.skip(count))
    }
}

impl BufRead for Reader<'_, '_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        Ok(self.0.unread)
    }

    fn consume(&mut self, count: usize) {
        self.0.skip(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_that_only_takes() {
        let bytes = b"one two three".to_vec();
        let mut input = Input::from(&*bytes);
        assert_eq!(input.peek_exact(3), Some(&b"one"[..]));
        assert_eq!(input.peek_exact(14), None);
        assert_eq!(input.take(14), None);
        let first = input.take(4).unwrap();
        assert_eq!(input.find(b"three"), Some(4));
        let second = input.take_through(b" ").unwrap();
        assert_eq!(input.take_through(b" "), None);
        assert_eq!(input.skip(1), 1);
        let rest = input.take_all();
        assert_eq!((first, second, rest), (&b"one "[..], &b"two "[..], &b"hree"[..]));
        assert!(input.is_empty());
        assert_eq!(input.skip(5), 0);
        assert_eq!(input.taken(), bytes.len());
    }

    #[test]
    fn std_readers_take_too() {
        let mut input = Input::from(&b"line\nrest"[..]);
        let mut line = String::new();
        input.reader().read_line(&mut line).unwrap();
        let mut three = [0; 3];
        input.reader().read_exact(&mut three).unwrap();
        assert_eq!((line.as_str(), &three), ("line\n", b"res"));
        assert_eq!((input.len(), input.taken()), (1, 8));
    }
}
