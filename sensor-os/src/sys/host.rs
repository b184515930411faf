//! What the kernel says of the machine, of this process' rights and of file identities.

#![allow(unsafe_code, reason = "uname, sysinfo, geteuid, prctl")]

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;

/// The kernel's name for the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HostNames {
    /// Host name.
    pub(crate) host: String,
    /// Kernel release.
    pub(crate) release: String,
    /// Processor architecture.
    pub(crate) architecture: String,
}

/// Asks the kernel for its names.
pub(crate) fn names() -> HostNames {
    let mut answer = std::mem::MaybeUninit::<libc::utsname>::zeroed();
    // SAFETY: `answer` has room for one utsname, all of whose bytes are initialised to zero.
    let answer = unsafe {
        if libc::uname(answer.as_mut_ptr()) != 0 {
            return HostNames::default();
        }
        answer.assume_init()
    };
    let text = |field: &[libc::c_char]| {
        // SAFETY: the kernel ends each field with a NUL, and the field was zeroed before.
        unsafe { CStr::from_ptr(field.as_ptr()) }.to_string_lossy().into_owned()
    };
    HostNames {
        host: text(&answer.nodename),
        release: text(&answer.release),
        architecture: text(&answer.machine),
    }
}

/// Memory of the machine in bytes; 0 where the kernel does not say.
pub(crate) fn memory_bytes() -> u64 {
    let mut answer = std::mem::MaybeUninit::<libc::sysinfo>::zeroed();
    // SAFETY: `answer` has room for one sysinfo, all of whose bytes are initialised to zero.
    let answer = unsafe {
        if libc::sysinfo(answer.as_mut_ptr()) != 0 {
            return 0;
        }
        answer.assume_init()
    };
    #[allow(clippy::useless_conversion, reason = "the type differs between architectures")]
    let total = u64::from(answer.totalram);
    total.saturating_mul(u64::from(answer.mem_unit))
}

/// The addresses of this machine's interfaces, in the kernel's order; empty where it does not say.
pub(crate) fn addresses() -> Vec<IpAddr> {
    let mut first: *mut libc::ifaddrs = std::ptr::null_mut();
    // SAFETY: the call writes one pointer into `first`.
    if unsafe { libc::getifaddrs(&raw mut first) } != 0 {
        return Vec::new();
    }
    let mut addresses = Vec::new();
    let mut entry = first;
    // SAFETY: `entry` is null or an element of the list, which lives until it is freed below.
    while let Some(interface) = unsafe { entry.as_ref() } {
        addresses.extend(address_of(interface.ifa_addr));
        entry = interface.ifa_next;
    }
    // SAFETY: `first` is the list that getifaddrs made, freed once and not used further.
    unsafe { libc::freeifaddrs(first) };
    addresses
}

fn address_of(address: *const libc::sockaddr) -> Option<IpAddr> {
    // SAFETY: null or a socket address, whose family says how long it is.
    let family = unsafe { address.as_ref() }?.sa_family;
    match libc::c_int::from(family) {
        libc::AF_INET => {
            // SAFETY: an AF_INET address is a sockaddr_in; it is copied out unaligned.
            let inet = unsafe { address.cast::<libc::sockaddr_in>().read_unaligned() };
            Some(Ipv4Addr::from(u32::from_be(inet.sin_addr.s_addr)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: an AF_INET6 address is a sockaddr_in6; it is copied out unaligned.
            let inet = unsafe { address.cast::<libc::sockaddr_in6>().read_unaligned() };
            Some(Ipv6Addr::from(inet.sin6_addr.s6_addr).into())
        }
        _ => None,
    }
}

/// Refuses outside the first process namespace: what the kernel says of processes there is not said
/// to others, or in numbers that mean nothing to them.
///
/// # Errors
///
/// This process is in another namespace, as in most containers.
pub(crate) fn require_first_process_namespace() -> io::Result<()> {
    /// The kernel gives the first namespace this number, always.
    const FIRST: u64 = 0xEFFF_FFFC;
    let namespace = std::fs::metadata("/proc/self/ns/pid").map(|namespace| namespace.ino());
    if namespace.is_ok_and(|namespace| namespace == FIRST) {
        return Ok(());
    }
    let text = "speaks in the host's process namespace only";
    Err(io::Error::new(io::ErrorKind::PermissionDenied, text))
}

/// The number of this process' network namespace.
///
/// # Errors
///
/// `/proc` does not say.
pub(crate) fn network_namespace() -> io::Result<u32> {
    let inode = std::fs::metadata("/proc/self/ns/net")?.ino();
    u32::try_from(inode).map_err(io::Error::other)
}

/// The user whose rights this process has.
pub(crate) fn effective_user() -> u32 {
    // SAFETY: geteuid has no precondition and cannot fail.
    unsafe { libc::geteuid() }
}

/// Whether this process runs as root.
pub(crate) fn is_root() -> bool {
    effective_user() == 0
}

/// Names the calling thread, so that an operator sees in `top -H` which collector uses time.
pub(crate) fn name_thread(name: &CStr) {
    // SAFETY: `name` is NUL-terminated; the kernel copies at most 16 bytes.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
}

/// What tells one content of one file from another without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct FileIdentity {
    /// Device number.
    pub(crate) device: u64,
    /// Inode number.
    pub(crate) inode: u64,
    /// Size in bytes.
    pub(crate) bytes: u64,
    /// When its content last changed, in nanoseconds of wall clock.
    pub(crate) modified_ns: i64,
    /// When its inode last changed, in nanoseconds of wall clock.
    pub(crate) changed_ns: i64,
}

impl FileIdentity {
    /// Of a file's metadata.
    pub(crate) fn of(metadata: &std::fs::Metadata) -> Self {
        let nanos =
            |seconds: i64, nanos: i64| seconds.saturating_mul(1_000_000_000).saturating_add(nanos);
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.size(),
            modified_ns: nanos(metadata.mtime(), metadata.mtime_nsec()),
            changed_ns: nanos(metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Of the file at `path`, as the kernel knows it already: a network file is not asked for, so
    /// this never waits for another machine.
    ///
    /// # Errors
    ///
    /// The kernel's own.
    pub(crate) fn known_of(path: &str) -> io::Result<Self> {
        let path = std::ffi::CString::new(path)?;
        let mut answer = std::mem::MaybeUninit::<libc::statx>::zeroed();
        // SAFETY: `path` is NUL-terminated and `answer` has room for one statx, all of whose bytes
        // are initialised to zero.
        let answer = unsafe {
            let flags = libc::AT_STATX_DONT_SYNC;
            let wanted = libc::STATX_BASIC_STATS;
            if libc::statx(libc::AT_FDCWD, path.as_ptr(), flags, wanted, answer.as_mut_ptr()) != 0 {
                return Err(io::Error::last_os_error());
            }
            answer.assume_init()
        };
        let nanos = |time: libc::statx_timestamp| {
            time.tv_sec.saturating_mul(1_000_000_000).saturating_add(i64::from(time.tv_nsec))
        };
        Ok(Self {
            device: libc::makedev(answer.stx_dev_major, answer.stx_dev_minor),
            inode: answer.stx_ino,
            bytes: answer.stx_size,
            modified_ns: nanos(answer.stx_mtime),
            changed_ns: nanos(answer.stx_ctime),
        })
    }

    /// Of an open file, which is given back.
    ///
    /// # Errors
    ///
    /// The kernel's own.
    pub(crate) fn of_open(file: OwnedFd) -> io::Result<(Self, File)> {
        let file = File::from(file);
        let metadata = file.metadata()?;
        Ok((Self::of(&metadata), file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_the_same_asked_either_way() {
        let path = std::env::current_exe().unwrap();
        let asked = FileIdentity::of(&std::fs::metadata(&path).unwrap());
        assert_eq!(FileIdentity::known_of(path.to_str().unwrap()).unwrap(), asked);
        assert_eq!(FileIdentity::known_of("/proc/self/exe").unwrap(), asked);
        assert!(FileIdentity::known_of("/nowhere").is_err());
    }

    #[test]
    fn the_kernel_names_itself() {
        let names = names();
        assert!(!names.release.is_empty());
        assert_eq!(names.architecture, std::env::consts::ARCH);
        assert!(memory_bytes() > 1 << 20);
    }
}
