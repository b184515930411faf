//! Files of signed metadata as a mirror or a forger can write them.
//!
//! Laws: nothing panics; what is read is written back as something that is read as the same; the
//! signed part of a file lies in it as it stands; nothing is believed that the vendor did not sign.
#![allow(clippy::expect_used, reason = "a law that does not hold is a panic")]

use lapwing_server_core::manifest::{self, Manifest};

/// The vendor's key; nobody signed with it.
const VENDOR: [u8; 32] = *b"\x3d\x40\x17\xc3\xe8\x43\x89\x5a\x92\xb7\x0a\xa7\x4d\x1b\x7e\xbc\
\x9c\x98\x2c\xcf\x2e\xc4\x96\x8c\xc0\xcd\x55\xf1\x2a\xf4\x66\x0c";

/// Any bytes as a manifest, as a file with its signatures, and as what was signed.
pub fn manifest(data: &[u8]) {
    if let Ok(read) = Manifest::parse(data) {
        let again = Manifest::parse(&read.to_bytes()).expect("what was read can be written");
        // Times are written to the second.
        assert_eq!(again.expires_ms, read.expires_ms / 1_000 * 1_000);
        assert_eq!((again.version, again.targets), (read.version, read.targets));
    }
    if let Ok(envelope) = manifest::open_envelope(data, &VENDOR) {
        let file = data.as_ptr_range();
        let signed = envelope.signed.as_ptr_range();
        assert!(file.start <= signed.start && signed.end <= file.end, "it is a part of the file");
    }
    let key = manifest::key_id(&VENDOR);
    let signature = std::array::from_fn(|at| data.get(at).copied().unwrap_or(0));
    assert!(manifest::verify(0, &VENDOR, 0, data, &key, &signature).is_err(), "nobody signed it");
}
