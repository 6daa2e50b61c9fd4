//! The heads of requests.

use std::mem::MaybeUninit;
use std::net::Ipv6Addr;
use std::str;

use memchr::{memchr, memchr_iter, memchr2};

use super::fields::Fields;
use super::limits::RequestLimits;
use super::lines::BlockLimits;
use super::message::{MessageFields, list};
use super::refusal::Refusal;

/// No head may have more fields.
pub(super) const MOST_FIELDS: usize = 256;

/// A version of HTTP that is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
}

/// How a request's content ends (RFC 9112, section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    /// After this many bytes, which may be none.
    Exact(u64),
    /// With the last chunk.
    Chunked,
}

impl BodyLength {
    /// Whether there is no content, or an empty one whose length says so.
    pub fn is_empty(self) -> bool {
        self == BodyLength::Exact(0)
    }
}

/// The head of a request, which borrows from the input. It was checked by the rules of
/// [`requests`](super::requests), so there is nothing in it that two readers could take for
/// different things.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'a> {
    method: &'a str,
    target: &'a str,
    version: Version,
    fields: Fields<'a>,
    meaning: Meaning<'a>,
    bytes: &'a [u8],
}

/// What the fields say about the message itself.
#[derive(Clone, Copy, Debug)]
struct Meaning<'a> {
    body: BodyLength,
    keep_alive: bool,
    expects_continue: bool,
    upgrades: bool,
    /// Text, which is looked at as such only if somebody asks.
    host: Option<&'a [u8]>,
}

impl<'a> RequestHead<'a> {
    /// The method; names are case-sensitive.
    pub fn method(&self) -> &'a str {
        self.method
    }

    /// The target as it came: most often path and query, but also `http://example.com/path`, and
    /// `*` for OPTIONS.
    pub fn target(&self) -> &'a str {
        self.target
    }

    /// The target's path, as it came, so with its percent signs; `/` if it has none, and `*` for
    /// the target `*`.
    pub fn path(&self) -> &'a str {
        let target = self.local_target();
        let path = &target[..memchr(b'?', target.as_bytes()).unwrap_or(target.len())];
        if path.is_empty() { "/" } else { path }
    }

    /// What comes behind the first question mark of the target, as it came.
    pub fn query(&self) -> Option<&'a str> {
        let target = self.local_target();
        memchr(b'?', target.as_bytes()).map(|at| &target[at + 1..])
    }

    /// The target without scheme and authority.
    fn local_target(&self) -> &'a str {
        match split_absolute(self.target) {
            Some((_, rest)) => rest,
            None => self.target,
        }
    }

    /// Which host is asked, and on which port, if it says: what the target has, if it is absolute,
    /// or the field Host. Only a request of HTTP/1.0 may have none.
    pub fn host(&self) -> Option<&'a str> {
        self.meaning.host.and_then(|host| str::from_utf8(host).ok())
    }

    /// The version.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The fields.
    pub fn fields(&self) -> Fields<'a> {
        self.fields
    }

    /// The value of the first field with this name, whatever the case of its letters.
    pub fn field(&self, name: &str) -> Option<&'a [u8]> {
        self.fields.get(name)
    }

    /// How its content ends.
    pub fn body_length(&self) -> BodyLength {
        self.meaning.body
    }

    /// Whether the client wants to send more requests on the connection (RFC 9112, section 9.3).
    pub fn keeps_alive(&self) -> bool {
        self.meaning.keep_alive
    }

    /// Whether the client waits for `100 Continue` before it sends the content.
    pub fn expects_continue(&self) -> bool {
        self.meaning.expects_continue
    }

    /// Whether the client offers to go on with this protocol after the request: the field Upgrade
    /// lists it, and Connection names that field (RFC 9110, section 7.8). In HTTP/1.0 there are no
    /// such offers.
    pub fn upgrades_to(&self, protocol: &str) -> bool {
        let name = protocol.as_bytes();
        self.meaning.upgrades
            && self
                .fields
                .get_all("upgrade")
                .flat_map(list)
                .any(|offered| !offered.is_empty() && offered.eq_ignore_ascii_case(name))
    }

    /// All of it, as it came.
    pub(super) fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Reads a head, which ends with its empty line and has no other.
    pub(super) fn parse(block: &'a [u8], limits: &RequestLimits) -> Result<Self, Refusal> {
        let mut slots = [const { MaybeUninit::uninit() }; MOST_FIELDS];
        let slots = &mut slots[..limits.fields.min(MOST_FIELDS)];
        let mut request = httparse::Request::new(&mut []);
        match request.parse_with_uninit_headers(block, slots) {
            Ok(httparse::Status::Complete(length)) if length == block.len() => {}
            Ok(_) => return Err(Refusal::RequestLine),
            Err(error) => return Err(refusal_of(error, block)),
        }
        Self::read(&request, block)
    }

    /// Reads the head that `bytes` begin with, if it is all there and nothing is to be said against
    /// it: then nobody has to look for its end before. All else returns `None`.
    #[inline]
    pub(super) fn parse_first(bytes: &'a [u8], limits: &RequestLimits) -> Option<Self> {
        if matches!(bytes, [] | [b'\r' | b'\n', ..]) {
            return None; // Empty lines, of which the parser would leave out any number.
        }
        let mut slots = [const { MaybeUninit::uninit() }; MOST_FIELDS];
        let slots = &mut slots[..limits.fields.min(MOST_FIELDS)];
        let mut request = httparse::Request::new(&mut []);
        let Ok(httparse::Status::Complete(length)) =
            request.parse_with_uninit_headers(bytes, slots)
        else {
            return None;
        };
        let block = &bytes[..length];
        // The parser takes a CR only in front of an LF, but as a line's end an LF alone, too.
        let lines = request.headers.len() + 2;
        if length > limits.head || memchr_iter(b'\r', block).count() != lines {
            return None;
        }
        let head = Self::read(&request, block).ok()?;
        // With both spaces and the version.
        let line = head.method.len() + head.target.len() + 10;
        (line <= limits.line).then_some(head)
    }

    /// Reads what the parser has found in this block.
    #[inline]
    fn read(request: &httparse::Request<'_, 'a>, block: &'a [u8]) -> Result<Self, Refusal> {
        let (Some(method), Some(target)) = (request.method, request.path) else {
            return Err(Refusal::RequestLine);
        };
        let version = match request.version {
            Some(0) => Version::Http10,
            _ => Version::Http11,
        };
        let authority = check_target(method, target)?;
        let mut meaning = read_meaning(request.headers, version)?;
        meaning.host = authority.map(str::as_bytes).or(meaning.host);
        // Behind both spaces, the version, and the line's end.
        let lines = block.get(method.len() + target.len() + 12..block.len() - 2);
        let fields = Fields::from_valid(lines.ok_or(Refusal::RequestLine)?);
        Ok(RequestHead { method, target, version, fields, meaning, bytes: block })
    }
}

/// How large a head may be.
pub(super) fn block_limits(limits: &RequestLimits) -> BlockLimits {
    let fields = limits.fields.min(MOST_FIELDS);
    BlockLimits {
        first: (limits.line, Refusal::LineTooLong),
        total: (limits.head, Refusal::HeadTooLong),
        lines: (1 + fields, Refusal::TooManyFields),
    }
}

/// Reads a trailer section, which ends with its empty line and has no other.
pub(super) fn parse_trailers(block: &[u8]) -> Result<Fields<'_>, Refusal> {
    if block == b"\r\n" {
        return Ok(Fields::default()); // As most are.
    }
    let mut slots = [httparse::EMPTY_HEADER; MOST_FIELDS];
    match httparse::parse_headers(block, &mut slots) {
        Ok(httparse::Status::Complete((length, _))) if length == block.len() => {
            Ok(Fields::from_valid(&block[..length - 2]))
        }
        _ => Err(Refusal::Field),
    }
}

#[cold]
fn refusal_of(error: httparse::Error, block: &[u8]) -> Refusal {
    match error {
        httparse::Error::HeaderName | httparse::Error::HeaderValue | httparse::Error::NewLine => {
            Refusal::Field
        }
        httparse::Error::TooManyHeaders => Refusal::TooManyFields,
        httparse::Error::Version if ends_in_a_version(block) => Refusal::Version,
        _ => Refusal::RequestLine,
    }
}

/// Whether the first line ends as the line of any version would.
fn ends_in_a_version(block: &[u8]) -> bool {
    // A CR within the line is no end of it.
    let line = &block[..memchr(b'\n', block).unwrap_or(block.len())];
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let is_digit = |at: usize| line.get(at).is_some_and(u8::is_ascii_digit);
    let start = line.len().saturating_sub(9);
    memchr_iter(b' ', line).count() == 2
        && line[start..].starts_with(b" HTTP/")
        && is_digit(start + 6)
        && line.get(start + 7) == Some(&b'.')
        && is_digit(start + 8)
}

/// Looks at the target's form (RFC 9112, section 3.2); returns its authority if it is absolute.
fn check_target<'a>(method: &str, target: &'a str) -> Result<Option<&'a str>, Refusal> {
    if method == "CONNECT" {
        return Err(Refusal::Connect);
    }
    // A fragment is not sent, and what is not ASCII is sent as percent signs.
    if !target.bytes().all(|byte| is(Kind::Target, byte)) {
        return Err(Refusal::Target);
    }
    if target.starts_with('/') || (target == "*" && method == "OPTIONS") {
        return Ok(None);
    }
    match split_absolute(target) {
        Some((authority, _)) if is_host(authority.as_bytes()) => Ok(Some(authority)),
        _ => Err(Refusal::Target),
    }
}

/// The authority of an absolute target, and what follows it.
pub(super) fn split_absolute(target: &str) -> Option<(&str, &str)> {
    if target.starts_with('/') {
        return None;
    }
    let (scheme, rest) = target.split_once("://")?;
    let is_http = ["http", "https"].iter().any(|known| known.eq_ignore_ascii_case(scheme));
    let end = memchr2(b'/', b'?', rest.as_bytes()).unwrap_or(rest.len());
    is_http.then(|| rest.split_at(end))
}

/// Whether it is a host, and maybe a port (RFC 9110, section 7.2), without which an `http` URI
/// can't be.
pub(super) fn is_host(value: &[u8]) -> bool {
    let (host, port) = match value.strip_prefix(b"[") {
        Some(rest) => match memchr(b']', rest) {
            Some(end) if is_ipv6(&rest[..end]) => (&rest[..end], &rest[end + 1..]),
            _ => return false,
        },
        None => value.split_at(name_length(value)),
    };
    let is_port = match port.split_first() {
        None => true,
        Some((b':', digits)) => is_port(digits),
        Some(_) => false,
    };
    is_port && !host.is_empty()
}

/// How many bytes in front are of a registered name (RFC 3986, section 3.2.2).
fn name_length(value: &[u8]) -> usize {
    let mut length = 0;
    loop {
        let rest = &value[length..];
        let plain = rest.iter().take_while(|byte| is(Kind::Name, **byte)).count();
        length += plain;
        match &rest[plain..] {
            [b'%', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                length += 3;
            }
            _ => return length,
        }
    }
}

fn is_ipv6(address: &[u8]) -> bool {
    str::from_utf8(address).is_ok_and(|address| address.parse::<Ipv6Addr>().is_ok())
}

fn is_port(digits: &[u8]) -> bool {
    let add = |sum: u16, digit: &u8| {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit < 10)?;
        sum.checked_mul(10)?.checked_add(u16::from(digit))
    };
    digits.iter().try_fold(0, add).is_some()
}

/// What a byte may be in, a bit each.
#[derive(Clone, Copy)]
enum Kind {
    /// A target: ASCII that can be seen, without fragments.
    Target = 1,
    /// A registered name.
    Name = 2,
}

/// Looked up instead of compared with each possibility, since this is done for every request.
const KINDS: [u8; 256] = {
    let mut kinds = [0; 256];
    let mut byte = b'!';
    while byte < 0x7f {
        if byte != b'#' {
            kinds[byte as usize] |= Kind::Target as u8;
        }
        let is_mark = matches!(
            byte,
            b'-' | b'.'
                | b'_'
                | b'~'
                | b'!'
                | b'$'
                | b'&'
                | b'\''
                | b'('
                | b')'
                | b'*'
                | b'+'
                | b','
                | b';'
                | b'='
        );
        if byte.is_ascii_alphanumeric() || is_mark {
            kinds[byte as usize] |= Kind::Name as u8;
        }
        byte += 1;
    }
    kinds
};

fn is(kind: Kind, byte: u8) -> bool {
    KINDS[usize::from(byte)] & kind as u8 != 0
}

/// What the fields that concern a request itself have said so far.
#[derive(Default)]
struct Reading<'a> {
    host: Option<&'a [u8]>,
    expects_continue: bool,
    message: MessageFields,
}

/// What the fields say about the message itself.
fn read_meaning<'a>(
    fields: &[httparse::Header<'a>],
    version: Version,
) -> Result<Meaning<'a>, Refusal> {
    let mut reading = Reading::default();
    for field in fields {
        reading.read(field.name, field.value, version)?;
    }
    if version == Version::Http11 && reading.host.is_none() {
        return Err(Refusal::Host);
    }
    let Reading { host, expects_continue, message } = reading;
    let body = message.body_length(version)?.unwrap_or(BodyLength::Exact(0));
    let keep_alive = message.keeps_alive(version);
    let upgrades = message.upgrades && version == Version::Http11;
    Ok(Meaning { body, keep_alive, expects_continue, upgrades, host })
}

impl<'a> Reading<'a> {
    #[inline]
    fn read(&mut self, name: &str, value: &'a [u8], version: Version) -> Result<(), Refusal> {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        match name.len() {
            4 if is("host") => self.read_host(value),
            6 if is("expect") => self.read_expectation(value, version),
            _ => self.message.read(name, value),
        }
    }

    fn read_host(&mut self, value: &'a [u8]) -> Result<(), Refusal> {
        let value = value.trim_ascii();
        if self.host.is_some() || !is_host(value) {
            return Err(Refusal::Host);
        }
        self.host = Some(value);
        Ok(())
    }

    /// HTTP/1.0 has no expectations (RFC 9110, section 10.1.1).
    fn read_expectation(&mut self, value: &[u8], version: Version) -> Result<(), Refusal> {
        if version == Version::Http10 {
            return Ok(());
        }
        self.expects_continue = value.trim_ascii().eq_ignore_ascii_case(b"100-continue");
        if self.expects_continue { Ok(()) } else { Err(Refusal::Expectation) }
    }
}
