//! Certificate requests and certificates as a stranger can write them.
//!
//! Laws: nothing panics; a request is signed for the subject that the authority names, whatever it
//! asks for; an identity that was read is written as it is read again.
#![allow(clippy::expect_used, reason = "a law that does not hold is a panic")]

use std::sync::OnceLock;
use std::time::Duration;

use lapwing_net::authority::{Authority, Usage};
use lapwing_net::identity::PeerIdentity;
use lapwing_protocol::id::{DeploymentId, SensorId};

/// A moment, in milliseconds since 1970.
const NOW_MS: u64 = 1_800_000_000_000;
const DAY: Duration = Duration::from_secs(86_400);

/// Any bytes as a request, as a certificate, and as the text of an identity.
pub fn certificate(data: &[u8]) {
    static AUTHORITY: OnceLock<Authority> = OnceLock::new();
    let authority = AUTHORITY
        .get_or_init(|| Authority::create(NOW_MS, "fuzzed", DAY).expect("there is randomness"));
    let subject = PeerIdentity::of_sensor(DeploymentId([1; 16]), SensorId([2; 16]));
    if let Ok(signed) = authority.sign_request(NOW_MS, data, &subject, Usage::Client, DAY) {
        let identity = PeerIdentity::from_certificate(&signed.der);
        assert_eq!(identity.as_ref().ok(), Some(&subject), "only the key counts");
    }
    let texts = [PeerIdentity::from_certificate(data), String::from_utf8_lossy(data).parse()];
    for identity in texts.into_iter().flatten() {
        assert_eq!(identity.to_string().parse::<PeerIdentity>().ok(), Some(identity));
    }
}
