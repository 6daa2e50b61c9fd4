//! Masking (RFC 6455, section 5.3), and where its keys come from.

use std::cell::RefCell;
use std::io;

/// What each byte of a client's payload is XORed with, one of four after the other.
pub(super) type Key = [u8; 4];

/// How many bytes are masked at a time: as many as vector registers have, on most processors.
const WIDE: usize = 32;

/// How many keys are drawn at a time.
const DRAWN: usize = 64;

/// Masks bytes, or unmasks them, which is the same; the first of them is the payload's `at`th.
pub(super) fn mask(bytes: &mut [u8], mut key: Key, at: usize) {
    key.rotate_left(at % 4);
    let mut wide = [0; WIDE];
    wide.as_chunks_mut::<4>().0.fill(key);
    let (chunks, rest) = bytes.as_chunks_mut::<WIDE>();
    for chunk in chunks {
        for (byte, key) in chunk.iter_mut().zip(&wide) {
            *byte ^= key;
        }
    }
    for (byte, key) in rest.iter_mut().zip(&wide) {
        *byte ^= key;
    }
}

/// Keys that no one can foretell (RFC 6455, section 10.3): they come from the operating system,
/// some at a time.
struct Keys {
    drawn: [Key; DRAWN],
    left: usize,
}

thread_local! {
    static KEYS: RefCell<Keys> = const { RefCell::new(Keys { drawn: [[0; 4]; DRAWN], left: 0 }) };
}

/// The next key.
///
/// # Errors
/// The operating system has no random numbers.
pub(super) fn draw_key() -> io::Result<Key> {
    KEYS.with_borrow_mut(|keys| {
        if keys.left == 0 {
            getrandom::fill(keys.drawn.as_flattened_mut())?;
            keys.left = DRAWN;
        }
        keys.left -= 1;
        Ok(keys.drawn[keys.left])
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_byte_meets_its_part_of_the_key() {
        let key = [1, 20, 50, 200];
        for (len, at) in (0..100).flat_map(|len| (0..9).map(move |at| (len, at))) {
            let bytes: Vec<u8> = (0..len).map(|byte| (byte as u8).wrapping_mul(7)).collect();
            let mut masked = bytes.clone();
            mask(&mut masked, key, at);
            let expected = bytes.iter().enumerate().map(|(i, byte)| byte ^ key[(at + i) % 4]);
            assert!(masked.iter().copied().eq(expected), "{len} bytes from {at} on");
            mask(&mut masked, key, at);
            assert_eq!(masked, bytes);
        }
    }

    #[test]
    fn keys_differ() {
        let keys: HashSet<Key> = (0..1_000).map(|_| draw_key().expect("the system has")).collect();
        assert!(keys.len() > 990, "{} of 1,000 differ", keys.len());
    }
}
