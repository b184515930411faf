//! Cuts the power of one mounted file system: nothing that it holds in memory reaches its disk any
//! more, its journal included. The only `unsafe` outside of the sensor: no safe call does this.
#![allow(unsafe_code, reason = "the ioctl has no safe wrapper; its argument is a plain number")]

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::path::Path;

// FS_IOC_SHUTDOWN of ext4, xfs and f2fs.
nix::ioctl_read!(fs_shutdown, b'X', 125, u32);

/// Goes down without writing the log out.
const NO_LOG_FLUSH: u32 = 2;

/// Cuts the power of the file system that is mounted at `mount`. Needs CAP_SYS_ADMIN.
pub(crate) fn cut(mount: &Path) -> std::io::Result<()> {
    let root = File::open(mount)?;
    let mut how = NO_LOG_FLUSH;
    // SAFETY: the descriptor is open for the whole call, and the kernel reads one u32 behind the
    // pointer, which `how` is.
    unsafe { fs_shutdown(root.as_raw_fd(), &raw mut how) }?;
    Ok(())
}
