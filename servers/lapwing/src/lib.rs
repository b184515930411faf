//! The multi-call binary: every role, the sensor, up and ctl.
