//! Blocks of lines that end in an empty one: heads and trailer sections.

use memchr::memchr;

use super::Refusal;

/// Where the end of a block has been looked for. A block that comes byte by byte is looked at once.
#[derive(Clone, Debug, Default)]
pub(super) struct LineScanner {
    /// How many bytes were looked at.
    scanned: usize,
    /// Where the current line begins.
    line: usize,
    /// How many lines were whole.
    lines: usize,
}

/// How large a block may be, and what it is if it is larger.
pub(super) struct BlockLimits {
    /// The longest first line, without its end.
    pub(super) first: (usize, Refusal),
    /// How many bytes, with the empty line.
    pub(super) total: (usize, Refusal),
    /// How many lines, without the empty one.
    pub(super) lines: (usize, Refusal),
}

impl LineScanner {
    /// Whether nothing was looked at.
    pub(super) fn is_new(&self) -> bool {
        self.scanned == 0
    }

    /// The length of the block that `bytes` begin with, its empty line included; `None` if a part
    /// of it is missing. `bytes` are those of the last time, and more.
    #[inline]
    pub(super) fn find_end(
        &mut self,
        bytes: &[u8],
        limits: &BlockLimits,
    ) -> Result<Option<usize>, Refusal> {
        while let Some(found) = memchr(b'\n', &bytes[self.scanned..]) {
            let end = self.scanned + found + 1;
            self.check_length(&bytes[..end - 1], end, limits)?;
            let Some(line) = bytes[self.line..end - 1].strip_suffix(b"\r") else {
                return Err(Refusal::LineEnding);
            };
            if line.is_empty() {
                return Ok(Some(end));
            }
            self.lines += 1;
            if self.lines > limits.lines.0 {
                return Err(limits.lines.1);
            }
            (self.scanned, self.line) = (end, end);
        }
        self.scanned = bytes.len();
        // At least one more byte is to come.
        self.check_length(bytes, bytes.len().saturating_add(1), limits)?;
        Ok(None)
    }

    /// Refuses a block that has `total` bytes by now, of which `bytes` end within a line.
    #[inline]
    fn check_length(
        &self,
        bytes: &[u8],
        total: usize,
        limits: &BlockLimits,
    ) -> Result<(), Refusal> {
        // Which limit is passed first must not depend on the pieces in which the bytes come.
        if self.lines == 0 && limits.first.0.saturating_add(1) < limits.total.0 {
            let line = bytes.strip_suffix(b"\r").unwrap_or(bytes);
            if line.len() > limits.first.0 {
                return Err(limits.first.1);
            }
        }
        if total > limits.total.0 {
            return Err(limits.total.1);
        }
        Ok(())
    }
}
