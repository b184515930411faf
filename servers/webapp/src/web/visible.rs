//! How a string reaches a page: HTML is escaped, and what the eye would not see is written out.
//!
//! Invariants: no character of a string can become markup; control, direction-changing and
//! zero-width characters appear as their escapes, so that two names that differ look different.

use std::fmt::{self, Write};

use askama::filters::Escaper;

/// The escaper of every template.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Visible;

impl Escaper for Visible {
    fn write_escaped_str<W: Write>(&self, mut to: W, string: &str) -> fmt::Result {
        for character in string.chars() {
            match character {
                '&' => to.write_str("&#38;")?,
                '<' => to.write_str("&#60;")?,
                '>' => to.write_str("&#62;")?,
                '"' => to.write_str("&#34;")?,
                '\'' => to.write_str("&#39;")?,
                '`' => to.write_str("&#96;")?,
                hidden if is_hidden(hidden) => write!(to, "{}", hidden.escape_default())?,
                plain => to.write_char(plain)?,
            }
        }
        Ok(())
    }
}

/// Whether a reader would not see it, or would see the rest of the line changed by it.
pub(crate) fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}'
                | '\u{61c}'
                | '\u{115f}'..='\u{1160}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202f}'
                | '\u{205f}'..='\u{206f}'
                | '\u{3164}'
                | '\u{fe00}'..='\u{fe0f}'
                | '\u{feff}'
                | '\u{ffa0}'
                | '\u{fff0}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

#[cfg(test)]
mod tests {
    use super::Visible;
    use askama::filters::Escaper as _;

    fn escaped(text: &str) -> String {
        let mut out = String::new();
        Visible.write_escaped_str(&mut out, text).unwrap();
        out
    }

    #[test]
    fn markup_and_hidden_characters_are_written_out() {
        assert_eq!(escaped("<a href='x'>&\"`"), "&#60;a href=&#39;x&#39;&#62;&#38;&#34;&#96;");
        assert_eq!(escaped("a\u{202e}b\u{200d}\n\u{1b}[2J"), "a\\u{202e}b\\u{200d}\\n\\u{1b}[2J");
        assert_eq!(escaped("Gr\u{fc}\u{df}e \u{65e5}\u{672c}"), "Gr\u{fc}\u{df}e \u{65e5}\u{672c}");
    }
}
