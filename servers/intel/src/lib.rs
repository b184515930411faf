//! The Threat Intel servers, private and global.
