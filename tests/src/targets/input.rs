//! The bytes of an input, read as choices: what a target does next, and with which numbers.
//!
//! Invariant: reading never fails; an input that ended gives zeros, so that every prefix of an
//! input is an input.

/// What is left of the input.
#[derive(Debug)]
pub(super) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub(super) fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    pub(super) fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    pub(super) fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// One of `choices` numbers from 0 on.
    pub(super) fn below(&mut self, choices: u8) -> u8 {
        self.byte() % choices
    }

    pub(super) fn array<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.byte())
    }

    /// A number near `right`, which is mostly the right one: what a peer gets wrong by a little,
    /// or by all.
    pub(super) fn near(&mut self, right: u64) -> u64 {
        match self.byte() {
            0..=159 => right,
            byte @ 160..=207 => right.wrapping_add(u64::from(byte & 7)),
            byte @ 208..=247 => right.wrapping_sub(u64::from(byte & 7)),
            248..=251 => u64::MAX - u64::from(self.byte()),
            252..=255 => u64::from_le_bytes(self.array()),
        }
    }

    /// At most `most` bytes, as many as the next byte says.
    pub(super) fn bytes(&mut self, most: usize) -> &'a [u8] {
        let length = usize::from(self.byte()).min(most).min(self.0.len());
        let (now, rest) = self.0.split_at(length);
        self.0 = rest;
        now
    }

    /// All that is left.
    pub(super) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
}
