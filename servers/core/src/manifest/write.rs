//! Writing manifests in the canonical JSON of TUF: members in order, no blanks, whole numbers
//! alone.
//!
//! What is written holds no character that JSON would escape: names and versions are plain, see
//! [`super::is_target_name`], so canonical form and ordinary form are the same bytes.

use sha2::{Digest as _, Sha256};

use super::{Manifest, Target, digits::hex, time};

pub(super) fn manifest(manifest: &Manifest) -> Vec<u8> {
    let targets: Vec<String> =
        manifest.targets.iter().map(|(name, value)| target(name, value)).collect();
    format!(
        r#"{{"_type":"targets","expires":"{}","spec_version":"1.0.31","targets":{{{}}},"version":{}}}"#,
        time::format(manifest.expires_ms),
        targets.join(","),
        manifest.version,
    )
    .into_bytes()
}

fn target(name: &str, target: &Target) -> String {
    let Target { length, sha256, component, os, arch, version } = target;
    format!(
        r#"{}:{{"custom":{{"arch":{},"component":{},"os":{},"version":{}}},"hashes":{{"sha256":"{}"}},"length":{length}}}"#,
        quoted(name),
        quoted(arch),
        quoted(component),
        quoted(os),
        quoted(version),
        hex(sha256),
    )
}

/// Escapes what canonical JSON escapes; a text that needs it is refused by `Manifest::check`, but
/// must not become another document before.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// A file of signed metadata in TUF's form: `signed` as it is, and one signature of it.
#[must_use]
pub fn envelope(signed: &[u8], public: &[u8; 32], signature: &[u8; 64]) -> Vec<u8> {
    let head = format!(
        r#"{{"signatures":[{{"keyid":"{}","sig":"{}"}}],"signed":"#,
        hex(&tuf_key_id(public)),
        hex(signature),
    );
    [head.as_bytes(), signed, b"}"].concat()
}

/// The id that TUF gives an Ed25519 key: the SHA-256 of its description in canonical JSON. On our
/// own wire a key goes by the SHA-256 of its public bytes, see [`super::key_id`].
#[must_use]
pub fn tuf_key_id(public: &[u8; 32]) -> [u8; 32] {
    let description = format!(
        r#"{{"keytype":"ed25519","keyval":{{"public":"{}"}},"scheme":"ed25519"}}"#,
        hex(public)
    );
    Sha256::digest(description.as_bytes()).into()
}
