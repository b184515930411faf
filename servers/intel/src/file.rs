//! A file of indicators: `type,key,classification,comment`, one a line.
//!
//! Empty lines and lines with `#` in front are skipped. A line that is wrong is reported with its
//! number and skipped; it never stops the others.

use std::path::Path;

use lapwing_protocol::intel::{Classification, Indicator, KeyType, ReputationPut};

/// Lines reported one by one; the rest are counted.
const REPORTED_MAX: usize = 20;

/// Reads `path` and hands each entry to `take`; gives how many were taken.
///
/// # Errors
/// The file cannot be read.
pub(crate) fn read(
    path: &Path,
    mut take: impl FnMut(&ReputationPut<'_>) -> Result<(), String>,
) -> Result<usize, String> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        format!("list.file: {}: {error}; name a file this server can read", path.display())
    })?;
    let (mut taken, mut wrong) = (0, 0);
    for (line, number) in text.lines().map(str::trim).zip(1..) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match parse(line).and_then(|put| take(&put)) {
            Ok(()) => taken += 1,
            Err(problem) => {
                wrong += 1;
                if wrong <= REPORTED_MAX {
                    log::warn!("{}:{number}: {problem}; skipped", path.display());
                }
            }
        }
    }
    if wrong > REPORTED_MAX {
        log::warn!("{}: {} more lines are wrong", path.display(), wrong - REPORTED_MAX);
    }
    Ok(taken)
}

fn parse(line: &str) -> Result<ReputationPut<'_>, String> {
    let mut columns = line.splitn(4, ',').map(str::trim);
    let mut column = |name| columns.next().ok_or_else(|| format!("the column {name} is missing"));
    let key_type = match column("type")? {
        "hash" => KeyType::Hash,
        "ip" => KeyType::Ip,
        "domain" => KeyType::Domain,
        other => return Err(format!("{other:?} is no type; write hash, ip or domain")),
    };
    let key = column("key")?;
    let classification = match column("classification")? {
        "allow" => Classification::Allowed,
        "block" => Classification::Blocked,
        "malware" => Classification::Malware,
        "ransomware" => Classification::Ransomware,
        "unwanted" => Classification::Unwanted,
        "indifferent" => Classification::Indifferent,
        other => return Err(format!("{other:?} is no classification")),
    };
    let comment = columns.next().unwrap_or_default();
    let indicator = Indicator { key_type, key };
    Ok(ReputationPut { indicator, classification, comment, owner: "file", expires_ms: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_lines_do_not_stop_the_others() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = "# type,key,classification,comment\n\
                    domain,evil.example,malware,seen, often\n\
                    domain,evil.example\n\
                    port,22,block\n\
                    ip,127.66.6.6,block\n";
        std::fs::write(file.path(), text).unwrap();
        let mut taken = Vec::new();
        let count = read(file.path(), |put| {
            taken.push((put.indicator.key.to_owned(), put.comment.to_owned()));
            Ok(())
        });
        assert_eq!(count, Ok(2));
        let expected = [("evil.example", "seen, often"), ("127.66.6.6", "")];
        assert_eq!(taken, expected.map(|(key, comment)| (key.to_owned(), comment.to_owned())));
    }
}
