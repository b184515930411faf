//! A server starts again, and thousands of sensors want to come back at once (HEL-036), in virtual
//! time: the sensors' real waiting times against the listener's real admission.
//!
//! Not here: TLS; a handshake is a time that it takes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::net::{IpAddr, Ipv4Addr};

use lapwing_net::admission::{Admission, Admitted, SourceKey};
use lapwing_net::limits::ListenerLimits;
use lapwing_sensor_core::Backoff;

const SENSORS: u32 = 5_000;
/// How long a handshake takes while many are under way, in milliseconds.
const HANDSHAKE_MS: u64 = 250;
/// Attempts and time after which a sensor asks Registration, which names the same server again.
const TROUBLE: (u32, u64) = (2, 5_000);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A sensor knocks.
    Knock(u32),
    /// A handshake is done.
    Done(u32),
}

/// What came of one storm.
#[derive(Debug, Default)]
struct Course {
    /// Connections that reached the listener, by second.
    knocks: BTreeMap<u64, u32>,
    /// Handshakes that began, by second.
    handshakes: BTreeMap<u64, u32>,
    /// Connections closed before any TLS.
    refused: u32,
    /// When the last sensor was back, in milliseconds after the server.
    back_ms: u64,
    most_at_once: usize,
}

impl Course {
    fn peak(by_second: &BTreeMap<u64, u32>) -> u32 {
        by_second.values().copied().max().unwrap_or_default()
    }
}

/// All sensors lose their server at 0; it is back after `down_ms`. They come from `networks`
/// networks.
fn storm(down_ms: u64, networks: u32) -> Course {
    let limits = ListenerLimits::default();
    let mut admission = Admission::new(limits);
    let mut course = Course::default();
    let mut events = BinaryHeap::new();
    let mut sensors: Vec<(Backoff, u32)> =
        (0..SENSORS).map(|number| (Backoff::new(u64::from(number) << 20), 0)).collect();
    let mut keys: BTreeMap<u32, SourceKey> = BTreeMap::new();
    for (number, (backoff, _)) in (0..).zip(&mut sensors) {
        events.push(Reverse((backoff.next_ms(), Event::Knock(number))));
    }
    let address = |number: u32| {
        let [_, _, second, third] = (number % networks).to_be_bytes();
        IpAddr::V4(Ipv4Addr::new(10, second, third, (number / networks) as u8))
    };
    while let Some(Reverse((now_ms, event))) = events.pop() {
        let number = match event {
            Event::Knock(number) => number,
            Event::Done(number) => {
                if let Some(key) = keys.remove(&number) {
                    admission.handshake_ended(key);
                }
                course.back_ms = now_ms - down_ms;
                continue;
            }
        };
        let admitted = (now_ms >= down_ms).then(|| {
            *course.knocks.entry(now_ms / 1_000).or_default() += 1;
            match admission.admit(now_ms, address(number)) {
                Admitted::Yes(key) if keys.len() < limits.handshakes_max => Some(key),
                Admitted::Yes(key) => {
                    admission.handshake_ended(key);
                    None
                }
                Admitted::TooOften | Admitted::TooManyHandshakes => None,
            }
        });
        if let Some(Some(key)) = admitted {
            *course.handshakes.entry(now_ms / 1_000).or_default() += 1;
            keys.insert(number, key);
            course.most_at_once = course.most_at_once.max(keys.len());
            events.push(Reverse((now_ms + HANDSHAKE_MS, Event::Done(number))));
            continue;
        }
        course.refused += u32::from(admitted.is_some());
        let (backoff, failed) = &mut sensors[number as usize];
        *failed += 1;
        let mut delay_ms = backoff.next_ms();
        if *failed >= TROUBLE.0 && now_ms >= TROUBLE.1 {
            backoff.asked();
            delay_ms += backoff.next_ms();
            *failed = 0;
        }
        events.push(Reverse((now_ms + delay_ms, Event::Knock(number))));
    }
    assert!(keys.is_empty(), "every handshake ended");
    course
}

#[test]
fn after_a_short_stop_all_are_back_in_seconds_and_handshakes_stay_bounded() {
    let limits = ListenerLimits::default();
    // After a long stop the windows are long: their bound, 5 min, is when the last is back.
    for (down_ms, back_ms_max) in [(500, 30_000), (3_000, 30_000), (20_000, 300_000)] {
        let networks = 200;
        let course = storm(down_ms, networks);
        let (knocks, handshakes) = (Course::peak(&course.knocks), Course::peak(&course.handshakes));
        println!(
            "down {down_ms} ms, {networks} networks: {knocks} knocks and {handshakes} handshakes a \
             second at the most, {} refused before TLS, all back after {} ms",
            course.refused, course.back_ms
        );
        assert!(course.most_at_once <= limits.handshakes_max);
        assert!(knocks <= SENSORS * 8 / 10, "{knocks} knocks in one second");
        assert!(course.back_ms <= back_ms_max, "{} ms", course.back_ms);
    }
}

#[test]
fn a_whole_fleet_behind_one_address_comes_back_at_the_rate_of_one_network() {
    let limits = ListenerLimits::default();
    let course = storm(3_000, 1);
    let handshakes = Course::peak(&course.handshakes);
    println!(
        "one network: {handshakes} handshakes a second at the most, {} refused before TLS, all \
         back after {} ms",
        course.refused, course.back_ms
    );
    assert!(handshakes <= limits.source_burst + limits.source_rate_per_s);
    let least_ms = u64::from((SENSORS - limits.source_burst) / limits.source_rate_per_s) * 1_000;
    assert!(course.back_ms >= least_ms - 1_000, "the bound of a network holds");
    assert!(course.back_ms <= 600_000, "{} ms", course.back_ms);
}

#[test]
fn without_random_waits_the_listener_would_be_overrun() {
    // The same fleet, all with one seed: what the random times are for.
    let mut one = Backoff::new(7);
    let delays: Vec<u64> = (0..3).map(|_| one.next_ms()).collect();
    let mut others = (0..SENSORS).map(|number| {
        let mut backoff = Backoff::new(u64::from(number) << 20);
        (0..3).map(|_| backoff.next_ms()).collect::<Vec<_>>()
    });
    let same = others.by_ref().filter(|other| *other == delays).count();
    assert!(same <= 1, "{same} sensors wait the same times");
}
