//! An expression cut into words, quoted texts and symbols, each with its place.

use super::error::QueryError;

/// What a token is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// A run of characters: a name, a keyword, or a value that needs no quotes.
    Word(String),
    /// A quoted text, its escapes resolved.
    Quoted(String),
    /// One of `( ) , = != < <= > >= -> <-`.
    Symbol(&'static str),
}

/// A token and the character at which it begins, counted from 1.
pub(super) type Placed = (usize, Token);

/// Two-character symbols first, so that the longer one is taken.
const SYMBOLS: [&str; 11] = ["->", "<-", "!=", "<=", ">=", "(", ")", ",", "=", "<", ">"];

/// Cuts `expression` into tokens.
pub(super) fn tokens(expression: &str) -> Result<Vec<Placed>, QueryError> {
    let mut tokens = Vec::new();
    let mut rest = Rest { text: expression, position: 1 };
    loop {
        while rest.peek().is_some_and(char::is_whitespace) {
            rest.next();
        }
        let Some(first) = rest.peek() else { return Ok(tokens) };
        let position = rest.position;
        let token = if first == '"' || first == '\'' {
            rest.next();
            Token::Quoted(quoted(&mut rest, first, position)?)
        } else if let Some(symbol) = rest.symbol() {
            Token::Symbol(symbol)
        } else {
            Token::Word(word(&mut rest))
        };
        tokens.push((position, token));
    }
}

struct Rest<'e> {
    text: &'e str,
    position: usize,
}

impl Rest<'_> {
    fn peek(&self) -> Option<char> {
        self.text.chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let mut characters = self.text.chars();
        let character = characters.next()?;
        self.text = characters.as_str();
        self.position += 1;
        Some(character)
    }

    fn symbol(&mut self) -> Option<&'static str> {
        let symbol = SYMBOLS.into_iter().find(|symbol| self.text.starts_with(symbol))?;
        for _ in 0..symbol.len() {
            self.next();
        }
        Some(symbol)
    }

    fn ends_word(&self) -> bool {
        let ends = |it: char| it.is_whitespace() || "(),=<>\"'".contains(it);
        self.peek().is_none_or(ends) || self.text.starts_with("->") || self.text.starts_with("!=")
    }
}

fn word(rest: &mut Rest<'_>) -> String {
    let mut word = String::new();
    while !rest.ends_word() {
        word.extend(rest.next());
    }
    word
}

fn quoted(rest: &mut Rest<'_>, quote: char, position: usize) -> Result<String, QueryError> {
    let mut text = String::new();
    let open = || QueryError::new(position, format!("the text is not closed; expected {quote}"));
    loop {
        match rest.next().ok_or_else(open)? {
            it if it == quote => return Ok(text),
            '\\' => {
                let place = rest.position;
                text.push(match rest.next().ok_or_else(open)? {
                    'n' => '\n',
                    't' => '\t',
                    it @ ('\\' | '"' | '\'') => it,
                    _ => {
                        return Err(QueryError::new(
                            place,
                            "unknown escape; expected one of \\\\ \\\" \\' \\n \\t",
                        ));
                    }
                });
            }
            it => text.push(it),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_symbols_and_texts_are_told_apart() {
        let found = tokens("a->b where x!=1 and p = \"a \\\" b\" or t >= 2026-01-02T03:04:05Z");
        let words: Vec<String> = found
            .unwrap()
            .into_iter()
            .map(|(_, token)| match token {
                Token::Word(word) => word,
                Token::Quoted(text) => format!("[{text}]"),
                Token::Symbol(symbol) => format!("<{symbol}>"),
            })
            .collect();
        let expected = [
            "a",
            "<->>",
            "b",
            "where",
            "x",
            "<!=>",
            "1",
            "and",
            "p",
            "<=>",
            "[a \" b]",
            "or",
            "t",
            "<>=>",
            "2026-01-02T03:04:05Z",
        ];
        assert_eq!(words, expected);
    }

    #[test]
    fn an_open_text_is_named_at_its_beginning() {
        assert_eq!(tokens("a = 'b").unwrap_err().position, 5);
    }

    #[test]
    fn every_text_ends() {
        for text in ["!", "-", "\u{e9}\u{e9}", "!!", "a!b", "\\", "&", "\0"] {
            assert!(tokens(text).is_ok(), "{text:?}");
        }
    }
}
