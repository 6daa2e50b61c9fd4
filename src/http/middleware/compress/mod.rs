//! Responses that are compressed.

mod accepted;
mod encoder;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use self::accepted::Accepted;
use self::encoder::{Coding, Encoder, Seat, compress};
use super::{Middleware, Next};
use crate::http::body::{Recoder, Recoding};
use crate::http::fields::FieldLines;
use crate::http::server::{Answered, Exchange, Failure};
use crate::http::status::StatusCode;

/// Compresses responses for clients that accept gzip or deflate (RFC 9110, section 12.5.3). Feature
/// `deflate`.
///
/// A content of up to 64 KiB is compressed at once; a longer one, a file and a stream as they are
/// sent, in pieces, and between two of them other connections have their turn. What a stream's
/// writer has sent does not wait for what it sends later, so events arrive at once. A writer that
/// has said a length keeps to it; the client is not told it.
///
/// # What is not compressed
///
/// - a content shorter than 1 KiB: see [`from_length`](Self::from_length);
/// - one whose type does not say that it is text, JSON, XML, a script, WebAssembly or a font that
///   has no compression of its own;
/// - one that has a coding, or a digest, or is a part (206);
/// - one with `Cache-Control: no-transform`;
/// - a stream for a client of HTTP/1.0, or one too many: see [`streams`](Self::streams).
///
/// A client that accepts nothing without a coding gets one in spite of the first two. One that
/// accepts no coding of ours, and none at all either, gets none.
///
/// An ETag becomes a weak one, Accept-Ranges is left out, and all responses say `Vary:
/// Accept-Encoding`, also those that are not compressed.
///
/// Secrets and what clients choose must not be compressed in one content: its length tells how much
/// they have in common (the attack's name is BREACH).
///
/// ```
/// use millstream::http::{Compress, Router, StatusCode};
///
/// let router = Router::new().layer(Compress::new()).get("/", |exchange| {
///     Ok(exchange.respond(StatusCode::OK).text(&"again and again ".repeat(100)))
/// });
/// ```
#[derive(Clone, Debug)]
#[cfg_attr(docsrs, doc(cfg(feature = "deflate")))]
pub struct Compress {
    plan: Plan,
    /// One for each coding, whether it is needed or not.
    plans: [Arc<Plan>; 4],
}

/// How a content is compressed.
#[derive(Clone)]
struct Plan {
    coding: Coding,
    is_needed: bool,
    level: u32,
    from_length: u64,
    /// How many streams may still begin.
    free: Arc<AtomicUsize>,
}

impl Compress {
    /// Compresses at level 6, and up to 256 streams at a time.
    pub fn new() -> Self {
        let free = Arc::new(AtomicUsize::new(256));
        let coding = Coding::Gzip;
        Self::with(Plan { coding, is_needed: false, level: 6, from_length: 1024, free })
    }

    fn with(plan: Plan) -> Self {
        let of = |coding, is_needed| Arc::new(Plan { coding, is_needed, ..plan.clone() });
        let codings = [Coding::Gzip, Coding::Deflate];
        let [[one, two], [three, four]] = codings.map(|it| [of(it, false), of(it, true)]);
        Compress { plan, plans: [one, two, three, four] }
    }

    /// How hard it is to try, from 1 (fast) to 9 (small).
    pub fn level(self, level: u32) -> Self {
        Self::with(Plan { level: level.clamp(1, 9), ..self.plan })
    }

    /// The shortest content that is compressed, in bytes. One whose length is not known is.
    pub fn from_length(self, bytes: u64) -> Self {
        Self::with(Plan { from_length: bytes, ..self.plan })
    }

    /// How many contents may be compressed in pieces at a time, in all reactors together; what
    /// comes beyond that is sent as it is. Each takes about 300 KiB of memory, for as long as it
    /// lasts.
    pub fn streams(self, most: usize) -> Self {
        Self::with(Plan { free: Arc::new(AtomicUsize::new(most)), ..self.plan })
    }
}

impl Default for Compress {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Plan { level, from_length, .. } = self;
        let mut debug = f.debug_struct("Plan");
        debug.field("level", level).field("from_length", from_length).finish_non_exhaustive()
    }
}

impl Middleware for Compress {
    fn handle(&self, mut exchange: Exchange<'_>, next: impl Next) -> Result<Answered, Failure> {
        exchange.outgoing().push_valid("Vary", b"Accept-Encoding");
        if let Some(accepted) = Accepted::of(exchange.fields()) {
            let is_it = |plan: &&Arc<Plan>| {
                (plan.coding, plan.is_needed) == (accepted.coding, accepted.is_needed)
            };
            if let Some(plan) = self.plans.iter().find(is_it) {
                exchange.recode_with(plan.clone());
            }
        }
        next.handle(exchange)
    }
}

impl Recoding for Plan {
    fn is_for(&self, status: StatusCode, fields: &FieldLines, length: Option<u64>) -> bool {
        let fields = fields.as_fields();
        let has = |name: &str| fields.get(name).is_some();
        let is_fixed = ["Content-Encoding", "Content-Range", "Content-Digest", "Repr-Digest"];
        let mut cached = fields.get_all("Cache-Control");
        let is_worth_it = || {
            length.is_none_or(|length| length >= self.from_length)
                && fields.get("Content-Type").is_some_and(is_compressible)
        };
        let is_without = status.is_without_content() || length == Some(0);
        let is_part = matches!(status, StatusCode::PARTIAL_CONTENT | StatusCode::RESET_CONTENT);
        !is_without
            && !is_part
            && !is_fixed.into_iter().any(has)
            && !cached.any(forbids_changes)
            && (self.is_needed || is_worth_it())
    }

    fn mark(&self, fields: &mut FieldLines) {
        fields.push_valid("Content-Encoding", self.coding.name().as_bytes());
        fields.weaken_tag();
        fields.remove("Accept-Ranges");
    }

    fn recode(&self, content: &[u8]) -> Option<Vec<u8>> {
        compress(self.coding, self.level, content)
    }

    fn begin(&self) -> Option<Box<dyn Recoder>> {
        let seat = Seat::take(&self.free)?;
        Some(Box::new(Encoder::new(self.coding, self.level, seat)))
    }
}

/// Whether a value of Cache-Control has `no-transform` (RFC 9111, section 5.2.2.6).
fn forbids_changes(value: &[u8]) -> bool {
    let mut directives = value.split(|byte| *byte == b',');
    directives.any(|directive| directive.trim_ascii().eq_ignore_ascii_case(b"no-transform"))
}

/// Whether contents of this type become shorter.
fn is_compressible(kind: &[u8]) -> bool {
    let Ok(kind) = std::str::from_utf8(kind) else { return false };
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let Some((kind, subtype)) = kind.split_once('/') else { return false };
    let is_named = |names: &[&str]| names.contains(&subtype);
    match kind {
        "text" => true,
        "application" => {
            let names = ["json", "xml", "javascript", "x-javascript", "wasm", "x-ndjson", "rtf"];
            is_named(&names) || subtype.ends_with("+json") || subtype.ends_with("+xml")
        }
        "image" => is_named(&["svg+xml", "bmp", "x-icon", "vnd.microsoft.icon"]),
        "font" => is_named(&["ttf", "otf", "sfnt", "collection"]),
        _ => subtype.ends_with("+json") || subtype.ends_with("+xml"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_that_become_shorter_are_known() {
        for kind in [
            "text/html",
            "Text/HTML; charset=utf-8",
            "text/event-stream",
            "application/json",
            "application/problem+json",
            "application/xhtml+xml",
            "image/svg+xml",
            "application/wasm",
            "font/ttf",
            "model/gltf+json",
        ] {
            assert!(is_compressible(kind.as_bytes()), "{kind}");
        }
        for kind in [
            "",
            "text",
            "image/png",
            "image/jpeg",
            "video/mp4",
            "font/woff2",
            "application/zip",
            "application/gzip",
            "application/octet-stream",
            "multipart/form-data",
        ] {
            assert!(!is_compressible(kind.as_bytes()), "{kind}");
        }
        assert!(!is_compressible(b"text/\xff"));
    }
}
