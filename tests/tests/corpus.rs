//! The fuzz targets on the stable compiler: over the committed seeds, and over input made from
//! them.
//!
//! The generator always starts from the same state, so that a run that fails fails again; proptest
//! makes the input small and prints it. Whoever finds one adds it to `fuzz/seeds` under a name.

use std::path::{Path, PathBuf};
use std::{fs, io};

use lapwing_protocol::frame::Frame;
use lapwing_protocol::message::Message;
use lapwing_tests::targets;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// Inputs made for each target and each way of making them.
const CASES: u32 = 2_000;
/// Longest input made: every message fits, and a chunk of a few dozen ops.
const BYTES_MAX: usize = 600;

/// One test for each target and each way of making input, so that a failure names both.
macro_rules! replayed {
    ($($target:ident)*) => {$(
        mod $target {
            use super::*;

            #[test]
            fn seeds_hold() {
                for (name, data) in seeds(stringify!($target)) {
                    println!("{name}");
                    targets::$target(&data);
                }
            }

            #[test]
            fn any_bytes_hold() {
                run(cases(stringify!($target)), &any_bytes(), targets::$target);
            }

            #[test]
            fn altered_seeds_hold() {
                let inputs = altered(stringify!($target));
                run(cases(stringify!($target)), &inputs, targets::$target);
            }
        }
    )*};
}

replayed! { frame message decoder sensor server spool journal export query manifest certificate }

#[test]
fn every_target_is_replayed_and_has_a_binary() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    let manifest = fs::read_to_string(folder.join("Cargo.toml")).expect("fuzz has a manifest");
    let replayed = include_str!("corpus.rs");
    let list = replayed.lines().find(|line| line.starts_with("replayed! {")).expect("the list");
    for (name, _) in targets::TARGETS {
        assert!(list.split(' ').any(|word| word == name), "{name} is not replayed");
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} has no binary");
        assert!(folder.join("fuzz_targets").join(format!("{name}.rs")).exists(), "{name}");
    }
}

/// Without this the laws could hold of nothing: every seed being refused would pass.
#[test]
fn every_kind_of_frame_has_a_seed_that_is_understood() {
    let seeds = seeds("message");
    for (choice, (kind, name)) in Message::KINDS.iter().enumerate() {
        let is_understood = seeds.iter().any(|(_, data)| {
            let Some((first, body)) = data.split_first() else { return false };
            let frame = Frame { kind: *kind, skippable: false, body };
            usize::from(*first) == choice && matches!(Message::decode(&frame), Ok(Some(_)))
        });
        assert!(is_understood, "fuzz/seeds/message has no {name} that decodes");
    }
}

/// Targets that write files or start threads are given fewer inputs.
fn cases(target: &str) -> u32 {
    match target {
        "spool" | "journal" | "export" => CASES / 10,
        _ => CASES,
    }
}

/// The committed seeds of a target, by name.
fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds").join(target);
    let seeds = read(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    assert!(!seeds.is_empty(), "{} holds no seed", folder.display());
    seeds
}

fn read(folder: &Path) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut seeds = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        seeds.push((name, fs::read(entry.path())?));
    }
    seeds.sort();
    Ok(seeds)
}

fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..BYTES_MAX)
}

/// A seed with some bytes replaced, cut off or added.
fn altered(target: &str) -> impl Strategy<Value = Vec<u8>> + use<> {
    let seeds: Vec<Vec<u8>> = seeds(target).into_iter().map(|(_, data)| data).collect();
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8);
    let tail = prop::collection::vec(any::<u8>(), 0..16);
    (prop::sample::select(seeds), changes, any::<prop::sample::Index>(), tail).prop_map(
        |(mut data, changes, end, tail)| {
            for (place, byte) in changes {
                if !data.is_empty() {
                    let place = place.index(data.len());
                    data[place] = byte;
                }
            }
            data.truncate(end.index(data.len() * 2 + 1));
            data.extend(tail);
            data
        },
    )
}

fn run(cases: u32, inputs: &impl Strategy<Value = Vec<u8>>, target: impl Fn(&[u8])) {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let chance = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, chance);
    let result = runner.run(inputs, |data| {
        target(&data);
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}
