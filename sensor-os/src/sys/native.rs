//! Integers in the machine's own byte order, as the kernel's records hold them.
//!
//! Not for the wire: Lapwing's own formats are little-endian everywhere. Every read is
//! bounds-checked and answers `None` past the end.

#![expect(clippy::host_endian_bytes, reason = "the kernel's records are in host order")]

fn array_at<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..offset.checked_add(N)?)?.try_into().ok()
}

/// The `u16` at `offset`.
pub(crate) fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    array_at(bytes, offset).map(u16::from_ne_bytes)
}

/// The `u32` at `offset`.
pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    array_at(bytes, offset).map(u32::from_ne_bytes)
}

/// The `i32` at `offset`.
pub(crate) fn i32_at(bytes: &[u8], offset: usize) -> Option<i32> {
    array_at(bytes, offset).map(i32::from_ne_bytes)
}

/// The `u64` at `offset`.
pub(crate) fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    array_at(bytes, offset).map(u64::from_ne_bytes)
}

/// The byte at `offset`.
pub(crate) fn u8_at(bytes: &[u8], offset: usize) -> Option<u8> {
    bytes.get(offset).copied()
}

/// Writes a `u16` at the end of `bytes`.
pub(crate) fn push_u16(bytes: &mut Vec<u8>, value: u16) {
    bytes.extend_from_slice(&value.to_ne_bytes());
}

/// Writes a `u32` at the end of `bytes`.
pub(crate) fn push_u32(bytes: &mut Vec<u8>, value: u32) {
    bytes.extend_from_slice(&value.to_ne_bytes());
}

/// Writes a `u64` at the end of `bytes`.
pub(crate) fn push_u64(bytes: &mut Vec<u8>, value: u64) {
    bytes.extend_from_slice(&value.to_ne_bytes());
}

/// The bytes of an `i16`.
pub(crate) const fn i16_bytes(value: i16) -> [u8; 2] {
    value.to_ne_bytes()
}

/// The bytes of an `i32`.
pub(crate) const fn i32_bytes(value: i32) -> [u8; 4] {
    value.to_ne_bytes()
}

/// The `u64` that `bytes` are.
pub(crate) const fn u64_of(bytes: [u8; 8]) -> u64 {
    u64::from_ne_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_inside_and_refuses_past_the_end() {
        let mut bytes = Vec::new();
        push_u32(&mut bytes, 0xdead_beef);
        push_u16(&mut bytes, 7);
        assert_eq!(u32_at(&bytes, 0), Some(0xdead_beef));
        assert_eq!(u16_at(&bytes, 4), Some(7));
        assert_eq!(u32_at(&bytes, 3), None);
        assert_eq!(u64_at(&bytes, usize::MAX), None);
    }
}
