//! Files of a folder.

#[cfg_attr(target_os = "linux", path = "beneath_linux.rs")]
#[cfg_attr(not(target_os = "linux"), path = "beneath_elsewhere.rs")]
mod beneath;
mod folder;
mod path;
mod range;
mod validators;
mod walk;

use std::borrow::Cow;
use std::fs::{File, Metadata};
use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::SystemTime;

use rustix::io::Errno;

use self::folder::Folder;
use self::range::Extent;
use self::validators::{Validators, Verdict};
use super::fields::{FieldError, FieldLines};
use super::server::{Answered, Exchange, Failure};
use super::status::StatusCode;

/// The methods that files have, as the field Allow lists them.
const METHODS: &str = "GET, HEAD";
/// The type of what has no other.
const BYTES: &str = "application/octet-stream";

/// The files of a folder, for a router's [`files`](super::Router::files), or one by one.
///
/// ```
/// use std::sync::Arc;
///
/// use millstream::http::{Files, Router};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let public = std::env::temp_dir();
/// let files = Arc::new(Files::open(public)?.field("Cache-Control", "max-age=3600")?);
/// let one = Arc::clone(&files);
/// let router = Router::new()
///     .files("/static", files)
///     .get("/favicon.ico", move |exchange| one.send(exchange, "images/icon.png"));
/// # router.build()?;
/// # Ok(())
/// # }
/// ```
///
/// A file's type is that of its extension; texts are said to be in UTF-8. Its ETag is made of its
/// length and the time of its last change. It is weak for two seconds after that, in which the file
/// could change once more and keep it.
///
/// Conditional requests are answered as RFC 9110, section 13, says, and one range of bytes as
/// section 14 does, with 206 or 416. A field Range that has several ranges, or is not one, is
/// ignored. There are no lists of what is in a folder.
///
/// # What is not served
///
/// No path leads out of the folder: not by `..`, not by percent signs, and not by a link. Links
/// within the folder are followed on Linux, unless a sandbox refuses `openat2`; elsewhere none are.
/// [`follow_links`](Self::follow_links) follows all. Names that begin with a dot are
/// [hidden](Self::dot_files), and what is neither a file nor a folder, such as a FIFO, is never
/// waited for. All that is answered with 404.
///
/// # Where it blocks
///
/// A file is opened, and read in pieces of up to 64 KiB, on the reactor. That takes microseconds
/// for what the system has in its cache; a slow disk or network drive holds up the reactor's other
/// connections for as long as it takes. Large files take no more memory than small ones, and a
/// connection has one open at a time. A file that becomes shorter while it is sent ends the
/// connection, so that the client sees that it is not complete; of one that becomes longer, the
/// length that was said is sent.
#[derive(Debug)]
pub struct Files {
    folder: Folder,
    index: Option<Box<str>>,
    dot_files: bool,
    follows_links: bool,
    /// What is said of each.
    fields: FieldLines,
}

impl Files {
    /// The files of this folder, which is opened now: where its path leads to later does not
    /// matter.
    ///
    /// # Errors
    /// It can't be opened, or is not a folder.
    pub fn open(folder: impl AsRef<Path>) -> io::Result<Self> {
        Ok(Files {
            folder: Folder::open(folder.as_ref())?,
            index: Some("index.html".into()),
            dot_files: false,
            follows_links: false,
            fields: FieldLines::new(),
        })
    }

    /// The file that stands for the folder in which it is, or `None`; by default `index.html`.
    pub fn index<'n>(mut self, name: impl Into<Option<&'n str>>) -> Self {
        self.index = name.into().map(Box::from);
        self
    }

    /// Serves what has a name that begins with a dot, too.
    pub fn dot_files(mut self) -> Self {
        self.dot_files = true;
        self
    }

    /// Follows links out of the folder, too: all that they lead to is served.
    pub fn follow_links(mut self) -> Self {
        self.follows_links = true;
        self
    }

    /// Adds a field to each answer about a file that is there, such as Cache-Control.
    ///
    /// # Errors
    /// It can't be sent: see [`FieldLines::push`].
    pub fn field(mut self, name: &str, value: impl AsRef<[u8]>) -> Result<Self, FieldError> {
        self.fields.push(name, value)?;
        Ok(self)
    }

    /// Answers with the file that has this path below the folder: names with a slash between two,
    /// decoded already. With a slash at its end, or empty, it is that of a folder; without one, a
    /// folder is answered with a redirect to the request's path with a slash.
    ///
    /// For paths that clients choose there is [`Router::files`](super::Router::files).
    ///
    /// # Errors
    /// There is no such file: 404; it may not be read: 403; too many are open: 503; or it can't be
    /// read: 500.
    pub fn send<S>(&self, exchange: Exchange<'_, S>, path: &str) -> Result<Answered, Failure> {
        if !matches!(exchange.method(), "GET" | "HEAD") {
            let status = StatusCode::METHOD_NOT_ALLOWED;
            let answer = exchange.respond(status).field("Allow", METHODS)?;
            return Ok(answer.text(&format!("{status}\n")));
        }
        let is_folder = path.is_empty() || path.ends_with('/');
        let path = self.path_of(path, is_folder).ok_or(StatusCode::NOT_FOUND)?;
        let (file, metadata) = self.find(&path).map_err(failure)?;
        match metadata.file_type() {
            found if found.is_file() => self.answer(exchange, &kind(&path), file, &metadata),
            found if found.is_dir() && !is_folder => redirect(exchange),
            _ => Err(StatusCode::NOT_FOUND.into()),
        }
    }

    /// The same for a path that is not decoded.
    pub(super) fn send_raw(&self, exchange: Exchange<'_>, path: &str) -> Result<Answered, Failure> {
        let path = path::decode(path).ok_or(StatusCode::NOT_FOUND)?;
        self.send(exchange, &path)
    }

    /// The path of the file that is served for this one; `None` if there can't be any.
    fn path_of<'p>(&self, path: &'p str, is_folder: bool) -> Option<Cow<'p, str>> {
        if !path::is_below(path, self.dot_files) {
            return None;
        }
        match is_folder {
            true => Some(format!("{path}{}", self.index.as_ref()?).into()),
            false => Some(path.into()),
        }
    }

    fn find(&self, path: &str) -> io::Result<(File, Metadata)> {
        let file = match self.follows_links {
            true => self.folder.follow(path)?,
            false => self.folder.find(path)?,
        };
        let metadata = file.metadata()?;
        Ok((file, metadata))
    }

    fn answer<S>(
        &self,
        mut exchange: Exchange<'_, S>,
        kind: &str,
        file: File,
        metadata: &Metadata,
    ) -> Result<Answered, Failure> {
        let (now, length) = (SystemTime::now(), metadata.len());
        let validators = Validators::of(metadata, now);
        let fields = exchange.fields();
        let verdict = validators.judge(fields);
        if verdict == Verdict::Failed {
            return Err(StatusCode::PRECONDITION_FAILED.into());
        }
        let range = fields.get("Range").filter(|_| exchange.method() == "GET");
        let wanted = match range.filter(|_| validators.is_in_range_of(fields)) {
            Some(range) if verdict == Verdict::Serve => Extent::of(range, length),
            _ => Extent::Whole,
        };
        let (status, part) = match wanted {
            _ if verdict == Verdict::NotModified => (StatusCode::NOT_MODIFIED, 0..0),
            Extent::Whole => (StatusCode::OK, 0..length),
            Extent::Part(part) => (StatusCode::PARTIAL_CONTENT, part),
            Extent::Nothing => {
                let status = StatusCode::RANGE_NOT_SATISFIABLE;
                let range = format!("bytes */{length}");
                let answer = exchange.respond(status).field("Content-Range", range)?;
                return Ok(answer.text(&format!("{status}\n")));
            }
        };
        exchange.outgoing().append(&self.fields);
        let mut answer = exchange.respond(status).field("ETag", validators.etag())?;
        if status == StatusCode::NOT_MODIFIED {
            return Ok(answer.empty());
        }
        answer = answer.field("Content-Type", kind)?.field("Accept-Ranges", "bytes")?;
        if let Some(modified) = validators.last_modified(now) {
            answer = answer.field("Last-Modified", modified)?;
        }
        if status == StatusCode::PARTIAL_CONTENT {
            let (first, last) = (part.start, part.end - 1);
            answer = answer.field("Content-Range", format!("bytes {first}-{last}/{length}"))?;
        }
        Ok(answer.file(file, part))
    }
}

/// Answers that the request's path has a slash at its end.
pub(super) fn redirect<S>(exchange: Exchange<'_, S>) -> Result<Answered, Failure> {
    let query = exchange.query().map_or(String::new(), |query| format!("?{query}"));
    let target = format!("{}/{query}", exchange.path());
    let answer = exchange.respond(StatusCode::MOVED_PERMANENTLY);
    Ok(answer.field("Location", target)?.empty())
}

/// The type of a file, by its extension.
fn kind(path: &str) -> Cow<'static, str> {
    let kind = mime_guess::from_path(path).first_raw().unwrap_or(BYTES);
    match kind.starts_with("text/") {
        true => format!("{kind}; charset=utf-8").into(),
        false => kind.into(),
    }
}

/// What a client is told if a file can't be opened.
fn failure(error: io::Error) -> Failure {
    let status = match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => StatusCode::NOT_FOUND,
        ErrorKind::PermissionDenied => StatusCode::FORBIDDEN,
        _ => match Errno::from_io_error(&error) {
            // A link that leads out of the folder or in circles; a socket; a name that is none.
            Some(Errno::XDEV | Errno::LOOP | Errno::NXIO | Errno::NAMETOOLONG | Errno::INVAL) => {
                StatusCode::NOT_FOUND
            }
            Some(Errno::MFILE | Errno::NFILE | Errno::AGAIN) => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        },
    };
    Failure::caused_by(status, error)
}
