//! A book of golden bytes: names with the exact bytes they stand for, one file a subject.
//!
//! A run compares; with `LAPWING_BLESS=1` in the environment it writes. A changed byte is a changed
//! wire: bless only what was added, never what was there.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

/// One file of golden bytes.
pub(crate) struct Book {
    name: &'static str,
    entries: Vec<(String, Vec<u8>)>,
}

impl Book {
    pub(crate) fn new(name: &'static str) -> Self {
        Self { name, entries: Vec::new() }
    }

    /// What `name` stands for.
    pub(crate) fn enter(&mut self, name: impl Into<String>, bytes: &[u8]) {
        let name = name.into();
        assert!(!self.entries.iter().any(|(known, _)| *known == name), "{name} stands here twice");
        self.entries.push((name, bytes.to_vec()));
    }

    /// Compares with the file, or writes it.
    pub(crate) fn close(self) {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("tests/golden/bytes")
            .join(format!("{}.hex", self.name));
        let text = self.text();
        if std::env::var_os("LAPWING_BLESS").is_some_and(|value| value == "1") {
            fs::write(&path, text).unwrap();
            return;
        }
        let known = fs::read_to_string(&path).unwrap_or_default();
        let mut known_lines = known.lines();
        for line in text.lines() {
            let expected = known_lines.next().unwrap_or("nothing");
            assert_eq!(
                line,
                expected,
                "{}: the wire has changed; a message never changes, a change is a new kind. \
                 What was only added is written by LAPWING_BLESS=1",
                path.display()
            );
        }
        assert_eq!(known_lines.next(), None, "{}: bytes that nothing makes", path.display());
    }

    fn text(&self) -> String {
        let mut text = String::from("# A name, and the bytes it stands for in hexadecimal.\n");
        for (name, bytes) in &self.entries {
            let _ = writeln!(text, "{name} {}", hex(bytes));
        }
        text
    }
}

/// Bytes as lower-case hexadecimal digits; `-` for none.
pub(crate) fn hex(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "-".into();
    }
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Enters a postcard message and holds what must hold of each: it comes back as it was, a part of
/// it is no message, and nothing may follow it.
macro_rules! hold {
    ($book:expr, $name:expr, $type:ty, $value:expr) => {{
        let value: $type = $value;
        let mut buffer = [0; 8192];
        let bytes = lapwing_protocol::error::to_slice(&value, &mut buffer).unwrap().to_vec();
        let back = lapwing_protocol::error::from_bytes::<$type>(&bytes);
        assert_eq!(back.as_ref(), Ok(&value), "{}", $name);
        for length in 0..bytes.len() {
            let part = lapwing_protocol::error::from_bytes::<$type>(&bytes[..length]);
            assert!(part.is_err(), "{}: {length} bytes of it are a message too", $name);
        }
        let longer = [&bytes[..], &[0]].concat();
        let trailing = Some(lapwing_protocol::error::DecodeError::Trailing);
        assert_eq!(
            lapwing_protocol::error::from_bytes::<$type>(&longer).err(),
            trailing,
            "{}",
            $name
        );
        $book.enter($name, &bytes);
    }};
}

/// The encoded items of a list, in a buffer that lives as long as the test.
macro_rules! items {
    ($type:ty; $($item:expr),* $(,)?) => {{
        let list: Vec<$type> = vec![$($item),*];
        let buffer: &'static mut [u8] = Box::leak(vec![0; 4096].into_boxed_slice());
        lapwing_protocol::items::Items::<$type>::encode(list, buffer).unwrap()
    }};
}

pub(crate) use {hold, items};
