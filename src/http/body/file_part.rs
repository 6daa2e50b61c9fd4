//! Parts of files that are sent.

use std::fs::File;
use std::ops::Range;

use rustix::buffer::spare_capacity;
use rustix::io::{Result, pread};

use super::pipe::{ContentEnd, Front};
use crate::LogLimit;
use crate::http::fields::FieldLines;

/// What is left to be sent of a file.
pub(super) struct FilePart {
    file: File,
    next: u64,
    end: u64,
}

impl FilePart {
    pub(super) fn new(file: File, part: Range<u64>) -> Self {
        FilePart { file, next: part.start, end: part.end.max(part.start) }
    }

    pub(super) fn left(&self) -> u64 {
        self.end - self.next
    }

    /// Reads a piece, of at most this many bytes.
    pub(super) fn take(&mut self, most: usize) -> Front {
        if self.left() == 0 {
            return Front::End(ContentEnd::Finished(FieldLines::new()));
        }
        match self.read(most as u64) {
            Ok(piece) if !piece.is_empty() => {
                self.next += piece.len() as u64;
                Front::Piece(piece.into())
            }
            // It is shorter than it was.
            Ok(_) => Front::End(ContentEnd::Aborted),
            Err(error) => {
                static LIMIT: LogLimit = LogLimit::new();
                if let Some(left_out) = LIMIT.admit() {
                    tracing::error!(left_out, %error, "a file can't be read");
                }
                Front::End(ContentEnd::Aborted)
            }
        }
    }

    fn read(&self, most: u64) -> Result<Vec<u8>> {
        let length = usize::try_from(self.left().min(most)).unwrap_or(0);
        let mut piece = Vec::with_capacity(length);
        pread(&self.file, spare_capacity(&mut piece), self.next)?;
        piece.truncate(length);
        Ok(piece)
    }
}
