//! What a load keeps to.

/// Open files besides the connections: standard streams, and a few of each poll.
pub(super) const OTHER_FILES: usize = 16;

/// How many bytes tell the length of a message, if any do.
pub(super) const LENGTH_FIELD: usize = 4;

/// Of how many messages one is checked if only a sample is.
pub(super) const SAMPLE: u64 = 64;

/// Whether the message of that number is in the sample.
pub(super) fn is_sampled(connection: usize, number: u64) -> bool {
    (number + connection as u64).is_multiple_of(SAMPLE)
}
