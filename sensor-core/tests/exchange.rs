//! Whatever happens between a sensor and a server: cuts, refusals, credit, silence, garbage.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test stops where it fails")]

mod world;

use lapwing_protocol::hello::Memory;
use lapwing_protocol::id::Lane;
use proptest::prelude::*;
use world::peer::Peer;
use world::reader::row_bytes;
use world::rig::Rig;
use world::{BULK_LOG, Owned, SMALL, at};

/// One thing that happens between sensor and server.
#[derive(Clone, Debug)]
enum Turn {
    Lookups(u64),
    Service(u8, u8),
    Credit { chunks: u64, bytes: u64 },
    Nacks(u32),
    Silence(bool),
    Drain,
    Settle,
    Cut,
}

fn turn() -> impl Strategy<Value = Turn> {
    prop_oneof![
        4 => (1..6u64).prop_map(Turn::Lookups),
        3 => (0..6u8, 0..3u8).prop_map(|(name, state)| Turn::Service(name, state)),
        2 => (1..5u64, 600..2_000u64).prop_map(|(chunks, bytes)| Turn::Credit { chunks, bytes }),
        2 => (1..4u32).prop_map(Turn::Nacks),
        1 => any::<bool>().prop_map(Turn::Silence),
        3 => Just(Turn::Drain),
        2 => Just(Turn::Settle),
        2 => Just(Turn::Cut),
    ]
}

/// So many cases, and no file of failures beside the sources.
fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases(128))]

    /// The server of these tests panics when credit is exceeded, a chunk does not open where it
    /// must, or a mark differs; what it stored in the end is compared with what was made.
    #[test]
    fn whatever_happens_between_them_the_server_ends_with_what_was_made(
        turns in prop::collection::vec(turn(), 1..60),
        has_spool in any::<bool>(),
    ) {
        let memory = if has_spool { Memory::Disk } else { Memory::RamOnly };
        let mut owned = Owned::new(&SMALL);
        let mut rig = Rig::new(memory, owned.storage());
        let mut peer = Peer::new(0xa);
        for turn in &turns {
            match turn {
                Turn::Lookups(count) => rig.lookups(*count),
                Turn::Service(name, state) => {
                    rig.service(&format!("service-{name}"), &format!("state-{state}"));
                }
                Turn::Credit { chunks, bytes } => {
                    (peer.chunks_ahead, peer.bytes_ahead) = (*chunks, *bytes);
                }
                Turn::Nacks(count) => peer.nacks = *count,
                Turn::Silence(is_silent) => peer.is_silent = *is_silent,
                Turn::Drain => {
                    rig.shell.drain(&mut rig.sensor, at(rig.ms), &mut peer);
                }
                Turn::Settle => rig.settle(&mut peer),
                Turn::Cut => {
                    rig.sensor.handle_disconnected(at(rig.ms));
                    peer.connected();
                    rig.ms += 3_000;
                }
            }
        }
        peer.is_silent = false;
        peer.nacks = 0;
        rig.settle(&mut peer);
        rig.reconnect(&mut peer);
        rig.all_stored(&peer, Lane::Bulk);
        let log = rig.sensor.positions(Lane::Bulk);
        prop_assert_eq!(log.acked, log.made);
        if has_spool {
            let chunks = &peer.heads[&(Lane::Bulk, BULK_LOG)].chunks;
            let spool = rig.shell.spool.get(&(Lane::Bulk, BULK_LOG));
            for (seq, spooled) in spool.into_iter().flatten() {
                prop_assert_eq!(&chunks[seq], &spooled.bytes);
            }
            for (slot, (kind, row)) in &peer.read(Lane::Bulk, BULK_LOG).rows {
                prop_assert_eq!(rig.sensor.row(*slot), Some((*kind, &row_bytes(row)[..])));
            }
        }
        prop_assert_eq!(rig.shell.closed.len(), 0);
    }

    #[test]
    fn no_bytes_make_it_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..600),
        cut in 1usize..40,
    ) {
        let mut owned = Owned::new(&SMALL);
        let mut rig = Rig::new(Memory::Disk, owned.storage());
        let mut peer = Peer::new(0xa);
        rig.lookups(3);
        rig.settle(&mut peer);
        for piece in bytes.chunks(cut) {
            peer.output.extend(piece);
            rig.settle(&mut peer);
        }
    }
}
