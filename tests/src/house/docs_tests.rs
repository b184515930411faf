//! Tests of the rules for pages.

use super::*;

fn page(path: &str, text: &str) -> File {
    File { path: path.to_owned(), text: text.to_owned() }
}

fn link_rules(path: &str, text: &str) -> Vec<String> {
    let pages = [page(path, text), page("docs/b.md", "# One `two`: three\n## Same\n## Same\n")];
    let paths = ["docs/a.md", "docs/b.md", "README.md", "protocol/src/lib.rs"];
    let paths = paths.into_iter().map(ToOwned::to_owned).collect();
    links(&pages, &paths).into_iter().map(|finding| finding.rule).collect()
}

#[test]
fn links_that_lead_somewhere_pass() {
    for text in [
        "[b](b.md)",
        "[up](../README.md)",
        "[folder](../protocol/src/)",
        "[folder](../protocol)",
        "[heading](b.md#one-two-three) and [twin](b.md#same-1)",
        "[out](https://example.org/x)",
        "# Here\n[here](#here)",
        "`[code](nowhere.md)`",
        "```\n[code](nowhere.md)\n```",
        "[name]: b.md",
        "<a id=\"own\"></a>\n[own](#own)",
    ] {
        assert!(link_rules("docs/a.md", text).is_empty(), "{text}");
    }
}

#[test]
fn dead_links_are_found() {
    for (text, rule) in [
        ("[x](c.md)", "`c.md` leads to no file"),
        ("[x](../../c.md)", "`../../c.md` leads out of the repository"),
        ("[x](b.md#four)", "`b.md#four` leads to no heading"),
        ("[x](#there)", "`#there` leads to no heading"),
        ("[name]: c.md", "`c.md` leads to no file"),
    ] {
        assert_eq!(link_rules("docs/a.md", text), [rule], "{text}");
    }
}

#[test]
fn headings_with_links_have_the_anchor_of_their_text() {
    assert_eq!(slug("The [frame](x.md) header"), "the-frame-header");
    assert_eq!(slug("A/B, and `c_d`!"), "ab-and-c_d");
}

const WHOLE: &str = "# T\n\n## Context\n\n## Decision\n\n## Why\n\n## Cost\n";

fn decision_rules(pages: &[(&str, &str)]) -> Vec<String> {
    let pages: Vec<File> =
        pages.iter().map(|(name, text)| page(&format!("{DECISIONS}{name}"), text)).collect();
    decisions(&pages).into_iter().map(|finding| finding.rule).collect()
}

#[test]
fn listed_decisions_with_all_parts_pass() {
    assert!(decision_rules(&[("README.md", "(0001-a.md)"), ("0001-a.md", WHOLE)]).is_empty());
}

#[test]
fn decisions_are_numbered_once_and_listed() {
    let index = ("README.md", "(0001-a.md) (0001-b.md) (c.md)");
    assert_eq!(decision_rules(&[index, ("0001-a.md", WHOLE), ("0001-b.md", WHOLE)]).len(), 1);
    assert_eq!(decision_rules(&[index, ("c.md", WHOLE)]).len(), 1);
    assert_eq!(decision_rules(&[index, ("0002-d.md", WHOLE)]), ["not in docs/decisions/README.md"]);
}

#[test]
fn decisions_have_four_parts_in_order() {
    let index = ("README.md", "(0001-a.md)");
    let without = WHOLE.replace("## Cost", "## Price");
    assert_eq!(
        decision_rules(&[index, ("0001-a.md", &without)]),
        ["the page lacks ## Cost, in this order"]
    );
    assert_eq!(decision_rules(&[index, ("0001-a.md", "")]).len(), 1);
}

fn requirement_rules(text: &str) -> Vec<String> {
    let findings = requirements(&[page("docs/a.md", text)]);
    findings.into_iter().map(|finding| finding.rule).collect()
}

#[test]
fn requirements_are_stated_once() {
    let text = "**DLV-001** One.\n- **DLV-002** Two, see DLV-001.\n| **DLV-003** | Three |";
    assert!(requirement_rules(text).is_empty());
    assert_eq!(
        requirement_rules("**DLV-001** A.\n\n**DLV-001** B."),
        ["DLV-001 is stated at docs/a.md:1 already"]
    );
}

#[test]
fn requirements_that_are_referred_to_exist() {
    assert_eq!(requirement_rules("**DLV-001** See DLV-009."), ["DLV-009 is stated nowhere"]);
    assert!(requirement_rules("SHA-256, and ABC-123 of another project").is_empty());
}

#[test]
fn a_requirement_is_stated_in_bold_in_a_heading_or_at_the_front_of_an_item() {
    for text in ["**DLV-001** x", "### DLV-001 x", "- DLV-001: x", "* **DLV-001.** x", "DLV-001. x"]
    {
        assert_eq!(requirement_count(text), 1, "{text}");
    }
    for text in ["see DLV-001: x", "| DLV-001 | x |", "DLV-001 says so", "```\n**DLV-001** x\n```"]
    {
        assert_eq!(requirement_count(text), 0, "{text}");
    }
}
