//! Commands on their way to sensors: durable here until the sensor has accepted them.
//!
//! Not here: who may issue them (console.rs) and what becomes of them (facts in the urgent lane).
//! Invariants: a command is durable before its issuer is answered; per sensor they are in order of
//! number; one that the sensor has accepted, or whose time is over, is deleted; one that a backup
//! brought back goes to no sensor that could not tell it from a new one.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use lapwing_net::peer::Failure;
use lapwing_protocol::code::Code;
use lapwing_protocol::command::{Command, CommandNumber};
use lapwing_protocol::console::CommandPut;
use lapwing_protocol::id::SensorId;
use lapwing_server_core::rows::{self, Row};
use lapwing_store::{RowStore, StoreError};

/// The first byte of a command's key in the state store.
const COMMAND: u8 = b'c';
/// The same of a command that waited in a backup: it may have been sent since.
const UNSURE: u8 = b'u';
/// The key of the mark that this life of the server knows which commands are unsure. A restored
/// server has none.
pub(crate) const LIFE_KEY: &[u8] = b"queue-life";
/// Commands that become unsure in one batch: each is two rows, and a batch takes some thousands.
const UNSURE_AT_ONCE: usize = 1_024;
/// Commands waiting for one sensor; one more is refused as busy, and its issuer keeps it.
const COMMANDS_PER_SENSOR_MAX: usize = 64;
/// Commands of one sensor that are sent and whose outcome has not come: as many as a sensor holds
/// (CMD-007); one more would be ignored there.
const IN_FLIGHT_MAX: usize = 4;

/// The commands that wait.
#[derive(Debug)]
pub(crate) struct Commands {
    state: RowStore,
    waiting: Mutex<BTreeMap<SensorId, VecDeque<Waiting>>>,
    /// Held while a command is made durable: two at once would be queued out of order.
    putting: smol::lock::Mutex<()>,
}

/// A command that waits.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    put: CommandPut,
    /// A backup held it: it may have been sent, and run, since that was made.
    is_unsure: bool,
}

impl Waiting {
    fn key(&self) -> Vec<u8> {
        let first = if self.is_unsure { UNSURE } else { COMMAND };
        key(first, self.put.sensor, self.put.number).to_vec()
    }
}

impl Commands {
    /// Reads what waits from the state store. Blocks.
    pub(crate) fn load(state: RowStore) -> Result<Self, StoreError> {
        let mut found = Vec::new();
        for first in [UNSURE, COMMAND] {
            for (_, value) in state.scan(&[first], &[first + 1])? {
                match rows::read::<CommandPut>(&value) {
                    Ok(put) => found.push(Waiting { put, is_unsure: first == UNSURE }),
                    Err(error) => {
                        log::error!("a stored command is not readable ({error}); skipped");
                    }
                }
            }
        }
        if state.get(LIFE_KEY)?.is_none() {
            doubt(&state, &mut found)?;
        }
        let mut waiting: BTreeMap<SensorId, VecDeque<Waiting>> = BTreeMap::new();
        for command in found {
            waiting.entry(command.put.sensor).or_default().push_back(command);
        }
        let putting = smol::lock::Mutex::new(());
        Ok(Self { state, waiting: Mutex::new(waiting), putting })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SensorId, VecDeque<Waiting>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a command, durably. One that is queued already is answered as queued.
    ///
    /// # Errors
    /// [`Code::BUSY`] when the sensor's queue is full, [`Code::STALE_COMMAND`] when a later one is
    /// queued, [`Code::STORE_FAILED`].
    pub(crate) async fn put(&self, now_ms: u64, put: CommandPut) -> Result<(), Failure> {
        let _putting = self.putting.lock().await;
        if let Some(last) = self.last(put.sensor) {
            if put.number == last {
                return Ok(());
            }
            if put.number < last {
                return Err(Failure::new(Code::STALE_COMMAND, "a later command is queued"));
            }
        }
        if self.is_full(put.sensor) {
            self.settle(now_ms, put.sensor, |_| false).await.map_err(failed)?;
        }
        if self.is_full(put.sensor) {
            let text = "too many commands wait for this sensor; try again later";
            return Err(Failure::new(Code::BUSY, text));
        }
        let command = Waiting { put, is_unsure: false };
        let row = Row::put(command.key(), &put);
        self.state.submit(vec![row]).map_err(failed)?.durable().await.map_err(failed)?;
        self.lock().entry(put.sensor).or_default().push_back(command);
        Ok(())
    }

    /// The number of the last command that waits for `sensor`.
    pub(crate) fn last(&self, sensor: SensorId) -> Option<CommandNumber> {
        self.lock().get(&sensor)?.back().map(|command| command.put.number)
    }

    /// Whether the command of that number waits for `sensor`.
    pub(crate) fn is_waiting(&self, sensor: SensorId, number: CommandNumber) -> bool {
        let waiting = self.lock();
        let mut queue = waiting.get(&sensor).into_iter().flatten();
        queue.any(|command| command.put.number == number)
    }

    fn is_full(&self, sensor: SensorId) -> bool {
        self.pending(sensor).len() >= COMMANDS_PER_SENSOR_MAX
    }

    fn pending(&self, sensor: SensorId) -> Vec<Waiting> {
        self.lock().get(&sensor).map(|queue| queue.iter().copied().collect()).unwrap_or_default()
    }

    /// The commands to send to `sensor` now: above `sent`, not expired, and no more than it holds
    /// with those whose outcome has not come.
    pub(crate) fn due(
        &self,
        now_ms: u64,
        sensor: SensorId,
        sent: Option<CommandNumber>,
    ) -> Vec<Command> {
        let lives = |put: &CommandPut| put.expires_ms > now_ms || cfg!(mutant = "expired_sent");
        let is_new =
            |put: &CommandPut| Some(put.number) > sent || cfg!(mutant = "command_sent_again");
        let command = |put: CommandPut| Command {
            number: put.number,
            expires_after_ms: put.expires_ms.saturating_sub(now_ms),
            action: put.action,
        };
        let pending = self.pending(sensor).into_iter().map(|command| command.put);
        let in_flight = pending.filter(lives).take(IN_FLIGHT_MAX);
        in_flight.filter(is_new).map(command).collect()
    }

    /// Deletes what is over by its number, since the sensor accepted it or told its outcome, and
    /// what expired.
    ///
    /// # Errors
    /// It is not durable that they are deleted: they wait on.
    pub(crate) async fn settle(
        &self,
        now_ms: u64,
        sensor: SensorId,
        is_over: impl Fn(CommandNumber) -> bool,
    ) -> Result<(), StoreError> {
        let over = |put: &CommandPut| is_over(put.number) || put.expires_ms <= now_ms;
        self.delete(sensor, |command| over(&command.put)).await
    }

    /// Deletes what may have been sent to `sensor` already, which would not know it again.
    ///
    /// # Errors
    /// It is not durable that they are deleted.
    pub(crate) async fn forget_unsure(&self, sensor: SensorId) -> Result<(), StoreError> {
        self.delete(sensor, |command| command.is_unsure).await
    }

    async fn delete(
        &self,
        sensor: SensorId,
        is_over: impl Fn(&Waiting) -> bool,
    ) -> Result<(), StoreError> {
        let settled = self.pending(sensor).into_iter().filter(|command| is_over(command));
        let removed: Vec<Row> = settled.map(|command| Row::remove(command.key())).collect();
        if removed.is_empty() {
            return Ok(());
        }
        self.state.submit(removed)?.durable().await?;
        if let Some(queue) = self.lock().get_mut(&sensor) {
            queue.retain(|command| !is_over(command));
        }
        Ok(())
    }
}

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::new(Code::STORE_FAILED, format!("the command could not be stored: {error}"))
}

/// What waits was in a backup: whatever was sent since that was made is not known.
fn doubt(state: &RowStore, found: &mut [Waiting]) -> Result<(), StoreError> {
    for commands in found.chunks_mut(UNSURE_AT_ONCE) {
        let mut rows = Vec::new();
        for command in commands.iter_mut().filter(|command| !command.is_unsure) {
            rows.push(Row::remove(command.key()));
            command.is_unsure = true;
            rows.push(Row::put(command.key(), &command.put));
        }
        smol::block_on(state.submit(rows)?.durable())?;
    }
    smol::block_on(state.submit(vec![Row::put(LIFE_KEY.to_vec(), &())])?.durable())
}

/// Keys sort by sensor, then number.
fn key(first: u8, sensor: SensorId, number: CommandNumber) -> [u8; 33] {
    let mut key = [first; 33];
    key[1..17].copy_from_slice(&sensor.0);
    key[17..25].copy_from_slice(&number.issuer.to_be_bytes());
    key[25..].copy_from_slice(&number.seq.to_be_bytes());
    key
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use lapwing_protocol::command::Action;
    use lapwing_store::MemoryDisk;

    use super::*;

    const SENSOR: SensorId = SensorId([1; 16]);

    fn commands(disk: &MemoryDisk) -> Commands {
        Commands::load(RowStore::over(Arc::new(disk.open().unwrap())).unwrap()).unwrap()
    }

    fn put(seq: u64, expires_ms: u64) -> CommandPut {
        let number = CommandNumber { issuer: 1, seq };
        CommandPut { sensor: SENSOR, number, expires_ms, action: Action::StopCollection }
    }

    fn due(commands: &Commands, now_ms: u64, sent: u64) -> Vec<u64> {
        let sent = Some(CommandNumber { issuer: 1, seq: sent });
        commands.due(now_ms, SENSOR, sent).iter().map(|command| command.number.seq).collect()
    }

    #[test]
    fn a_sensor_gets_no_more_than_it_holds_until_outcomes_make_room() {
        let commands = commands(&MemoryDisk::new("commands"));
        smol::block_on(async {
            for seq in 1..=6 {
                commands.put(0, put(seq, 100)).await.unwrap();
            }
            assert_eq!(due(&commands, 0, 0), [1, 2, 3, 4]);
            assert_eq!(due(&commands, 0, 4), Vec::<u64>::new());
            commands.settle(0, SENSOR, |number| number.seq == 2).await.unwrap();
            assert_eq!(due(&commands, 0, 4), [5]);
        });
    }

    /// CMD-004: a sensor without memory gets a command only after the queue forgot it.
    #[test]
    fn what_could_not_be_deleted_durably_is_said_and_waits_on() {
        let disk = MemoryDisk::new("commands");
        let commands = commands(&disk);
        smol::block_on(async {
            commands.put(0, put(1, 100)).await.unwrap();
            disk.fail_next_sync();
            commands.settle(0, SENSOR, |_| true).await.unwrap_err();
            assert_eq!(due(&commands, 0, 0), [1]);
        });
    }

    #[test]
    fn a_full_queue_takes_more_when_what_waits_has_expired() {
        let disk = MemoryDisk::new("commands");
        let commands = commands(&disk);
        let full = COMMANDS_PER_SENSOR_MAX as u64;
        smol::block_on(async {
            for seq in 1..=full {
                commands.put(0, put(seq, 100)).await.unwrap();
            }
            let refused = commands.put(99, put(full + 1, 200)).await.unwrap_err();
            assert_eq!(refused.code, Code::BUSY);
            commands.put(100, put(full + 1, 200)).await.unwrap();
            assert_eq!(due(&commands, 100, 0), [full + 1]);
        });
        drop(commands);
        assert_eq!(due(&self::commands(&disk), 100, 0), [full + 1], "durably");
    }

    #[test]
    fn what_is_put_at_once_is_queued_in_order_or_refused() {
        let commands = commands(&MemoryDisk::new("commands"));
        let (first, second) = smol::block_on(smol::future::zip(
            commands.put(0, put(2, 100)),
            commands.put(0, put(1, 100)),
        ));
        let pending = commands.pending(SENSOR);
        let numbers: Vec<u64> = pending.iter().map(|command| command.put.number.seq).collect();
        let stale = second.map_err(|failure| failure.code);
        assert_eq!((first, stale, numbers), (Ok(()), Err(Code::STALE_COMMAND), vec![2]));
    }
}
