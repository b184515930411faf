//! The journal's promises: dense and durable entries, heads, partitions, retention, and what
//! happens when power, disks or directories are taken away.

mod crashes;
mod feed;
mod heads;
mod retention;
mod rig;
