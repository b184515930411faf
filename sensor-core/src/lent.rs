//! A list in a lent array.
//!
//! Invariant: `length <= items.len()`; what lies behind `length` is not looked at.

/// A lent array of which the first `length` items are in use.
#[derive(Debug)]
pub(crate) struct Lent<'a, T> {
    pub(crate) items: &'a mut [T],
    pub(crate) length: usize,
}

impl<'a, T: Copy> Lent<'a, T> {
    pub(crate) fn new(items: &'a mut [T]) -> Self {
        Self { items, length: 0 }
    }

    pub(crate) fn as_slice(&self) -> &[T] {
        self.items.get(..self.length).unwrap_or_default()
    }

    pub(crate) fn last_mut(&mut self) -> Option<&mut T> {
        self.items.get_mut(..self.length)?.last_mut()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.length == self.items.len()
    }

    /// Adds an item; `false` when there is no room.
    pub(crate) fn push(&mut self, item: T) -> bool {
        let Some(place) = self.items.get_mut(self.length) else { return false };
        *place = item;
        self.length += 1;
        true
    }

    /// Takes out the item at `at`, which must be in use; the last one takes its place.
    pub(crate) fn take(&mut self, at: usize) -> T {
        let item = self.items[at];
        self.length -= 1;
        self.items[at] = self.items[self.length];
        item
    }

    pub(crate) fn retain(&mut self, keep: impl Fn(&T) -> bool) {
        let mut kept = 0;
        for at in 0..self.length {
            if keep(&self.items[at]) {
                self.items[kept] = self.items[at];
                kept += 1;
            }
        }
        self.length = kept;
    }

    pub(crate) fn clear(&mut self) {
        self.length = 0;
    }
}
