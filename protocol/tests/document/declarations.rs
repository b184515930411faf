//! Messages as their source declares them: structs and enums that can be serialised.
//!
//! Reads as much Rust as this crate's declarations are written in, formatted by rustfmt: one field
//! or variant a line, doc comments above.

pub(crate) struct Declaration {
    pub(crate) name: String,
    pub(crate) about: String,
    pub(crate) shape: Shape,
}

pub(crate) enum Shape {
    /// Written as what it holds.
    Wrapper(String),
    /// Name, type, meaning.
    Fields(Vec<(String, String, String)>),
    /// Name, meaning; the number is the position.
    Variants(Vec<(String, String)>),
}

/// The declarations of `source` that have numbers on the wire, in order.
pub(crate) fn declarations(source: &str) -> Vec<Declaration> {
    let mut found = Vec::new();
    let mut lines = source.lines();
    let mut about = Vec::new();
    let mut is_message = false;
    while let Some(line) = lines.next() {
        let line = line.trim();
        if let Some(comment) = line.strip_prefix("///") {
            about.push(comment.trim().to_owned());
        } else if line.contains("Serialize") && !line.starts_with("use ") {
            is_message = true;
        } else if let Some(id) = line.strip_suffix(';').filter(|name| is_id(name, &about)) {
            let shape = Shape::Wrapper("[u8; 16]".into());
            found.push(Declaration { name: id.into(), about: sentence(&about), shape });
            about.clear();
        } else if let Some((name, shape)) =
            declared(line, &mut lines).filter(|(name, _)| is_message && !name.is_empty())
        {
            found.push(Declaration { name, about: sentence(&about), shape });
            (is_message, about) = (false, Vec::new());
        } else if !line.starts_with('#') && !line.starts_with(')') && !line.ends_with(',') {
            (is_message, about) = (false, Vec::new());
        }
    }
    found
}

/// The ids are declared by name alone, in a macro.
fn is_id(name: &str, about: &[String]) -> bool {
    let starts = name.starts_with(|sign: char| sign.is_ascii_uppercase());
    starts && !about.is_empty() && name.chars().all(|sign| sign.is_ascii_alphanumeric())
}

fn declared<'l>(line: &str, lines: &mut impl Iterator<Item = &'l str>) -> Option<(String, Shape)> {
    let is_enum = line.starts_with("pub enum ");
    let rest = line.strip_prefix("pub struct ").or_else(|| line.strip_prefix("pub enum "))?;
    let name: String = rest.chars().take_while(|sign| sign.is_ascii_alphanumeric()).collect();
    if let Some((_, inner)) = rest.split_once("(pub ") {
        return Some((name, Shape::Wrapper(plain(inner.trim_end_matches(");")))));
    }
    if !rest.ends_with('{') {
        return None;
    }
    let shape = if is_enum {
        let variants = members(lines, "").into_iter();
        Shape::Variants(variants.map(|(name, about)| (plain(&name), about)).collect())
    } else {
        let fields = members(lines, "pub ").into_iter();
        let parted = fields.filter_map(|(field, about)| {
            let (name, field_type) = field.split_once(": ")?;
            Some((name.to_owned(), plain(field_type), about))
        });
        Shape::Fields(parted.collect())
    };
    Some((name, shape))
}

/// The members up to the closing brace with their comments.
fn members<'l>(lines: &mut impl Iterator<Item = &'l str>, front: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut about = Vec::new();
    for line in lines.by_ref() {
        let text = line.trim();
        if line == "}" {
            break;
        } else if let Some(comment) = text.strip_prefix("///") {
            about.push(comment.trim().to_owned());
        } else if let Some(member) = text.strip_prefix(front).filter(|_| !text.starts_with('#')) {
            found.push((member.trim_end_matches(',').to_owned(), sentence(&about)));
            about.clear();
        }
    }
    found
}

/// A type without what means nothing on the wire.
fn plain(of: &str) -> String {
    of.replace("&'a ", "&")
        .replace("<'a>", "")
        .replace("<'a, ", "<")
        .replace("crate::delivery::", "")
}

/// A comment as text of a page: links are names only.
fn sentence(about: &[String]) -> String {
    let mut text = about.join(" ").trim().to_owned();
    for part in ["crate::limits::", "crate::delivery::", "Self::"] {
        text = text.replace(part, "");
    }
    text.replace("[`", "`").replace("`]", "`")
}
