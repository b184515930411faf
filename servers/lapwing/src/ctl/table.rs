//! Tables for people: aligned, no wider than needed, with nothing in them that drives a terminal.

use lapwing_net::logging::escaped;
use serde_json::Value;

/// The widest column but the last, in characters; longer values are cut and marked.
const COLUMN_MAX: usize = 44;

/// A column: its heading, and the path of its value in each row.
pub(super) type Column = (&'static str, &'static str);

/// The rows as a table; a line that says so where there is none.
pub(super) fn table(columns: &[Column], rows: &[Value]) -> String {
    if rows.is_empty() {
        return String::from("nothing\n");
    }
    let headings = columns.iter().map(|(heading, _)| heading.to_uppercase()).collect();
    let cells = rows
        .iter()
        .map(|row| columns.iter().map(|(_, path)| text_at(row, path)).collect::<Vec<String>>());
    aligned(headings, cells.collect())
}

/// Headings and cells, aligned.
pub(super) fn aligned(headings: Vec<String>, rows: Vec<Vec<String>>) -> String {
    let last = headings.len().saturating_sub(1);
    let lines: Vec<Vec<String>> = std::iter::once(headings)
        .chain(rows)
        .map(|line| {
            let cells = line.into_iter().enumerate();
            cells.map(|(at, cell)| if at == last { cell } else { cut(&cell) }).collect()
        })
        .collect();
    let width = |at: usize| {
        lines.iter().filter_map(|line| line.get(at)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..=last).map(|at| width(at).unwrap_or(0)).collect();
    let mut text = String::new();
    for line in &lines {
        let mut written = String::new();
        for (cell, width) in line.iter().zip(&widths) {
            let room = width.saturating_sub(cell.chars().count());
            written.push_str(cell);
            written.push_str(&" ".repeat(room + 2));
        }
        text.push_str(written.trim_end());
        text.push('\n');
    }
    text
}

fn cut(cell: &str) -> String {
    if cell.chars().count() <= COLUMN_MAX {
        return cell.to_owned();
    }
    let kept: String = cell.chars().take(COLUMN_MAX - 3).collect();
    format!("{kept}...")
}

/// The value at a path of keys, as text: `machines.name` is the names of all machines.
pub(super) fn text_at(value: &Value, path: &str) -> String {
    let mut values = vec![value];
    for key in path.split('.') {
        values = values
            .into_iter()
            .flat_map(|value| match value {
                Value::Array(items) => items.iter().collect::<Vec<_>>(),
                other => vec![other],
            })
            .filter_map(|value| value.get(key))
            .collect();
    }
    let texts: Vec<String> = values.into_iter().map(plain).collect();
    texts.join(", ")
}

/// A value as a person reads it.
pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Bool(true) => String::from("yes"),
        Value::Bool(false) => String::from("no"),
        Value::Number(number) => number.to_string(),
        Value::String(text) => escaped(text),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(", "),
        Value::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| format!("{name}={}", plain(value)));
            fields.collect::<Vec<_>>().join(" ")
        }
    }
}

/// One object, a line for each field; lists of objects indented below theirs.
pub(super) fn sheet(value: &Value) -> String {
    let mut text = String::new();
    write_sheet(value, 0, &mut text);
    text
}

fn write_sheet(value: &Value, depth: usize, text: &mut String) {
    let Value::Object(fields) = value else {
        text.push_str(&format!("{}{}\n", "  ".repeat(depth), plain(value)));
        return;
    };
    let width = fields.keys().map(String::len).max().unwrap_or(0);
    for (name, field) in fields {
        let margin = "  ".repeat(depth);
        match field {
            Value::Array(items) if items.iter().any(Value::is_object) => {
                text.push_str(&format!("{margin}{name}\n"));
                for (number, item) in items.iter().enumerate() {
                    if number > 0 {
                        text.push('\n');
                    }
                    write_sheet(item, depth + 1, text);
                }
            }
            other => text.push_str(&format!("{margin}{name:width$}  {}\n", plain(other))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{table, text_at};
    use serde_json::json;

    #[test]
    fn columns_are_aligned_and_nothing_drives_the_terminal() {
        let rows = [
            json!({
                "name": "a\u{1b}[2J\u{202e}b",
                "machines": [{ "name": "x" }, { "name": "y" }],
            }),
            json!({ "name": "c", "machines": [] }),
        ];
        let text = table(&[("name", "name"), ("machines", "machines.name")], &rows);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[1], "a\\u{1b}[2J\\u{202e}b  x, y");
        assert_eq!(lines[0].find("MACHINES"), lines[1].find("x, y"));
    }

    #[test]
    fn a_path_leads_through_lists() {
        let value = json!({ "a": [{ "b": 1 }, { "b": [2, 3] }] });
        assert_eq!(text_at(&value, "a.b"), "1, 2, 3");
        assert_eq!(text_at(&value, "a.c"), "");
    }
}
