//! Who may begin a handshake: a token bucket for each network, and a share of the handshake slots.
//!
//! Pure: `now` is an argument, nothing is read or written. Invariants: memory is bounded by
//! `SOURCES_MAX`; a network that is refused is refused before any TLS work.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use crate::limits::{ListenerLimits, LoopbackSources, SOURCES_MAX};

/// Tokens are counted in thousandths, so that a millisecond's worth is a whole number.
const TOKEN: u64 = 1_000;

/// The networks that knocked lately.
#[derive(Debug)]
pub struct Admission {
    limits: ListenerLimits,
    sources: BTreeMap<IpAddr, Source>,
    /// Shared by newcomers when `sources` is full of busy networks.
    overflow: Source,
}

#[derive(Debug, Clone, Copy)]
struct Source {
    tokens: u64,
    updated_ms: u64,
    handshakes: usize,
}

/// Whether a connection may go on to its handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admitted {
    /// Yes. Tell [`Admission::handshake_ended`] with this key afterwards.
    Yes(SourceKey),
    /// The network connects too often.
    TooOften,
    /// The network has too many handshakes under way.
    TooManyHandshakes,
}

/// Which count a handshake is charged to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceKey {
    /// None: an exempt source.
    Exempt,
    /// A network's own.
    Network(IpAddr),
    /// The one that newcomers share when the table is full.
    Overflow,
}

impl Admission {
    /// Nobody has knocked yet.
    #[must_use]
    pub fn new(limits: ListenerLimits) -> Self {
        let tokens = u64::from(limits.source_burst) * TOKEN;
        let overflow = Source { tokens, updated_ms: 0, handshakes: 0 };
        Self { limits, sources: BTreeMap::new(), overflow }
    }

    /// Charges one connection from `address` to its network.
    pub fn admit(&mut self, now_ms: u64, address: IpAddr) -> Admitted {
        let address = address.to_canonical();
        if address.is_loopback() && self.limits.loopback == LoopbackSources::Exempt {
            return Admitted::Yes(SourceKey::Exempt);
        }
        let network = network_of(address);
        if !self.sources.contains_key(&network) && self.sources.len() >= SOURCES_MAX {
            self.forget_idle(now_ms);
        }
        let limits = self.limits;
        let full = self.sources.len() >= SOURCES_MAX && !self.sources.contains_key(&network);
        let (key, source) = if full {
            (SourceKey::Overflow, &mut self.overflow)
        } else {
            let tokens = u64::from(limits.source_burst) * TOKEN;
            let fresh = Source { tokens, updated_ms: now_ms, handshakes: 0 };
            (SourceKey::Network(network), self.sources.entry(network).or_insert(fresh))
        };
        source.refill(now_ms, &limits);
        if source.tokens < TOKEN {
            return Admitted::TooOften;
        }
        if source.handshakes >= limits.source_handshakes_max {
            return Admitted::TooManyHandshakes;
        }
        source.tokens -= TOKEN;
        source.handshakes += 1;
        Admitted::Yes(key)
    }

    /// Gives the handshake slot of an admitted connection back.
    pub fn handshake_ended(&mut self, key: SourceKey) {
        let source = match key {
            SourceKey::Exempt => None,
            SourceKey::Network(network) => self.sources.get_mut(&network),
            SourceKey::Overflow => Some(&mut self.overflow),
        };
        if let Some(source) = source {
            source.handshakes = source.handshakes.saturating_sub(1);
        }
    }

    /// Networks that are remembered.
    #[must_use]
    pub fn sources(&self) -> usize {
        self.sources.len()
    }

    fn forget_idle(&mut self, now_ms: u64) {
        let limits = self.limits;
        let full = u64::from(limits.source_burst) * TOKEN;
        self.sources.retain(|_, source| {
            source.refill(now_ms, &limits);
            source.handshakes > 0 || source.tokens < full
        });
    }
}

impl Source {
    fn refill(&mut self, now_ms: u64, limits: &ListenerLimits) {
        let elapsed_ms = now_ms.saturating_sub(self.updated_ms);
        let gained = elapsed_ms.saturating_mul(u64::from(limits.source_rate_per_s));
        self.tokens =
            self.tokens.saturating_add(gained).min(u64::from(limits.source_burst) * TOKEN);
        self.updated_ms = self.updated_ms.max(now_ms);
    }
}

/// The /24 of an IPv4 address, the /64 of an IPv6 one: what one party usually holds.
pub(crate) fn network_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            IpAddr::from([a, b, c, 0])
        }
        IpAddr::V6(v6) => IpAddr::from(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::{Admission, Admitted, SourceKey};
    use crate::limits::{ListenerLimits, LoopbackSources, SOURCES_MAX};

    fn admission(burst: u32, rate: u32) -> Admission {
        Admission::new(ListenerLimits {
            source_burst: burst,
            source_rate_per_s: rate,
            source_handshakes_max: 2,
            loopback: LoopbackSources::Bounded,
            ..ListenerLimits::default()
        })
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn admit_and_end(admission: &mut Admission, now_ms: u64, from: &str) -> Admitted {
        let admitted = admission.admit(now_ms, address(from));
        if let Admitted::Yes(key) = admitted {
            admission.handshake_ended(key);
        }
        admitted
    }

    #[test]
    fn a_network_is_slowed_to_its_rate_after_the_burst() {
        let mut admission = admission(3, 2);
        for _ in 0..3 {
            assert!(matches!(admit_and_end(&mut admission, 0, "192.0.2.1"), Admitted::Yes(_)));
        }
        assert_eq!(admit_and_end(&mut admission, 0, "192.0.2.200"), Admitted::TooOften);
        assert!(matches!(admit_and_end(&mut admission, 0, "198.51.100.1"), Admitted::Yes(_)));
        assert!(matches!(admit_and_end(&mut admission, 500, "192.0.2.1"), Admitted::Yes(_)));
        assert_eq!(admit_and_end(&mut admission, 500, "192.0.2.1"), Admitted::TooOften);
    }

    #[test]
    fn a_network_cannot_hold_every_handshake() {
        let mut admission = admission(100, 1);
        let from = address("2001:db8::1");
        let Admitted::Yes(first) = admission.admit(0, from) else { panic!("refused") };
        assert!(matches!(admission.admit(0, from), Admitted::Yes(_)));
        assert_eq!(admission.admit(0, address("2001:db8::ffff")), Admitted::TooManyHandshakes);
        admission.handshake_ended(first);
        assert!(matches!(admission.admit(0, from), Admitted::Yes(_)));
    }

    #[test]
    fn the_table_is_bounded_and_idle_networks_are_forgotten() {
        let mut admission = admission(2, 1);
        for index in 0..SOURCES_MAX as u32 {
            let from = IpAddr::from((index << 8 | 0x0a00_0001).to_be_bytes());
            assert!(matches!(admission.admit(0, from), Admitted::Yes(SourceKey::Network(_))));
        }
        assert_eq!(admission.admit(0, address("192.0.2.1")), Admitted::Yes(SourceKey::Overflow));
        assert_eq!(admission.sources(), SOURCES_MAX);
    }

    #[test]
    fn loopback_is_exempt_unless_bounded() {
        let mut admission =
            Admission::new(ListenerLimits { source_burst: 1, ..ListenerLimits::default() });
        for from in ["127.0.0.1", "::1", "::ffff:127.0.0.1", "127.0.0.1"] {
            assert_eq!(admission.admit(0, address(from)), Admitted::Yes(SourceKey::Exempt));
        }
    }
}
