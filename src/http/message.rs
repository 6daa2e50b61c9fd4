//! What the fields of a head say about the message itself, be it a request or a response.

use super::head::{BodyLength, Version};
use super::refusal::Refusal;

/// The fields that were read so far, as far as they concern the message itself.
#[derive(Default)]
pub(super) struct MessageFields {
    length: Option<u64>,
    is_encoded: bool,
    /// `chunked` came among the transfer codings, something else did, something wrong did.
    is_chunked: bool,
    is_other: bool,
    is_wrong: bool,
    closes: bool,
    keeps_alive: bool,
    pub(super) upgrades: bool,
}

impl MessageFields {
    #[inline]
    pub(super) fn read(&mut self, name: &str, value: &[u8]) -> Result<(), Refusal> {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        match name.len() {
            10 if is("connection") => {
                for option in list(value) {
                    self.closes |= option.eq_ignore_ascii_case(b"close");
                    self.keeps_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                    self.upgrades |= option.eq_ignore_ascii_case(b"upgrade");
                }
                Ok(())
            }
            14 if is("content-length") => self.read_length(value),
            17 if is("transfer-encoding") => {
                self.read_codings(value);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Two equal lengths may be taken for one (RFC 9110, section 8.6); here they are not.
    fn read_length(&mut self, value: &[u8]) -> Result<(), Refusal> {
        let digits = value.trim_ascii();
        if self.length.is_some() || digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return Err(Refusal::ContentLength);
        }
        let add = |sum: u64, digit: &u8| sum.checked_mul(10)?.checked_add(u64::from(digit - b'0'));
        let length = digits.iter().try_fold(0, add);
        self.length = Some(length.unwrap_or(u64::MAX)); // Which no limit allows.
        Ok(())
    }

    fn read_codings(&mut self, value: &[u8]) {
        self.is_encoded = true;
        for coding in list(value) {
            self.is_wrong |= self.is_chunked || coding.is_empty();
            match coding.eq_ignore_ascii_case(b"chunked") {
                true => self.is_chunked = true,
                false => self.is_other = true,
            }
        }
    }

    /// RFC 9112, section 6.3, as strictly as it allows; `None` if no field says how long the
    /// content is.
    pub(super) fn body_length(&self, version: Version) -> Result<Option<BodyLength>, Refusal> {
        match self.length {
            Some(_) if self.is_encoded => Err(Refusal::TwoLengths),
            Some(length) => Ok(Some(BodyLength::Exact(length))),
            None if !self.is_encoded => Ok(None),
            None if version == Version::Http10 || self.is_wrong || !self.is_chunked => {
                Err(Refusal::TransferEncoding)
            }
            None if self.is_other => Err(Refusal::UnknownCoding),
            None => Ok(Some(BodyLength::Chunked)),
        }
    }

    /// Whether the connection goes on after the message (RFC 9112, section 9.3).
    pub(super) fn keeps_alive(&self, version: Version) -> bool {
        match version {
            Version::Http11 => !self.closes,
            Version::Http10 => self.keeps_alive && !self.closes,
        }
    }
}

/// The elements of a list, with those that are empty.
pub(super) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}
