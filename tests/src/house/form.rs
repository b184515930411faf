//! The form of one Rust file: opening, length, columns, signs.
//!
//! Invariants: functions <= 70 lines of code, files <= 500 lines aimed at and <= 800 at most,
//! columns <= 100. What clippy or rustfmt hold already is held here only where they miss a part of
//! it.

use super::source::{Kind, Source};
use super::{Finding, Weight};

/// Lines of code a function body may have; clippy's threshold in `clippy.toml` is the same.
pub const FUNCTION_LINES_MAX: usize = 70;
/// Lines a file should have at most.
pub const FILE_LINES_AIM: usize = 500;
/// Lines a file may have at most.
pub const FILE_LINES_MAX: usize = 800;
/// Of one hundred files, how many may be longer than aimed at.
pub const LONG_FILES_PERCENT_MAX: usize = 10;
/// Characters a line may have.
pub const COLUMNS_MAX: usize = 100;

/// A string this long is left on its line: cutting it would hide what it says.
const LONG_LITERAL_COLUMNS: usize = 40;

/// All rules of form for one file.
pub fn check(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = opening(path, text);
    findings.extend(file_length(path, text));
    match Source::parse(text) {
        Ok(source) => {
            findings.extend(function_lengths(path, &source));
            findings.extend(columns(path, text, &source));
            findings.extend(ascii(path, text, &source));
        }
        Err((line, error)) => {
            findings.push(Finding::new(
                path,
                line,
                format!("not Rust: {error}"),
                "make it compile",
            ));
        }
    }
    findings
}

/// The file opens with `//!`.
pub fn opening(path: &str, text: &str) -> Vec<Finding> {
    if text.starts_with("//!") {
        return Vec::new();
    }
    let remedy = "say in `//!` lines what the file is, what it is not, and its invariants";
    vec![Finding::new(path, 1, "the file does not open with `//!`", remedy)]
}

/// The file is not too long: a warning above the aim, a failure above the wall.
pub fn file_length(path: &str, text: &str) -> Vec<Finding> {
    let lines = text.lines().count();
    if lines <= FILE_LINES_AIM {
        return Vec::new();
    }
    let rule =
        format!("{lines} lines; {FILE_LINES_AIM} are aimed at, {FILE_LINES_MAX} are the wall");
    let finding = Finding::new(path, 1, rule, "split it by noun into modules");
    vec![if lines > FILE_LINES_MAX { finding } else { finding.warning() }]
}

/// Not more than one file in ten is longer than aimed at. `lengths` are lines by file.
pub fn long_files(lengths: &[usize]) -> Vec<Finding> {
    let long = lengths.iter().filter(|lines| **lines > FILE_LINES_AIM).count();
    if long * 100 <= lengths.len() * LONG_FILES_PERCENT_MAX {
        return Vec::new();
    }
    let rule = format!(
        "{long} of {} files have more than {FILE_LINES_AIM} lines; \
         at most {LONG_FILES_PERCENT_MAX} % may",
        lengths.len()
    );
    vec![Finding::new("Cargo.toml", 1, rule, "split the files that the warnings name")]
}

/// No function is longer than a screen.
pub fn function_lengths(path: &str, source: &Source) -> Vec<Finding> {
    let long = |lines: usize| lines > FUNCTION_LINES_MAX;
    let findings = source.functions().into_iter().filter(|function| long(function.lines));
    findings
        .map(|function| {
            let rule = format!(
                "`{}` has {} lines of code; {FUNCTION_LINES_MAX} are the limit",
                function.name, function.lines
            );
            let remedy = "keep the branches here and move pure work into functions below";
            Finding::new(path, function.line, rule, remedy)
        })
        .collect()
}

/// No line is too wide, but for addresses and long strings.
pub fn columns(path: &str, text: &str, source: &Source) -> Vec<Finding> {
    let is_excused = |line: usize| {
        source.tokens().iter().any(|token| {
            let is_over =
                token.line < token.line_end && (token.line..=token.line_end).contains(&line);
            let columns = token.column_end.saturating_sub(token.column);
            let is_long = token.line == line && columns > LONG_LITERAL_COLUMNS;
            token.kind == Kind::Literal && (is_over || is_long)
        })
    };
    let wide = text.lines().zip(1..).filter(|(line, _)| line.chars().count() > COLUMNS_MAX);
    wide.filter(|(line, number)| !line.contains("://") && !is_excused(*number))
        .map(|(line, number)| {
            let rule = format!("{} columns; {COLUMNS_MAX} are the limit", line.chars().count());
            Finding::new(path, number, rule, "run `cargo fmt`, wrap the comment, or name a part")
        })
        .collect()
}

/// Source is ASCII, but for strings in tests: look-alike letters hide in any other place.
pub fn ascii(path: &str, text: &str, source: &Source) -> Vec<Finding> {
    let excused = |number: usize, column: usize| {
        source.tokens().iter().any(|token| {
            let is_inside = if token.line == token.line_end {
                token.line == number && (token.column..token.column_end).contains(&column)
            } else {
                (token.line..=token.line_end).contains(&number)
            };
            token.kind == Kind::Literal && is_inside && (token.is_test || is_test_path(path))
        })
    };
    let mut findings = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        let mut signs = line.chars().enumerate().filter(|(_, sign)| !sign.is_ascii());
        let Some((_, sign)) = signs.find(|(column, _)| !excused(number, *column)) else { continue };
        let rule = format!("U+{:04X} is not ASCII", u32::from(sign));
        let remedy = "write it in ASCII; in a string as `\\u{...}`";
        findings.push(Finding::new(path, number, rule, remedy));
    }
    findings
}

/// Whether the file as a whole is test code.
pub fn is_test_path(path: &str) -> bool {
    let mut parts = path.split('/');
    parts.any(|part| ["tests", "tests.rs", "benches"].contains(&part))
}

/// Whether any of these findings fails the test.
pub fn has_failure(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| finding.weight == Weight::Failure)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Source {
        Source::parse(text).unwrap()
    }

    #[test]
    fn the_opening_is_wanted_on_the_first_line() {
        assert!(opening("a.rs", "//! What it is.\n").is_empty());
        assert_eq!(opening("a.rs", "// a comment\n//! late\n").len(), 1);
        assert_eq!(opening("a.rs", "").len(), 1);
    }

    #[test]
    fn file_length_warns_then_fails() {
        assert!(file_length("a.rs", &"\n".repeat(500)).is_empty());
        assert!(!has_failure(&file_length("a.rs", &"\n".repeat(501))));
        assert_eq!(file_length("a.rs", &"\n".repeat(501)).len(), 1);
        assert!(has_failure(&file_length("a.rs", &"\n".repeat(801))));
    }

    #[test]
    fn one_long_file_in_ten_is_allowed() {
        let mut lengths = vec![10; 9];
        lengths.push(600);
        assert!(long_files(&lengths).is_empty());
        lengths.push(600);
        assert_eq!(long_files(&lengths).len(), 1);
    }

    #[test]
    fn a_function_of_seventy_lines_passes_and_one_more_fails() {
        let function = |lines: usize| format!("fn f() {{\n{}}}\n", "a();\n".repeat(lines));
        assert!(function_lengths("a.rs", &parse(&function(70))).is_empty());
        let findings = function_lengths("a.rs", &parse(&function(71)));
        assert_eq!(findings.len(), 1);
        assert!(findings[0].rule.contains("`f` has 71 lines"));
    }

    #[test]
    fn wide_lines_fail_unless_they_hold_an_address_or_a_long_string() {
        let wide = |text: &str| columns("a.rs", text, &parse(text)).len();
        assert_eq!(wide(&format!("// {}", "a".repeat(97))), 0);
        assert_eq!(wide(&format!("// {}", "a".repeat(98))), 1);
        assert_eq!(wide(&format!("// see https://example.org/{}", "a".repeat(98))), 0);
        assert_eq!(wide(&format!("const A: &str = \"{}\";", "a".repeat(98))), 0);
        assert_eq!(wide(&format!("const A: &str = \"\n{}\n\";", "a b ".repeat(30))), 0);
        assert_eq!(wide(&format!("const A: &str = f(\"a\"); // {}", "a".repeat(98))), 1);
    }

    #[test]
    fn signs_outside_ascii_pass_only_in_strings_of_tests() {
        let count = |path: &str, text: &str| ascii(path, text, &parse(text)).len();
        assert_eq!(count("a/src/b.rs", "const A: &str = \"\u{e4}\";"), 1);
        assert_eq!(count("a/src/b.rs", "#[cfg(test)]\nmod t { const A: &str = \"\u{e4}\"; }"), 0);
        assert_eq!(count("a/tests/b.rs", "const A: &str = \"\u{e4}\";"), 0);
        assert_eq!(count("a/tests/b.rs", "// \u{e4}"), 1);
        assert_eq!(count("a/src/b.rs", "const A: &str = \"plain\";"), 0);
    }

    #[test]
    fn text_that_is_not_rust_is_found() {
        assert!(has_failure(&check("a.rs", "//! A.\nfn f( {")));
        assert!(!has_failure(&check("a.rs", "//! A.\nfn f() {}\n")));
    }
}
