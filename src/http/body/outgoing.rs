//! Contents that are sent in pieces.

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::file_part::FilePart;
use super::pipe::{ContentEnd, Front, Look, Pipe, Source};
use super::recoding::{Recoder, Recoding};
use super::writer::BodyWriter;
use crate::http::fields::FieldLines;
use crate::http::head::Version;
use crate::http::response::ResponseTerms;
use crate::http::status::StatusCode;
use crate::{Output, TimerId};

/// The longest chunk, so that one large piece stops at the high-water mark as others do.
const CHUNK: usize = 64 * 1024;
/// How much is sent to a client that takes all before other connections have their turn.
const AT_ONCE: usize = 256 * 1024;
/// What is sent of an event stream that has no event.
const COMMENT: &[u8] = b":\n\n";

/// A content that comes in pieces.
pub(in crate::http) struct Streamed {
    supply: Supply,
    /// How long it is, if it was said.
    length: Option<u64>,
    /// After how much silence a comment is sent.
    pub(in crate::http) pulse: Option<Duration>,
    /// What changes it, if it may.
    recoding: Option<Arc<dyn Recoding>>,
}

/// Where the pieces come from.
enum Supply {
    Written(Source),
    File(FilePart),
    Whole(Bytes),
}

impl Supply {
    /// Takes a piece.
    fn take(&mut self) -> Front {
        match self {
            Supply::Written(source) => source.take(CHUNK),
            Supply::File(part) => part.take(CHUNK),
            Supply::Whole(rest) if rest.is_empty() => {
                Front::End(ContentEnd::Finished(FieldLines::new()))
            }
            Supply::Whole(rest) => Front::Piece(rest.split_to(rest.len().min(CHUNK))),
        }
    }

    /// Tells who writes the pieces if there is room for more.
    fn tell(&self) {
        if let Supply::Written(source) = self {
            source.tell();
        }
    }
}

impl Streamed {
    /// A content, and what writes it.
    pub(in crate::http) fn new(length: Option<u64>) -> (Self, BodyWriter) {
        let pipe = Pipe::new();
        let supply = Supply::Written(Source::new(&pipe));
        (Streamed::from_supply(supply, length), BodyWriter::new(pipe, length))
    }

    /// A part of a file.
    pub(in crate::http) fn of_file(file: File, part: Range<u64>) -> Self {
        let part = FilePart::new(file, part);
        let length = Some(part.left());
        Streamed::from_supply(Supply::File(part), length)
    }

    /// A content that is all there.
    pub(in crate::http) fn of_bytes(bytes: Bytes) -> Self {
        let length = Some(bytes.len() as u64);
        Streamed::from_supply(Supply::Whole(bytes), length)
    }

    fn from_supply(supply: Supply, length: Option<u64>) -> Self {
        Streamed { supply, length, pulse: None, recoding: None }
    }

    /// Has its content changed when it is sent.
    pub(in crate::http) fn recode_with(&mut self, recoding: &Arc<dyn Recoding>) {
        self.recoding = Some(Arc::clone(recoding));
    }

    /// Begins the change of its content if the response is one for it: says so in the fields, and
    /// gives up its length, which no client of HTTP/1.0 can do without.
    pub(in crate::http) fn begin_recoding(
        &mut self,
        status: StatusCode,
        fields: &mut FieldLines,
        terms: ResponseTerms,
    ) -> Option<Box<dyn Recoder>> {
        let recoding = self.recoding.take()?;
        if terms.version == Version::Http10 || !recoding.is_for(status, fields, self.length) {
            return None;
        }
        let recoder = recoding.begin()?;
        recoding.mark(fields);
        self.length = None;
        Some(recoder)
    }

    pub(in crate::http) fn attach(&self, line: Arc<dyn Look>) {
        if let Supply::Written(source) = &self.supply {
            source.attach(line);
        }
    }

    /// How long it is, if it was said.
    pub(in crate::http) fn length(&self) -> Option<u64> {
        self.length
    }

    /// Whether the writer gave up before it wrote anything.
    pub(in crate::http) fn is_void(&self) -> bool {
        matches!(&self.supply, Supply::Written(source) if source.is_void())
    }

    /// Whether it keeps a file open.
    pub(in crate::http) fn has_file(&self) -> bool {
        matches!(self.supply, Supply::File(_))
    }

    /// How it is framed (RFC 9112, section 6.3); `None` if the response has no content.
    pub(in crate::http) fn framing(
        &self,
        status: StatusCode,
        terms: ResponseTerms,
    ) -> Option<Framing> {
        match self.length {
            _ if status.is_without_content() => None,
            _ if status == StatusCode::RESET_CONTENT => Some(Framing::Exact(0)),
            Some(length) => Some(Framing::Exact(length)),
            None if terms.version == Version::Http11 => Some(Framing::Chunked),
            None => Some(Framing::ToEnd),
        }
    }
}

/// How the end of a content is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) enum Framing {
    Exact(u64),
    Chunked,
    /// By the connection's end.
    ToEnd,
}

impl Framing {
    /// The field that says so, with its line's end.
    pub(in crate::http) fn line(self) -> String {
        match self {
            Framing::Exact(length) => format!("Content-Length: {length}\r\n"),
            Framing::Chunked => "Transfer-Encoding: chunked\r\n".to_owned(),
            Framing::ToEnd => String::new(),
        }
    }
}

/// A message whose head is sent, and whose content follows.
pub(in crate::http) struct Outgoing {
    supply: Supply,
    /// What changes the content.
    recoder: Option<Box<dyn Recoder>>,
    /// It may hold back something.
    is_unflushed: bool,
    framing: Framing,
    /// The connection goes on after it.
    pub(in crate::http) keep_alive: bool,
    pub(in crate::http) pulse: Option<Pulse>,
    /// It gave way, and the call to go on is on its way.
    pub(in crate::http) is_called: bool,
}

/// What keeps a silent stream alive.
pub(in crate::http) struct Pulse {
    pub(in crate::http) interval: Duration,
    pub(in crate::http) timer: TimerId,
    /// Nothing was sent since it came last.
    silent: bool,
}

impl Pulse {
    pub(in crate::http) fn new(interval: Duration, timer: TimerId) -> Self {
        Pulse { interval, timer, silent: false }
    }
}

/// How far a content has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) enum Advance {
    /// It waits for its writer or for the peer.
    Waits,
    /// There is more, and it goes on when others had their turn.
    GivesWay,
    Complete,
    Aborted,
}

impl Outgoing {
    pub(in crate::http) fn new(
        streamed: Streamed,
        recoder: Option<Box<dyn Recoder>>,
        framing: Framing,
        keep_alive: bool,
    ) -> Self {
        Outgoing {
            supply: streamed.supply,
            recoder,
            is_unflushed: false,
            framing,
            keep_alive,
            pulse: None,
            is_called: false,
        }
    }

    /// Whether it keeps a file open.
    pub(in crate::http) fn has_file(&self) -> bool {
        matches!(self.supply, Supply::File(_))
    }

    /// Whether only the connection's end ends it, so that an early end must be a reset.
    pub(in crate::http) fn ends_with_connection(&self) -> bool {
        self.framing == Framing::ToEnd
    }

    /// Sends what is there, up to the high-water mark.
    pub(in crate::http) fn pump(&mut self, output: &mut Output<'_>) -> Advance {
        let advance = self.send_pieces(output);
        self.supply.tell();
        advance
    }

    fn send_pieces(&mut self, output: &mut Output<'_>) -> Advance {
        let most = if self.recoder.is_some() { CHUNK } else { AT_ONCE };
        let mut sent = 0;
        while sent < most {
            if output.is_above_high_water() {
                return Advance::Waits;
            }
            let written = match self.supply.take() {
                Front::Piece(piece) => {
                    sent += piece.len();
                    self.put(piece, output)
                }
                Front::Nothing => {
                    return self.flush(output).map_or(Advance::Aborted, |()| Advance::Waits);
                }
                Front::End(ContentEnd::Finished(trailers)) => {
                    let finished = self.finish(&trailers, output);
                    return finished.map_or(Advance::Aborted, |()| Advance::Complete);
                }
                Front::End(ContentEnd::Aborted) => None,
            };
            if written.is_none() {
                return Advance::Aborted;
            }
        }
        Advance::GivesWay
    }

    // Below, `None` is that the content can't be changed.

    fn put(&mut self, piece: Bytes, output: &mut Output<'_>) -> Option<()> {
        let piece = match &mut self.recoder {
            Some(recoder) => recoder.put(&piece)?.into(),
            None => piece,
        };
        self.is_unflushed = true;
        self.write(piece, output);
        Some(())
    }

    /// Nothing more comes for now.
    fn flush(&mut self, output: &mut Output<'_>) -> Option<()> {
        if std::mem::take(&mut self.is_unflushed)
            && let Some(recoder) = &mut self.recoder
        {
            let rest = recoder.flush()?;
            self.write(rest.into(), output);
        }
        Some(())
    }

    fn finish(&mut self, trailers: &FieldLines, output: &mut Output<'_>) -> Option<()> {
        if let Some(mut recoder) = self.recoder.take() {
            let rest = recoder.finish()?;
            self.write(rest.into(), output);
        }
        self.write_end(trailers, output);
        Some(())
    }

    fn write(&mut self, piece: Bytes, output: &mut Output<'_>) {
        if let Some(pulse) = &mut self.pulse {
            pulse.silent = false;
        }
        if piece.is_empty() {
            return; // An empty chunk would be the last one.
        }
        match self.framing {
            Framing::Chunked => {
                output.write(format!("{:X}\r\n", piece.len()).as_bytes());
                output.write_bytes(piece);
                output.write(b"\r\n");
            }
            Framing::Exact(_) | Framing::ToEnd => output.write_bytes(piece),
        }
    }

    fn write_end(&self, trailers: &FieldLines, output: &mut Output<'_>) {
        if self.framing == Framing::Chunked {
            output.write_parts([b"0\r\n", trailers.as_bytes(), b"\r\n"]);
        }
    }

    /// The pulse has come: sends a comment if nothing else was sent, or waits to be.
    pub(in crate::http) fn beat(&mut self, output: &mut Output<'_>) {
        let Some(pulse) = &mut self.pulse else { return };
        if std::mem::replace(&mut pulse.silent, true) && output.pending() == 0 {
            let written = self.put(Bytes::from_static(COMMENT), output);
            // What can't be changed fails when the next event comes.
            let _ = written.and_then(|()| self.flush(output));
            self.pulse.iter_mut().for_each(|pulse| pulse.silent = true);
        }
    }
}
