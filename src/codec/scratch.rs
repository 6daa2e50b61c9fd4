//! Memory to put a frame together in.

use std::cell::RefCell;

use bytes::BytesMut;

/// A buffer that grew beyond this size is not kept.
const KEPT: usize = 1024 * 1024;

thread_local! {
    static BUFFERS: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

/// Lends an empty buffer. A codec inside of another one gets another buffer.
///
/// They are the thread's and not the codec's, so that a connection holds none while it is idle.
pub(crate) fn with_scratch<T>(fill: impl FnOnce(&mut BytesMut) -> T) -> T {
    let mut buffer = BUFFERS.with_borrow_mut(Vec::pop).unwrap_or_default();
    let answer = fill(&mut buffer);
    if buffer.capacity() <= KEPT {
        buffer.clear();
        BUFFERS.with_borrow_mut(|buffers| buffers.push(buffer));
    }
    answer
}
