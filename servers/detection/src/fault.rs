//! Fault points: what a test of whole processes can make this server do wrong, by the environment.
//!
//! ```text
//! LAPWING_FAULT=ack.hold        store durably, and send no Ack in a sensor's first session
//! LAPWING_FAULT=ack.hold@NAME   the same, in the server of that name alone
//! ```
//!
//! A sensor that comes again is told by the HelloAck what is stored, and served rightly from then
//! on.
//! Invariant: none of this is in a release build; there every question is answered with no, at
//! compile time.

use lapwing_protocol::id::SensorId;

pub(crate) use point::AckHold;

/// The kind of frame an Ack travels in.
const ACK: u16 = 4;

/// Whether a whole frame is an Ack.
pub(crate) fn is_ack(frame: &[u8]) -> bool {
    matches!(frame, [_, _, low, high, ..] if u16::from_le_bytes([*low, *high]) & 0x0fff == ACK)
}

#[cfg(debug_assertions)]
mod point {
    use std::collections::BTreeSet;
    use std::sync::{Mutex, PoisonError};

    use super::SensorId;

    /// Whose Acks are held.
    #[derive(Debug, Default)]
    pub(crate) struct AckHold {
        is_armed: bool,
        came: Mutex<BTreeSet<SensorId>>,
    }

    impl AckHold {
        /// As the environment says, for the server `name`.
        pub(crate) fn new(name: &str) -> Self {
            let wish = std::env::var("LAPWING_FAULT").unwrap_or_default();
            let is_armed = super::is_armed(&wish, name);
            if is_armed {
                log::warn!("LAPWING_FAULT={wish}: Acks are held");
            }
            Self { is_armed, came: Mutex::default() }
        }

        /// Whether no Ack is sent in the session that `sensor` begins.
        pub(crate) fn holds(&self, sensor: SensorId) -> bool {
            let mut came = self.came.lock().unwrap_or_else(PoisonError::into_inner);
            self.is_armed && came.insert(sensor)
        }
    }
}

#[cfg(not(debug_assertions))]
mod point {
    use super::SensorId;

    /// Whose Acks are held: nobody's.
    #[derive(Debug, Default)]
    pub(crate) struct AckHold;

    impl AckHold {
        /// There are no faults in a release build.
        pub(crate) const fn new(_: &str) -> Self {
            Self
        }

        /// Never.
        pub(crate) const fn holds(&self, _: SensorId) -> bool {
            false
        }
    }
}

/// Whether `wish` means the server `name`.
#[cfg(debug_assertions)]
fn is_armed(wish: &str, name: &str) -> bool {
    wish.split(',').any(|one| match one.split_once('@') {
        Some(("ack.hold", of)) => of == name,
        Some(_) => false,
        None => one == "ack.hold",
    })
}

#[cfg(all(test, debug_assertions))]
mod tests {
    use super::*;
    use lapwing_protocol::delivery::{Ack, Credit, Ping};
    use lapwing_protocol::id::Lane;
    use lapwing_protocol::message::Message;

    #[test]
    fn a_fault_is_of_all_servers_or_of_the_named_one() {
        assert!(is_armed("ack.hold", "d1"));
        assert!(is_armed("other,ack.hold@d1", "d1") && !is_armed("ack.hold@d1", "d2"));
        assert!(!is_armed("", "d1") && !is_armed("ack.holding", "d1"));
    }

    #[test]
    fn an_ack_is_known_by_its_kind() {
        let credit = Credit { limit_seq: 1, limit_bytes: 1 };
        let ack = Message::Ack(Ack { lane: Lane::Bulk, stored_seq: 1, safe_seq: 1, credit });
        let mut buffer = [0; 64];
        let length = ack.encode(&mut buffer).unwrap();
        assert!(is_ack(&buffer[..length]));
        let length = Message::Ping(Ping { nonce: 4 }).encode(&mut buffer).unwrap();
        assert!(!is_ack(&buffer[..length]));
    }
}
