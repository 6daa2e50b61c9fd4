//! Contents in chunks (RFC 9112, section 7.1).

use memchr::memchr;

use super::fields::Fields;
use super::head::{MOST_FIELDS, parse_trailers};
use super::limits::ChunkLimits;
use super::lines::{BlockLimits, LineScanner};
use super::refusal::Refusal;
use crate::Input;

/// The most digits of a chunk's size.
const SIZE_DIGITS: usize = 16;

/// A part of a content.
pub(super) enum Piece<'a> {
    Data(&'a [u8]),
    End(Fields<'a>),
}

/// Where in a content in chunks the input is.
#[derive(Clone, Debug, Default)]
pub(super) struct Chunks {
    place: InChunks,
    /// How many bytes came in extensions.
    extensions: usize,
    /// How many bytes the chunks have that began.
    length: u64,
}

#[derive(Clone, Debug)]
enum InChunks {
    /// In the line with a chunk's size, of which this much was looked at without meeting its end.
    Size {
        scanned: usize,
    },
    /// In a chunk, of which this much is to come.
    Data {
        left: u64,
    },
    /// Behind a chunk's data.
    DataEnd,
    Trailers(LineScanner),
}

impl Default for InChunks {
    fn default() -> Self {
        InChunks::Size { scanned: 0 }
    }
}

impl Chunks {
    /// Takes the next part of the content; `None` if it is not there yet. `longest` is the longest
    /// content.
    pub(super) fn decode<'a>(
        &mut self,
        input: &mut Input<'a>,
        limits: ChunkLimits,
        longest: u64,
    ) -> Result<Option<Piece<'a>>, Refusal> {
        loop {
            match &mut self.place {
                InChunks::Size { .. } => {
                    if !self.take_size(input, limits, longest)? {
                        return Ok(None);
                    }
                }
                InChunks::Data { left } => {
                    let most = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                    *left -= most as u64;
                    if *left == 0 {
                        self.place = InChunks::DataEnd;
                    }
                    return Ok(input.take(most).filter(|_| most > 0).map(Piece::Data));
                }
                InChunks::DataEnd => match input.peek() {
                    [b'\r', b'\n', ..] => {
                        input.skip(2);
                        self.place = InChunks::default();
                    }
                    [] | [b'\r'] => return Ok(None),
                    _ => return Err(Refusal::Chunk),
                },
                InChunks::Trailers(scanner) => {
                    let Some(length) = scanner.find_end(input.peek(), &trailer_limits(limits))?
                    else {
                        return Ok(None);
                    };
                    let block = input.take(length).unwrap_or_default();
                    return parse_trailers(block).map(|fields| Some(Piece::End(fields)));
                }
            }
        }
    }

    /// Takes the line with a chunk's size; `false` if it is not whole.
    fn take_size(
        &mut self,
        input: &mut Input<'_>,
        limits: ChunkLimits,
        longest: u64,
    ) -> Result<bool, Refusal> {
        let InChunks::Size { scanned } = &mut self.place else { return Ok(true) };
        let unread = input.peek();
        let found = memchr(b'\n', &unread[*scanned..]).map(|at| *scanned + at);
        *scanned = unread.len();
        let line = &unread[..found.unwrap_or(unread.len())];
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        if digits > SIZE_DIGITS || (digits == 0 && !line.is_empty()) {
            return Err(Refusal::Chunk);
        }
        // A line that is not whole may end in a part of its end. What it has before that is only
        // counted, so that a line that comes byte by byte is looked at once.
        let extension = line[digits..].strip_suffix(b"\r");
        let length = extension.unwrap_or(&line[digits..]).len();
        if length > limits.extensions.saturating_sub(self.extensions) {
            return Err(Refusal::ExtensionsTooLong);
        }
        let Some(end) = found else { return Ok(false) };
        if !extension.is_some_and(is_extension) {
            return Err(Refusal::Chunk);
        }
        let size = std::str::from_utf8(&line[..digits]).ok();
        let size = size.and_then(|digits| u64::from_str_radix(digits, 16).ok());
        let size = size.ok_or(Refusal::Chunk)?;
        self.extensions += length;
        self.length = self.length.saturating_add(size);
        if self.length > longest {
            return Err(Refusal::BodyTooLong);
        }
        input.skip(end + 1);
        self.place = match size {
            0 => InChunks::Trailers(LineScanner::default()),
            left => InChunks::Data { left },
        };
        Ok(true)
    }
}

/// Whether it may stand between a chunk's size and the end of the line.
fn is_extension(bytes: &[u8]) -> bool {
    let is_valid = |byte: &u8| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f);
    let begins_well = bytes.is_empty() || bytes.trim_ascii_start().starts_with(b";");
    begins_well && bytes.iter().all(is_valid)
}

fn trailer_limits(limits: ChunkLimits) -> BlockLimits {
    BlockLimits {
        first: (usize::MAX, Refusal::TrailersTooLong),
        total: (limits.trailers, Refusal::TrailersTooLong),
        lines: (limits.trailer_fields.min(MOST_FIELDS), Refusal::TooManyTrailers),
    }
}
