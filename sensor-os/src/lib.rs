//! The sensor on an operating system: collectors, spool, TLS runner.
