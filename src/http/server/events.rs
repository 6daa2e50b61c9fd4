//! Server-sent events (the HTML standard, section 9.2).

use std::time::Duration;

use crate::http::body::{BodyWriter, SendBodyError};

/// An event for the `EventSource` of a browser.
///
/// ```
/// use std::time::Duration;
/// use millstream::http::{ServerEvent, EventError};
///
/// let event = ServerEvent::new("one\ntwo").id("7")?.name("count")?.retry(Duration::from_secs(3));
/// assert_eq!(event.as_str(), "id: 7\nevent: count\nretry: 3000\ndata: one\ndata: two\n\n");
/// # Ok::<(), EventError>(())
/// ```
#[derive(Clone, Debug)]
pub struct ServerEvent {
    /// The fields before the data, and then all of it.
    text: String,
    /// Where the data begins.
    data: usize,
}

impl ServerEvent {
    /// An event with this data, which may have several lines.
    pub fn new(data: &str) -> Self {
        let mut text = String::with_capacity(data.len() + 16);
        // A line ends with CRLF, LF or CR; in the data that is received each is LF.
        for line in data.replace("\r\n", "\n").split(['\n', '\r']) {
            text.push_str("data: ");
            text.push_str(line);
            text.push('\n');
        }
        text.push('\n');
        ServerEvent { text, data: 0 }
    }

    /// Its id, which a client that connects again says in the field `Last-Event-ID`.
    ///
    /// # Errors
    /// It has a line's end, or a NUL.
    pub fn id(self, id: &str) -> Result<Self, EventError> {
        self.with("id", id)
    }

    /// Its name; without one it is `message`.
    ///
    /// # Errors
    /// It has a line's end, or a NUL.
    pub fn name(self, name: &str) -> Result<Self, EventError> {
        self.with("event", name)
    }

    /// After how long a client whose connection has ended connects again, in milliseconds.
    pub fn retry(self, after: Duration) -> Self {
        self.with_valid("retry", &after.as_millis().to_string())
    }

    fn with(self, field: &'static str, value: &str) -> Result<Self, EventError> {
        match value.contains(['\n', '\r', '\0']) {
            true => Err(EventError { field }),
            false => Ok(self.with_valid(field, value)),
        }
    }

    fn with_valid(mut self, field: &str, value: &str) -> Self {
        let line = format!("{field}: {value}\n");
        self.text.insert_str(self.data, &line);
        self.data += line.len();
        self
    }

    /// As it is sent.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// A value can't be sent in an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {field} of an event has a line's end or a NUL")]
pub struct EventError {
    field: &'static str,
}

/// Sends events to one client, from any thread, made by
/// [`Answer::events`](super::Answer::events). While it has nothing to send, the server sends a
/// comment now and then, so that nobody on the way takes the connection for dead, and a client that
/// has left is noticed.
#[derive(Debug)]
pub struct EventStream {
    writer: BodyWriter,
}

impl EventStream {
    pub(super) fn new(writer: BodyWriter) -> Self {
        EventStream { writer }
    }

    /// Sends an event.
    ///
    /// # Errors
    /// As for [`BodyWriter::send`].
    pub fn send(&mut self, event: ServerEvent) -> Result<(), SendBodyError> {
        self.writer.send(event.text)
    }

    /// The writer below, to wait for a client that is slow or leaves, or to finish.
    pub fn into_writer(self) -> BodyWriter {
        self.writer
    }

    /// Whether the client takes events still.
    pub fn is_open(&self) -> bool {
        self.writer.is_open()
    }
}
