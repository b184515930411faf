//! What a run of seeds must reach: each fault, each row of the Hello decision table, each cause of
//! a Jump, and states worth reaching; with how often it did.

use std::collections::BTreeMap;

macro_rules! reached {
    ($($group:literal { $($name:ident = $text:literal,)* })*) => {
        /// A fault, a row, a cause, or a state worth reaching.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reached {
            $($(#[doc = $text] $name,)*)*
        }

        impl Reached {
            /// Every one, in the order of the table.
            pub const ALL: &'static [Self] = &[$($(Self::$name,)*)*];

            /// The part of the table it stands in.
            #[must_use]
            pub const fn group(self) -> &'static str {
                match self {
                    $($(Self::$name => $group,)*)*
                }
            }

            /// What it is, for a person.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self {
                    $($(Self::$name => $text,)*)*
                }
            }
        }
    };
}

reached! {
    "fault" {
        CutUp = "connection cut, at any byte of what the sensor sent",
        CutDown = "connection cut, at any byte of what the server sent",
        Delayed = "packets held up for seconds",
        HalfOpen = "connection silent, and neither end knows",
        PeerVanished = "sensor gone without a word, its session left at the server",
        AckLost = "Ack written by the server and never arrived",
        AckRepeated = "Ack that came twice",
        AcksHeld = "acks of stored chunks held, then the server killed",
        DialFailed = "dial that found nobody",
        SensorKilled = "sensor's process killed",
        SensorPowerCut = "sensor's machine without power",
        SensorUnsyncedLost = "unsynced records lost",
        SensorTorn = "record on the disk in part",
        SensorStopped = "sensor stopped in good order",
        SensorFsyncFailed = "sensor's syncs refused for a time",
        SensorDiskFull = "sensor's writes refused for a time",
        SpoolDamaged = "bit rotten in the spool",
        SensorClockJumped = "sensor's wall clock jumped",
        ImageCloned = "second machine from the first one's image",
        DiskRolledBack = "sensor's disk put back to an image",
        KillStorm = "ten short lives of a sensor",
        ServerKilled = "server's process killed",
        ServerUnsyncedLost = "entries lost on their way to the journal",
        ServerFsyncFailed = "journal's flush failed",
        ServerDiskFull = "journal full for a time",
        ServerClockJumped = "server's wall clock jumped",
        ServerRestored = "server restored from an older backup",
        ServerLost = "server begins with nothing",
        ServerDrained = "server drained",
        ServerFull = "server refused a sensor as busy",
        Throttled = "bulk lane refused for a time",
        ThrottleStorm = "bulk lane refused and taken in quick turns",
        CreditHeld = "credit not raised for a time",
        RegistrationKilled = "Registration killed",
        RegistrationSilent = "Registration silent, also to the servers",
        SkewVersions = "Hello with a newer version and capabilities",
        SkewTooNew = "Hello of a version that the server does not speak",
        SkewSkippable = "frame of an unknown kind that may be skipped",
        SkewUnknownKind = "frame of an unknown kind that may not be skipped",
    }
    "Hello row" {
        Hel020 = "HEL-020 normal",
        Hel021 = "HEL-021 new log",
        Hel022 = "HEL-022 the ack was lost",
        Hel023 = "HEL-023 the sensor's disk was rolled back",
        Hel024 = "HEL-024 rolled back, then ran on",
        Hel025 = "HEL-025 two machines of one identity fence each other",
        Hel027 = "HEL-027 server restored, the sensor holds the rest",
        Hel028 = "HEL-028 server restored, the sensor has trimmed",
        Hel029 = "HEL-029 server's data lost",
        Hel030 = "HEL-030 the sensor moved here",
        Hel031 = "HEL-031 the sensor came back",
        Hel032 = "HEL-032 log after an unclean stop",
        Hel033 = "HEL-033 sensor without a spool",
        Hel034 = "HEL-034 log older than the server remembers",
        Hel035 = "HEL-035 Hello after a clock jumped",
        Hel036 = "HEL-036 refused as busy, with a time to wait",
        Hel037 = "HEL-037 half-open session fenced",
        Hel038 = "HEL-038 server within a hole",
    }
    "Jump cause" {
        DroppedSpoolFull = "Dropped(SpoolFull)",
        DroppedSpoolFailed = "Dropped(SpoolFailed)",
        DroppedMemoryFull = "Dropped(MemoryFull)",
        StoredElsewhere = "StoredElsewhere",
        LostServerRolledBack = "Lost(ServerRolledBack)",
        LostSpoolDamaged = "Lost(SpoolDamaged)",
        LostMemory = "Lost(MemoryLost)",
    }
    "state" {
        VerdictResume = "verdict Resume",
        VerdictNew = "verdict New",
        VerdictSensorBehind = "verdict SensorBehind",
        VerdictServerBehind = "verdict ServerBehind",
        VerdictForked = "verdict Forked",
        OpenedForked = "log opened because the old one forked",
        OpenedRolledBack = "log opened because the old one was rolled back",
        ForkSeen = "one key with two contents, seen by a reader",
        Moved = "sensor assigned to another server",
        Keyframe = "keyframe decoded",
        TailSent = "old log's tail sent",
        Resent = "chunk sent again",
        StoredTwice = "chunk stored by two servers, told apart by its key",
        Throttle = "Nack(Throttled) sent",
        Resync = "Resync sent",
        DroppedOp = "fact dropped before a chunk and announced in one",
        GreetedWithPending = "Hello while entries were on their way to the journal",
        CommandRun = "command carried out",
        CommandInterrupted = "command told as interrupted",
        LossFinding = "finding of facts lost with a given-up log",
    }
}

/// How often each was reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    times: BTreeMap<Reached, u64>,
    /// Fault points inside the cores, by name.
    pub sites: BTreeMap<&'static str, u64>,
}

impl Coverage {
    /// Counts one.
    pub fn count(&mut self, reached: Reached) {
        *self.times.entry(reached).or_default() += 1;
    }

    /// Times `reached` was reached.
    #[must_use]
    pub fn times(&self, reached: Reached) -> u64 {
        self.times.get(&reached).copied().unwrap_or_default()
    }

    /// Times each reached part of the table was reached.
    pub fn reached(&self) -> impl Iterator<Item = (Reached, u64)> {
        self.times.iter().map(|(reached, times)| (*reached, *times))
    }

    /// Adds another world's.
    pub fn add(&mut self, other: &Self) {
        for (reached, times) in &other.times {
            *self.times.entry(*reached).or_default() += times;
        }
        for (site, times) in &other.sites {
            *self.sites.entry(site).or_default() += times;
        }
    }

    /// Those that were never reached, by their texts.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        let states = Reached::ALL.iter().filter(|reached| self.times(**reached) == 0);
        let sites = lapwing_protocol::buggify::SITES.iter();
        let sites = sites.filter(|site| self.sites.get(**site).copied().unwrap_or(0) == 0);
        states.map(|reached| reached.text()).chain(sites.copied()).collect()
    }
}
