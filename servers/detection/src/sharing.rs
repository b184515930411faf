//! The budget of what is on its way to the disk, shared by the connections of all sensors.
//!
//! Not here: how it is dealt (`lapwing_server_core::delivery::FairShare`). Invariant: the budget's
//! lock is never held while a receiver's is taken; the other way round is the rule.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lapwing_net::clock;
use lapwing_net::shutdown::Shutdown;
use lapwing_protocol::id::{Lane, SensorId};
use lapwing_server_core::delivery::{FairShare, Raise};
use lapwing_server_core::pressure::Pressure;
use lapwing_store::SpaceGauge;
use smol::Timer;

use crate::limits::SHARE_TIME;
use crate::metrics::ShareMetrics;
use crate::roster::{Member, Roster};

/// The budget and whose credit it decides.
#[derive(Debug)]
pub(crate) struct Sharing {
    share: Mutex<FairShare>,
    /// What the sensors' urgent lanes were last given credit by.
    pressure: Mutex<Pressure>,
    /// What the budget was last told.
    dealt_by: Mutex<Pressure>,
    roster: Arc<Roster>,
    metrics: ShareMetrics,
    gauge: SpaceGauge,
}

/// What the store needs of an entry beside its bytes: keys, records and its head.
const ENTRY_BYTES: u64 = 512;

/// An entry on its way to the disk; what it takes of the budget is given back when this is dropped,
/// and from then on the disk has what it takes there.
#[derive(Debug)]
pub(crate) struct Charge {
    sharing: Arc<Sharing>,
    sensor: SensorId,
    lane: Lane,
    bytes: usize,
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.sharing.gauge.settle(self.bytes as u64 + ENTRY_BYTES);
        if self.lane == Lane::Urgent {
            return;
        }
        self.sharing.share().stored(clock::monotonic_ms(), self.sensor, self.bytes);
    }
}

impl Sharing {
    /// A budget of so many bytes, on the disk of `gauge`.
    pub(crate) fn new(
        bytes_max: u64,
        gauge: SpaceGauge,
        roster: Arc<Roster>,
        metrics: ShareMetrics,
    ) -> Self {
        Self {
            share: Mutex::new(FairShare::new(bytes_max)),
            pressure: Mutex::default(),
            dealt_by: Mutex::default(),
            roster,
            metrics,
            gauge,
        }
    }

    fn share(&self) -> MutexGuard<'_, FairShare> {
        self.share.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Prepares `member` for a Hello: what credit it is answered with.
    pub(crate) fn prepare(&self, member: &Member) {
        let first_window = self.share().first_window();
        let pressure = *self.pressure.lock().unwrap_or_else(PoisonError::into_inner);
        let mut receiver = member.receiver();
        receiver.hold_credit();
        receiver.set_first_window(first_window);
        receiver.fit_urgent(pressure);
    }

    /// A sensor was greeted.
    pub(crate) fn join(&self, member: &Member, epoch: u64) {
        self.share().join(member.sensor, epoch);
        self.prepare(member);
    }

    /// A session ended.
    pub(crate) fn leave(&self, member: &Member, epoch: u64) {
        self.share().leave(clock::monotonic_ms(), member.sensor, epoch);
        self.settle();
    }

    /// Whether a chunk or Jump of `bytes` is taken; called with the sensor's receiver held. What
    /// follows for others waits for [`Self::settle`].
    pub(crate) fn admit(&self, sensor: SensorId, bytes: usize) -> Result<(), u32> {
        // Not at the next look: what all sensors may send until then is more than what is left.
        let pressure = self.gauge.pressure();
        if pressure == Pressure::Full {
            self.deal_by(pressure);
        }
        let admitted = self.share().admit(clock::monotonic_ms(), sensor, bytes);
        if admitted.is_err() {
            self.metrics.throttled.inc();
        }
        admitted
    }

    /// The charge for an entry; one of the bulk lane was admitted.
    pub(crate) fn charge(self: &Arc<Self>, sensor: SensorId, lane: Lane, bytes: usize) -> Charge {
        self.gauge.give(bytes as u64 + ENTRY_BYTES);
        Charge { sharing: Arc::clone(self), sensor, lane, bytes }
    }

    /// Deals the budget by how full the disk is.
    fn deal_by(&self, pressure: Pressure) {
        let mut dealt_by = self.dealt_by.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::replace(&mut *dealt_by, pressure) != pressure {
            self.share().set_pressure(clock::monotonic_ms(), pressure);
        }
    }

    /// Asks for credit, where `member` has less than `low` bytes of it.
    pub(crate) fn ask(&self, member: &Member, low: u64) {
        let left = member.receiver().credit_left();
        if let Some(left) = left.filter(|left| *left < low) {
            self.share().ask(clock::monotonic_ms(), member.sensor, left);
        }
        self.settle();
    }

    /// Credit follows how full the disk is.
    fn follow_pressure(&self) {
        let pressure = self.gauge.pressure();
        let mut held = self.pressure.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *held, pressure);
        drop(held);
        self.deal_by(pressure);
        if before != pressure {
            for member in self.roster.all() {
                member.receiver().fit_urgent(pressure);
            }
        }
    }

    /// Lets time pass: turns that nobody used go to others.
    fn look(&self) {
        self.follow_pressure();
        self.share().handle_timeout(clock::monotonic_ms());
        self.settle();
    }

    /// Raises the credit of those whose turn it is, and has it said.
    pub(crate) fn settle(&self) {
        loop {
            let raises = {
                let mut share = self.share();
                self.metrics.in_flight.set(i64::try_from(share.in_flight()).unwrap_or(i64::MAX));
                self.metrics.waiting.set(i64::try_from(share.waiting()).unwrap_or(i64::MAX));
                self.metrics.lapsed.inc_by(share.take_lapsed());
                std::iter::from_fn(|| share.poll_raise()).collect::<Vec<_>>()
            };
            if raises.is_empty() {
                return;
            }
            for Raise { sensor, epoch, bytes } in raises {
                if let Some(member) = self.roster.find(sensor) {
                    member.receiver().raise_credit(epoch, bytes);
                    member.wake.notify(usize::MAX);
                }
            }
        }
    }

    /// Lets time pass, until the shutdown.
    pub(crate) async fn run(&self, shutdown: Shutdown) {
        let ticking = async {
            loop {
                Timer::after(SHARE_TIME).await;
                self.look();
            }
        };
        smol::future::or(shutdown.begun(), ticking).await;
    }
}

#[cfg(test)]
mod tests {
    use lapwing_protocol::id::{DeploymentId, ServerId};
    use lapwing_server_core::pressure::Bounds;
    use lapwing_store::journal::{Incarnation, Journal, JournalOptions, MemoryPartitions};
    use lapwing_store::{MemoryDisk, RowStore};

    use super::*;

    /// A budget of a mebibyte on a disk of a quota of one, with a sensor that was greeted.
    fn sharing() -> (tempfile::TempDir, SpaceGauge, Arc<Sharing>, Arc<Member>) {
        let folder = tempfile::tempdir().unwrap();
        let bounds = Bounds { quota: Some(1 << 20), free_space_floor: 0 };
        let gauge = SpaceGauge::new(folder.path(), bounds);
        let options = JournalOptions::new(Incarnation::Keep([9; 16]), 1);
        let partitions = Arc::new(MemoryPartitions::new("sharing"));
        let journal = Journal::open(partitions, &options).unwrap();
        let state = RowStore::over(Arc::new(MemoryDisk::new("state").open().unwrap())).unwrap();
        let owner = (DeploymentId([1; 16]), ServerId([2; 16]));
        let roster = Arc::new(Roster::load(owner, &journal, &state).unwrap());
        let member = roster.member(0, SensorId([3; 16]));
        let sharing = Sharing::new(1 << 20, gauge.clone(), roster, ShareMetrics::default());
        sharing.join(&member, 1);
        (folder, gauge, Arc::new(sharing), member)
    }

    #[test]
    fn a_full_disk_refuses_bulk_and_says_so_and_room_ends_it() {
        let (folder, gauge, sharing, member) = sharing();
        assert_eq!(sharing.admit(member.sensor, 100), Ok(()));

        std::fs::write(folder.path().join("partition"), vec![1; 1 << 20]).unwrap();
        gauge.measure().unwrap();
        sharing.look();
        assert!(sharing.admit(member.sensor, 100).is_err());
        assert_eq!(sharing.metrics.throttled.get(), 1);

        std::fs::remove_file(folder.path().join("partition")).unwrap();
        gauge.measure().unwrap();
        sharing.look();
        assert_eq!(sharing.admit(member.sensor, 100), Ok(()));
    }

    #[test]
    fn between_two_measures_the_quota_is_kept_by_counting_what_is_taken() {
        let (_folder, gauge, sharing, member) = sharing();
        gauge.measure().unwrap();
        sharing.look();
        let mut taken = 0;
        // Each chunk is durable at once, no time passes, and nobody measures.
        while taken < 4 << 20 && sharing.admit(member.sensor, 16_000).is_ok() {
            drop(sharing.charge(member.sensor, Lane::Bulk, 16_000));
            taken += 16_000;
        }
        assert!((900_000..1_000_000).contains(&taken), "{taken} bytes of a quota of 1 MiB");
        // What is urgent is taken, and counts: the measure that follows must not be needed for it.
        sharing.look();
        assert_eq!(gauge.pressure(), Pressure::Full);
        // On the disk it was nothing: a measure ends it.
        gauge.measure().unwrap();
        sharing.look();
        assert_eq!(sharing.admit(member.sensor, 16_000), Ok(()));
        let urgent = sharing.charge(member.sensor, Lane::Urgent, 1 << 20);
        assert!(sharing.admit(member.sensor, 16_000).is_err(), "the urgent lane's bytes count");
        drop(urgent);
    }
}
