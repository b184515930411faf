//! The time as a shell tells it.
//!
//! Order, age and expiry follow the monotonic clock alone; the wall clock is only carried along,
//! as what the machine claims. Times handed to one sensor must not run backwards.

/// The moment of a call: the first argument of everything that happens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Nanoseconds since boot, counting suspend.
    pub monotonic_ns: u64,
    /// What the wall clock claims, milliseconds since 1970.
    pub wall_ms: u64,
}

impl Now {
    /// The monotonic moment `ms` milliseconds from here.
    #[must_use]
    pub const fn after_ms(self, ms: u64) -> u64 {
        self.monotonic_ns.saturating_add(nanoseconds(ms))
    }

    /// Whether `ms` milliseconds have passed since the monotonic moment `since_ns`.
    #[must_use]
    pub const fn is_past(self, since_ns: u64, ms: u64) -> bool {
        self.monotonic_ns >= since_ns.saturating_add(nanoseconds(ms))
    }
}

/// Milliseconds as nanoseconds.
#[must_use]
pub(crate) const fn nanoseconds(ms: u64) -> u64 {
    ms.saturating_mul(1_000_000)
}
