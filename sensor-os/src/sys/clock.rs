//! The clock every fact is stamped with, and the boot it counts from.
//!
//! Not a wall clock: times are nanoseconds since boot, counting suspend, and never go back within a
//! boot.

#![allow(unsafe_code, reason = "clock_gettime and sysconf")]

use std::io;

fn read_ns(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec that the call fills in and does not keep.
    let failed = unsafe { libc::clock_gettime(clock, &raw mut time) } != 0;
    if failed {
        // Only an unknown clock fails, and both clocks used here are older than the oldest kernel
        // this sensor runs on.
        return 0;
    }
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}

/// Nanoseconds since boot, counting suspend (`CLOCK_BOOTTIME`).
pub(crate) fn boottime_ns() -> u64 {
    read_ns(libc::CLOCK_BOOTTIME)
}

/// What must be added to a `CLOCK_MONOTONIC` reading to make it a boot time: the time suspended.
pub(crate) fn suspended_ns() -> u64 {
    let monotonic = read_ns(libc::CLOCK_MONOTONIC);
    boottime_ns().saturating_sub(monotonic)
}

/// How many clock ticks `/proc/PID/stat` counts a second.
pub(crate) fn ticks_per_second() -> u64 {
    // SAFETY: sysconf takes no pointer and has no precondition.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    u64::try_from(ticks).ok().filter(|ticks| *ticks > 0).unwrap_or(100)
}

/// This boot's id, 16 bytes that the kernel drew at random.
///
/// # Errors
///
/// `/proc/sys/kernel/random/boot_id` cannot be read, or is not a UUID.
pub(crate) fn boot_id() -> io::Result<[u8; 16]> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    parse_uuid(text.trim()).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, "/proc/sys/kernel/random/boot_id is not a UUID")
    })
}

fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let mut id = [0; 16];
    let mut digits = text.chars().filter(|c| *c != '-').map(|c| c.to_digit(16));
    for byte in &mut id {
        let high = digits.next()??;
        let low = digits.next()??;
        *byte = u8::try_from(high * 16 + low).ok()?;
    }
    digits.next().is_none().then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_is_sixteen_bytes() {
        let id = parse_uuid("00112233-4455-6677-8899-aabbccddeeff").unwrap();
        assert_eq!(id[0], 0x00);
        assert_eq!(id[15], 0xff);
        assert_eq!(parse_uuid("0011"), None);
        assert_eq!(parse_uuid("zz112233-4455-6677-8899-aabbccddeeff"), None);
        assert_eq!(parse_uuid("00112233-4455-6677-8899-aabbccddeeff00"), None);
    }

    #[test]
    fn boot_time_is_not_behind_monotonic_time() {
        let before = boottime_ns();
        assert!(before > 0);
        assert!(boottime_ns() >= before);
    }
}
