//! What a person types for an id: its first digits, as tables show them.
//!
//! Not here: machines' names, which the WebApp knows. Invariant: what is no unique beginning of an
//! id goes to the server as it was typed, and the server says what is wrong with it.

use axum::http::Method;
use serde_json::Value;

use super::connection::Connection;
use super::problem::Problem;
use super::table::text_at;

/// Digits that an id is taken by at the least.
const DIGITS_MIN: usize = 4;
/// Digits of a whole id.
const DIGITS: usize = 32;

/// The id of the sensor that `text` names: by id, by its first digits, or by the machine's name.
pub(super) async fn sensor(at: &Connection, text: &str) -> Result<String, Problem> {
    whole(at, "/sensors", text).await
}

/// The id of the MalOp that `text` names, by id or by its first digits.
pub(super) async fn malop(at: &Connection, text: &str) -> Result<String, Problem> {
    whole(at, "/malops?limit=500", text).await
}

async fn whole(at: &Connection, list: &str, text: &str) -> Result<String, Problem> {
    if !is_beginning(text) {
        return Ok(text.to_owned());
    }
    let rows = at.ask(Method::GET, list, None).await?.value;
    chosen(rows.as_array().map(Vec::as_slice).unwrap_or_default(), text)
}

fn is_beginning(text: &str) -> bool {
    (DIGITS_MIN..DIGITS).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

fn chosen(rows: &[Value], text: &str) -> Result<String, Problem> {
    if rows.iter().any(|row| text_at(row, "name") == text) {
        return Ok(text.to_owned());
    }
    let ids = rows.iter().map(|row| text_at(row, "id"));
    let fitting: Vec<String> = ids.filter(|id| id.starts_with(text)).collect();
    match fitting.as_slice() {
        [] => Ok(text.to_owned()),
        [id] => Ok(id.clone()),
        several => {
            let message = format!("{} ids begin with {text}", several.len());
            Err(Problem::usage(message, "write more digits; with --json ids are shown whole"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{chosen, is_beginning};
    use serde_json::json;

    #[test]
    fn the_first_digits_of_one_id_are_that_id() {
        let rows = [
            json!({ "id": "68e70dcbd39ab7ed2a67ac4757ed0fe9", "name": "vm" }),
            json!({ "id": "68e70dff000000000000000000000000", "name": "beef" }),
        ];
        assert_eq!(chosen(&rows, "68e70dcb").unwrap(), "68e70dcbd39ab7ed2a67ac4757ed0fe9");
        assert!(chosen(&rows, "68e7").is_err(), "two begin so");
        assert_eq!(chosen(&rows, "beef").unwrap(), "beef", "a machine's name goes before");
        assert_eq!(chosen(&rows, "0000").unwrap(), "0000");
        assert!(is_beginning("68e70dcb") && !is_beginning("vm") && !is_beginning("68E70DCB"));
    }
}
