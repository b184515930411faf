//! The sensor's state machines: no heap, no clock, no I/O.
