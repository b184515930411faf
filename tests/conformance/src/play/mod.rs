//! Playing a part over real sockets: connections, a scripted sensor, its logs.
//!
//! Not here: any judgement. What is sent is chosen by the cases, rightly or wrongly.

pub mod link;
pub mod log;
pub mod sensor;
pub mod wait;
