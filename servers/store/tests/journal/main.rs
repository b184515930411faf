//! The journal's promises: dense and durable entries, heads, partitions, retention, and what
//! happens when power, disks or directories are taken away.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]
#![allow(clippy::single_range_in_vec_init, reason = "one dropped range is what is expected")]

mod crashes;
mod feed;
mod heads;
mod retention;
mod rig;
mod simulated;
