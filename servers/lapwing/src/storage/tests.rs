//! The commands on a folder at rest: out, in with another engine, and what is refused.

use lapwing_net::config::Config as _;
use lapwing_server_core::engine::Engine;
use lapwing_store::{DiskStore, RowStore};

use super::*;

fn configured(folder: &Path, engine: Engine, data: &str) -> PathBuf {
    let example = lapwing_microservices::tagging::Config::EXAMPLE;
    let text = example
        .replace("#engine = \"sled\"", &format!("engine = \"{engine}\""))
        .replace("data_dir = \"data\"", &format!("data_dir = \"{data}\""))
        .replace("#[server.backup]", "[server.backup]")
        .replace("#folder = ", "folder = ")
        .replace("127.0.0.1:8450", "127.0.0.1:1");
    let file = folder.join(format!("{engine}-{data}.toml"));
    std::fs::write(&file, text).unwrap();
    file
}

#[test]
fn a_folder_changes_its_engine_by_export_and_import_and_comes_back_from_a_backup() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let options = DiskOptions::of(Engine::Sled);
    let rows = RowStore::open(&path("data").join("store"), &options).unwrap();
    let row = lapwing_server_core::rows::Row { key: b"k".to_vec(), value: Some(b"v".to_vec()) };
    rows.submit(vec![row]).map(|rows| smol::block_on(rows.durable())).unwrap().unwrap();
    drop(rows);

    let old = configured(directory.path(), Engine::Sled, "data");
    let export = Export { config: old.clone(), out: path("tagging.lapwing") };
    assert!(run_export(&export).unwrap().contains("1 stores with 1 entries"));
    let new = configured(directory.path(), Engine::Redb, "converted");
    let import = Import { config: new.clone(), from: path("tagging.lapwing") };
    run_import(&import).unwrap();
    assert!(run_import(&import).unwrap_err().contains("not empty"));
    let value = |name: &str, engine| {
        let store = DiskStore::open(&path(name).join("store"), &DiskOptions::of(engine)).unwrap();
        lapwing_store::Store::get(&store, b"k").unwrap().unwrap()
    };
    assert_eq!(value("converted", Engine::Redb), b"v");

    assert!(run_backup(&old).unwrap().contains("backup 1"));
    assert!(run_backup(&old).unwrap().contains("backup 2"));
    let restored = configured(directory.path(), Engine::Redb, "restored");
    run_restore(&Restore { config: restored, from: None }).unwrap();
    assert_eq!(value("restored", Engine::Redb), b"v");
    let error = run_restore(&Restore { config: old, from: None }).unwrap_err();
    assert!(error.contains("move the folder aside"), "{error}");
}
