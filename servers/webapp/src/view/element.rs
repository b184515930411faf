//! Elements of the graph, and the rows a question answers with.

use lapwing_protocol::console::{ElementRows, ElementView};
use lapwing_protocol::error::DecodeError;
use serde::Serialize;

use super::{Cell, Fields, Time, fields, owned, texts};

/// One element with all it is known by.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Element {
    pub(crate) guid: String,
    pub(crate) sensor: String,
    pub(crate) kind: String,
    pub(crate) label: String,
    pub(crate) ended: bool,
    pub(crate) first_seen: Time,
    pub(crate) fields: Fields,
}

impl TryFrom<ElementView<'_>> for Element {
    type Error = DecodeError;

    fn try_from(view: ElementView<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            guid: view.guid.to_string(),
            sensor: view.sensor.to_string(),
            kind: view.kind.to_owned(),
            label: view.label.to_owned(),
            ended: view.ended,
            first_seen: Time::from_ms(view.first_seen_ms),
            fields: fields(&view.fields)?,
        })
    }
}

impl Element {
    /// What a person would call it: its command line or path where it has one, else its label.
    pub(crate) fn heading(&self) -> String {
        let path = self.fields.text("image_path");
        if path.is_empty() { self.label.clone() } else { path }
    }

    /// One of its values, as text.
    pub(crate) fn field(&self, name: &str) -> String {
        self.fields.text(name)
    }
}

/// The answer to a question in the query language, merged over servers.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Rows {
    pub(crate) columns: Vec<String>,
    pub(crate) rows: Vec<Vec<Cell>>,
    /// Whether something is missing.
    pub(crate) partial: bool,
    /// What is missing, and why; empty when nothing is.
    pub(crate) reason: String,
}

impl Rows {
    /// Adds what one server answered. Columns are matched by name.
    pub(crate) fn add(
        &mut self,
        answer: &ElementRows<'_>,
        server: &str,
    ) -> Result<(), DecodeError> {
        let columns = texts(&answer.columns)?;
        let positions: Vec<usize> = columns.iter().map(|name| self.position(name)).collect();
        for row in owned(&answer.rows, |row| owned(&row, |cell| Ok(Cell::from(cell))))? {
            let mut merged = vec![Cell::Absent; self.columns.len()];
            for (cell, position) in row.into_iter().zip(&positions) {
                if let Some(place) = merged.get_mut(*position) {
                    *place = cell;
                }
            }
            self.rows.push(merged);
        }
        if !answer.partial.is_empty() {
            self.miss(&format!("{server}: {}", answer.partial));
        }
        Ok(())
    }

    /// Says that something is missing.
    pub(crate) fn miss(&mut self, reason: &str) {
        self.partial = true;
        if !self.reason.is_empty() {
            self.reason.push_str("; ");
        }
        self.reason.push_str(reason);
    }

    /// Keeps `limit` rows and says so where there were more.
    pub(crate) fn cut(&mut self, limit: usize) {
        if self.rows.len() > limit {
            self.rows.truncate(limit);
            self.miss(&format!("only the first {limit} rows are shown; narrow the question"));
        }
        let width = self.columns.len();
        for row in &mut self.rows {
            row.resize(width, Cell::Absent);
        }
    }

    fn position(&mut self, name: &str) -> usize {
        if let Some(position) = self.columns.iter().position(|column| column == name) {
            return position;
        }
        self.columns.push(name.to_owned());
        self.columns.len() - 1
    }
}
