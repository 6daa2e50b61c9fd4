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
