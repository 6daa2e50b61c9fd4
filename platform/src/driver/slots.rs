//! What a driver has under the tokens that the engine chose.

use super::Token;

/// How many places are kept in any case.
const KEPT: usize = 1024;

/// A driver's sockets of one kind. A token whose socket was removed finds nothing, even if another
/// has its place.
pub(super) struct Slots<T> {
    slots: Vec<Option<Slot<T>>>,
    len: usize,
}

// The value in front, so that its address is the slot's: one to compute, and to keep.
#[repr(C)]
struct Slot<T> {
    value: T,
    generation: u32,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Slots { slots: Vec::new(), len: 0 }
    }
}

impl<T> Slots<T> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    #[inline(always)]
    pub(super) fn get(&self, token: Token) -> Option<&T> {
        let slot = self.slots.get(token.index as usize)?.as_ref()?;
        if slot.generation != token.generation {
            return None;
        }
        Some(&slot.value)
    }

    #[inline(always)]
    pub(super) fn get_mut(&mut self, token: Token) -> Option<&mut T> {
        let slot = self.slots.get_mut(token.index as usize)?.as_mut()?;
        if slot.generation != token.generation {
            return None;
        }
        Some(&mut slot.value)
    }

    /// What has a place, if the token means it.
    #[inline(always)]
    pub(super) fn at(
        &mut self,
        index: u32,
        is_meant: impl FnOnce(Token) -> bool,
    ) -> Option<(Token, &mut T)> {
        let slot = self.slots.get_mut(index as usize)?.as_mut()?;
        let token = Token { index, generation: slot.generation };
        is_meant(token).then_some((token, &mut slot.value))
    }

    /// # Panics
    /// In debug builds, if the token's place is taken.
    pub(super) fn insert(&mut self, token: Token, value: T) {
        let index = token.index as usize;
        if self.slots.len() <= index {
            // In steps of a quarter, not by doubling: this is memory of idle connections.
            if self.slots.capacity() <= index {
                self.slots.reserve_exact(1 + (index - self.slots.len()) + index / 4);
            }
            self.slots.resize_with(index + 1, || None);
        }
        debug_assert!(self.slots[index].is_none(), "{token:?} takes the place of one that is open");
        self.slots[index] = Some(Slot { generation: token.generation, value });
        self.len += 1;
    }

    pub(super) fn remove(&mut self, token: Token) -> Option<T> {
        self.get(token)?;
        self.len -= 1;
        let slot = self.slots[token.index as usize].take();
        let capacity = self.slots.capacity();
        if capacity > KEPT && (self.len == 0 || self.len == capacity / 4) {
            // After a crowd; those at the end may have gone.
            let used = self.slots.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
            self.slots.truncate(used);
            self.slots.shrink_to_fit();
        }
        slot.map(|slot| slot.value)
    }

    /// All of them, by index.
    #[cfg(feature = "sim")]
    pub(super) fn iter(&self) -> impl Iterator<Item = (Token, &T)> {
        self.slots.iter().enumerate().filter_map(|(index, slot)| {
            let slot = slot.as_ref()?;
            Some((Token { index: index as u32, generation: slot.generation }, &slot.value))
        })
    }

    /// All of them, by index, without their tokens.
    #[cfg(feature = "sim")]
    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.slots.iter_mut().flatten().map(|slot| &mut slot.value)
    }
}
