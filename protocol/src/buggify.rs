//! Fault points inside the cores: places where rare and lawful behaviour is made frequent.
//!
//! `buggify!("site")` is false, always, and compiled away, unless the feature `buggify` is on; the
//! simulator alone turns it on. Then a thread that called [`arm`] has each site on or off for the
//! run, as its seed says, and a site that is on is true one time in four. A thread that did not
//! call it sees every site false, so a build with the feature behaves as one without.
//!
//! What a site does must be lawful: something that the protocol allows at that moment. It stands in
//! [`SITES`], so that a run can tell which were never reached.

/// True now and then at a fault point, in a simulation; else false, at no cost.
#[macro_export]
macro_rules! buggify {
    ($site:literal) => {{
        const SITE: usize = $crate::buggify::site($site);
        $crate::buggify::fires(SITE)
    }};
}

/// Every fault point.
pub const SITES: [&str; 12] = [
    "sensor.close_chunk_early",
    "sensor.begin_segment",
    "sensor.forget_window",
    "sensor.delay_urgent",
    "sensor.one_in_flight",
    "sensor.greet_again",
    "server.ack_late",
    "server.ack_twice",
    "server.window_min",
    "server.throttle",
    "server.resync",
    "server.ping",
];

/// The number of a site; an unknown name does not compile.
#[must_use]
pub const fn site(name: &str) -> usize {
    let mut at = 0;
    while at < SITES.len() {
        if is_same(SITES[at].as_bytes(), name.as_bytes()) {
            return at;
        }
        at += 1;
    }
    panic!("a fault point must stand in SITES")
}

const fn is_same(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    let mut at = 0;
    while at < one.len() {
        if one[at] != other[at] {
            return false;
        }
        at += 1;
    }
    true
}

/// Whether the site fires now.
#[cfg(not(feature = "buggify"))]
#[inline(always)]
#[must_use]
pub const fn fires(_site: usize) -> bool {
    false
}

#[cfg(feature = "buggify")]
pub use armed::{arm, disarm, fires};

#[cfg(feature = "buggify")]
mod armed {
    //! The decisions of one thread's run.

    use core::cell::Cell;

    use super::SITES;

    #[derive(Clone, Copy)]
    struct Run {
        /// A bit for each site that is on.
        on: u64,
        random: u64,
        times: [u64; SITES.len()],
    }

    std::thread_local! {
        static RUN: Cell<Option<Run>> = const { Cell::new(None) };
    }

    /// Begins a run on this thread: which sites are on, and when they fire, follows from `seed`.
    pub fn arm(seed: u64) {
        let mut run = Run { on: 0, random: seed, times: [0; SITES.len()] };
        run.on = next(&mut run.random);
        RUN.set(Some(run));
    }

    /// Ends the run on this thread and says how often each site fired.
    pub fn disarm() -> [u64; SITES.len()] {
        RUN.take().map_or([0; SITES.len()], |run| run.times)
    }

    /// Whether the site fires now.
    #[must_use]
    pub fn fires(site: usize) -> bool {
        let Some(mut run) = RUN.get() else { return false };
        if run.on >> site & 1 == 0 {
            return false;
        }
        let fires = next(&mut run.random) >> 62 == 0;
        run.times[site] += u64::from(fires);
        RUN.set(Some(run));
        fires
    }

    /// splitmix64.
    fn next(random: &mut u64) -> u64 {
        *random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = *random;
        bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ bits >> 31
    }
}
