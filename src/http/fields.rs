//! Fields: those that were received, and those that are sent.

use std::str;

use memchr::memchr;

/// The fields of a head or a trailer section, in the order in which they came. They borrow from the
/// input and are valid: names are tokens, and values have no control characters but tabs.
///
/// ```
/// # use millstream::Input;
/// # use millstream::codec::Codec;
/// # use millstream::http::{RequestCodec, RequestPart};
/// # let request = b"GET / HTTP/1.1\r\nHost: example.com\r\nAccept: a\r\naccept: b\r\n\r\n";
/// # let mut input = Input::from(&request[..]);
/// # let Some(RequestPart::Head(head)) = RequestCodec::default().decode(&mut input)? else { panic!() };
/// let fields = head.fields();
/// assert_eq!(fields.get("HOST"), Some(&b"example.com"[..]));
/// let accepted: Vec<_> = fields.get_all("accept").collect();
/// assert_eq!(accepted, [b"a", b"b"]);
/// # Ok::<(), millstream::http::Refusal>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Fields<'a> {
    /// Lines with their ends.
    lines: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Fields whose lines were looked at already.
    pub(super) fn from_valid(lines: &'a [u8]) -> Self {
        Fields { lines }
    }

    /// The value of the first field with this name, whatever the case of its letters.
    pub fn get(&self, name: &str) -> Option<&'a [u8]> {
        self.get_all(name).next()
    }

    /// The values of all fields with this name, whatever the case of its letters.
    pub fn get_all<'n>(&self, name: &'n str) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        let lines = Lines(self.lines);
        lines
            .filter(|(other, _)| other.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, value)| value)
    }

    /// The names and values of all fields.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + use<'a> {
        Lines(self.lines).map(|(name, value)| (str::from_utf8(name).unwrap_or_default(), value))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// As lines that live longer.
    pub(super) fn to_lines(self) -> FieldLines {
        FieldLines(self.lines.to_vec())
    }
}

/// Names and values of valid lines.
struct Lines<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = (&'a [u8], &'a [u8]);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let (name, rest) = split_at_byte(self.0, b':')?;
        let (value, rest) = split_at_byte(rest, b'\n')?;
        self.0 = rest;
        Some((name, value.trim_ascii()))
    }
}

/// What comes before and after the first such byte.
fn split_at_byte(bytes: &[u8], byte: u8) -> Option<(&[u8], &[u8])> {
    let at = memchr(byte, bytes)?;
    Some((&bytes[..at], &bytes[at + 1..]))
}

/// The fields of a message, as lines that are ready to be sent.
///
/// ```
/// use millstream::http::{FieldError, FieldLines};
///
/// let mut fields = FieldLines::new();
/// fields.push("Cache-Control", "no-store")?;
/// let injected = fields.push("X-Name", "a\r\nSet-Cookie: b=c");
/// assert!(matches!(injected, Err(FieldError::Value { .. })));
/// # Ok::<(), FieldError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct FieldLines(Vec<u8>);

/// Fields that servers and clients write themselves, since they say where a message ends, and when
/// it was sent.
const OF_THE_SERVER: [&str; 7] = [
    "connection",
    "content-length",
    "date",
    "keep-alive",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

impl FieldLines {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a field, behind those that are there.
    ///
    /// # Errors
    /// The name is not a token, the value has a control character other than a tab, or white space
    /// at an end, or the field is one that is not written by hand: Connection, Content-Length,
    /// Date, Keep-Alive, Trailer, Transfer-Encoding and Upgrade.
    pub fn push(&mut self, name: &str, value: impl AsRef<[u8]>) -> Result<(), FieldError> {
        let value = value.as_ref();
        Self::check_name(name)?;
        Self::check_value(name, value)?;
        if OF_THE_SERVER.iter().any(|other| other.eq_ignore_ascii_case(name)) {
            return Err(FieldError::Reserved { name: name.to_owned() });
        }
        self.push_valid(name, value);
        Ok(())
    }

    /// Fails unless it can be the value of the field with this name.
    pub(super) fn check_value(name: &str, value: &[u8]) -> Result<(), FieldError> {
        match value.trim_ascii() == value && value.iter().copied().all(is_in_value) {
            true => Ok(()),
            false => Err(FieldError::Value { name: name.to_owned() }),
        }
    }

    /// Fails unless it is a field's name, or a method's, which are tokens, too.
    pub(super) fn check_name(name: &str) -> Result<(), FieldError> {
        match !name.is_empty() && name.bytes().all(is_token) {
            true => Ok(()),
            false => Err(FieldError::Name { name: name.to_owned() }),
        }
    }

    /// Adds a field that is known to be valid.
    pub(super) fn push_valid(&mut self, name: &str, value: &[u8]) {
        for part in [name.as_bytes(), b": ", value, b"\r\n"] {
            self.0.extend_from_slice(part);
        }
    }

    /// Adds all of these.
    pub(super) fn append(&mut self, others: &FieldLines) {
        self.0.extend_from_slice(&others.0);
    }

    /// The fields.
    pub(super) fn as_fields(&self) -> Fields<'_> {
        Fields::from_valid(&self.0)
    }

    /// Removes all fields with this name.
    pub(super) fn remove(&mut self, name: &str) {
        let mut kept = FieldLines::new();
        for (other, value) in self.as_fields().iter() {
            if !other.eq_ignore_ascii_case(name) {
                kept.push_valid(other, value);
            }
        }
        *self = kept;
    }

    /// Makes an entity tag a weak one: what it tells apart is not bytes any more.
    pub(super) fn weaken_tag(&mut self) {
        let tag = self.as_fields().get("ETag").filter(|tag| tag.starts_with(b"\""));
        let Some(weak) = tag.map(|tag| [b"W/", tag].concat()) else { return };
        self.remove("ETag");
        self.push_valid("ETag", &weak);
    }

    /// Keeps the lines that are in as many first bytes.
    pub(super) fn truncate(&mut self, bytes: usize) {
        self.0.truncate(bytes);
    }

    /// The lines with their ends.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Whether a byte may be in a token (RFC 9110, section 5.6.2).
pub(crate) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Whether a byte may be in a field's value (RFC 9110, section 5.5).
fn is_in_value(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// Why a field can't be sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FieldError {
    /// The name is not a token.
    #[error("{name:?} is not a field's name")]
    Name {
        /// The name.
        name: String,
    },
    /// The value has a character that would end it, or that may not be there.
    #[error("the value of the field {name} has a character that may not be there")]
    Value {
        /// The field's name.
        name: String,
    },
    /// The server writes it itself, or the client.
    #[error("the field {name} is not written by hand")]
    Reserved {
        /// The field's name.
        name: String,
    },
}
