//! The envelope around every stored value, in one place for all back ends.
//!
//! Layout: version byte, CRC32C (4 bytes, little endian) over key and payload, payload. The key is
//! part of the checksum, so that a value that strayed to another key is found too.
//! Invariant: no payload leaves this crate without having passed `open`.

use std::fmt;

use crate::limits::ENVELOPE_BYTES;

/// The version byte written today. `docs/store.md` says what may change under which version.
pub const FORMAT_VERSION: u8 = 1;

/// What is wrong with a stored value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Damage {
    /// Shorter than the envelope itself.
    Truncated,
    /// The checksum does not match key and payload.
    Checksum,
    /// A version byte that this program does not know. The checksum has not been looked at.
    Version(u8),
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("shorter than its envelope"),
            Self::Checksum => f.write_str("checksum mismatch"),
            Self::Version(version) => write!(f, "unknown version {version}"),
        }
    }
}

fn checksum(key: &[u8], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(key), payload)
}

/// Seals `payload` for `key`.
pub(crate) fn seal(key: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(ENVELOPE_BYTES + payload.len());
    sealed.push(FORMAT_VERSION);
    sealed.extend_from_slice(&checksum(key, payload).to_le_bytes());
    sealed.extend_from_slice(payload);
    sealed
}

/// The payload of `sealed`, if it is what was sealed for `key`.
pub(crate) fn open<'a>(key: &[u8], sealed: &'a [u8]) -> Result<&'a [u8], Damage> {
    let (envelope, payload) =
        sealed.split_first_chunk::<ENVELOPE_BYTES>().ok_or(Damage::Truncated)?;
    let [version, checksum_bytes @ ..] = *envelope;
    if version != FORMAT_VERSION {
        return Err(Damage::Version(version));
    }
    if u32::from_le_bytes(checksum_bytes) == checksum(key, payload) {
        Ok(payload)
    } else {
        Err(Damage::Checksum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_on_disk_is_frozen() {
        let sealed = seal(b"1234", b"56789");
        // CRC32C of "123456789" is the check value of the published parameters, e3069283.
        assert_eq!(sealed, [1, 0x83, 0x92, 0x06, 0xe3, b'5', b'6', b'7', b'8', b'9']);
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let sealed = seal(b"key", b"some payload");
        for bit in 0..sealed.len() * 8 {
            let mut damaged = sealed.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(open(b"key", &damaged).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn truncation_a_stray_key_and_unknown_versions_are_told_apart() {
        let sealed = seal(b"key", b"");
        assert_eq!(open(b"key", &sealed), Ok(&[][..]));
        assert_eq!(open(b"key", &sealed[..4]), Err(Damage::Truncated));
        assert_eq!(open(b"yek", &sealed), Err(Damage::Checksum));
        assert_eq!(open(b"key", &[9, 0, 0, 0, 0]), Err(Damage::Version(9)));
    }
}
