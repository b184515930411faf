//! Bytes as lower-case hexadecimal digits.
//!
//! Not here: ids, which show themselves.

use std::fmt::Write as _;

/// `bytes` as digits.
#[must_use]
pub(crate) fn encode(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
