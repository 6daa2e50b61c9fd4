//! Responses of HTTP/1.1: what the codec makes of a stream, in pieces, is what a naive reader makes
//! of the whole.

use fastrand::Rng;
use millstream::codec::Codec;
use millstream::http::{
    FieldLines, RequestFrame, ResponseCodec, ResponseError, ResponseLength, ResponseLimit,
    ResponseLimits, ResponsePart, Version,
};
use millstream::{Input, OutputBuffer};

use super::Source;

/// How many requests are written, each when the response before it is complete.
const REQUESTS: usize = 4;

/// A response, as both readers tell it.
#[derive(Debug, PartialEq)]
struct Told {
    status: u16,
    is_new: bool,
    length: ResponseLength,
    keeps_alive: bool,
    fields: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    trailers: Vec<(String, Vec<u8>)>,
    is_whole: bool,
    /// What is left for another protocol.
    behind: Vec<u8>,
}

/// The responses of a stream, and the error that it ends with.
type Reading = (Vec<Told>, Option<ResponseError>);

pub struct Case<'a> {
    /// Which limits are in force.
    pub limits: u8,
    /// Decides where the stream is cut.
    pub seed: u64,
    /// Two bits for the method of each request.
    pub asked: u8,
    pub stream: &'a [u8],
}

impl<'a> Case<'a> {
    pub fn read(bytes: &'a [u8]) -> Self {
        let mut source = Source::new(bytes);
        let (limits, seed, asked) = (source.byte(), u64::from(source.byte()), source.byte());
        Case { limits, seed, asked, stream: source.rest() }
    }

    pub fn check(&self) {
        let mut limits = ResponseLimits::default();
        if self.limits.is_multiple_of(2) {
            limits.line = 15 + usize::from(self.limits % 16);
            limits.head = 40 + usize::from(self.limits);
            (limits.fields, limits.trailer_fields, limits.interim) = (3, 2, 1);
            (limits.body, limits.extensions, limits.trailers) = (12, 6, 14);
        }
        let whole = naive(self, &limits);
        for longest in [1, 1 + (self.seed % 60) as usize, usize::MAX] {
            let decoded = self.decode(&limits, longest);
            assert_eq!(decoded, whole, "{limits:?}, in pieces of up to {longest}");
        }
    }

    fn method(&self, request: usize) -> &'static str {
        ["GET", "HEAD", "CONNECT", "POST"][usize::from(self.asked >> (2 * request)) % 4]
    }

    fn decode(&self, limits: &ResponseLimits, longest: usize) -> Reading {
        let mut reader =
            Reader { codec: ResponseCodec::new(*limits), case: self, told: Vec::new() };
        let (mut rng, mut rest, mut unread) = (Rng::with_seed(self.seed), self.stream, Vec::new());
        reader.ask(0);
        loop {
            let has_ended = rest.is_empty();
            if !has_ended {
                let (piece, behind) = rest.split_at(rng.usize(1..=longest.min(rest.len())));
                unread.extend_from_slice(piece);
                rest = behind;
            }
            let mut input = Input::from(&unread[..]);
            let error = reader.take(&mut input, has_ended).err();
            let taken = input.taken();
            unread.drain(..taken);
            if has_ended || error.is_some() {
                if let Some(Told { length: ResponseLength::Tunnel, behind, .. }) =
                    reader.told.last_mut()
                {
                    *behind = unread;
                }
                return (reader.told, error);
            }
            let most = limits.head.max(limits.trailers).max(limits.extensions + 20);
            let is_other = |told: &Told| told.length == ResponseLength::Tunnel;
            let is_kept = reader.told.last().is_some_and(is_other);
            assert!(is_kept || unread.len() <= most, "{} bytes wait", unread.len());
        }
    }
}

struct Reader<'a> {
    codec: ResponseCodec,
    case: &'a Case<'a>,
    told: Vec<Told>,
}

impl Reader<'_> {
    fn ask(&mut self, request: usize) {
        if request < REQUESTS {
            let (fields, mut output) = (FieldLines::new(), OutputBuffer::new());
            let frame = RequestFrame::new(self.case.method(request), "/", "a", &fields);
            self.codec.encode(frame, &mut output.output()).expect("nothing else is asked");
        }
    }

    fn take(&mut self, input: &mut Input<'_>, has_ended: bool) -> Result<(), ResponseError> {
        loop {
            let part = match self.codec.decode(input)? {
                None if has_ended => self.codec.decode_end(input)?,
                part => part,
            };
            let Some(part) = part else { return Ok(()) };
            self.tell(part);
            let last = self.told.last().expect("a head came");
            if last.is_whole && last.length != ResponseLength::ToEnd {
                self.ask(self.told.len());
            }
        }
    }

    fn tell(&mut self, part: ResponsePart<'_>) {
        let owned = |(name, value): (&str, &[u8])| (name.to_owned(), value.to_vec());
        if let ResponsePart::Head(head) = part {
            self.told.push(Told {
                status: head.status().code(),
                is_new: head.version() == Version::Http11,
                length: head.body_length(),
                keeps_alive: head.keeps_alive(),
                fields: head.fields().iter().map(owned).collect(),
                body: Vec::new(),
                trailers: Vec::new(),
                is_whole: head.body_length() == ResponseLength::Exact(0),
                behind: Vec::new(),
            });
            return;
        }
        let last = self.told.last_mut().expect("a head came");
        match part {
            ResponsePart::Data(data) => {
                assert!(!data.is_empty());
                last.body.extend_from_slice(data);
            }
            ResponsePart::End(trailers) => {
                last.trailers = trailers.iter().map(owned).collect();
                last.is_whole = true;
            }
            ResponsePart::Head(_) | ResponsePart::Tunnel => {}
        }
    }
}

// --- the naive reader ----------------------------------------------------------------------------

/// Reads a stream from its first byte to its last, a byte at a time, with nothing but the RFC.
fn naive(case: &Case<'_>, limits: &ResponseLimits) -> Reading {
    let (mut told, mut naive) = (Vec::new(), Naive { rest: case.stream, limits });
    for request in 0..REQUESTS {
        match naive.response(case.method(request), &mut told) {
            Ok(true) => {}
            Ok(false) => return (told, None),
            Err(error) => return (told, Some(error)),
        }
    }
    (told, (!naive.rest.is_empty()).then_some(ResponseError::Unasked))
}

struct Naive<'a> {
    rest: &'a [u8],
    limits: &'a ResponseLimits,
}

type Lines = Vec<(String, Vec<u8>)>;

fn exceeds<T>(limit: ResponseLimit, most: usize) -> Result<T, ResponseError> {
    Err(ResponseError::Exceeds { limit, most: most as u64 })
}

impl Naive<'_> {
    fn byte(&mut self) -> Result<u8, ResponseError> {
        let (first, rest) = self.rest.split_first().ok_or(ResponseError::Truncated)?;
        self.rest = rest;
        Ok(*first)
    }

    /// The lines up to an empty one. The limits are those of the first line, of all bytes, and of
    /// the lines, which may be one more than it says where one is not a field.
    fn block(
        &mut self,
        line: Option<(ResponseLimit, usize)>,
        total: (ResponseLimit, usize),
        count: (ResponseLimit, usize),
    ) -> Result<Vec<Vec<u8>>, ResponseError> {
        let (mut lines, mut current, mut length) = (Vec::new(), Vec::new(), 0);
        let most_lines = count.1 + usize::from(line.is_some());
        loop {
            // A byte more is to come in any case.
            if length >= total.1 {
                return exceeds(total.0, total.1);
            }
            let byte = self.byte()?;
            length += 1;
            current.push(byte);
            let is_end = current.ends_with(b"\n");
            let shown = if is_end { &current[..current.len() - 1] } else { &current[..] };
            let shown = shown.strip_suffix(b"\r").unwrap_or(shown);
            if let Some((limit, most)) = line
                && lines.is_empty()
                && shown.len() > most
            {
                return exceeds(limit, most);
            }
            if is_end {
                if !current.ends_with(b"\r\n") {
                    return Err(ResponseError::LineEnding);
                }
                if shown.is_empty() {
                    return Ok(lines);
                }
                lines.push(shown.to_vec());
                current.clear();
                if lines.len() > most_lines {
                    return exceeds(count.0, count.1);
                }
            }
        }
    }

    /// Reads a response; `false` if nothing can follow it.
    fn response(&mut self, method: &str, told: &mut Vec<Told>) -> Result<bool, ResponseError> {
        let limits = self.limits;
        if self.rest.is_empty() {
            return Err(ResponseError::Missing);
        }
        let mut interim = 0;
        let (status, is_new, fields) = loop {
            let line = Some((ResponseLimit::Line, limits.line));
            let total = (ResponseLimit::Head, limits.head);
            let lines = self.block(line, total, (ResponseLimit::Fields, limits.fields))?;
            let [first, lines @ ..] = &lines[..] else { return Err(ResponseError::StatusLine) };
            let (status, is_new) = status_line(first)?;
            let fields = fields(lines)?;
            match status {
                101 => return Err(ResponseError::Switched),
                100..=199 if interim == limits.interim => {
                    return exceeds(ResponseLimit::Interim, interim);
                }
                100..=199 => interim += 1,
                200..=599 => break (status, is_new, fields),
                _ => return Err(ResponseError::StatusLine),
            }
        };
        let is_tunnel = method == "CONNECT" && status / 100 == 2;
        let (said, keeps_alive) = if is_tunnel { (None, false) } else { meaning(&fields, is_new)? };
        let length = match said {
            _ if is_tunnel => ResponseLength::Tunnel,
            _ if method == "HEAD" || [204, 304].contains(&status) => ResponseLength::Exact(0),
            said => said.unwrap_or(ResponseLength::ToEnd),
        };
        if let ResponseLength::Exact(length) = length
            && length > limits.body
        {
            return exceeds(ResponseLimit::Body, limits.body as usize);
        }
        told.push(Told {
            status,
            is_new,
            length,
            keeps_alive: keeps_alive && length != ResponseLength::ToEnd,
            fields,
            body: Vec::new(),
            trailers: Vec::new(),
            is_whole: length == ResponseLength::Exact(0),
            behind: Vec::new(),
        });
        let last = told.last_mut().expect("it was pushed");
        match length {
            ResponseLength::Exact(length) => {
                for _ in 0..length {
                    last.body.push(self.byte()?);
                }
            }
            ResponseLength::Chunked => self.chunks(last)?,
            ResponseLength::ToEnd => {
                while let Ok(byte) = self.byte() {
                    if last.body.len() as u64 == limits.body {
                        return exceeds(ResponseLimit::Body, limits.body as usize);
                    }
                    last.body.push(byte);
                }
            }
            ResponseLength::Tunnel => {
                last.behind = self.rest.to_vec();
                return Ok(false);
            }
        }
        last.is_whole = true;
        Ok(length != ResponseLength::ToEnd)
    }

    fn chunks(&mut self, told: &mut Told) -> Result<(), ResponseError> {
        let (mut extensions, mut length, limits) = (0, 0_u64, self.limits);
        loop {
            let (size, extension) = self.chunk_line(extensions)?;
            extensions += extension;
            length = length.saturating_add(size);
            if length > limits.body {
                return exceeds(ResponseLimit::Body, limits.body as usize);
            }
            if size == 0 {
                let total = (ResponseLimit::Trailers, limits.trailers);
                let count = (ResponseLimit::TrailerFields, limits.trailer_fields);
                told.trailers = fields(&self.block(None, total, count)?)?;
                return Ok(());
            }
            for _ in 0..size {
                told.body.push(self.byte()?);
            }
            for expected in *b"\r\n" {
                if self.byte()? != expected {
                    return Err(ResponseError::Chunk);
                }
            }
        }
    }

    /// A chunk's size, and how long its extension is.
    fn chunk_line(&mut self, before: usize) -> Result<(u64, usize), ResponseError> {
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
            if digits.is_empty() || digits.len() > 16 {
                return Err(ResponseError::Chunk);
            }
            if before + shown.len() > self.limits.extensions {
                return exceeds(ResponseLimit::Extensions, self.limits.extensions);
            }
        }
        let extension = extension.strip_suffix(b"\r").ok_or(ResponseError::Chunk)?;
        let first = extension.iter().find(|byte| !b" \t".contains(byte));
        let is_valid = (extension.is_empty() || first == Some(&b';'))
            && extension.iter().all(|byte| *byte == b'\t' || !byte.is_ascii_control());
        let size = u64::from_str_radix(&digits, 16).map_err(|_| ResponseError::Chunk)?;
        if is_valid { Ok((size, extension.len())) } else { Err(ResponseError::Chunk) }
    }
}

fn status_line(line: &[u8]) -> Result<(u16, bool), ResponseError> {
    let text: String = line.iter().map(|byte| char::from(*byte)).collect();
    let (version, rest) = text.split_once(' ').ok_or(ResponseError::StatusLine)?;
    let is_version = version.len() == 8
        && version.starts_with("HTTP/")
        && version.char_indices().skip(5).all(|(at, c)| match at {
            6 => c == '.',
            _ => c.is_ascii_digit(),
        });
    match version {
        "HTTP/1.1" | "HTTP/1.0" => {}
        _ if is_version => return Err(ResponseError::Version),
        _ => return Err(ResponseError::StatusLine),
    }
    let (code, reason) = rest.split_at_checked(3).ok_or(ResponseError::StatusLine)?;
    let is_reason = |c: char| c == '\t' || !c.is_ascii_control();
    let has_reason = reason.is_empty() || reason.starts_with(' ') && reason.chars().all(is_reason);
    if !code.chars().all(|c| c.is_ascii_digit()) || !has_reason {
        return Err(ResponseError::StatusLine);
    }
    Ok((code.parse().expect("three digits"), version == "HTTP/1.1"))
}

fn fields(lines: &[Vec<u8>]) -> Result<Lines, ResponseError> {
    let is_in_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    let is_in_value = |byte: &u8| *byte == b'\t' || !byte.is_ascii_control();
    let field = |line: &Vec<u8>| {
        let colon = line.iter().position(|byte| *byte == b':').ok_or(ResponseError::Field)?;
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        if name.is_empty() || !name.iter().all(is_in_token) || !value.iter().all(is_in_value) {
            return Err(ResponseError::Field);
        }
        Ok((String::from_utf8_lossy(name).into_owned(), value.trim_ascii().to_vec()))
    };
    lines.iter().map(field).collect()
}

/// What the fields say of the content's length, and whether the connection goes on.
fn meaning(fields: &Lines, is_new: bool) -> Result<(Option<ResponseLength>, bool), ResponseError> {
    let all = |name: &str| -> Vec<String> {
        let same = fields.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name));
        same.map(|(_, value)| String::from_utf8_lossy(value).to_ascii_lowercase()).collect()
    };
    let elements = |name: &str| -> Vec<String> {
        all(name).join(",").split(',').map(|element| element.trim().to_owned()).collect()
    };
    let has = |name: &str, element: &str| elements(name).iter().any(|other| other == element);
    let keeps_alive = !has("connection", "close") && (is_new || has("connection", "keep-alive"));
    let (lengths, codings) = (all("content-length"), all("transfer-encoding"));
    let is_number =
        |length: &String| !length.is_empty() && length.chars().all(|c| c.is_ascii_digit());
    if lengths.len() > 1 || !lengths.iter().all(is_number) {
        return Err(ResponseError::ContentLength);
    }
    match (lengths.first(), codings.is_empty()) {
        (Some(_), false) => Err(ResponseError::TwoLengths),
        (Some(length), true) => {
            Ok((Some(ResponseLength::Exact(length.parse().unwrap_or(u64::MAX))), keeps_alive))
        }
        (None, true) => Ok((None, keeps_alive)),
        (None, false) if is_new && elements("transfer-encoding") == ["chunked"] => {
            Ok((Some(ResponseLength::Chunked), keeps_alive))
        }
        (None, false) => Err(ResponseError::TransferEncoding),
    }
}

// --- random streams ------------------------------------------------------------------------------

/// A few responses, most of them good, some of them damaged.
pub fn random_stream(rng: &mut Rng, asked: u8) -> Vec<u8> {
    let case = Case { limits: 1, seed: 0, asked, stream: b"" };
    let one_too_much = usize::from(rng.u8(..4) == 0);
    let count = rng.usize(1..=REQUESTS + one_too_much);
    let mut stream: Vec<u8> = (0..count)
        .flat_map(|request| random_response(rng, case.method(request % REQUESTS)))
        .collect();
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

fn random_response(rng: &mut Rng, method: &str) -> Vec<u8> {
    let mut text = String::new();
    while rng.u8(..6) == 0 {
        text += pick(rng, &["HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 103 \r\nLink: a\r\n\r\n"]);
    }
    let version = if rng.u8(..8) > 0 { "HTTP/1.1" } else { "HTTP/1.0" };
    let status =
        pick(rng, &["200 OK", "204 No", "304", "404 ", "500 a b", "299 \t\u{e9}", "101 S"]);
    let status = if rng.bool() { "200 OK" } else { status };
    text += &format!("{version} {status}\r\n");
    if rng.u8(..4) == 0 {
        text += pick(
            rng,
            &[
                "Connection: close\r\n",
                "connection: x, Keep-Alive\r\n",
                "Server:\r\n",
                "A: \tb c \t\r\n",
                "Transfer-Encoding: gzip\r\n",
                "Content-Length: 3\r\n",
                "Content-Length: 3\r\ncontent-length: 3\r\n",
                "A: b\r\nC: d\r\nE: f\r\n",
            ],
        );
    }
    let has_body = method != "HEAD" && !["204", "304"].contains(&&status[..3]);
    match rng.u8(..8) {
        0 => text + "\r\n",
        1..4 => {
            let body = "x".repeat(rng.usize(..14));
            let sent = if has_body { &body } else { "" };
            format!("{text}Content-Length: {}\r\n\r\n{sent}", body.len())
        }
        _ => {
            text += "Transfer-Encoding: chunked\r\n\r\n";
            if !has_body {
                return text.into_bytes();
            }
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
        stream.push(b'H');
    }
}
