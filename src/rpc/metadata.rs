//! What goes along with a call besides its body.

use std::fmt;
use std::str;

use thiserror::Error;

/// The longest value, by the two bytes of its length.
const LONGEST_VALUE: usize = u16::MAX as usize;
/// The longest key, by the byte of its length.
const LONGEST_KEY: usize = u8::MAX as usize;
/// The key of the [trace context](TraceContext).
pub(super) const TRACEPARENT: &str = "traceparent";
/// The key of what tracing systems keep of it.
pub(super) const TRACESTATE: &str = "tracestate";

/// Pairs of a key and a value that go along with a call, as they are on the wire.
///
/// A key has 1 to 255 bytes: lower case letters, digits, `-`, `_` and `.`. A value is any bytes, up
/// to 65,535. A key may come more than once. How much there may be in all is limited by the
/// receiver ([`max_head`](super::FrameLimits::max_head)).
///
/// ```
/// use millstream::rpc::Metadata;
///
/// let mut metadata = Metadata::new();
/// metadata.insert("tenant", "blue")?;
/// assert_eq!(metadata.view().get("tenant"), Some(&b"blue"[..]));
/// assert!(metadata.insert("Tenant", "blue").is_err());
/// # Ok::<(), millstream::rpc::MetadataError>(())
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Metadata {
    encoded: Vec<u8>,
}

impl Metadata {
    /// No pairs.
    pub const fn new() -> Self {
        Metadata { encoded: Vec::new() }
    }

    /// Adds a pair behind those that are there.
    ///
    /// # Errors
    /// The key is none, or the value is too long.
    pub fn insert(&mut self, key: &str, value: impl AsRef<[u8]>) -> Result<(), MetadataError> {
        let value = value.as_ref();
        if !is_key(key.as_bytes()) {
            return Err(MetadataError::Key(key.to_owned()));
        }
        if value.len() > LONGEST_VALUE {
            return Err(MetadataError::Value { key: key.to_owned(), length: value.len() });
        }
        self.encoded.push(key.len() as u8);
        self.encoded.extend_from_slice(key.as_bytes());
        self.encoded.extend_from_slice(&(value.len() as u16).to_be_bytes());
        self.encoded.extend_from_slice(value);
        Ok(())
    }

    /// Adds the pairs of `other` behind those that are there.
    pub fn append(&mut self, other: &Metadata) {
        self.encoded.extend_from_slice(&other.encoded);
    }

    /// Whether there are no pairs.
    pub fn is_empty(&self) -> bool {
        self.encoded.is_empty()
    }

    /// Drops all pairs, and keeps the memory.
    pub fn clear(&mut self) {
        self.encoded.clear();
    }

    /// To read it.
    pub fn view(&self) -> MetadataView<'_> {
        MetadataView { encoded: &self.encoded }
    }
}

impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.view().fmt(f)
    }
}

impl From<MetadataView<'_>> for Metadata {
    fn from(view: MetadataView<'_>) -> Self {
        Metadata { encoded: view.encoded.to_vec() }
    }
}

/// A pair can't be metadata.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MetadataError {
    /// The key is none.
    #[error("the key {0:?} is not 1 to 255 bytes of a-z, 0-9, '-', '_' and '.'")]
    Key(String),
    /// The value is too long.
    #[error("the value of {key:?} has {length} bytes, at most 65535 may be")]
    Value {
        /// The pair's key.
        key: String,
        /// The value's length in bytes.
        length: usize,
    },
}

/// Metadata that is borrowed, for example from a frame.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct MetadataView<'a> {
    /// Well-formed.
    encoded: &'a [u8],
}

impl<'a> MetadataView<'a> {
    /// The pairs of an encoded list; `None` if it is none.
    #[inline]
    pub fn parse(encoded: &'a [u8]) -> Option<Self> {
        let mut rest = encoded;
        while !rest.is_empty() {
            let (key, _, behind) = split_pair(rest)?;
            if !is_key(key) {
                return None;
            }
            rest = behind;
        }
        Some(MetadataView { encoded })
    }

    /// The value of the first pair with this key.
    pub fn get(&self, key: &str) -> Option<&'a [u8]> {
        self.iter().find(|(name, _)| *name == key).map(|(_, value)| value)
    }

    /// All pairs, in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + use<'a> {
        let mut rest = self.encoded;
        std::iter::from_fn(move || {
            let (key, value, behind) = split_pair(rest)?;
            rest = behind;
            Some((str::from_utf8(key).unwrap_or_default(), value))
        })
    }

    /// Whether there are no pairs.
    pub fn is_empty(&self) -> bool {
        self.encoded.is_empty()
    }

    /// The list as it is on the wire.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.encoded
    }

    /// The trace that the call belongs to, if `traceparent` tells one.
    pub fn trace_context(&self) -> Option<TraceContext> {
        TraceContext::parse(self.get(TRACEPARENT)?)
    }

    /// What tracing systems keep of that trace: the `tracestate` of W3C's Trace Context, where
    /// several of them are one list, with a comma between each two. `None` without a trace.
    pub fn trace_state(&self) -> Option<Vec<u8>> {
        self.trace_context()?;
        let lists = self.iter().filter(|(key, _)| *key == TRACESTATE);
        let lists: Vec<&[u8]> = lists.map(|(_, list)| list).collect();
        (!lists.is_empty()).then(|| lists.join(&b','))
    }
}

impl fmt::Debug for MetadataView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pairs = self.iter().map(|(key, value)| (key, value.escape_ascii().to_string()));
        f.debug_map().entries(pairs).finish()
    }
}

/// The first pair and what is behind it.
fn split_pair(encoded: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (&length, rest) = encoded.split_first()?;
    let (key, rest) = rest.split_at_checked(usize::from(length))?;
    let (length, rest) = rest.split_first_chunk()?;
    let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    Some((key, value, rest))
}

fn is_key(key: &[u8]) -> bool {
    let is_allowed = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.');
    (1..=LONGEST_KEY).contains(&key.len()) && key.iter().all(is_allowed)
}

/// Which trace a call belongs to: the `traceparent` of W3C's
/// [Trace Context](https://www.w3.org/TR/trace-context/#traceparent-header).
///
/// ```
/// use millstream::rpc::{Metadata, TraceContext};
///
/// let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// let mut metadata = Metadata::new();
/// metadata.insert("traceparent", text)?;
/// let trace = metadata.view().trace_context().expect("it is one");
/// assert!(trace.is_sampled());
/// assert_eq!(trace.to_string(), text);
/// # Ok::<(), millstream::rpc::MetadataError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceContext {
    /// The trace; not zero.
    pub trace_id: u128,
    /// The caller's span; not zero.
    pub parent_id: u64,
    /// Bit 0: the caller records it.
    pub flags: u8,
}

impl TraceContext {
    /// Reads a `traceparent`; `None` if it is none. Of a version that is not known yet, what the
    /// first one has is read, as the specification wants.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text = str::from_utf8(text).ok()?;
        let mut parts = text.splitn(5, '-');
        let version = hex(parts.next()?, 2)?;
        let trace_id = hex(parts.next()?, 32)?;
        let parent_id = hex(parts.next()?, 16)? as u64;
        let flags = hex(parts.next()?, 2)? as u8;
        let is_known = version < 0xff && (version > 0 || parts.next().is_none());
        (is_known && trace_id != 0 && parent_id != 0).then_some(TraceContext {
            trace_id,
            parent_id,
            flags,
        })
    }

    /// A trace that begins here, with numbers at random, and is not recorded.
    pub fn root() -> Self {
        TraceContext { trace_id: fastrand::u128(1..), parent_id: fastrand::u64(1..), flags: 0 }
    }

    /// The same trace, one span further inside.
    #[must_use]
    pub fn child(self) -> Self {
        TraceContext { parent_id: fastrand::u64(1..), ..self }
    }

    /// Whether the caller records the trace.
    pub fn is_sampled(self) -> bool {
        self.flags & 1 != 0
    }
}

/// As `traceparent` has it, in version 00.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.parent_id, self.flags)
    }
}

/// A number of this many lower case hexadecimal digits.
fn hex(digits: &str, count: usize) -> Option<u128> {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if digits.len() != count || !digits.bytes().all(is_digit) {
        return None;
    }
    u128::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_come_back_in_order() {
        let mut metadata = Metadata::new();
        let long = vec![7; LONGEST_VALUE];
        for (key, value) in [("a", &b"1"[..]), ("b.c-d_9", b""), ("a", &long)] {
            metadata.insert(key, value).unwrap();
        }
        let bytes = metadata.view().as_bytes();
        let view = MetadataView::parse(bytes).unwrap();
        let pairs: Vec<_> = view.iter().collect();
        assert_eq!(pairs, [("a", &b"1"[..]), ("b.c-d_9", b""), ("a", &long)]);
        assert_eq!(view.get("a"), Some(&b"1"[..]));
        assert_eq!(view.get("x"), None);
        assert_eq!(Metadata::from(view), metadata);
    }

    #[test]
    fn what_is_no_pair_is_refused() {
        let mut metadata = Metadata::new();
        for key in ["", "A", "a b", "\u{e4}", &"k".repeat(256)] {
            assert_eq!(metadata.insert(key, ""), Err(MetadataError::Key(key.to_owned())));
        }
        let value = vec![0; LONGEST_VALUE + 1];
        let error = MetadataError::Value { key: "a".to_owned(), length: value.len() };
        assert_eq!(metadata.insert("a", value), Err(error));
        assert!(metadata.is_empty());
    }

    #[test]
    fn a_list_that_is_cut_is_none() {
        let mut metadata = Metadata::new();
        metadata.insert("one", "1").unwrap();
        metadata.insert("two", "22").unwrap();
        let bytes = metadata.view().as_bytes();
        for len in 0..=bytes.len() {
            let whole = [0, 7, bytes.len()].contains(&len);
            assert_eq!(MetadataView::parse(&bytes[..len]).is_some(), whole, "{len} bytes");
        }
        assert!(MetadataView::parse(b"\x00\x00\x00").is_none(), "an empty key");
        assert!(MetadataView::parse(b"\x01A\x00\x00").is_none(), "a key in upper case");
    }

    #[test]
    fn lists_of_trace_states_are_one_and_belong_to_a_trace() {
        let mut metadata = Metadata::new();
        for list in ["a=1,b=2", "c=3"] {
            metadata.insert(TRACESTATE, list).unwrap();
        }
        assert_eq!(metadata.view().trace_state(), None, "there is no trace");
        metadata.insert(TRACEPARENT, TraceContext::root().to_string()).unwrap();
        assert_eq!(metadata.view().trace_state().as_deref(), Some(&b"a=1,b=2,c=3"[..]));
    }

    #[test]
    fn trace_contexts_are_read_as_the_specification_says() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let trace = TraceContext::parse(good.as_bytes()).unwrap();
        assert_eq!(trace.to_string(), good);
        let later = good.replacen("00", "cc", 1) + "-what-the-future-brings";
        assert_eq!(TraceContext::parse(later.as_bytes()), Some(trace));
        for bad in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceContext::parse(bad.as_bytes()), None, "{bad}");
        }
    }
}
