//! What tells two states of a file apart, and what requests ask about it (RFC 9110, section 13).

use std::fs::Metadata;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use httpdate::{HttpDate, parse_http_date};

use crate::http::fields::Fields;

/// How long a file must be unchanged until nobody can change it within the same tick of its clock.
const SETTLED: Duration = Duration::from_secs(2);
/// The first second that has five digits for its year.
const END_OF_DATES: Duration = Duration::from_secs(253_402_300_800);

/// The validators of a file (RFC 9110, section 8.8).
pub(super) struct Validators {
    /// The entity tag's text, with its quotes.
    tag: String,
    /// A tag or date of this state is that of no later one.
    is_strong: bool,
    /// When it was changed last, in whole seconds.
    modified: Option<SystemTime>,
}

/// What the conditions of a request say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Serve,
    /// The client has it.
    NotModified,
    /// It is not what the client expects.
    Failed,
}

impl Validators {
    pub(super) fn of(metadata: &Metadata, now: SystemTime) -> Self {
        let modified = metadata.modified().ok();
        let since = modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let since = since.filter(|since| *since < END_OF_DATES);
        let nanos = since.map_or(0, |since| since.as_nanos());
        let age = modified.and_then(|time| now.duration_since(time).ok());
        Validators {
            tag: format!("\"{:x}-{nanos:x}\"", metadata.len()),
            is_strong: age.is_some_and(|age| age >= SETTLED) && since.is_some(),
            modified: since
                .and_then(|since| UNIX_EPOCH.checked_add(Duration::from_secs(since.as_secs()))),
        }
    }

    /// The value of ETag.
    pub(super) fn etag(&self) -> String {
        let weak = if self.is_strong { "" } else { "W/" };
        format!("{weak}{}", self.tag)
    }

    /// The value of Last-Modified, which is not later than that of Date (section 8.8.2.1).
    pub(super) fn last_modified(&self, now: SystemTime) -> Option<String> {
        self.modified.map(|time| HttpDate::from(time.min(now)).to_string())
    }

    /// Evaluates the conditions of a request with GET or HEAD in the order of section 13.2.2.
    pub(super) fn judge(&self, fields: Fields<'_>) -> Verdict {
        let is_expected = match fields.get("If-Match") {
            Some(_) => self.is_listed(fields, "If-Match", Self::is_strongly),
            None => self.is_unmodified_since(fields, "If-Unmodified-Since").unwrap_or(true),
        };
        if !is_expected {
            return Verdict::Failed;
        }
        let is_known = match fields.get("If-None-Match") {
            Some(_) => self.is_listed(fields, "If-None-Match", Self::is_weakly),
            None => self.is_unmodified_since(fields, "If-Modified-Since").unwrap_or(false),
        };
        if is_known { Verdict::NotModified } else { Verdict::Serve }
    }

    /// Whether a part of the file belongs to what the client has of it (section 13.1.5).
    pub(super) fn is_in_range_of(&self, fields: Fields<'_>) -> bool {
        let Some(value) = fields.get("If-Range") else { return true };
        match split_tag(value) {
            Some((tag, b"")) => self.is_strongly(tag),
            Some(_) => false,
            None => self.is_strong && self.modified.is_some() && date(value) == self.modified,
        }
    }

    /// Whether the file was not changed after the date in a field; `None` if there is no date.
    fn is_unmodified_since(&self, fields: Fields<'_>, name: &str) -> Option<bool> {
        let (date, modified) = (date(fields.get(name)?)?, self.modified?);
        Some(modified <= date)
    }

    /// Whether a field's list has an entity tag that is this one.
    fn is_listed(
        &self,
        fields: Fields<'_>,
        name: &str,
        is_same: fn(&Self, EntityTag<'_>) -> bool,
    ) -> bool {
        fields
            .get_all(name)
            .any(|value| value == b"*" || EntityTags(value).any(|tag| is_same(self, tag)))
    }

    /// The strong comparison of section 8.8.3.2.
    fn is_strongly(&self, other: EntityTag<'_>) -> bool {
        self.is_strong && !other.is_weak && self.is_weakly(other)
    }

    /// The weak one.
    fn is_weakly(&self, other: EntityTag<'_>) -> bool {
        self.tag.as_bytes() == other.tag
    }
}

fn date(value: &[u8]) -> Option<SystemTime> {
    parse_http_date(std::str::from_utf8(value).ok()?).ok()
}

#[derive(Clone, Copy)]
struct EntityTag<'a> {
    is_weak: bool,
    /// With its quotes.
    tag: &'a [u8],
}

/// The entity tags of a list, up to what is none.
struct EntityTags<'a>(&'a [u8]);

impl<'a> Iterator for EntityTags<'a> {
    type Item = EntityTag<'a>;

    fn next(&mut self) -> Option<EntityTag<'a>> {
        let start = self.0.iter().position(|byte| !b" \t,".contains(byte))?;
        let (tag, rest) = split_tag(&self.0[start..])?;
        self.0 = rest;
        Some(tag)
    }
}

/// An entity tag, and what follows it; `None` if there is none.
fn split_tag(value: &[u8]) -> Option<(EntityTag<'_>, &[u8])> {
    let (is_weak, value) = match value.strip_prefix(b"W/") {
        Some(rest) => (true, rest),
        None => (false, value),
    };
    let inner = value.strip_prefix(b"\"")?;
    let end = inner.iter().position(|byte| *byte == b'"')? + 2;
    let (tag, rest) = value.split_at_checked(end)?;
    Some((EntityTag { is_weak, tag }, rest))
}
