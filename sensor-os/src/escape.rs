//! Text of unknown origin, made harmless for a terminal.
//!
//! Invariant: what comes out is one line, drives no terminal and does not turn the reading
//! direction, whatever went in.

use std::fmt::Write as _;

/// The text with everything escaped that could end a line or drive a terminal.
#[must_use]
pub(crate) fn escaped(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        let is_hostile = character.is_control()
            || matches!(
                character,
                '\u{61c}'
                    | '\u{200b}'..='\u{200f}'
                    | '\u{2028}'..='\u{202e}'
                    | '\u{2060}'..='\u{2069}'
                    | '\u{feff}'
            );
        if is_hostile {
            let _ = write!(line, "{}", character.escape_default());
        } else {
            line.push(character);
        }
    }
    line
}

/// The same for bytes that are usually text; what is not UTF-8 is shown as `\xNN`.
#[must_use]
pub(crate) fn escaped_bytes(bytes: &[u8]) -> String {
    let mut line = String::with_capacity(bytes.len());
    for part in bytes.utf8_chunks() {
        line.push_str(&escaped(part.valid()));
        for byte in part.invalid() {
            let _ = write!(line, "\\x{byte:02x}");
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_text_stays_one_harmless_line() {
        assert_eq!(escaped("a\nb\r\x1b[2J\u{202e}c"), "a\\nb\\r\\u{1b}[2J\\u{202e}c");
        assert_eq!(escaped_bytes(b"a\xffb\x00"), "a\\xffb\\u{0}");
        assert_eq!(escaped("C:\\dir \"x\""), "C:\\dir \"x\"");
    }
}
