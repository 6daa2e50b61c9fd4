//! Requests of HTTP/1.1: what the codec makes of a stream, in pieces, is what a naive reader makes
//! of the whole.

use std::net::Ipv6Addr;

use fastrand::Rng;
use millstream::Input;
use millstream::codec::Codec;
use millstream::http::{RequestCodec, RequestLimits, RequestPart};

use super::Source;

/// A request, as both readers tell it.
#[derive(Debug, Default, PartialEq)]
struct Told {
    method: String,
    target: String,
    fields: Vec<(String, Vec<u8>)>,
    keeps_alive: bool,
    body: Vec<u8>,
    trailers: Vec<(String, Vec<u8>)>,
    is_whole: bool,
}

/// The requests of a stream, and the status that it ends with.
type Reading = (Vec<Told>, Option<u16>);

pub struct Case<'a> {
    /// Which limits are in force.
    pub limits: u8,
    /// Decides where the stream is cut.
    pub seed: u64,
    pub stream: &'a [u8],
}

impl<'a> Case<'a> {
    pub fn read(bytes: &'a [u8]) -> Self {
        let mut source = Source::new(bytes);
        let (limits, seed) = (source.byte(), u64::from(source.byte()));
        Case { limits, seed, stream: source.rest() }
    }

    pub fn check(&self) {
        let mut limits = RequestLimits::default();
        if self.limits.is_multiple_of(2) {
            limits.line = 40 + usize::from(self.limits % 16);
            limits.head = 60 + usize::from(self.limits);
            (limits.fields, limits.trailer_fields) = (3, 2);
            (limits.body, limits.extensions, limits.trailers) = (12, 6, 14);
        }
        let whole = naive(self.stream, &limits);
        for longest in [1, 1 + (self.seed % 60) as usize, usize::MAX] {
            let decoded = self.decode(&limits, longest);
            assert_eq!(decoded, whole, "{limits:?}, in pieces of up to {longest}");
        }
    }

    fn decode(&self, limits: &RequestLimits, longest: usize) -> Reading {
        let (mut codec, mut rng) = (RequestCodec::new(*limits), Rng::with_seed(self.seed));
        let (mut told, mut rest, mut unread) = (Vec::new(), self.stream, Vec::new());
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at(rng.usize(1..=longest.min(rest.len())));
            unread.extend_from_slice(piece);
            rest = behind;
            let mut input = Input::from(&unread[..]);
            loop {
                match codec.decode(&mut input) {
                    Ok(Some(part)) => tell(&mut told, part),
                    Ok(None) => break,
                    Err(refusal) => return (told, Some(refusal.status().code())),
                }
            }
            let taken = input.taken();
            unread.drain(..taken);
            let most = limits.head.max(limits.trailers).max(limits.extensions + 20);
            assert!(unread.len() <= most, "{} bytes wait", unread.len());
        }
        (told, None)
    }
}

fn tell(told: &mut Vec<Told>, part: RequestPart<'_>) {
    let owned = |(name, value): (&str, &[u8])| (name.to_owned(), value.to_vec());
    match part {
        RequestPart::Head(head) => told.push(Told {
            method: head.method().to_owned(),
            target: head.target().to_owned(),
            fields: head.fields().iter().map(owned).collect(),
            keeps_alive: head.keeps_alive(),
            is_whole: head.body_length().is_empty(),
            ..Told::default()
        }),
        RequestPart::Data(data) => {
            assert!(!data.is_empty());
            told.last_mut().expect("a head came").body.extend_from_slice(data);
        }
        RequestPart::End(trailers) => {
            let last = told.last_mut().expect("a head came");
            last.trailers = trailers.iter().map(owned).collect();
            last.is_whole = true;
        }
        RequestPart::Other => panic!("nobody has switched"),
    }
}

// --- the naive reader ----------------------------------------------------------------------------

/// Reads a stream from its first byte to its last, a byte at a time, with nothing but the RFC.
fn naive(stream: &[u8], limits: &RequestLimits) -> Reading {
    let (mut told, mut reader) = (Vec::new(), Naive { rest: stream });
    loop {
        match reader.request(limits, &mut told) {
            Ok(()) => {}
            Err(Stop::Missing) => return (told, None),
            Err(Stop::Refused(status)) => return (told, Some(status)),
        }
    }
}

enum Stop {
    /// The rest is missing.
    Missing,
    Refused(u16),
}

struct Naive<'a> {
    rest: &'a [u8],
}

type Lines = Vec<(String, Vec<u8>)>;

impl Naive<'_> {
    fn byte(&mut self) -> Result<u8, Stop> {
        let (first, rest) = self.rest.split_first().ok_or(Stop::Missing)?;
        self.rest = rest;
        Ok(*first)
    }

    /// The lines up to an empty one. A status for each: a line that is too long, all that are too
    /// long, too many lines.
    fn block(
        &mut self,
        line: (usize, u16),
        total: (usize, u16),
        count: (usize, u16),
    ) -> Result<Vec<Vec<u8>>, Stop> {
        let (mut lines, mut current, mut length) = (Vec::new(), Vec::new(), 0);
        loop {
            // A byte more is to come in any case.
            if length >= total.0 {
                return Err(Stop::Refused(total.1));
            }
            let byte = self.byte()?;
            length += 1;
            current.push(byte);
            let shown = current.strip_suffix(b"\r\n").or(current.strip_suffix(b"\r"));
            let is_end = current.ends_with(b"\n");
            let shown = match (shown, is_end) {
                (None, true) => &current[..current.len() - 1],
                (shown, _) => shown.unwrap_or(&current),
            };
            if lines.is_empty() && shown.len() > line.0 {
                return Err(Stop::Refused(line.1));
            }
            if is_end {
                if !current.ends_with(b"\r\n") {
                    return Err(Stop::Refused(400));
                }
                if shown.is_empty() {
                    return Ok(lines);
                }
                lines.push(shown.to_vec());
                current.clear();
                if lines.len() > count.0 {
                    return Err(Stop::Refused(count.1));
                }
            }
        }
    }

    fn request(&mut self, limits: &RequestLimits, told: &mut Vec<Told>) -> Result<(), Stop> {
        if self.rest.starts_with(b"\r\n") {
            self.rest = &self.rest[2..];
        } else if self.rest == b"\r" {
            return Err(Stop::Missing);
        }
        let count = (limits.fields + 1, 431);
        let lines = self.block((limits.line, 414), (limits.head, 431), count)?;
        let [first, lines @ ..] = &lines[..] else { return Err(Stop::Refused(400)) };
        let (method, target, is_new) = request_line(first)?;
        let fields = fields(lines)?;
        check_target(&method, &target)?;
        let (length, keeps_alive) = meaning(&fields, is_new)?;
        if length.is_some_and(|length| length > limits.body) {
            return Err(Stop::Refused(413));
        }
        let is_whole = length == Some(0);
        told.push(Told { method, target, fields, keeps_alive, is_whole, ..Told::default() });
        let last = told.last_mut().expect("it was pushed");
        match length {
            Some(length) => {
                for _ in 0..length {
                    last.body.push(self.byte()?);
                }
            }
            None => self.chunks(limits, last)?,
        }
        last.is_whole = true;
        Ok(())
    }

    fn chunks(&mut self, limits: &RequestLimits, told: &mut Told) -> Result<(), Stop> {
        let (mut extensions, mut length) = (0, 0_u64);
        loop {
            let (size, extension) = self.chunk_line(limits.extensions - extensions)?;
            extensions += extension;
            length = length.saturating_add(size);
            if length > limits.body {
                return Err(Stop::Refused(413));
            }
            if size == 0 {
                let count = (limits.trailer_fields, 431);
                let lines = self.block((usize::MAX, 431), (limits.trailers, 431), count)?;
                told.trailers = fields(&lines)?;
                return Ok(());
            }
            for _ in 0..size {
                told.body.push(self.byte()?);
            }
            for expected in *b"\r\n" {
                if self.byte()? != expected {
                    return Err(Stop::Refused(400));
                }
            }
        }
    }

    /// A chunk's size, and how long its extension is.
    fn chunk_line(&mut self, most: usize) -> Result<(u64, usize), Stop> {
        let (mut digits, mut extension) = (String::new(), Vec::new());
        loop {
            let byte = self.byte()?;
            if byte == b'\n' {
                break;
            }
            if extension.is_empty() && byte.is_ascii_hexdigit() {
                digits.push(char::from(byte));
            } else {
                extension.push(byte);
            }
            let shown = extension.strip_suffix(b"\r").unwrap_or(&extension);
            if digits.is_empty() || digits.len() > 16 || shown.len() > most {
                return Err(Stop::Refused(400));
            }
        }
        let Some(extension) = extension.strip_suffix(b"\r") else {
            return Err(Stop::Refused(400));
        };
        let first = extension.iter().find(|byte| !b" \t".contains(byte));
        let is_valid = (extension.is_empty() || first == Some(&b';'))
            && extension.iter().all(|byte| *byte == b'\t' || !byte.is_ascii_control());
        let size = u64::from_str_radix(&digits, 16).map_err(|_| Stop::Refused(400))?;
        if is_valid { Ok((size, extension.len())) } else { Err(Stop::Refused(400)) }
    }
}

fn is_token(text: &[u8]) -> bool {
    let is_in_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !text.is_empty() && text.iter().all(is_in_token)
}

fn request_line(line: &[u8]) -> Result<(String, String, bool), Stop> {
    let parts: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let [method, target, version] = parts[..] else { return Err(Stop::Refused(400)) };
    let is_in_target = |byte: &u8| byte.is_ascii_graphic() || *byte >= 0x80;
    let is_text = str::from_utf8(target).is_ok();
    if !is_token(method) || target.is_empty() || !target.iter().all(is_in_target) || !is_text {
        return Err(Stop::Refused(400));
    }
    let is_new = match version {
        b"HTTP/1.1" => true,
        b"HTTP/1.0" => false,
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            return Err(Stop::Refused(505));
        }
        _ => return Err(Stop::Refused(400)),
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok((text(method), text(target), is_new))
}

fn fields(lines: &[Vec<u8>]) -> Result<Lines, Stop> {
    let field = |line: &Vec<u8>| {
        let colon = line.iter().position(|byte| *byte == b':').ok_or(Stop::Refused(400))?;
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        let is_in_value = |byte: &u8| *byte == b'\t' || !byte.is_ascii_control();
        if !is_token(name) || !value.iter().all(is_in_value) {
            return Err(Stop::Refused(400));
        }
        Ok((String::from_utf8_lossy(name).into_owned(), value.trim_ascii().to_vec()))
    };
    lines.iter().map(field).collect()
}

fn check_target(method: &str, target: &str) -> Result<(), Stop> {
    if method == "CONNECT" {
        return Err(Stop::Refused(501));
    }
    let lower = target.to_ascii_lowercase();
    let absolute = ["http://", "https://"].iter().find_map(|scheme| lower.strip_prefix(scheme));
    let has_form = target.starts_with('/')
        || (target == "*" && method == "OPTIONS")
        || absolute.is_some_and(|rest| is_host(rest.split(['/', '?']).next().unwrap_or("")));
    let is_good = has_form && target.is_ascii() && !target.contains('#');
    if is_good { Ok(()) } else { Err(Stop::Refused(400)) }
}

fn is_host(host: &str) -> bool {
    let end = host.rfind(']').map_or(0, |end| end + 1);
    let end = host[end..].find(':').map_or(host.len(), |at| end + at);
    let (name, port) = host.split_at(end);
    let digits = port.strip_prefix(':').unwrap_or(port);
    let is_port = digits.chars().all(|c| c.is_ascii_digit())
        && (digits.is_empty() || digits.parse::<u16>().is_ok());
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
    is_port && address.map_or_else(|| is_name(name), |address| address.parse::<Ipv6Addr>().is_ok())
}

fn is_name(name: &str) -> bool {
    let mut parts = name.split('%');
    let is_in_name = |c: char| c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=".contains(c);
    let is_hex =
        |part: &str| part.len() >= 2 && part.as_bytes()[..2].iter().all(u8::is_ascii_hexdigit);
    let first = parts.next().unwrap_or("");
    let is_valid = |part: &str| is_hex(part) && part.chars().all(is_in_name);
    !name.is_empty() && first.chars().all(is_in_name) && parts.all(is_valid)
}

/// How long the content is, or that it is in chunks; and whether the connection goes on.
fn meaning(fields: &Lines, is_new: bool) -> Result<(Option<u64>, bool), Stop> {
    let all = |name: &str| -> Vec<String> {
        let same = fields.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name));
        same.map(|(_, value)| String::from_utf8_lossy(value).to_ascii_lowercase()).collect()
    };
    // Of several that are wrong, the first one counts.
    let mut seen = Vec::new();
    for (name, value) in fields {
        let (name, value) = (name.to_ascii_lowercase(), String::from_utf8_lossy(value));
        let is_again = seen.contains(&name);
        let is_number = !value.is_empty() && value.chars().all(|c| c.is_ascii_digit());
        match name.as_str() {
            "host" if is_again || !is_host(&value) => return Err(Stop::Refused(400)),
            "content-length" if is_again || !is_number => return Err(Stop::Refused(400)),
            "expect" if is_new && !value.eq_ignore_ascii_case("100-continue") => {
                return Err(Stop::Refused(417));
            }
            _ => seen.push(name),
        }
    }
    let (lengths, codings) = (all("content-length"), all("transfer-encoding"));
    let options = all("connection").join(",");
    let options: Vec<&str> = options.split(',').map(str::trim).collect();
    let keeps_alive = !options.contains(&"close") && (is_new || options.contains(&"keep-alive"));
    if is_new && all("host").is_empty() {
        return Err(Stop::Refused(400));
    }
    if codings.is_empty() {
        let length = lengths.first().map_or(Ok(0), |length| length.parse());
        return Ok((Some(length.unwrap_or(u64::MAX)), keeps_alive));
    }
    let joined = codings.join(",");
    let codings: Vec<&str> = joined.split(',').map(str::trim).collect();
    let count = codings.iter().filter(|coding| **coding == "chunked").count();
    let is_well = count == 1 && codings.last() == Some(&"chunked") && !codings.contains(&"");
    match is_well && lengths.is_empty() && is_new {
        false => Err(Stop::Refused(400)),
        true if codings.len() > 1 => Err(Stop::Refused(501)),
        true => Ok((None, keeps_alive)),
    }
}

// --- random streams ------------------------------------------------------------------------------

/// A few requests, most of them good, some of them damaged.
pub fn random_stream(rng: &mut Rng) -> Vec<u8> {
    let mut stream: Vec<u8> = (0..rng.usize(1..4)).flat_map(|_| random_request(rng)).collect();
    if rng.bool() {
        for _ in 0..rng.usize(1..3) {
            damage(rng, &mut stream);
        }
    }
    stream
}

fn pick<'a>(rng: &mut Rng, from: &[&'a str]) -> &'a str {
    from[rng.usize(..from.len())]
}

fn random_request(rng: &mut Rng) -> Vec<u8> {
    let method = pick(rng, &["GET", "POST", "HEAD", "PUT", "x-y", "OPTIONS"]);
    let target =
        pick(rng, &["/", "/a?b=c", "/%41/b", "http://a:8/b", "HTTPS://b?c", "/#", "a", "*"]);
    let target = if rng.u8(..4) > 0 { "/ab" } else { target };
    let version = if rng.u8(..8) > 0 { "HTTP/1.1" } else { "HTTP/1.0" };
    let mut text = format!(
        "{method} {target} {version}\r\nHost: {}\r\n",
        pick(rng, &["a", "b:80", "[::1]:8", "%41b"])
    );
    if rng.u8(..4) == 0 {
        text += pick(
            rng,
            &[
                "Connection: close\r\n",
                "connection: x, Keep-Alive\r\n",
                "Accept:\r\n",
                "A: \tb c \t\r\n",
                "Expect: 100-Continue\r\n",
                "Transfer-Encoding: gzip\r\n",
                "Content-Length: 3\r\n",
                "A: b\r\nC: d\r\nE: f\r\n",
            ],
        );
    }
    match rng.u8(..3) {
        0 => text + "\r\n",
        1 => {
            let body = "x".repeat(rng.usize(..14));
            format!("{text}Content-Length: {}\r\n\r\n{body}", body.len())
        }
        _ => {
            text += "Transfer-Encoding: chunked\r\n\r\n";
            for _ in 0..rng.usize(..4) {
                let data = "y".repeat(rng.usize(1..12));
                let extension = pick(rng, &["", "", ";a", " ; b=c", ";d=\"e\""]);
                text += &format!("{:x}{extension}\r\n{data}\r\n", data.len());
            }
            text + "0\r\n" + pick(rng, &["", "", "T: u\r\n", "T: u\r\nV: w\r\n"]) + "\r\n"
        }
    }
    .into_bytes()
}

fn damage(rng: &mut Rng, stream: &mut Vec<u8>) {
    let at = rng.usize(..stream.len());
    match rng.u8(..4) {
        0 => stream[at] = *rng.choice(b"\r\n \t:;,0a\0\x7f\xe9/").expect("some"),
        1 => stream.insert(at, *rng.choice(b"\r\n \t:;,0a\0\x7f\xe9/").expect("some")),
        2 => {
            stream.remove(at);
        }
        _ => stream.truncate(at + 1),
    }
    if stream.is_empty() {
        stream.push(b'G');
    }
}
