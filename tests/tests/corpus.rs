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

#[test]
fn seeds_of_the_frame_target_hold() {
    for (_, data) in seeds("frame") {
        targets::frame(&data);
    }
}

#[test]
fn seeds_of_the_message_target_hold() {
    for (_, data) in seeds("message") {
        targets::message(&data);
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

#[test]
fn any_bytes_pass_the_frame_target() {
    run(&any_bytes(), targets::frame);
}

#[test]
fn any_bytes_pass_the_message_target() {
    run(&any_bytes(), targets::message);
}

#[test]
fn altered_seeds_pass_the_frame_target() {
    run(&altered("frame"), targets::frame);
}

#[test]
fn altered_seeds_pass_the_message_target() {
    run(&altered("message"), targets::message);
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

fn run(inputs: &impl Strategy<Value = Vec<u8>>, target: impl Fn(&[u8])) {
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    let chance = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, chance);
    let result = runner.run(inputs, |data| {
        target(&data);
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}
