//! How a driver's token and its kind become the one number that mio carries.

use crate::driver::Token;
use crate::driver::slots::Slots;

/// What a notification is for. The kinds are named apart: each lives in its own table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    Connection(Token),
    Listener(Token),
    Attempt(Token),
    Datagrams(Token),
}

/// What a notification is for that is not a connection's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Other {
    Waker,
    Listener(Token),
    Attempt(Token),
    Datagrams(Token),
}

/// A name in one word, which costs less to move. Nothing of it is lost, whatever the machine.
#[derive(Clone, Copy)]
pub(super) struct Packed(u64);

impl Packed {
    const KIND_BITS: u32 = 2;

    #[inline(always)]
    pub(super) fn new(name: Name) -> Self {
        let (token, kind) = name.parts();
        debug_assert!(token.index < 1 << (32 - Self::KIND_BITS), "index {}", token.index);
        let low = (token.index << Self::KIND_BITS) | kind;
        Packed(u64::from(token.generation) << 32 | u64::from(low))
    }

    #[inline(always)]
    pub(super) fn name(self) -> Name {
        let low = self.0 as u32;
        let generation = (self.0 >> 32) as u32;
        Name::new(
            Token { index: low >> Self::KIND_BITS, generation },
            low & ((1 << Self::KIND_BITS) - 1),
        )
    }
}

impl Name {
    /// The waker's token. Its index is none of a name's, and its kind is not a connection's.
    pub(super) const WAKER: mio::Token = mio::Token(usize::MAX);

    /// Of a socket that its driver has not taken in yet. Its index is none of a name's either.
    pub(super) const NOBODY: mio::Token = mio::Token(usize::MAX - 1);

    /// With a 64-bit `usize` an index has 30 bits and a generation 32. With 32 bits it is 24 and 6,
    /// where the generation loses its upper bits: one of 64 late notifications is then taken for
    /// one of the index's next user, whose socket is looked at and says what is true of it.
    const INDEX_BITS: u32 = if usize::BITS == 64 { 30 } else { 24 };
    const GENERATION_MASK: u32 = if usize::BITS == 64 { u32::MAX } else { (1 << 6) - 1 };
    const KIND_BITS: u32 = 2;

    pub(super) fn pack(self) -> mio::Token {
        let (token, kind) = self.parts();
        debug_assert!(token.index < (1 << Self::INDEX_BITS) - 1, "index {}", token.index);
        let generation = (token.generation & Self::GENERATION_MASK) as usize;
        let index = (token.index as usize) << Self::KIND_BITS;
        mio::Token((generation << (Self::INDEX_BITS + Self::KIND_BITS)) | index | kind as usize)
    }

    /// The connection that a notification is for, or what else.
    #[inline(always)]
    pub(super) fn unpack(packed: mio::Token) -> Result<Token, Other> {
        let index = (packed.0 >> Self::KIND_BITS) & ((1 << Self::INDEX_BITS) - 1);
        let generation = packed.0 >> (Self::INDEX_BITS + Self::KIND_BITS);
        let token = Token { index: index as u32, generation: generation as u32 };
        match packed.0 & ((1 << Self::KIND_BITS) - 1) {
            0 => Ok(token),
            _ if packed == Self::WAKER => Err(Other::Waker),
            1 => Err(Other::Listener(token)),
            2 => Err(Other::Attempt(token)),
            _ => Err(Other::Datagrams(token)),
        }
    }

    /// The token and the kind.
    #[inline(always)]
    fn parts(self) -> (Token, u32) {
        match self {
            Name::Connection(token) => (token, 0),
            Name::Listener(token) => (token, 1),
            Name::Attempt(token) => (token, 2),
            Name::Datagrams(token) => (token, 3),
        }
    }

    #[inline(always)]
    fn new(token: Token, kind: u32) -> Self {
        match kind {
            0 => Name::Connection(token),
            1 => Name::Listener(token),
            2 => Name::Attempt(token),
            _ => Name::Datagrams(token),
        }
    }

    /// Finds what an unpacked token names, and the whole token.
    #[inline(always)]
    pub(super) fn find<T>(unpacked: Token, slots: &mut Slots<T>) -> Option<(Token, &mut T)> {
        let generation = |token: Token| token.generation & Self::GENERATION_MASK;
        slots.at(unpacked.index, |token| generation(token) == unpacked.generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packing_keeps_index_kind_and_generation() {
        assert_eq!(Name::unpack(Name::WAKER), Err(Other::Waker));
        for index in [0, 1, 77, (1 << Name::INDEX_BITS) - 2] {
            for generation in [0, 1, 99, Name::GENERATION_MASK] {
                let token = Token { index, generation };
                let kinds = [Name::Connection, Name::Listener, Name::Attempt, Name::Datagrams];
                for name in kinds.map(|kind| kind(token)) {
                    assert!(![Name::WAKER, Name::NOBODY].contains(&name.pack()));
                    assert_eq!(Packed::new(name).name(), name);
                }
                let unpacked = kinds.map(|kind| Name::unpack(kind(token).pack()));
                let [listener, attempt, datagrams] =
                    [Other::Listener, Other::Attempt, Other::Datagrams]
                        .map(|kind| Err(kind(token)));
                assert_eq!(unpacked, [Ok(token), listener, attempt, datagrams]);
            }
        }
    }
}
