//! Playing a part over real sockets: connections, a scripted sensor with its logs, scripted servers
//! with what they saw.
//!
//! Not here: any judgement. What is sent is chosen by the cases, rightly or wrongly.

pub mod desk;
pub mod link;
pub mod log;
pub mod sensor;
pub mod shelf;
pub mod station;
pub mod wait;
