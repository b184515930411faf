//! Which filesystems do not answer, so that nobody waits for them again too soon.
//!
//! Pure: times are arguments. Bound: [`UNREADABLE_MAX`] filesystems; beyond it the one that was
//! found first goes.

use std::collections::VecDeque;

use super::limits::{UNREADABLE_MAX, UNREADABLE_PERIOD};

/// Devices that are left alone, each until a moment in boot time.
#[derive(Debug, Default)]
pub(crate) struct Unreadable {
    devices: VecDeque<(u64, u64)>,
}

impl Unreadable {
    pub(crate) fn add(&mut self, now_ns: u64, device: u64) {
        let period_ns = u64::try_from(UNREADABLE_PERIOD.as_nanos()).unwrap_or(u64::MAX);
        self.devices.retain(|(known, _)| *known != device);
        if self.devices.len() >= UNREADABLE_MAX {
            self.devices.pop_front();
        }
        self.devices.push_back((device, now_ns.saturating_add(period_ns)));
    }

    /// Forgets those whose time is over, and says whether there were any.
    pub(crate) fn expire(&mut self, now_ns: u64) -> bool {
        let before = self.devices.len();
        self.devices.retain(|(_, until_ns)| *until_ns > now_ns);
        self.devices.len() < before
    }

    pub(crate) fn has(&self, device: u64) -> bool {
        self.devices.iter().any(|(known, _)| *known == device)
    }

    /// For a person; nothing where all answer.
    pub(crate) fn reason(&self) -> Option<String> {
        let names: Vec<String> = self
            .devices
            .iter()
            .map(|(device, _)| format!("{}:{}", libc::major(*device), libc::minor(*device)))
            .collect();
        let names = names.join(", ");
        (!names.is_empty()).then(|| {
            format!("filesystem {names} does not answer; not seen: hashes of programs on it")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filesystem_is_left_alone_for_a_while() {
        let mut unreadable = Unreadable::default();
        unreadable.add(1, 0x801);
        assert!(unreadable.has(0x801) && !unreadable.has(0x802));
        assert!(unreadable.reason().unwrap().starts_with("filesystem 8:1 does not answer"));
        assert!(!unreadable.expire(2));
        assert!(unreadable.expire(u64::MAX));
        assert_eq!((unreadable.has(0x801), unreadable.reason()), (false, None));
        (0..100).for_each(|device| unreadable.add(1, device));
        assert!(unreadable.has(99) && !unreadable.has(0));
    }
}
