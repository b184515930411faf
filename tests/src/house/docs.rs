//! The pages: links and anchors that lead somewhere, decisions that are numbered and listed,
//! requirements that are stated once.
//!
//! Markdown is read only as far as these rules need it: headings, links, fences, inline code.

use std::collections::{BTreeMap, BTreeSet};

use super::Finding;
use super::tree::File;

/// Where decisions lie.
pub const DECISIONS: &str = "docs/decisions/";
/// What every decision says, in this order.
pub const DECISION_PARTS: [&str; 4] = ["## Context", "## Decision", "## Why", "## Cost"];

/// Words of the form of a requirement's number that are none.
const OTHER_NUMBERS: [&str; 5] = ["SHA", "AES", "CVE", "RFC", "ISO"];

/// Relative links and anchors of every page. `paths` are all files of the repository.
pub fn links(pages: &[File], paths: &BTreeSet<String>) -> Vec<Finding> {
    let anchors: BTreeMap<&str, BTreeSet<String>> =
        pages.iter().map(|page| (page.path.as_str(), anchors(&page.text))).collect();
    let mut findings = Vec::new();
    for page in pages {
        for (line, target) in targets(&page.text) {
            if let Some(rule) = dead(&page.path, &target, &anchors, paths) {
                let remedy = "mend the link, or take it away";
                findings.push(Finding::new(&page.path, line, rule, remedy));
            }
        }
    }
    findings
}

fn dead(
    page: &str,
    target: &str,
    anchors: &BTreeMap<&str, BTreeSet<String>>,
    paths: &BTreeSet<String>,
) -> Option<String> {
    if target.contains("://") || target.starts_with("mailto:") || target.starts_with('/') {
        return None;
    }
    let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
    let Some(path) = resolve(page, file) else {
        return Some(format!("`{target}` leads out of the repository"));
    };
    let folder = format!("{}/", path.trim_end_matches('/'));
    let is_folder = path.is_empty() || paths.iter().any(|known| known.starts_with(&folder));
    if !paths.contains(&path) && !is_folder {
        return Some(format!("`{target}` leads to no file"));
    }
    let known = anchors.get(path.as_str())?;
    (!anchor.is_empty() && !known.contains(anchor))
        .then(|| format!("`{target}` leads to no heading"))
}

/// The path from the root that a link of `page` means; `None` above the root.
fn resolve(page: &str, file: &str) -> Option<String> {
    if file.is_empty() {
        return Some(page.to_owned());
    }
    let mut parts: Vec<&str> = page.split('/').collect();
    parts.pop();
    for part in file.split('/') {
        match part {
            "." | "" => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// Every link target of a page with its line: `[text](target)` and `[name]: target`.
fn targets(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in prose(text) {
        for (at, _) in line.match_indices("](") {
            let rest = &line[at + 2..];
            let Some(end) = rest.find(')') else { continue };
            let target = rest[..end].split_whitespace().next().unwrap_or("");
            found.push((number, target.trim_matches(['<', '>']).to_owned()));
        }
        let definition = line.strip_prefix('[').and_then(|rest| rest.split_once("]: "));
        if let Some((_, target)) = definition {
            found.push((number, target.trim().to_owned()));
        }
    }
    found
}

/// What headings of a page can be linked to, as code hosts write them, and explicit anchors.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (_, line) in lines_outside_fences(text) {
        if let Some(heading) = line.strip_prefix('#') {
            let heading = heading.trim_start_matches('#').trim();
            let plain = slug(heading);
            let twin = |number: &usize| format!("{plain}-{number}");
            let name = match found.contains(&plain) {
                true => (1..).map(|number| twin(&number)).find(|name| !found.contains(name)),
                false => Some(plain.clone()),
            };
            found.extend(name);
        }
        for start in ["id=\"", "name=\""] {
            let parts = line.split(start).skip(1);
            found.extend(parts.filter_map(|part| part.split('"').next()).map(ToOwned::to_owned));
        }
    }
    found
}

fn slug(heading: &str) -> String {
    let mut text = heading.to_owned();
    while let Some((before, after)) = text.split_once("](") {
        let after = after.split_once(')').map_or("", |(_, after)| after);
        text = format!("{}{after}", before.replacen('[', "", 1));
    }
    let kept = text.chars().filter(|sign| sign.is_alphanumeric() || " -_".contains(*sign));
    kept.map(|sign| if sign == ' ' { '-' } else { sign }).collect::<String>().to_lowercase()
}

/// Lines that are prose, inline code blanked out.
fn prose(text: &str) -> Vec<(usize, String)> {
    let lines = lines_outside_fences(text).into_iter();
    lines
        .map(|(number, line)| {
            let parts = line.split('`').enumerate();
            let kept = parts.map(|(at, part)| if at % 2 == 0 { part } else { "" });
            (number, kept.collect::<Vec<_>>().join("`"))
        })
        .collect()
}

fn lines_outside_fences(text: &str) -> Vec<(usize, &str)> {
    let mut is_code = false;
    let mut kept = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
        } else if !is_code {
            kept.push((number, line));
        }
    }
    kept
}

/// Decisions: `NNNN-name.md`, every number once, every page in the index and with its four parts.
pub fn decisions(pages: &[File]) -> Vec<Finding> {
    let index_path = format!("{DECISIONS}README.md");
    let index = pages.iter().find(|page| page.path == index_path);
    let index = index.map_or("", |page| page.text.as_str());
    let mut findings = Vec::new();
    let mut taken: BTreeMap<&str, &str> = BTreeMap::new();
    for page in pages.iter().filter(|page| page.path != index_path) {
        let Some(name) = page.path.strip_prefix(DECISIONS) else { continue };
        let number = name.split('-').next().unwrap_or("");
        let is_number = number.len() == 4 && number.chars().all(|sign| sign.is_ascii_digit());
        if !is_number {
            let rule = format!("`{name}` does not begin with four digits and `-`");
            findings.push(Finding::new(&page.path, 1, rule, "name it NNNN-name.md"));
        }
        if let Some(other) = taken.insert(number, name) {
            let rule = format!("number {number} is `{other}` already");
            findings.push(Finding::new(&page.path, 1, rule, "take the next free number"));
        }
        if !index.contains(&format!("({name})")) {
            let title = page.text.lines().next().unwrap_or("").trim_start_matches(['#', ' ']);
            let remedy = format!("add this row to it: | [{number}]({name}) | {title} |");
            findings.push(Finding::new(&page.path, 1, format!("not in {index_path}"), remedy));
        }
        findings.extend(decision_parts(page));
    }
    findings
}

fn decision_parts(page: &File) -> Vec<Finding> {
    let mut lines = page.text.lines();
    let mut missing: Vec<&str> = Vec::new();
    if !lines.next().is_some_and(|line| line.starts_with("# ")) {
        missing.push("# Title");
    }
    for part in DECISION_PARTS {
        if !lines.by_ref().any(|line| line.starts_with(part)) {
            missing.push(part);
            lines = page.text.lines();
        }
    }
    if missing.is_empty() {
        return Vec::new();
    }
    let rule = format!("the page lacks {}, in this order", missing.join(", "));
    vec![Finding::new(&page.path, 1, rule, "docs/decisions/README.md has the form")]
}

/// Requirements: every number is stated once, and what is referred to is stated.
///
/// Statements are looked for in `docs/` alone, references in every file given.
pub fn requirements(pages: &[File]) -> Vec<Finding> {
    let mut stated: BTreeMap<String, (String, usize)> = BTreeMap::new();
    let mut findings = Vec::new();
    for page in pages.iter().filter(|page| page.path.starts_with("docs/")) {
        for (line, text) in lines_outside_fences(&page.text) {
            let Some(number) = statement(text) else { continue };
            let place = (page.path.clone(), line);
            if let Some((path, first)) = stated.insert(number.clone(), place) {
                let rule = format!("{number} is stated at {path}:{first} already");
                let remedy =
                    "give the new requirement the next free number; numbers are never reused";
                findings.push(Finding::new(&page.path, line, rule, remedy));
            }
        }
    }
    let areas: BTreeSet<&str> = stated.keys().filter_map(|number| area(number)).collect();
    for page in pages {
        for (line, text) in lines_outside_fences(&page.text) {
            for number in numbers(text).into_iter().filter(|number| !stated.contains_key(number)) {
                if area(&number).is_some_and(|area| areas.contains(area)) {
                    let rule = format!("{number} is stated nowhere");
                    findings.push(Finding::new(
                        &page.path,
                        line,
                        rule,
                        "state it, or name another",
                    ));
                }
            }
        }
    }
    findings
}

/// How many requirements a page states.
pub fn requirement_count(text: &str) -> usize {
    lines_outside_fences(text).into_iter().filter_map(|(_, line)| statement(line)).count()
}

fn area(number: &str) -> Option<&str> {
    number.split_once('-').map(|(area, _)| area)
}

/// The requirement that this line states: its number in bold or in a heading, or at the front of a
/// list item or a line with `:` or `.` behind it. A plain cell of a table only refers.
fn statement(line: &str) -> Option<String> {
    let opening = line.trim_start_matches(['-', '*', '#', '|', '>', ' ']);
    let number =
        numbers(opening).into_iter().find(|number| opening.starts_with(number.as_str()))?;
    let front = &line[..line.len() - opening.len()];
    let behind = &opening[number.len()..];
    let is_bold = front.ends_with("**");
    let is_item = !front.contains('|') && behind.trim_start_matches('*').starts_with([':', '.']);
    (is_bold || is_item || front.starts_with('#')).then_some(number)
}

/// All words of the form `ABC-123`.
fn numbers(text: &str) -> Vec<String> {
    let words = text.split(|sign: char| !sign.is_ascii_alphanumeric() && sign != '-');
    words.filter(|word| is_number(word)).map(ToOwned::to_owned).collect()
}

fn is_number(word: &str) -> bool {
    let Some((area, digits)) = word.split_once('-') else { return false };
    let is_area =
        (2..=5).contains(&area.len()) && area.chars().all(|sign| sign.is_ascii_uppercase());
    let is_digits = digits.len() == 3 && digits.chars().all(|sign| sign.is_ascii_digit());
    is_area && is_digits && !OTHER_NUMBERS.contains(&area)
}

#[cfg(test)]
#[path = "docs_tests.rs"]
mod tests;
