//! Tables for people: aligned, no wider than needed, with nothing in them that drives a terminal.

use lapwing_net::logging::escaped;
use serde_json::Value;

/// Columns of a terminal that a table fits, unless it has too many columns of its own.
const LINE_MAX: usize = 100;
/// What a column keeps at the least when it is narrowed.
const COLUMN_MIN: usize = 12;
/// Digits of an id that a table shows; every verb that takes an id takes as many.
pub(super) const ID_SHOWN: usize = 8;

/// A column: its heading, and the path of its value in each row.
pub(super) type Column = (&'static str, &'static str);

/// The rows as a table; a line that says so where there is none.
pub(super) fn table(columns: &[Column], rows: &[Value]) -> String {
    if rows.is_empty() {
        return String::from("nothing\n");
    }
    let headings = columns.iter().map(|(heading, _)| heading.to_uppercase()).collect();
    let cells = rows.iter().map(|row| {
        let cells = columns.iter().map(|(_, path)| brief(text_at(row, path)));
        cells.collect::<Vec<String>>()
    });
    aligned(headings, cells.collect())
}

/// An id by its first digits, a moment to the second: what an eye needs of a list.
fn brief(text: String) -> String {
    let is_id = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_moment = text.len() == 24 && text.ends_with('Z') && text.as_bytes()[19] == b'.';
    match text.get(..if is_id { ID_SHOWN } else { 19 }) {
        Some(digits) if is_id => digits.to_owned(),
        Some(moment) if is_moment => format!("{moment}Z"),
        _ => text,
    }
}

/// Headings and cells, aligned; where they cannot be, each row as a sheet of its own. Columns
/// without any value are left out.
pub(super) fn aligned(headings: Vec<String>, rows: Vec<Vec<String>>) -> String {
    if rows.is_empty() {
        return String::from("nothing\n");
    }
    let is_used = |at: &usize| rows.iter().any(|row| row.get(*at).is_some_and(|it| !it.is_empty()));
    let used: Vec<usize> = (0..headings.len()).filter(is_used).collect();
    let pick = |line: &Vec<String>| -> Vec<String> {
        used.iter().map(|at| line.get(*at).cloned().unwrap_or_default()).collect()
    };
    let headings = pick(&headings);
    let rows: Vec<Vec<String>> = rows.iter().map(pick).collect();
    let width_of = |at: usize| {
        let cells = rows.iter().map(|row| row[at].chars().count());
        cells.chain([headings[at].chars().count()]).max().unwrap_or(0)
    };
    let natural: Vec<usize> = (0..headings.len()).map(width_of).collect();
    let is_moment = |at: &usize| rows.iter().any(|row| is_shown_moment(&row[*at]));
    let fixed: Vec<usize> = (0..headings.len()).filter(is_moment).collect();
    let Some(widths) = fitting(natural, &fixed) else { return records(&headings, &rows) };
    let mut text = String::new();
    for line in std::iter::once(&headings).chain(&rows) {
        let mut written = String::new();
        for (cell, width) in line.iter().zip(&widths) {
            let cell = cut(cell, *width);
            let room = width.saturating_sub(cell.chars().count());
            written.push_str(&cell);
            written.push_str(&" ".repeat(room + 2));
        }
        text.push_str(written.trim_end());
        text.push('\n');
    }
    text
}

/// A moment as [`brief`] leaves it: half of one says nothing.
fn is_shown_moment(cell: &str) -> bool {
    cell.len() == 20 && cell.ends_with('Z') && cell.as_bytes()[10] == b'T'
}

/// Widths that fit a line: the widest columns but the `fixed` ones give way. None where there are
/// too many columns.
fn fitting(mut widths: Vec<usize>, fixed: &[usize]) -> Option<Vec<usize>> {
    let gaps = 2 * widths.len().saturating_sub(1);
    while widths.iter().sum::<usize>() + gaps > LINE_MAX {
        let yielding = widths.iter_mut().enumerate().filter(|(at, _)| !fixed.contains(at));
        let (_, widest) = yielding.max_by_key(|(_, width)| **width)?;
        if *widest <= COLUMN_MIN {
            return None;
        }
        *widest -= 1;
    }
    Some(widths)
}

/// Each row as lines of name and value, for rows that are wider than a line.
fn records(headings: &[String], rows: &[Vec<String>]) -> String {
    let width = headings.iter().map(|heading| heading.chars().count()).max().unwrap_or(0);
    let sheets = rows.iter().map(|row| {
        let fields = headings.iter().zip(row).filter(|(_, cell)| !cell.is_empty());
        fields
            .map(|(heading, cell)| format!("{:width$}  {cell}\n", heading.to_lowercase()))
            .collect::<String>()
    });
    sheets.collect::<Vec<String>>().join("\n")
}

fn cut(cell: &str, width: usize) -> String {
    if cell.chars().count() <= width {
        return cell.to_owned();
    }
    let kept: String = cell.chars().take(width.saturating_sub(3)).collect();
    format!("{kept}...")
}

/// A value as JSON in which no character drives a terminal: within strings they are escaped, which
/// changes nothing for whoever parses it.
pub(super) fn json(value: &Value) -> String {
    json_line(&value.to_string())
}

/// As [`json`], for a text that is JSON already.
pub(super) fn json_line(text: &str) -> String {
    if text.bytes().all(|byte| (b' '..0x7f).contains(&byte)) {
        return text.to_owned();
    }
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        let mut buffer = [0; 4];
        let shown: &str = character.encode_utf8(&mut buffer);
        if !character.is_ascii_control() && escaped(shown) == shown {
            line.push(character);
            continue;
        }
        let mut units = [0; 2];
        for unit in character.encode_utf16(&mut units) {
            line.push_str(&format!("\\u{unit:04x}"));
        }
    }
    line
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

/// One object, a line for each field that says something; objects within are indented below theirs.
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
            Value::Object(_) => {
                text.push_str(&format!("{margin}{name}\n"));
                write_sheet(field, depth + 1, text);
            }
            Value::Array(items) if items.iter().any(Value::is_object) => {
                text.push_str(&format!("{margin}{name}\n"));
                for (number, item) in items.iter().enumerate() {
                    if number > 0 {
                        text.push('\n');
                    }
                    write_sheet(item, depth + 1, text);
                }
            }
            other => {
                let shown = plain(other);
                if !shown.is_empty() {
                    text.push_str(&format!("{margin}{name:width$}  {shown}\n"));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{LINE_MAX, aligned, sheet, table, text_at};
    use serde_json::{Value, json};

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

    #[test]
    fn a_table_fits_a_line_and_what_cannot_becomes_sheets() {
        let row = json!({
            "id": "0117fbc13318f5e8f7aeee65c0126003",
            "seen": "2026-11-24T05:41:33.006Z",
            "title": "x".repeat(300),
        });
        let text = table(&[("id", "id"), ("seen", "seen"), ("title", "title")], &[row]);
        assert!(text.lines().all(|line| line.len() <= LINE_MAX), "{text}");
        assert!(text.contains("0117fbc1  2026-11-24T05:41:33Z  xxx"), "{text}");
        let names: Vec<String> = (0..30).map(|number| format!("COLUMN{number}")).collect();
        let cells: Vec<String> = (0..30).map(|number| "y".repeat(number)).collect();
        let text = aligned(names, vec![cells]);
        assert_eq!(text.lines().count(), 29, "a line for each value: {text}");
    }

    #[test]
    fn a_sheet_leaves_out_what_says_nothing() {
        let text = sheet(&json!({ "a": "", "b": null, "c": { "d": 1 }, "e": [] }));
        assert_eq!(text, "c\n  d  1\n");
    }

    #[test]
    fn json_drives_no_terminal_and_stays_the_same() {
        let value = json!({ "name": "a\u{9b}2J\u{202e}\u{7f}\u{fc}\u{1f600}" });
        let text = super::json(&value);
        assert!(!text.chars().any(|c| c.is_control() || c == '\u{202e}'), "{text}");
        assert!(text.contains('\u{fc}'));
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
    }
}
