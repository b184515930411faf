//! What processes use: the Detection servers', also those that died meanwhile, and this one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::target::detection_pids;

/// Ticks of a second in `/proc/PID/stat`; the same on every Linux.
const TICKS_A_SECOND: f64 = 100.0;
/// Bytes of a page; the same on every machine that this is measured on.
const PAGE_BYTES: u64 = 4_096;
/// Places of user time, kernel time and resident pages, counted behind the name in brackets.
const FIELDS: [usize; 3] = [11, 12, 21];

/// Looks at processes.
#[derive(Debug)]
pub(super) struct Meter {
    ready_file: PathBuf,
    /// Ticks that each process had used when it was first and last seen.
    ticks: BTreeMap<u32, (u64, u64)>,
    own_from: u64,
    pub(super) rss_bytes: u64,
    pub(super) rss_bytes_max: u64,
}

impl Meter {
    /// Begins to count: what was used before is not counted.
    pub(super) fn new(ready_file: &Path) -> Self {
        let mut meter = Self {
            ready_file: ready_file.to_path_buf(),
            ticks: BTreeMap::new(),
            own_from: 0,
            rss_bytes: 0,
            rss_bytes_max: 0,
        };
        meter.restart();
        meter
    }

    /// Begins again.
    pub(super) fn restart(&mut self) {
        self.ticks.clear();
        for pid in detection_pids(&self.ready_file) {
            if let Some([user, kernel, _]) = numbers(pid) {
                self.ticks.insert(pid, (user + kernel, user + kernel));
            }
        }
        let [user, kernel, _] = numbers(std::process::id()).unwrap_or_default();
        self.own_from = user + kernel;
        self.sample();
    }

    /// Looks. A process that began since the last look is counted from its beginning; what one used
    /// between the last look and its death is not seen.
    pub(super) fn sample(&mut self) {
        self.rss_bytes = 0;
        for pid in detection_pids(&self.ready_file) {
            let Some([user, kernel, pages]) = numbers(pid) else { continue };
            let (_, last) = self.ticks.entry(pid).or_default();
            *last = user + kernel;
            self.rss_bytes += pages * PAGE_BYTES;
        }
        self.rss_bytes_max = self.rss_bytes_max.max(self.rss_bytes);
    }

    /// Processor seconds of the Detection servers.
    pub(super) fn server_seconds(&self) -> f64 {
        let ticks = self.ticks.values().map(|(first, last)| last - first).sum::<u64>();
        ticks as f64 / TICKS_A_SECOND
    }

    /// Processor seconds of this process.
    pub(super) fn own_seconds(&self) -> f64 {
        let [user, kernel, _] = numbers(std::process::id()).unwrap_or_default();
        (user + kernel).saturating_sub(self.own_from) as f64 / TICKS_A_SECOND
    }
}

/// User ticks, kernel ticks and resident pages of a process.
fn numbers(pid: u32) -> Option<[u64; 3]> {
    parse(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse(stat: &str) -> Option<[u64; 3]> {
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let mut numbers = [0; 3];
    for (number, at) in numbers.iter_mut().zip(FIELDS) {
        *number = fields.get(at)?.parse().ok()?;
    }
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_spaces_moves_nothing() {
        let stat = "7 (a ) b) S 1 2 3 4 5 6 7 8 9 10 110 120 13 14 15 16 17 18 19 20 210 22";
        assert_eq!(parse(stat), Some([110, 120, 210]));
        assert!(numbers(std::process::id()).is_some_and(|[_, _, pages]| pages > 0));
    }
}
