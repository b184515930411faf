//! The command line of `lapwing-load`, checked.

use std::path::PathBuf;

/// Sensors of one run: more need more addresses than one machine has ports.
const SENSORS_MAX: u32 = 20_000;
/// The smallest spool that the sensor's configuration takes.
const SPOOL_BYTES_MIN: u64 = 4 << 20;

/// Replay a corpus of events (JSON lines) through real sensor cores over real TLS connections, as N
/// enrolled sensors, and report what it cost. An event goes to sensor `pid % N`; its `host` becomes
/// the sensor's name, its `seq` the fact's source_seq. Exit 1 when something is missing at the end.
///
/// Example: lapwing up --no-sensor --ready-file ready.json &
/// lapwing-load --ready-file ready.json --sensors 100 --corpus events.jsonl --report report.json
#[derive(Clone, Debug, argh::FromArgs)]
pub struct Arguments {
    /// the file that `lapwing up --ready-file FILE` wrote
    #[argh(option)]
    pub ready_file: PathBuf,
    /// how many sensors are enrolled and connected
    #[argh(option)]
    pub sensors: u32,
    /// the corpus: one JSON object a line with seq, ts, type, pid and the fields of its type
    #[argh(option)]
    pub corpus: PathBuf,
    /// how many events of the corpus, from its beginning (default: all; 0: only connect)
    #[argh(option)]
    pub events: Option<u64>,
    /// events a second over all sensors (default: as fast as it goes)
    #[argh(option)]
    pub rate: Option<f64>,
    /// stay connected this many seconds after the last event is acknowledged
    #[argh(option, default = "0")]
    pub idle: u64,
    /// keep each sensor's spool on disk, in a new folder in this one (default: in memory)
    #[argh(option)]
    pub spool_dir: Option<PathBuf>,
    /// bytes of each sensor's spool at the most; the oldest is dropped and announced beyond that
    /// (default: 268435456; needs --spool-dir)
    #[argh(option)]
    pub spool_max: Option<u64>,
    /// this many events happen before any sensor connects
    #[argh(option, default = "0")]
    pub offline_events: u64,
    /// close a chunk after so many events of a sensor (default: when the core does)
    #[argh(option)]
    pub chunk_events: Option<u64>,
    /// give up when nothing is acknowledged for this many seconds (default: 120)
    #[argh(option, default = "120")]
    pub patience: u64,
    /// write the figures to this file, as JSON
    #[argh(option)]
    pub report: Option<PathBuf>,
}

impl Arguments {
    /// Refuses what cannot be meant.
    ///
    /// # Errors
    /// What is wrong and what to write instead.
    pub fn check(&self) -> Result<(), String> {
        if self.sensors == 0 || self.sensors > SENSORS_MAX {
            return Err(format!("--sensors {}: write 1 to {SENSORS_MAX}", self.sensors));
        }
        if self.rate.is_some_and(|rate| !(rate.is_finite() && rate > 0.0)) {
            return Err("--rate: write a number of events a second above 0, or leave it out".into());
        }
        if self.chunk_events == Some(0) {
            return Err("--chunk-events 0: write at least 1, or leave it out".into());
        }
        if self.spool_max.is_some() && self.spool_dir.is_none() {
            return Err("--spool-max needs --spool-dir DIR; a spool in memory has no bound".into());
        }
        if let Some(bytes) = self.spool_max.filter(|bytes| *bytes < SPOOL_BYTES_MIN) {
            return Err(format!("--spool-max {bytes}: write at least {SPOOL_BYTES_MIN}"));
        }
        if self.events.is_some_and(|events| events < self.offline_events) {
            return Err("--offline-events: there are fewer --events than that".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use argh::FromArgs as _;

    fn check(more: &[&str]) -> Result<(), String> {
        let all = ["--ready-file", "r", "--corpus", "c"].iter().chain(more);
        let all: Vec<&str> = all.copied().collect();
        Arguments::from_args(&["lapwing-load"], &all).unwrap().check()
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_a_remedy() {
        assert_eq!(check(&["--sensors", "3"]), Ok(()));
        let cases: [(&[&str], &str); 5] = [
            (&["--sensors", "0"], "write 1 to 20000"),
            (&["--sensors", "1", "--rate", "0"], "--rate"),
            (&["--sensors", "1", "--spool-max", "9999999"], "--spool-dir"),
            (&["--sensors", "1", "--spool-dir", "d", "--spool-max", "9"], "at least 4194304"),
            (&["--sensors", "1", "--events", "1", "--offline-events", "2"], "fewer --events"),
        ];
        for (more, expected) in cases {
            let refused = check(more).unwrap_err();
            assert!(refused.contains(expected), "{refused}");
        }
    }
}
