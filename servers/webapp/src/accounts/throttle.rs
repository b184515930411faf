//! How many logins may fail: five in fifteen minutes, of one account and from one address.
//!
//! Pure. Invariants: an attempt counts before it is judged; what is remembered is bounded.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use crate::limits::{LOGIN_FAILURES_MAX, LOGIN_SOURCES_MAX, LOGIN_WINDOW_MS};

/// The attempts of the last minutes.
#[derive(Default)]
pub(super) struct Throttle {
    /// By account or address: when, oldest first.
    attempts_by_key: BTreeMap<Key, Vec<u64>>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Account(String),
    Address(IpAddr),
}

impl Throttle {
    /// Counts an attempt, or says how long to wait, in milliseconds.
    pub(super) fn begin(&mut self, now_ms: u64, name: &str, source: IpAddr) -> Result<(), u64> {
        let keys = [Key::Account(name.to_owned()), Key::Address(network(source))];
        for key in &keys {
            let Some(attempts) = self.attempts_by_key.get_mut(key) else { continue };
            attempts.retain(|at| now_ms.saturating_sub(*at) < LOGIN_WINDOW_MS);
            if let (true, Some(oldest)) = (attempts.len() >= LOGIN_FAILURES_MAX, attempts.first()) {
                return Err((oldest + LOGIN_WINDOW_MS).saturating_sub(now_ms).max(1));
            }
        }
        for key in keys {
            self.make_room(&key);
            self.attempts_by_key.entry(key).or_default().push(now_ms);
        }
        Ok(())
    }

    /// The last attempt was no failure: the account's count ends, the address gets one back.
    pub(super) fn succeeded(&mut self, name: &str, source: IpAddr) {
        self.attempts_by_key.remove(&Key::Account(name.to_owned()));
        if let Some(attempts) = self.attempts_by_key.get_mut(&Key::Address(network(source))) {
            attempts.pop();
        }
    }

    /// The counts of the account and of an address end: whoever may reset a password may log in
    /// with it from there at once.
    pub(super) fn forgive(&mut self, name: &str, source: IpAddr) {
        self.attempts_by_key.remove(&Key::Account(name.to_owned()));
        self.attempts_by_key.remove(&Key::Address(network(source)));
    }

    fn make_room(&mut self, key: &Key) {
        if self.attempts_by_key.len() < LOGIN_SOURCES_MAX || self.attempts_by_key.contains_key(key)
        {
            return;
        }
        let oldest =
            self.attempts_by_key.iter().min_by_key(|(_, attempts)| attempts.last().copied());
        if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
            self.attempts_by_key.remove(&oldest);
        }
    }
}

/// One customer of IPv6 has a /64, and may not have 2^64 tries.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::Throttle;
    use crate::limits::{LOGIN_SOURCES_MAX, LOGIN_WINDOW_MS};
    use std::net::{IpAddr, Ipv4Addr};

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn the_sixth_failure_of_an_account_waits_for_the_window_from_wherever_it_comes() {
        let mut throttle = Throttle::default();
        for source in 0..5 {
            assert_eq!(throttle.begin(1000, "admin", address(source)), Ok(()));
        }
        assert_eq!(throttle.begin(2000, "admin", address(9)), Err(LOGIN_WINDOW_MS - 1000));
        assert_eq!(throttle.begin(1000 + LOGIN_WINDOW_MS, "admin", address(9)), Ok(()));
    }

    #[test]
    fn the_sixth_failure_from_an_address_waits_whatever_the_account() {
        let mut throttle = Throttle::default();
        for name in ["a", "b", "c", "d", "e"] {
            assert_eq!(throttle.begin(0, name, "2001:db8::1".parse().unwrap()), Ok(()));
        }
        assert!(throttle.begin(0, "f", "2001:db8::2".parse().unwrap()).is_err());
        assert_eq!(throttle.begin(0, "f", address(1)), Ok(()));
    }

    #[test]
    fn a_success_is_no_failure() {
        let mut throttle = Throttle::default();
        for _ in 0..50 {
            assert_eq!(throttle.begin(0, "admin", address(1)), Ok(()));
            throttle.succeeded("admin", address(1));
        }
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut throttle = Throttle::default();
        for number in 0..4_300_u32 {
            let source = IpAddr::V4(Ipv4Addr::from_bits(number));
            let _ = throttle.begin(u64::from(number), &number.to_string(), source);
        }
        assert!(throttle.attempts_by_key.len() <= LOGIN_SOURCES_MAX);
    }
}
