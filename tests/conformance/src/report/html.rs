//! The report as one page that needs nothing else: no script, no other file.

use std::fmt::Write as _;

use super::{CaseReport, Report, Verdict};
use crate::requirements::{self, Coverage};

const STYLE: &str = "body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:70rem;\
    padding:0 1rem;color:#1b1f24;background:#fff}h1{font-size:1.5rem}h2{margin-top:2rem}\
    table{border-collapse:collapse;width:100%}td,th{text-align:left;vertical-align:top;\
    padding:.35rem .6rem;border-bottom:1px solid #d8dee4}th{position:sticky;top:0;\
    background:#f6f8fa}code{font-size:.9em}.v{font-weight:600;white-space:nowrap}\
    .PASS{color:#116329}.WEAK{color:#7d4e00}.FAIL{color:#a40e26}.SKIP{color:#57606a}\
    ul{margin:.2rem 0 0;padding-left:1.1rem}small{color:#57606a}";

/// The page.
#[must_use]
pub fn render(report: &Report) -> String {
    let mut page = String::new();
    let title = format!("Conformance of a {}", report.role);
    let _ = write!(
        page,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\
         <meta name=\"viewport\" content=\"width=device-width\"><style>{STYLE}</style></head>\
         <body><h1>{title}</h1><p><code>{}</code>, seed {}, {:.1} s: ",
        escape(&report.target),
        report.seed,
        report.took.as_secs_f64(),
    );
    for verdict in [Verdict::Pass, Verdict::Weak, Verdict::Fail, Verdict::Skip] {
        let _ = write!(page, "{} {}. ", report.count(verdict), badge(Some(verdict)));
    }
    page.push_str("</p><h2>Cases</h2><table><thead><tr><th>case</th><th>verdict</th>");
    page.push_str("<th>what it shows, and what was seen</th><th>requirements</th></tr></thead>");
    let mut cases: Vec<&CaseReport> = report.cases.iter().collect();
    cases.sort_by_key(|case| std::cmp::Reverse(case.verdict));
    for case in cases {
        row_of_case(&mut page, case);
    }
    page.push_str("</table><h2>Requirements</h2><table><thead><tr><th>number</th>");
    page.push_str("<th>verdict</th><th>text</th><th>cases</th></tr></thead>");
    for coverage in requirements::coverage(&report.role) {
        row_of_requirement(&mut page, report, &coverage);
    }
    page.push_str("</table><h2>What binds neither a server nor a sensor</h2><table><thead><tr>");
    page.push_str("<th>number</th><th>text, and whom it binds</th></tr></thead>");
    for (statement, reason) in requirements::of_others() {
        let _ = write!(
            page,
            "<tr><td><code>{}</code></td><td>{}<br><small>{}</small></td></tr>",
            escape(&statement.id),
            escape(&statement.text),
            escape(reason),
        );
    }
    page.push_str("</table></body></html>\n");
    page
}

fn row_of_case(page: &mut String, case: &CaseReport) {
    let _ = write!(
        page,
        "<tr><td><code>{}</code><br><small>{:.2} s</small></td><td>{}</td><td>{}",
        escape(&case.name),
        case.took.as_secs_f64(),
        badge(Some(case.verdict)),
        escape(&case.says),
    );
    if !case.reasons.is_empty() {
        page.push_str("<ul>");
        for reason in &case.reasons {
            let _ = write!(page, "<li>{}</li>", escape(reason));
        }
        page.push_str("</ul>");
    }
    let _ = write!(page, "</td><td>{}</td></tr>", escape(&case.requirements.join(", ")));
}

fn row_of_requirement(page: &mut String, report: &Report, coverage: &Coverage) {
    let Coverage { statement, cases, not_observable } = coverage;
    let _ = write!(
        page,
        "<tr><td><code>{}</code></td><td>{}</td><td>{}",
        escape(&statement.id),
        badge(report.of_requirement(&statement.id)),
        escape(&statement.text),
    );
    if let Some(reason) = not_observable {
        let _ = write!(page, "<br><small>Not observable: {}</small>", escape(reason));
    }
    let _ = write!(page, "</td><td>{}</td></tr>", escape(&cases.join(", ")));
}

fn badge(verdict: Option<Verdict>) -> String {
    let name = verdict.map_or("", Verdict::name);
    format!("<span class=\"v {name}\">{name}</span>")
}

/// Makes text harmless for the page: markup, and what would change how the rest is read.
fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            control if control.is_control() || is_direction(control) => {
                let _ = write!(safe, "\\u{{{:x}}}", u32::from(control));
            }
            other => safe.push(other),
        }
    }
    safe
}

fn is_direction(character: char) -> bool {
    matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_a_peer_says_is_no_markup() {
        let hostile = "<script>alert(1)</script>\u{1b}[2J\u{202e}'\"";
        let case = CaseReport {
            name: "a_case".into(),
            says: "it shows".into(),
            requirements: vec!["DLV-001".into()],
            verdict: Verdict::Fail,
            reasons: vec![hostile.into()],
            took: Duration::from_millis(5),
        };
        let report = Report {
            role: "server".into(),
            target: hostile.into(),
            seed: 1,
            started_ms: 0,
            took: Duration::ZERO,
            cases: vec![case],
        };
        let page = render(&report);
        assert!(!page.contains("<script"), "{page}");
        assert!(!page.contains('\u{1b}') && !page.contains('\u{202e}'));
        assert!(page.contains("DLV-014") && page.contains("journal: a sensor reads none"));
        assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;\\u{1b}[2J\\u{202e}"));
    }
}
