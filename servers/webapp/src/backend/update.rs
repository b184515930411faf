//! Questions to the Update server: what its manifest offers.
//!
//! Not here: verifying the signature. That is the business of whoever installs; a list of what is
//! offered installs nothing.

use lapwing_protocol::call::Method;
use lapwing_protocol::error::{DecodeError, from_bytes};
use lapwing_protocol::update::SignedManifest;
use serde_json::Value;

use super::{Backend, BackendError, Peer};
use crate::view::UpdateLine;

impl Backend {
    /// The targets of the manifest, by name.
    pub(crate) async fn updates(&self) -> Result<Vec<UpdateLine>, BackendError> {
        let time = crate::limits::CALL_TIME;
        self.ask_bytes(Peer::Update, Method::UPDATES, Vec::new(), time, |reply| {
            let signed = from_bytes::<SignedManifest<'_>>(reply)?;
            targets(signed.manifest)
        })
        .await
    }
}

/// The targets of a TUF targets document.
fn targets(manifest: &[u8]) -> Result<Vec<UpdateLine>, DecodeError> {
    let document: Value = serde_json::from_slice(manifest).map_err(|_| DecodeError::Shape)?;
    // The document as a whole, or its signed part.
    let signed = document.get("signed").unwrap_or(&document);
    let targets = signed.get("targets").and_then(Value::as_object).ok_or(DecodeError::Shape)?;
    let text = |value: Option<&Value>| match value {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    };
    Ok(targets
        .iter()
        .map(|(name, target)| {
            let custom = target.get("custom");
            let custom = |key: &str| text(custom.and_then(|custom| custom.get(key)));
            UpdateLine {
                name: name.clone(),
                version: custom("version"),
                target: [custom("component"), custom("os"), custom("arch")].join(" "),
                state: String::from("available"),
                length: target.get("length").and_then(Value::as_u64),
                sha256: text(target.get("hashes").and_then(|hashes| hashes.get("sha256"))),
            }
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::targets;

    #[test]
    fn targets_are_listed_and_other_documents_are_not_one() {
        let manifest = br#"{"_type":"targets","targets":{"sensor-linux":{"length":9,
            "hashes":{"sha256":"ab"},"custom":{"version":"1.2.0","component":"sensor",
            "os":"linux","arch":"x86_64"}}}}"#;
        let lines = targets(manifest).unwrap();
        assert_eq!(lines.len(), 1);
        assert_eq!((lines[0].name.as_str(), lines[0].version.as_str()), ("sensor-linux", "1.2.0"));
        assert_eq!(lines[0].target, "sensor linux x86_64");
        assert!(targets(b"{}").is_err());
        assert!(targets(b"\xff").is_err());
    }
}
