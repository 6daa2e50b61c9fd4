//! Calls in the log.

use std::time::Instant;

use tracing::{Level, Span, field};

use super::Middleware;
use crate::rpc::call::{Answer, Call, End, Handler};
use crate::rpc::status::{Code, Status};

/// A `tracing` span around each call, and an event in it when the call has ended.
///
/// The span, `rpc`, has the method, the side (`server` or `client`), and, where there are such, the
/// time that was left and the [trace](Call::trace_context). The event has the code, the duration,
/// and the message of a call that failed. Where nobody listens to its level, nothing is put
/// together.
#[derive(Clone, Copy, Debug)]
pub struct Logging {
    level: Level,
}

impl Default for Logging {
    fn default() -> Self {
        Self::new()
    }
}

impl Logging {
    /// Spans and events of level DEBUG.
    pub const fn new() -> Self {
        Logging { level: Level::DEBUG }
    }

    /// Spans and events of this level.
    #[must_use]
    pub const fn level(self, level: Level) -> Self {
        Logging { level }
    }

    fn span(self, call: &Call<'_>) -> Span {
        macro_rules! span {
            ($level:expr) => {
                tracing::span!(
                    $level,
                    "rpc",
                    method = call.method(),
                    side = if call.is_client() { "client" } else { "server" },
                    timeout = call.timeout().map(field::debug),
                    trace = call.trace_context().map(field::display),
                )
            };
        }
        crate::__at_level!(self.level, span)
    }

    fn log_end(self, span: &Span, begin: Instant, end: &End<'_>) {
        let code = end.status.map_or(Code::Ok, Status::code);
        let message = end.status.map(Status::message).filter(|message| !message.is_empty());
        macro_rules! event {
            ($level:expr) => {
                tracing::event!(
                    parent: span,
                    $level,
                    %code,
                    duration = ?begin.elapsed(),
                    reason = message,
                    "the call ended"
                )
            };
        }
        crate::__at_level!(self.level, event);
    }
}

impl Middleware for Logging {
    #[inline]
    fn handle(&self, call: &mut Call<'_>, next: &mut impl Handler) -> Result<Answer, Status> {
        let span = self.span(call);
        if span.is_disabled() {
            return next.handle(call);
        }
        let (logging, begin, inside) = (*self, Instant::now(), span.clone());
        call.on_end(move |end| logging.log_end(&span, begin, end));
        inside.in_scope(|| next.handle(call))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use tracing_subscriber::fmt::MakeWriter;

    use super::*;
    use crate::rpc::lone::LoneCall;
    use crate::rpc::metadata::TraceContext;

    /// Everything that was logged.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Log {
        type Writer = Log;

        fn make_writer(&self) -> Log {
            self.clone()
        }
    }

    /// What is logged of a call from this level on.
    fn logged(
        level: Level,
        call: &LoneCall,
        logging: Logging,
        result: &Result<(), Status>,
    ) -> String {
        let log = Log::default();
        let format = tracing_subscriber::fmt().with_ansi(false).without_time();
        let subscriber = format.with_max_level(level).with_writer(log.clone()).finish();
        tracing::subscriber::with_default(subscriber, || {
            let mut handler = |call: &mut Call<'_>| {
                tracing::error!("inside");
                result.clone()?;
                call.answer(b"")
            };
            call.make(&logging, &mut handler, || {});
        });
        let bytes = std::mem::take(&mut *log.0.lock().unwrap());
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_call_has_a_span_and_an_event_at_its_end() {
        let mut call = LoneCall::new();
        call.timeout = Some(Duration::from_secs(7));
        let trace = TraceContext::root().to_string();
        call.metadata.insert("traceparent", &trace).unwrap();
        let text = logged(Level::DEBUG, &call, Logging::new(), &Ok(()));
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        let span =
            format!(r#"rpc{{method="lone.Lone/call" side="server" timeout=7s trace={trace}}}: "#);
        assert!(lines[0].contains(&span) && lines[0].ends_with("inside"), "{text}");
        assert!(lines[1].contains(&span) && lines[1].starts_with("DEBUG"), "{text}");
        assert!(lines[1].contains("the call ended code=OK duration="), "{text}");
    }

    #[test]
    fn a_failed_call_says_why() {
        let mut call = LoneCall::new();
        call.is_client = true;
        let logging = Logging::new().level(Level::WARN);
        let text = logged(Level::WARN, &call, logging, &Err(Status::not_found("no user 7")));
        let event = text.lines().nth(1).unwrap();
        assert!(event.trim_start().starts_with("WARN rpc{"), "{text}");
        assert!(event.contains(r#"{method="lone.Lone/call" side="client"}: "#), "{text}");
        assert!(event.contains("code=NOT_FOUND") && event.contains("no user 7"), "{text}");
    }

    #[test]
    fn nothing_is_logged_below_the_level() {
        let text = logged(Level::INFO, &LoneCall::new(), Logging::new(), &Ok(()));
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(!text.contains("rpc{"), "{text}");
    }
}
