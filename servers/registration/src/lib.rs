//! The Registration server: certificates and assignments.
