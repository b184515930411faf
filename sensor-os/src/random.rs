//! Randomness of the operating system: log ids, keys of tables, the seed of waiting times.

use std::io;

/// Sixteen random bytes.
///
/// # Errors
/// The machine gives none.
pub(crate) fn bytes() -> io::Result<[u8; 16]> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|_| io::Error::other("the machine gives no randomness"))?;
    Ok(bytes)
}
