//! A page of the documentation: its tables, its derived parts and its examples.

use std::fs;
use std::path::{Path, PathBuf};

pub(crate) struct Page {
    path: &'static str,
    text: String,
}

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

impl Page {
    pub(crate) fn read(path: &'static str) -> Self {
        let text = fs::read_to_string(root().join(path)).unwrap();
        Self { path, text }
    }

    /// The cells of the table row that has `cell`.
    pub(crate) fn row_with(&self, cell: &str) -> Option<Vec<&str>> {
        let rows = self.text.lines().filter(|line| line.starts_with('|'));
        let mut cells = rows.map(|row| {
            let inside = row.trim_matches('|').split('|');
            inside.map(str::trim).collect::<Vec<_>>()
        });
        cells.find(|cells| cells.len() > 3 && cells[1] == cell)
    }

    /// Compares what stands between the marks of `name` with `expected`, or writes it.
    pub(crate) fn hold(&self, name: &str, expected: &str) {
        let (begin, end) = (format!("<!-- begin {name} -->\n"), format!("<!-- end {name} -->"));
        let from = self.text.find(&begin).map(|at| at + begin.len());
        let to = self.text.find(&end);
        let (Some(from), Some(to)) = (from, to) else {
            panic!("{}: the marks of `{name}` are missing", self.path);
        };
        let expected = format!("\n{}\n\n", expected.trim());
        if std::env::var_os("LAPWING_BLESS").is_some_and(|value| value == "1") {
            // Another test may have written its part meanwhile: only this part is replaced.
            self.rewrite((&begin, &end), &expected);
            return;
        }
        let found = self.text[from..to].lines();
        for (line, (found, expected)) in found.zip(expected.lines()).enumerate() {
            assert_eq!(found, expected, "{}: line {line} of `{name}`", self.path);
        }
        assert!(
            self.text[from..to] == expected,
            "{}: `{name}` is not what the code says; LAPWING_BLESS=1 writes it",
            self.path
        );
    }

    fn rewrite(&self, (begin, end): (&str, &str), expected: &str) {
        static WRITING: std::sync::Mutex<()> = std::sync::Mutex::new(());
        let _writing = WRITING.lock().unwrap();
        let path = root().join(self.path);
        let text = fs::read_to_string(&path).unwrap();
        let (before, rest) = text.split_once(begin).unwrap();
        let (_, after) = rest.split_once(end).unwrap();
        // By rename, for other tests read the page meanwhile.
        let whole = path.with_extension("blessed");
        fs::write(&whole, [before, begin, expected, end, after].concat()).unwrap();
        fs::rename(&whole, &path).unwrap();
    }

    /// Names and bytes of the examples: a line `<!-- bytes: BOOK/NAME -->` and the fenced block
    /// below it. What stands behind two blanks and a `;` in a line explains it.
    pub(crate) fn examples(&self) -> Vec<(String, String)> {
        let mut found = Vec::new();
        let mut rest = self.text.as_str();
        while let Some((_, behind)) = rest.split_once("<!-- bytes: ") {
            let (name, behind) = behind.split_once(" -->").unwrap();
            let (_, block) = behind.split_once("```text\n").unwrap();
            let (block, behind) = block.split_once("```").unwrap();
            let lines = block.lines().map(|line| line.split(';').next().unwrap_or(""));
            let bytes: String = lines.flat_map(str::split_whitespace).collect();
            found.push((name.to_owned(), bytes));
            rest = behind;
        }
        found
    }
}
