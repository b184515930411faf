//! Forgeries, freezes, rollbacks and forms of manifests; and another JSON reader as the judge.

use ed25519_dalek::{Signer as _, SigningKey};
use proptest::prelude::*;

use super::json::{self, Value};
use super::{Manifest, ManifestError, Target, envelope, key_id, open_envelope, tuf_key_id, verify};

const NOW_MS: u64 = 1_795_493_709_000;

fn vendor() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

fn public() -> [u8; 32] {
    vendor().verifying_key().to_bytes()
}

fn manifest() -> Manifest {
    let target = Target {
        length: 3,
        sha256: [0xab; 32],
        component: String::from("sensor"),
        os: String::from("linux"),
        arch: String::from("x86_64"),
        version: String::from("0.1.0"),
    };
    let targets = [(String::from("lapwing-sensor-0.1.0-linux-x86_64"), target)].into();
    Manifest { version: 4, expires_ms: NOW_MS + 1_000, targets }
}

fn judge(
    now_ms: u64,
    known: u64,
    bytes: &[u8],
    signature: [u8; 64],
) -> Result<Manifest, ManifestError> {
    verify(now_ms, &public(), known, bytes, &key_id(&public()), &signature)
}

fn sign(bytes: &[u8]) -> [u8; 64] {
    vendor().sign(bytes).to_bytes()
}

#[test]
fn a_manifest_that_the_vendor_signed_is_believed_until_it_expires() {
    let bytes = manifest().to_bytes();
    assert_eq!(judge(NOW_MS, 4, &bytes, sign(&bytes)), Ok(manifest()));
    let expires_ms = manifest().expires_ms;
    assert_eq!(
        judge(expires_ms, 0, &bytes, sign(&bytes)),
        Err(ManifestError::Expired { expires_ms })
    );
    assert_eq!(
        judge(NOW_MS, 5, &bytes, sign(&bytes)),
        Err(ManifestError::Rollback { version: 4, known: 5 })
    );
}

#[test]
fn any_other_byte_key_or_signature_is_refused() {
    let bytes = manifest().to_bytes();
    let signature = sign(&bytes);
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        assert_eq!(judge(NOW_MS, 0, &changed, signature), Err(ManifestError::BadSignature));
    }
    let other = SigningKey::from_bytes(&[8; 32]);
    let others = other.sign(&bytes).to_bytes();
    assert_eq!(judge(NOW_MS, 0, &bytes, others), Err(ManifestError::BadSignature));
    let other_id = key_id(&other.verifying_key().to_bytes());
    assert_eq!(
        verify(NOW_MS, &public(), 0, &bytes, &other_id, &others),
        Err(ManifestError::OtherKey)
    );
    let endless = vec![b' '; super::MANIFEST_BYTES_MAX + 1];
    assert_eq!(judge(NOW_MS, 0, &endless, sign(&endless)), Err(ManifestError::TooLarge));
}

#[test]
fn what_is_signed_by_mistake_is_refused_by_its_field() {
    let text = String::from_utf8(manifest().to_bytes()).unwrap();
    for (from, to, field) in [
        ("\"targets\",", "\"snapshot\",", "_type"),
        ("1.0.31", "2.0.0", "spec_version"),
        ("\"version\":4", "\"version\":\"4\"", "version"),
        ("Z\"", "\"", "expires"),
        ("\"length\":3", "\"length\":9999999999999", "length"),
        ("abab", "ABAB", "sha256"),
        ("\"os\":\"linux\"", "\"os\":\"\"", "os"),
        ("lapwing-sensor-0.1.0-linux-x86_64", "../../etc/passwd", "targets"),
        ("lapwing-sensor-0.1.0-linux-x86_64", "", "targets"),
    ] {
        let changed = text.replacen(from, to, 1);
        assert_ne!(changed, text, "{from}");
        let signature = sign(changed.as_bytes());
        assert_eq!(
            judge(NOW_MS, 0, changed.as_bytes(), signature),
            Err(ManifestError::NotManifest(field)),
            "{to}"
        );
    }
}

#[test]
fn an_author_is_told_before_signing() {
    assert_eq!(manifest().check(), Ok(()));
    let between = Manifest { expires_ms: NOW_MS + 1, ..manifest() };
    assert_eq!(between.check(), Err(ManifestError::NotManifest("expires")));
    let mut quoted = manifest();
    let target = quoted.targets.pop_first().unwrap().1;
    quoted.targets.insert(String::from("a\":{},\"b"), target);
    assert_eq!(quoted.check(), Err(ManifestError::NotManifest("targets")));
}

#[test]
fn an_envelope_keeps_the_signed_bytes_and_is_ordinary_json() {
    let bytes = manifest().to_bytes();
    let file = envelope(&bytes, &public(), &sign(&bytes));
    let opened = open_envelope(&file, &public()).unwrap();
    assert_eq!((opened.signed, opened.signature), (&bytes[..], sign(&bytes)));
    let other = SigningKey::from_bytes(&[8; 32]).verifying_key().to_bytes();
    assert_eq!(open_envelope(&file, &other), Err(ManifestError::OtherKey));
    let judge: serde_json::Value = serde_json::from_slice(&file).unwrap();
    assert_eq!(judge["signed"]["_type"], "targets");
    assert_eq!(judge["signatures"][0]["keyid"], super::hex(&tuf_key_id(&public())));
    let canonical = serde_json::to_vec(&judge["signed"]).unwrap();
    assert_eq!(canonical, bytes, "members in order, no blanks");
}

#[test]
fn blanks_between_members_are_no_part_of_what_is_signed() {
    let bytes = manifest().to_bytes();
    let file = String::from_utf8(envelope(&bytes, &public(), &sign(&bytes))).unwrap();
    let spread = file.replace("\"signed\":", " \"signed\" :\n ").replace("}],", "} ] ,");
    assert_eq!(open_envelope(spread.as_bytes(), &public()).unwrap().signed, bytes);
}

#[test]
fn json_that_two_readers_could_read_differently_is_refused() {
    let deep = "[".repeat(100_000);
    for text in [
        r#"{"a":1,"a":2}"#,
        r#"{"a":1}x"#,
        r#"{"a":1,}"#,
        "1.0",
        "1e3",
        "-1",
        "01",
        "18446744073709551616",
        "\"\u{1}\"",
        r#""\x""#,
        r#""\ud800""#,
        r#""open"#,
        "nul",
        "",
        deep.as_str(),
    ] {
        assert!(json::parse(text.as_bytes()).is_err(), "{text:.20}");
    }
    assert!(json::members(br#"{"a":1,"a":2}"#).is_err());
}

fn same(ours: &Value, theirs: &serde_json::Value) -> bool {
    match (ours, theirs) {
        (Value::Null, serde_json::Value::Null) => true,
        (Value::Bool(ours), serde_json::Value::Bool(theirs)) => ours == theirs,
        (Value::Number(ours), serde_json::Value::Number(theirs)) => theirs.as_u64() == Some(*ours),
        (Value::Text(ours), serde_json::Value::String(theirs)) => ours == theirs,
        (Value::List(ours), serde_json::Value::Array(theirs)) => {
            ours.len() == theirs.len() && ours.iter().zip(theirs).all(|(a, b)| same(a, b))
        }
        (Value::Object(ours), serde_json::Value::Object(theirs)) => {
            ours.len() == theirs.len()
                && ours
                    .iter()
                    .all(|(name, value)| theirs.get(name).is_some_and(|other| same(value, other)))
        }
        _ => false,
    }
}

proptest! {
    #[test]
    fn what_is_taken_means_the_same_to_another_reader(text in r#"[\[\]{}:,"\\ a0-2tu]{0,24}"#) {
        if let Ok(ours) = json::parse(text.as_bytes()) {
            let theirs: serde_json::Value = serde_json::from_str(&text).unwrap();
            prop_assert!(same(&ours, &theirs));
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        let _ = json::parse(&bytes);
        let _ = json::members(&bytes);
        let _ = Manifest::parse(&bytes);
    }
}
