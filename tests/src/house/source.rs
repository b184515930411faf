//! Rust source as tokens with their places: what the rules look at.
//!
//! Comments are not tokens here, and what stands under `#[cfg(test)]` or `#[test]` is marked, so
//! that a rule about product code does not meet words in prose, in strings or in tests.

use std::str::FromStr;

use proc_macro2::{Delimiter, Group, Span, TokenStream, TokenTree};

/// What a token is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// A keyword or a name.
    Word,
    /// A string, character or number.
    Literal,
    /// One sign, or one opening or closing bracket.
    Sign,
}

/// One token and where it stands.
#[derive(Clone, Debug)]
pub struct Token {
    /// What it is.
    pub kind: Kind,
    /// As written.
    pub text: String,
    /// First line, from 1.
    pub line: usize,
    /// Last line; differs from `line` only for literals that go over several.
    pub line_end: usize,
    /// Column of the first character, from 0.
    pub column: usize,
    /// Column behind the last character.
    pub column_end: usize,
    /// Whether it belongs to test code.
    pub is_test: bool,
}

impl Token {
    fn is(&self, text: &str) -> bool {
        self.kind != Kind::Literal && self.text == text
    }
}

/// A name such as `std::fs::read`, written out in full, with the first line it stands on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Name {
    /// Segments joined by `::`; a leading `::` is dropped.
    pub text: String,
    /// Line from 1.
    pub line: usize,
    /// Whether it belongs to test code.
    pub is_test: bool,
}

/// A function with a body.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// Line of the word `fn`.
    pub line: usize,
    /// Lines of the body that hold code: neither blank nor only a comment.
    pub lines: usize,
}

/// A source file cut into tokens.
#[derive(Clone, Debug)]
pub struct Source {
    tokens: Vec<Token>,
}

impl Source {
    /// Cuts a file into tokens.
    ///
    /// # Errors
    /// The line and the reason where the text is not Rust.
    pub fn parse(text: &str) -> Result<Self, (usize, String)> {
        let stream = TokenStream::from_str(text)
            .map_err(|error| (error.span().start().line, error.to_string()))?;
        let mut tokens = Vec::new();
        flatten(stream, text, false, &mut tokens);
        Ok(Self { tokens })
    }

    /// The tokens in order.
    pub fn tokens(&self) -> &[Token] {
        &self.tokens
    }

    /// Lines at which `words` stand one behind the other, product and test code alike.
    pub fn lines_of(&self, words: &[&str]) -> Vec<usize> {
        let matches =
            |window: &&[Token]| window.iter().zip(words).all(|(token, word)| token.is(word));
        self.tokens.windows(words.len()).filter(matches).map(|window| window[0].line).collect()
    }

    /// Every name with at least one `::`, and every name brought in by `use`, written out.
    pub fn names(&self) -> Vec<Name> {
        let mut names = Vec::new();
        let mut at = 0;
        while at < self.tokens.len() {
            let token = &self.tokens[at];
            if token.kind != Kind::Word || token.text == "use" {
                at += 1;
                continue;
            }
            let mut found = Vec::new();
            let end = self.name(at, "", &mut found);
            let is_import =
                at > 0 && (self.tokens[at - 1].is("use") || self.tokens[at - 1].is("crate"));
            names.extend(found.into_iter().filter(|name| is_import || name.text.contains("::")));
            at = end.max(at + 1);
        }
        names
    }

    /// Every function that has a body.
    pub fn functions(&self) -> Vec<Function> {
        let starts = self
            .tokens
            .windows(2)
            .enumerate()
            .filter(|(_, pair)| pair[0].is("fn") && pair[1].kind == Kind::Word);
        starts.filter_map(|(at, pair)| self.function(at, &pair[1].text)).collect()
    }

    fn function(&self, at: usize, name: &str) -> Option<Function> {
        let open = self.body(at)?;
        let mut depth = 0_usize;
        let mut lines = std::collections::BTreeSet::new();
        for token in &self.tokens[open..] {
            match token.text.as_str() {
                "{" if token.kind == Kind::Sign => depth += 1,
                "}" if token.kind == Kind::Sign => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                lines.remove(&token.line);
                break;
            }
            lines.extend(token.line..=token.line_end);
        }
        lines.remove(&self.tokens[open].line);
        Some(Function { name: name.to_owned(), line: self.tokens[at].line, lines: lines.len() })
    }

    /// The opening brace of the body of the item at `at`, if it has one.
    fn body(&self, at: usize) -> Option<usize> {
        let mut depth = 0_usize;
        for (offset, token) in self.tokens[at..].iter().enumerate() {
            if token.kind != Kind::Sign {
                continue;
            }
            match token.text.as_str() {
                "(" | "[" => depth += 1,
                ")" | "]" => depth = depth.checked_sub(1)?,
                "{" if depth == 0 => return Some(at + offset),
                ";" if depth == 0 => return None,
                _ => {}
            }
        }
        None
    }

    /// Reads one name (with the braces of a `use`) and answers where it ends.
    fn name(&self, start: usize, prefix: &str, found: &mut Vec<Name>) -> usize {
        let mut path = prefix.to_owned();
        let mut at = start;
        let place = |text: String| {
            let token = &self.tokens[start];
            Name { text, line: token.line, is_test: token.is_test }
        };
        loop {
            match self.tokens.get(at) {
                Some(token) if token.kind == Kind::Word || token.is("*") => {
                    path = join(&path, &token.text);
                    at += 1;
                }
                Some(token) if token.is("{") && at > start => {
                    return self.group(at, &path, found);
                }
                _ => break,
            }
            if !(self.is_sign(at, ":") && self.is_sign(at + 1, ":")) {
                break;
            }
            at += 2;
        }
        found.push(place(path));
        at
    }

    /// Reads `{a, b::c}` behind `path::`.
    fn group(&self, open: usize, path: &str, found: &mut Vec<Name>) -> usize {
        let mut at = open + 1;
        while at < self.tokens.len() && !self.is_sign(at, "}") {
            let is_name = self.tokens[at].kind == Kind::Word || self.is_sign(at, "*");
            at = if is_name { self.name(at, path, found).max(at + 1) } else { at + 1 };
            if self.tokens.get(at).is_some_and(|token| token.is("as")) {
                at += 2;
            }
        }
        at + 1
    }

    fn is_sign(&self, at: usize, sign: &str) -> bool {
        self.tokens.get(at).is_some_and(|token| token.kind == Kind::Sign && token.text == sign)
    }
}

fn join(path: &str, segment: &str) -> String {
    if path.is_empty() { segment.to_owned() } else { format!("{path}::{segment}") }
}

fn flatten(stream: TokenStream, text: &str, in_test: bool, tokens: &mut Vec<Token>) {
    let trees: Vec<TokenTree> = stream.into_iter().collect();
    let in_test = in_test || opens_as_test(&trees);
    let mut is_test = in_test;
    for (at, tree) in trees.iter().enumerate() {
        if written(tree.span(), text).starts_with('/') && written(tree.span(), text).len() > 1 {
            continue; // a doc comment, given to us as an attribute
        }
        match tree {
            TokenTree::Group(group) => {
                let is_attribute = is_attribute(&trees, at);
                is_test |= is_attribute && marks_test(group);
                flatten_group(group, text, is_test, tokens);
                if group.delimiter() == Delimiter::Brace && !is_attribute {
                    is_test = in_test;
                }
            }
            TokenTree::Ident(word) => {
                push(Kind::Word, &word.to_string(), tree.span(), is_test, tokens)
            }
            TokenTree::Literal(literal) => {
                push(Kind::Literal, &literal.to_string(), tree.span(), is_test, tokens);
            }
            TokenTree::Punct(sign) => {
                push(Kind::Sign, &sign.as_char().to_string(), tree.span(), is_test, tokens);
                if sign.as_char() == ';' {
                    is_test = in_test;
                }
            }
        }
    }
}

fn flatten_group(group: &Group, text: &str, is_test: bool, tokens: &mut Vec<Token>) {
    let (open, close) = match group.delimiter() {
        Delimiter::Parenthesis => ("(", ")"),
        Delimiter::Brace => ("{", "}"),
        Delimiter::Bracket => ("[", "]"),
        Delimiter::None => ("", ""),
    };
    push(Kind::Sign, open, group.span_open(), is_test, tokens);
    flatten(group.stream(), text, is_test, tokens);
    push(Kind::Sign, close, group.span_close(), is_test, tokens);
}

fn push(kind: Kind, text: &str, span: Span, is_test: bool, tokens: &mut Vec<Token>) {
    let (start, end) = (span.start(), span.end());
    tokens.push(Token {
        kind,
        text: text.to_owned(),
        line: start.line,
        line_end: end.line,
        column: start.column,
        column_end: end.column,
        is_test,
    });
}

fn written(span: Span, text: &str) -> &str {
    text.get(span.byte_range()).unwrap_or("")
}

fn is_attribute(trees: &[TokenTree], at: usize) -> bool {
    let stands = |back: usize, sign: char| {
        at.checked_sub(back)
            .and_then(|place| trees.get(place))
            .is_some_and(|tree| is_sign(tree, sign))
    };
    stands(1, '#') || (stands(1, '!') && stands(2, '#'))
}

/// Whether an inner attribute says that the whole file is test code.
fn opens_as_test(trees: &[TokenTree]) -> bool {
    let inner = trees.iter().enumerate().filter_map(|(at, tree)| match tree {
        TokenTree::Group(group) if at >= 2 && is_sign(&trees[at - 1], '!') => Some(group),
        _ => None,
    });
    inner.into_iter().any(marks_test)
}

fn is_sign(tree: &TokenTree, sign: char) -> bool {
    matches!(tree, TokenTree::Punct(found) if found.as_char() == sign)
}

fn marks_test(group: &Group) -> bool {
    let words: Vec<String> = words(group.stream());
    match words.first().map(String::as_str) {
        Some("test") => true,
        Some("cfg") => {
            words.iter().any(|word| word == "test") && !words.contains(&"not".to_owned())
        }
        _ => false,
    }
}

fn words(stream: TokenStream) -> Vec<String> {
    stream
        .into_iter()
        .flat_map(|tree| match tree {
            TokenTree::Ident(word) => vec![word.to_string()],
            TokenTree::Group(group) => words(group.stream()),
            TokenTree::Punct(_) | TokenTree::Literal(_) => Vec::new(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        Source::parse(text).unwrap().names().into_iter().map(|name| name.text).collect()
    }

    #[test]
    fn names_are_written_out() {
        assert_eq!(
            names("use std::{fs, net::{IpAddr, *}};"),
            ["std::fs", "std::net::IpAddr", "std::net::*"]
        );
        assert_eq!(names("use sled;"), ["sled"]);
        assert_eq!(names("fn f() { let a = ::std::env::var(x); b.c() }"), ["std::env::var"]);
        assert_eq!(names("use std::fs as disk;"), ["std::fs"]);
    }

    #[test]
    fn comments_and_strings_are_no_names() {
        assert!(
            names("//! std::fs\n/// std::fs\nconst A: &str = \"std::fs\"; // std::fs").is_empty()
        );
    }

    #[test]
    fn test_code_is_marked() {
        let text = "#[cfg(test)]\nmod tests { use std::fs; }\nuse std::net;";
        let marks: Vec<bool> =
            Source::parse(text).unwrap().names().iter().map(|name| name.is_test).collect();
        assert_eq!(marks, [true, false]);
    }

    #[test]
    fn what_is_left_out_of_tests_is_product_code() {
        let text = "#[cfg(not(test))]\nmod m { use std::fs; }";
        assert!(Source::parse(text).unwrap().names().iter().all(|name| !name.is_test));
    }

    #[test]
    fn an_inner_attribute_marks_the_whole_file() {
        let text = "#![cfg(test)]\nmod m { use std::fs; }";
        assert!(Source::parse(text).unwrap().names().iter().all(|name| name.is_test));
    }

    #[test]
    fn functions_are_measured_without_blank_and_comment_lines() {
        let text = "fn one<T>(a: [u8; 3]) -> T\nwhere\n T: X,\n{\n\n // why\n a();\n b(\n );\n}\n";
        let found = Source::parse(text).unwrap().functions();
        assert_eq!(found, [Function { name: "one".to_owned(), line: 1, lines: 3 }]);
    }

    #[test]
    fn declarations_and_pointers_are_no_functions() {
        let text = "trait T { fn f(&self); }\ntype P = fn(u8) -> u8;";
        assert!(Source::parse(text).unwrap().functions().is_empty());
    }

    #[test]
    fn what_is_not_rust_is_an_error() {
        assert!(Source::parse("fn f( {").is_err());
    }
}
