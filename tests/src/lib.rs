//! The simulator, the journeys, and the tests of the house itself.
#![forbid(unsafe_code)]

pub mod browser;
pub mod house;
pub mod load;
pub mod platform;
pub mod simulator;
pub mod targets;
pub mod wait;
