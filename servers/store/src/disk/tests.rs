//! Both engines, in what they share: who may open what, and what damage looks like.

use super::*;

fn batch(key: &[u8], value: &[u8]) -> Batch {
    let mut batch = Batch::new();
    batch.put(key, value).unwrap();
    batch
}

fn open(path: &Path, engine: Engine) -> Result<DiskStore, StoreError> {
    DiskStore::open(path, &DiskOptions { open_seconds_max: 10, ..DiskOptions::of(engine) })
}

#[test]
fn a_second_handle_is_refused_as_busy() {
    for engine in Engine::ALL {
        let directory = tempfile::tempdir().unwrap();
        let _first = open(directory.path(), engine).unwrap();
        let error = open(directory.path(), engine).unwrap_err();
        assert_eq!(error.blame, Blame::Busy, "{engine}");
        assert!(error.to_string().contains("one process owns one store"));
    }
}

#[test]
fn a_file_in_the_way_is_named() {
    for engine in Engine::ALL {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, b"").unwrap();
        let error = open(&path, engine).unwrap_err();
        assert!(error.to_string().contains(&path.display().to_string()), "{error}");
        let error = DiskStore::open_existing(directory.path(), &DiskOptions::of(engine));
        assert_eq!(error.unwrap_err().blame, Blame::Missing);
    }
}

#[test]
fn another_engines_data_is_refused_by_name_and_left_alone() {
    for (held, asked) in [(Engine::Sled, Engine::Redb), (Engine::Redb, Engine::Sled)] {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path(), held).unwrap();
        store.apply(batch(b"key", b"value")).unwrap();
        store.sync().unwrap();
        drop(store);
        let error = open(directory.path(), asked).unwrap_err();
        assert_eq!(error.blame, Blame::OtherEngine { found: held, wanted: asked });
        let text = error.to_string();
        assert!(text.contains("server.store.engine") && text.contains("store export"), "{text}");
        assert!(!directory.path().join(data_file(asked)).exists());
        let store = open(directory.path(), held).unwrap();
        assert_eq!(store.get(b"key").unwrap().as_deref(), Some(&b"value"[..]));
    }
}

/// Stores of version 0.1.0 have no second line.
#[test]
fn a_format_file_without_an_engine_is_sleds() {
    let directory = tempfile::tempdir().unwrap();
    drop(open(directory.path(), Engine::Sled).unwrap());
    std::fs::write(directory.path().join(FORMAT_FILE), "1\n").unwrap();
    assert_eq!(DiskStore::engine_of(directory.path()).unwrap(), Some(Engine::Sled));
    drop(open(directory.path(), Engine::Sled).unwrap());
    for (text, is_version) in [("2\nsled\n", true), ("1\nbtree\n", false), ("what\n", false)] {
        std::fs::write(directory.path().join(FORMAT_FILE), text).unwrap();
        let blame = open(directory.path(), Engine::Sled).unwrap_err().blame;
        assert_eq!(blame == Blame::Version(2), is_version, "{text:?}: {blame:?}");
    }
}

#[test]
fn spoiled_files_are_typed_errors_and_never_a_new_empty_store() {
    for (engine, file, spoil) in [
        (Engine::Sled, SLED_FILE, b"\xff".repeat(300_000)),
        (Engine::Sled, SLED_FILE, Vec::new()),
        (Engine::Sled, SLED_FILE, b"\0".repeat(70_000)),
        (Engine::Sled, "conf", b"nonsense: yes\n".to_vec()),
        (Engine::Redb, REDB_FILE, b"\xff".repeat(300_000)),
        (Engine::Redb, REDB_FILE, Vec::new()),
        (Engine::Redb, REDB_FILE, b"\0".repeat(70_000)),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path(), engine).unwrap();
        for n in 0..500_u32 {
            store.apply(batch(&n.to_be_bytes(), &[7; 900])).unwrap();
        }
        store.sync().unwrap();
        drop(store);
        std::fs::write(directory.path().join(file), spoil).unwrap();
        let error = open(directory.path(), engine).unwrap_err();
        assert!(
            matches!(error.blame, Blame::Corrupt(_) | Blame::BackEnd(_) | Blame::Slow(_)),
            "{engine} {file}: {error}"
        );
    }
}

#[test]
fn a_removed_store_is_gone() {
    for engine in Engine::ALL {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("p");
        drop(open(&path, engine).unwrap());
        DiskStore::remove(&path).unwrap();
        DiskStore::remove(&path).unwrap();
        assert!(!path.exists());
    }
}
