//! A bound of bytes that many share.
//!
//! Invariants: what is held never exceeds the bound; a charge that is dropped gives back all of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// So many bytes, and what is held of them. Clones are the same budget.
#[derive(Debug, Clone)]
pub struct Budget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    most: usize,
    held: AtomicUsize,
}

impl Budget {
    /// A budget of which nothing is held.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self(Arc::new(Shared { most, held: AtomicUsize::new(0) }))
    }

    /// Bytes that are held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.0.held.load(Ordering::Acquire)
    }

    /// Nothing yet, for a holder to whom more comes.
    #[must_use]
    pub fn charge(&self) -> Charge {
        Charge { budget: self.clone(), bytes: AtomicUsize::new(0) }
    }
}

/// What one holder holds.
#[derive(Debug)]
pub struct Charge {
    budget: Budget,
    bytes: AtomicUsize,
}

impl Charge {
    /// Takes `bytes` more, or nothing; whether there was room.
    #[must_use]
    pub fn take(&self, bytes: usize) -> bool {
        let Shared { most, held } = &*self.budget.0;
        let more = |held: usize| held.checked_add(bytes).filter(|held| held <= most);
        let is_taken = held.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_ok();
        if is_taken {
            self.bytes.fetch_add(bytes, Ordering::AcqRel);
        }
        is_taken
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.0.held.fetch_sub(*self.bytes.get_mut(), Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::Budget;

    #[test]
    fn what_is_held_stays_within_the_bound_and_comes_back() {
        let budget = Budget::new(10);
        let (one, other) = (budget.charge(), budget.charge());
        assert!(one.take(6) && other.take(4) && !other.take(1) && !one.take(usize::MAX));
        assert_eq!(budget.held(), 10);
        drop(one);
        assert!(other.take(6) && !other.take(1));
        drop(other);
        assert_eq!(budget.held(), 0);
    }
}
