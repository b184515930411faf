//! The collectors.
#[cfg(target_os = "linux")] mod btf;
pub mod fact;
mod hash; mod health; mod join; mod limits; mod period; mod process_facts; mod processes; mod procfs; pub mod queue; mod shared; mod users;
mod connections; mod dns; mod sockets;
