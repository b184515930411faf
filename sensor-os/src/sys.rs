//! What the operating system is asked for, as safe functions.
//!
//! This module and the files below it are the only place in Lapwing where `unsafe` may stand;
//! every block says why it is sound. It is a thin layer: it opens, reads and decodes what the
//! kernel gives, and decides nothing. What the answers mean is decided in `collect`.
//!
//! Invariant: nothing here panics on what the kernel or a peer on the network wrote; a short or
//! odd record is skipped or is an error.

#[cfg(target_os = "linux")]
pub(crate) mod bpf;
#[cfg(target_os = "linux")]
pub(crate) mod clock;
#[cfg(target_os = "linux")]
pub(crate) mod fanotify;
#[cfg(target_os = "linux")]
pub(crate) mod host;
#[cfg(target_os = "linux")]
pub(crate) mod native;
#[cfg(target_os = "linux")]
pub(crate) mod netlink;
#[cfg(target_os = "linux")]
pub(crate) mod packet;
#[cfg(target_os = "linux")]
pub(crate) mod proc_connector;
#[cfg(target_os = "linux")]
pub(crate) mod sock_diag;
#[cfg(target_os = "linux")]
pub(crate) mod wait;
