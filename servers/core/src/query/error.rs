//! What is wrong with an expression: where, what was expected, and the nearest name there is.

use std::fmt;

/// Why an expression is not a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryError {
    /// The character at which it is wrong, counted from 1.
    pub position: usize,
    /// What is wrong and what was expected.
    pub message: String,
    /// The name that was probably meant.
    pub nearest: Option<String>,
}

impl fmt::Display for QueryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at character {}: {}", self.position, self.message)?;
        match &self.nearest {
            Some(nearest) => write!(f, "; did you mean `{nearest}`?"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for QueryError {}

impl QueryError {
    pub(super) fn new(position: usize, message: impl Into<String>) -> Self {
        Self { position, message: message.into(), nearest: None }
    }

    /// An error about a name that is none of `names`.
    pub(super) fn unknown<'n>(
        (position, name): (usize, &str),
        message: impl Into<String>,
        names: impl IntoIterator<Item = &'n str>,
    ) -> Self {
        let nearest = nearest(name, names);
        Self { position, message: message.into(), nearest }
    }
}

/// The name with the fewest differences, where these are few for its length.
fn nearest<'n>(name: &str, names: impl IntoIterator<Item = &'n str>) -> Option<String> {
    if name.len() > 64 {
        return None;
    }
    let distances = names.into_iter().map(|other| (distance(name, other), other));
    let (fewest, other) = distances.min()?;
    (fewest * 3 <= other.len().max(3)).then(|| other.to_owned())
}

/// The number of characters to add, remove or replace, and of neighbours to exchange.
fn distance(one: &str, other: &str) -> usize {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    let mut rows: [Vec<usize>; 3] = [Vec::new(), Vec::new(), (0..=other.len()).collect()];
    for (line, left) in one.iter().enumerate() {
        rows.rotate_left(1);
        let mut row = vec![line + 1];
        for (column, right) in other.iter().enumerate() {
            let [before_last, last, _] = &rows;
            let replaced = last[column] + usize::from(left != right);
            let mut cost = replaced.min(last[column + 1] + 1).min(row[column] + 1);
            let is_exchanged =
                line > 0 && column > 0 && one[line - 1] == *right && other[column - 1] == *left;
            if is_exchanged {
                cost = cost.min(before_last[column - 1] + 1);
            }
            row.push(cost);
        }
        rows[2] = row;
    }
    rows[2].last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_count_edits() {
        for (one, other, edits) in
            [("", "", 0), ("", "abc", 3), ("abc", "", 3), ("kitten", "sitting", 3), ("ab", "ba", 1)]
        {
            assert_eq!(distance(one, other), edits, "{one} {other}");
        }
    }

    #[test]
    fn only_a_near_name_is_proposed() {
        assert_eq!(nearest("proces", ["machine", "process"]), Some("process".to_owned()));
        assert_eq!(nearest("banana", ["machine", "process"]), None);
    }
}
