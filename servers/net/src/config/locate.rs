//! Where in a TOML file a key stands: from a byte span to (line, dotted key), and from a dotted key
//! to its line.
//!
//! Not here: words for the operator (error.rs). Invariant: lines count from 1.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

/// One key of the file.
struct Located {
    key: String,
    key_span: Range<usize>,
    value_span: Range<usize>,
    line: usize,
}

/// Every key of a file with its place.
pub(super) struct Locations {
    keys: Vec<Located>,
    line_starts: Vec<usize>,
}

/// A place in the file.
pub(super) struct Place {
    pub(super) line: usize,
    /// The innermost key that covers the place; none at the top of the file.
    pub(super) key: Option<String>,
}

impl Locations {
    pub(super) fn parse(text: &str) -> Result<Self, toml::de::Error> {
        let table = DeTable::parse(text)?;
        let line_starts = std::iter::once(0)
            .chain(
                text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1),
            )
            .collect();
        let mut locations = Self { keys: Vec::new(), line_starts };
        locations.walk("", table.get_ref());
        Ok(locations)
    }

    fn walk(&mut self, prefix: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            let name = match prefix {
                "" => key.get_ref().to_string(),
                _ => format!("{prefix}.{}", key.get_ref()),
            };
            let line = self.line_at(key.span().start);
            self.keys.push(Located {
                key: name.clone(),
                key_span: key.span(),
                value_span: value.span(),
                line,
            });
            match value.get_ref() {
                DeValue::Table(inner) => self.walk(&name, inner),
                DeValue::Array(items) => {
                    for item in items.iter() {
                        if let DeValue::Table(inner) = item.get_ref() {
                            self.walk(&name, inner);
                        }
                    }
                }
                DeValue::String(_)
                | DeValue::Integer(_)
                | DeValue::Float(_)
                | DeValue::Boolean(_)
                | DeValue::Datetime(_) => {}
            }
        }
    }

    pub(super) fn find(&self, span: &Range<usize>) -> Place {
        let line = self.line_at(span.start);
        let covering = self
            .keys
            .iter()
            .filter(|at| covers(&at.key_span, span) || covers(&at.value_span, span))
            .max_by_key(|at| at.key.matches('.').count());
        match covering {
            Some(at) => Place { line, key: Some(at.key.clone()) },
            None => Place { line, key: None },
        }
    }

    /// The line of a dotted key, or of the nearest table above it that exists.
    pub(super) fn line_of_key(&self, key: &str) -> Option<usize> {
        let mut wanted = key;
        loop {
            if let Some(at) = self.keys.iter().find(|at| at.key == wanted) {
                return Some(at.line);
            }
            wanted = wanted.rsplit_once('.')?.0;
        }
    }

    fn line_at(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= offset).max(1)
    }
}

fn covers(outer: &Range<usize>, inner: &Range<usize>) -> bool {
    outer.start <= inner.start && inner.end <= outer.end
}

/// The line of a byte offset, for text that does not parse.
pub(super) fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}
