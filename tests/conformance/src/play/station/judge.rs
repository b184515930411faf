//! Whether a Hello is as it must be.

use super::Shelf;
use crate::wire::message::{Hello, Lane, LogHead};

/// HEL-002 to HEL-006, VER-004, VER-005.
pub(super) fn hello(hello: &Hello) -> Result<(), String> {
    if hello.version_min > 1 || hello.version_max < 1 {
        return Err(format!("VER-004: {} to {}", hello.version_min, hello.version_max));
    }
    if !hello.capabilities.is_empty() {
        return Err("VER-005: a capability that version 1 does not define".into());
    }
    for text in [&hello.agent, &hello.name, &hello.os] {
        if text.len() > 255 || text.chars().any(char::is_control) {
            return Err(format!("HEL-006: {text:?}"));
        }
    }
    if hello.receive_bytes_max < 512 {
        return Err(format!("HEL-006: receive_bytes_max {}", hello.receive_bytes_max));
    }
    let lanes: Vec<Lane> = hello.logs.iter().map(|head| head.lane).collect();
    if lanes.is_empty() || lanes.len() > 2 || (lanes.len() == 2 && lanes[0] == lanes[1]) {
        return Err(format!("HEL-002: logs of {lanes:?}"));
    }
    Ok(())
}

/// HEL-004, HEL-005, CHN-001, DLV-006. A sensor that `may_drop` says a Jump from what was
/// acknowledged on, or nothing that comes from it is in order.
pub(super) fn head(head: &LogHead, shelf: &Shelf, may_drop: bool) -> Result<(), String> {
    let LogHead { first_seq, next_seq, acked_seq, .. } = *head;
    if first_seq == 0 || first_seq > next_seq || acked_seq >= next_seq {
        return Err(format!("HEL-004: {head:?}"));
    }
    if first_seq > acked_seq + 1 && !may_drop {
        return Err(format!("DLV-006: {first_seq} is held first, {acked_seq} is acknowledged"));
    }
    if shelf.chains.get(&acked_seq).is_some_and(|chain| *chain != head.acked_chain) {
        return Err(format!("CHN-001: the chain at {acked_seq} in Hello is another"));
    }
    let runs = &head.elsewhere.0;
    let mut last = 0;
    for run in runs {
        if run.from_seq <= last || run.to_seq < run.from_seq || run.to_seq > acked_seq {
            return Err(format!("HEL-005: {runs:?} of {acked_seq} acknowledged"));
        }
        last = run.to_seq;
    }
    if runs.len() > 8 {
        return Err(format!("HEL-005: {} runs", runs.len()));
    }
    Ok(())
}
