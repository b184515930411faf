//! The query language over linked elements: `docs/query.md` is its text, this is its doing.
//!
//! [`parse()`] turns an expression into a [`Query`] and checks every name; [`Search`] runs it over
//! the graph in slices, so that changes are applied in between. [`Answer::to_bytes`] is what the
//! console port sends.
//!
//! What it is not: no history beyond memory. What memory lacks is said in the answer.
//!
//! Invariants: a query costs at most its limits; an answer that may lack something says so and why;
//! the same graph and query give the same answer.

mod condition;
mod error;
pub mod limits;
mod literal;
pub mod moment;
mod parse;
mod partial;
mod run;
mod syntax;
#[cfg(test)]
mod tests;
mod token;
mod vocabulary;

use lapwing_protocol::console::{Cell, ElementRows};
use lapwing_protocol::items::Items;

use crate::graph::Graph;
use crate::view::{message_bytes, push_item};
pub use error::QueryError;
pub use run::{Answer, Progress, QueryLimits, Search};
pub use syntax::Query;
pub use vocabulary::Vocabulary;

/// Parses `expression`. Times such as `15m` are before `now_ms`, milliseconds since 1970.
///
/// # Errors
/// Where and why it is not a query, and what was probably meant.
pub fn parse(now_ms: u64, expression: &str, vocabulary: &Vocabulary) -> Result<Query, QueryError> {
    parse::parse(now_ms, expression, vocabulary)
}

/// Runs a query in one go.
#[must_use]
pub fn run(graph: &Graph, query: Query, limits: QueryLimits) -> Answer {
    let mut search = Search::new(query, limits);
    while search.advance(graph, limits.work_max) == Progress::More {}
    search.finish(graph)
}

impl Answer {
    /// The bytes of an `ElementRows`.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut columns = Vec::new();
        for column in &self.columns {
            push_item(&mut columns, column.as_str());
        }
        let mut rows = Vec::new();
        let mut cells = Vec::new();
        for row in &self.rows {
            cells.clear();
            for cell in row {
                push_item(&mut cells, &cell.as_cell());
            }
            push_item(&mut rows, &Items::<Cell<'_>>::from_bytes(&cells));
        }
        message_bytes(&ElementRows {
            columns: Items::from_bytes(&columns),
            rows: Items::from_bytes(&rows),
            partial: &self.partial,
        })
    }
}
