//! What is logged of things that peers can cause.

/// An event that peers can cause as often as they like: of each place in the code one a second is
/// logged, with the number of those that were `left_out` since.
macro_rules! limited {
    ($level:ident, $($line:tt)+) => {{
        static LIMIT: millstream_platform::log::LogLimit = millstream_platform::log::LogLimit::new();
        if let Some(left_out) = LIMIT.admit() {
            tracing::$level!(left_out, $($line)+);
        }
    }};
}

pub(crate) use limited;

/// Calls a macro with the level: of `tracing`'s macros each place has one that is known when it is
/// compiled.
#[doc(hidden)]
#[macro_export]
macro_rules! __at_level {
    ($level:expr, $with:ident) => {
        match $level {
            tracing::Level::ERROR => $with!(tracing::Level::ERROR),
            tracing::Level::WARN => $with!(tracing::Level::WARN),
            tracing::Level::INFO => $with!(tracing::Level::INFO),
            tracing::Level::DEBUG => $with!(tracing::Level::DEBUG),
            tracing::Level::TRACE => $with!(tracing::Level::TRACE),
        }
    };
}
