//! A strict, bounded reader for signed JSON: objects, lists, texts, whole numbers, true, false,
//! null.
//!
//! It is no general JSON library: a manifest has no fractions, a member that stands twice is
//! refused because two readers could disagree on which counts, and depth and length are bounded.
//! Bytes that it takes, every JSON reader takes, with the same meaning; a test holds it to that.

use std::collections::BTreeMap;
use std::fmt;

/// Objects and lists inside each other; a manifest needs five.
const DEPTH_MAX: usize = 16;

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number from 0 on.
    Number(u64),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Self>),
    /// An object.
    Object(BTreeMap<String, Self>),
}

impl Value {
    /// The member of that name, where this is an object that has it.
    #[must_use]
    pub fn member(&self, name: &str) -> Option<&Self> {
        self.object()?.get(name)
    }

    /// The members, where this is an object.
    #[must_use]
    pub fn object(&self) -> Option<&BTreeMap<String, Self>> {
        match self {
            Self::Object(members) => Some(members),
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::Text(_) | Self::List(_) => None,
        }
    }

    /// The items, where this is a list.
    #[must_use]
    pub fn list(&self) -> Option<&[Self]> {
        match self {
            Self::List(items) => Some(items),
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::Text(_) | Self::Object(_) => None,
        }
    }

    /// The text, where this is one.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::List(_) | Self::Object(_) => None,
        }
    }

    /// The number, where this is one.
    #[must_use]
    pub fn number(&self) -> Option<u64> {
        match self {
            Self::Number(number) => Some(*number),
            Self::Null | Self::Bool(_) | Self::Text(_) | Self::List(_) | Self::Object(_) => None,
        }
    }
}

/// Where the bytes stop being what is read here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JsonError {
    /// Offset in bytes.
    pub at: usize,
    /// What is wrong there.
    pub what: &'static str,
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", self.what, self.at)
    }
}

impl std::error::Error for JsonError {}

/// Reads one value and nothing behind it.
///
/// # Errors
/// The bytes are something else.
pub fn parse(bytes: &[u8]) -> Result<Value, JsonError> {
    let mut reader = Reader { bytes, at: 0 };
    let value = reader.value(0)?;
    reader.end()?;
    Ok(value)
}

/// Reads one object and returns its members, each value as its exact bytes.
///
/// # Errors
/// The bytes are something else.
pub fn members(bytes: &[u8]) -> Result<Vec<(String, &[u8])>, JsonError> {
    let mut reader = Reader { bytes, at: 0 };
    let mut found: Vec<(String, &[u8])> = Vec::new();
    reader.blanks();
    if reader.peek() != Some(b'{') {
        return Err(reader.error("an object was expected"));
    }
    reader.object(|reader, name| {
        if found.iter().any(|(known, _)| *known == name) {
            return Err(reader.error("a member stands twice"));
        }
        let from = reader.at;
        reader.value(1)?;
        found.push((name, &bytes[from..reader.at]));
        Ok(())
    })?;
    reader.end()?;
    Ok(found)
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn value(&mut self, depth: usize) -> Result<Value, JsonError> {
        self.blanks();
        match self.peek() {
            _ if depth > DEPTH_MAX => Err(self.error("it is nested too deeply")),
            Some(b'{') => {
                let mut members = BTreeMap::new();
                self.object(|reader, name| {
                    let value = reader.value(depth + 1)?;
                    match members.insert(name, value) {
                        None => Ok(()),
                        Some(_) => Err(reader.error("a member stands twice")),
                    }
                })?;
                Ok(Value::Object(members))
            }
            Some(b'[') => self.items(depth),
            Some(b'"') => self.text().map(Value::Text),
            Some(b'0'..=b'9') => self.number(),
            Some(b't') => self.word("true", Value::Bool(true)),
            Some(b'f') => self.word("false", Value::Bool(false)),
            Some(b'n') => self.word("null", Value::Null),
            Some(_) | None => Err(self.error("a value was expected")),
        }
    }

    /// Reads `{ "name": member, ... }`; `member` reads the value, which begins where it is called.
    fn object(
        &mut self,
        mut member: impl FnMut(&mut Self, String) -> Result<(), JsonError>,
    ) -> Result<(), JsonError> {
        self.at += 1;
        self.blanks();
        if self.take(b'}') {
            return Ok(());
        }
        loop {
            self.blanks();
            let name = self.text()?;
            self.blanks();
            self.expect(b':', "a colon was expected")?;
            self.blanks();
            member(self, name)?;
            self.blanks();
            if self.take(b'}') {
                return Ok(());
            }
            self.expect(b',', "a comma was expected")?;
        }
    }

    fn items(&mut self, depth: usize) -> Result<Value, JsonError> {
        self.at += 1;
        let mut items = Vec::new();
        self.blanks();
        if self.take(b']') {
            return Ok(Value::List(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            self.blanks();
            if self.take(b']') {
                return Ok(Value::List(items));
            }
            self.expect(b',', "a comma was expected")?;
        }
    }

    fn number(&mut self) -> Result<Value, JsonError> {
        let digits = self.rest().iter().take_while(|byte| byte.is_ascii_digit()).count();
        let text = std::str::from_utf8(&self.rest()[..digits]).unwrap_or_default();
        let is_short = digits == 1 || !text.starts_with('0');
        let number = text.parse().ok().filter(|_| is_short);
        let number = number.ok_or_else(|| self.error("a number has another form"))?;
        self.at += digits;
        match self.peek() {
            Some(b'.' | b'e' | b'E') => Err(self.error("only whole numbers are taken")),
            _ => Ok(Value::Number(number)),
        }
    }

    fn word(&mut self, word: &'static str, value: Value) -> Result<Value, JsonError> {
        if !self.rest().starts_with(word.as_bytes()) {
            return Err(self.error("a value was expected"));
        }
        self.at += word.len();
        Ok(value)
    }

    fn text(&mut self) -> Result<String, JsonError> {
        self.expect(b'"', "a text was expected")?;
        let mut text = Vec::new();
        loop {
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => self.escape(&mut text)?,
                Some(byte) if byte >= 0x20 => {
                    text.push(byte);
                    self.at += 1;
                }
                Some(_) => return Err(self.error("a control character stands in a text")),
                None => return Err(self.error("a text has no end")),
            }
        }
        let text = String::from_utf8(text).map_err(|_| self.error("a text is not UTF-8"))?;
        self.at += 1;
        Ok(text)
    }

    fn escape(&mut self, text: &mut Vec<u8>) -> Result<(), JsonError> {
        let escaped = self.bytes.get(self.at + 1).copied();
        let byte = match escaped {
            Some(byte @ (b'"' | b'\\' | b'/')) => byte,
            Some(b'b') => 0x08,
            Some(b'f') => 0x0c,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'u') => return self.unicode_escape(text),
            Some(_) | None => return Err(self.error("an escape is unknown")),
        };
        text.push(byte);
        self.at += 2;
        Ok(())
    }

    /// One code point that is no surrogate; pairs are refused, since UTF-8 needs none.
    fn unicode_escape(&mut self, text: &mut Vec<u8>) -> Result<(), JsonError> {
        let digits = self.bytes.get(self.at + 2..self.at + 6);
        let digits = digits.filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let code = digits
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u32::from_str_radix(digits, 16).ok())
            .and_then(char::from_u32)
            .ok_or_else(|| self.error("an escape is not a character"))?;
        text.extend(code.encode_utf8(&mut [0; 4]).bytes());
        self.at += 6;
        Ok(())
    }

    fn end(&mut self) -> Result<(), JsonError> {
        self.blanks();
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.error("bytes follow the value")),
        }
    }

    fn blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    fn take(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    fn expect(&mut self, byte: u8, what: &'static str) -> Result<(), JsonError> {
        if self.take(byte) { Ok(()) } else { Err(self.error(what)) }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn rest(&self) -> &[u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    fn error(&self, what: &'static str) -> JsonError {
        JsonError { at: self.at, what }
    }
}
