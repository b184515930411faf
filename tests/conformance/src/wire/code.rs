//! The registry of error codes (docs/errors.md), read from the page.
//!
//! Invariant: a code is named here only if the page names it; a test holds the constants.

/// `malformed`.
pub const MALFORMED: u16 = 1;
/// `too_large`.
pub const TOO_LARGE: u16 = 2;
/// `unknown_kind`.
pub const UNKNOWN_KIND: u16 = 3;
/// `out_of_place`.
pub const OUT_OF_PLACE: u16 = 4;
/// `version`.
pub const VERSION: u16 = 5;
/// `forbidden`.
pub const FORBIDDEN: u16 = 6;
/// `bad_token`.
pub const BAD_TOKEN: u16 = 7;
/// `bad_request_for_certificate`.
pub const BAD_REQUEST_FOR_CERTIFICATE: u16 = 8;
/// `fenced`.
pub const FENCED: u16 = 10;
/// `all_full`.
pub const ALL_FULL: u16 = 11;
/// `busy`.
pub const BUSY: u16 = 12;
/// `bad_argument`.
pub const BAD_ARGUMENT: u16 = 16;
/// `unsupported`.
pub const UNSUPPORTED: u16 = 19;
/// `revoked`.
pub const REVOKED: u16 = 20;
/// `stale_command`.
pub const STALE_COMMAND: u16 = 22;
/// `idle`.
pub const IDLE: u16 = 24;
/// `chain_broken`.
pub const CHAIN_BROKEN: u16 = 25;
/// `facts_lost`.
pub const FACTS_LOST: u16 = 26;

const PAGE: &str = include_str!("../../../../docs/errors.md");

/// The name of a code, or its number where the page has none for it.
#[must_use]
pub fn name(code: u16) -> String {
    let head = format!("| {code} | `");
    let row = PAGE.lines().find_map(|line| line.strip_prefix(&head));
    let name = row.and_then(|row| row.split('`').next());
    name.map_or_else(|| format!("code {code}"), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_constants_are_those_of_the_page() {
        let known = [
            (MALFORMED, "malformed"),
            (TOO_LARGE, "too_large"),
            (UNKNOWN_KIND, "unknown_kind"),
            (OUT_OF_PLACE, "out_of_place"),
            (VERSION, "version"),
            (FORBIDDEN, "forbidden"),
            (BAD_TOKEN, "bad_token"),
            (BAD_REQUEST_FOR_CERTIFICATE, "bad_request_for_certificate"),
            (FENCED, "fenced"),
            (ALL_FULL, "all_full"),
            (BUSY, "busy"),
            (BAD_ARGUMENT, "bad_argument"),
            (UNSUPPORTED, "unsupported"),
            (REVOKED, "revoked"),
            (STALE_COMMAND, "stale_command"),
            (IDLE, "idle"),
            (CHAIN_BROKEN, "chain_broken"),
            (FACTS_LOST, "facts_lost"),
        ];
        for (code, expected) in known {
            assert_eq!(name(code), expected);
        }
        assert_eq!(name(60_000), "code 60000");
    }
}
