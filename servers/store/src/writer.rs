//! Group commit: one thread applies what many tasks submit, and syncs once for all of them.
//!
//! An idle writer flushes the first batch at once; what arrives while a flush runs is gathered
//! into the next one. There is no timer: under load the flush itself is the pace.
//! Invariants: a ticket resolves only after the sync that covers it; items are applied in the order
//! of submission; after a failed apply or sync nothing is acknowledged any more, and every waiter
//! and later submitter gets the error. It runs under any executor and needs none.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use event_listener::{Event, Listener};

use crate::batch::{Batch, Misuse};
use crate::error::{Blame, Operation, StoreError};
use crate::limits::{
    GROUP_APPLY_MS_MAX, GROUP_BATCHES_MAX, WRITER_QUEUE_BYTES_MAX, WRITER_QUEUE_MAX,
};
use crate::store::Store;
use crate::ticket::{Promise, Ticket, ticket};

/// What the writer's thread drives: something that applies items in order and syncs them.
pub trait Sink: Send + 'static {
    /// What is submitted.
    type Item: Send + 'static;
    /// What the submitter learns once its item is durable.
    type Receipt: Send + 'static;

    /// The place for errors.
    fn place(&self) -> Arc<str>;

    /// The memory that `item` takes while it waits, in bytes.
    fn weigh(item: &Self::Item) -> usize;

    /// Applies `item` as a whole, or takes it up so that the next `sync` applies it as a whole.
    ///
    /// # Errors
    /// `Blame::Caller` concerns this item alone; any other error stops the writer.
    fn apply(&mut self, item: Self::Item) -> Result<Self::Receipt, StoreError>;

    /// Makes everything that `apply` took durable.
    ///
    /// # Errors
    /// Any error stops the writer.
    fn sync(&mut self) -> Result<(), StoreError>;
}

/// A sink of batches over one store. The batches of a group reach the store as one.
pub struct StoreSink {
    store: Arc<dyn Store>,
    gathered: Batch,
}

impl StoreSink {
    /// A sink over `store`.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, gathered: Batch::new() }
    }
}

/// Adds `batch` to `gathered`; where both do not fit in one, `gathered` is applied first.
pub(crate) fn gather(
    gathered: &mut Batch,
    batch: Batch,
    apply: impl FnOnce(Batch) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    match gathered.absorb(batch) {
        Ok(()) => Ok(()),
        Err(batch) => apply(std::mem::replace(gathered, batch)),
    }
}

impl Sink for StoreSink {
    type Item = Batch;
    type Receipt = ();

    fn place(&self) -> Arc<str> {
        Arc::clone(self.store.place())
    }

    fn weigh(item: &Batch) -> usize {
        item.bytes()
    }

    fn apply(&mut self, item: Batch) -> Result<(), StoreError> {
        gather(&mut self.gathered, item, |batch| self.store.apply(batch))
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        if !self.gathered.is_empty() {
            self.store.apply(std::mem::take(&mut self.gathered))?;
        }
        self.store.sync()
    }
}

impl fmt::Debug for StoreSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreSink").field("place", self.store.place()).finish_non_exhaustive()
    }
}

/// The bounds of a writer; the defaults are those of `limits`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriterOptions {
    /// The most items that wait.
    pub queue_max: usize,
    /// The most bytes that wait.
    pub queue_bytes_max: usize,
    /// The most items in one flush.
    pub group_max: usize,
    /// Milliseconds of applying after which a group takes no further item.
    pub group_apply_ms_max: u64,
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self {
            queue_max: WRITER_QUEUE_MAX,
            queue_bytes_max: WRITER_QUEUE_BYTES_MAX,
            group_max: GROUP_BATCHES_MAX,
            group_apply_ms_max: GROUP_APPLY_MS_MAX,
        }
    }
}

/// Why a submission was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// The queue is at its bound: throttle the source and submit again, see [`Writer::room`].
    Full,
    /// The item breaks a bound and would be refused again.
    Misuse(Misuse),
    /// The writer stopped after this error.
    Stopped(StoreError),
    /// The writer was closed.
    Closed,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("the writer's queue is full"),
            Self::Misuse(misuse) => misuse.fmt(f),
            Self::Stopped(error) => error.fmt(f),
            Self::Closed => f.write_str("the writer is closed"),
        }
    }
}

/// A refused submission with the item that was not taken.
#[derive(Debug)]
pub struct Refused<T> {
    /// The item, unchanged.
    pub item: T,
    /// The reason.
    pub why: Refusal,
}

impl<T> fmt::Display for Refused<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.why.fmt(f)
    }
}

impl<T: fmt::Debug> std::error::Error for Refused<T> {}

struct Pending<S: Sink> {
    item: S::Item,
    promise: Promise<S::Receipt>,
}

struct Queue<S: Sink> {
    waiting: VecDeque<Pending<S>>,
    bytes: usize,
    closed: bool,
    stopped: Option<StoreError>,
}

struct Shared<S: Sink> {
    queue: Mutex<Queue<S>>,
    arrived: Condvar,
    room: Event,
    options: WriterOptions,
    place: Arc<str>,
}

impl<S: Sink> Shared<S> {
    fn lock(&self) -> MutexGuard<'_, Queue<S>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stop(&self, error: &StoreError) {
        let refused = {
            let mut queue = self.lock();
            queue.stopped.get_or_insert_with(|| error.clone());
            queue.bytes = 0;
            std::mem::take(&mut queue.waiting)
        };
        for pending in refused {
            pending.promise.resolve(Err(error.clone()));
        }
        self.room.notify(usize::MAX);
    }
}

/// A handle on the thread that commits in groups. Share it in an `Arc`; dropping it commits what
/// waits and blocks until then.
///
/// A read of the store sees an item at the latest when its ticket resolves.
pub struct Writer<S: Sink> {
    shared: Arc<Shared<S>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl<S: Sink> Writer<S> {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the operating system gives no thread.
    pub fn start(sink: S, options: WriterOptions) -> Result<Self, StoreError> {
        let place = sink.place();
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue {
                waiting: VecDeque::new(),
                bytes: 0,
                closed: false,
                stopped: None,
            }),
            arrived: Condvar::new(),
            room: Event::new(),
            options,
            place: Arc::clone(&place),
        });
        let thread = thread::Builder::new()
            .name("store writer".to_owned())
            .spawn({
                let shared = Arc::clone(&shared);
                move || Committer { shared, sink, carried: VecDeque::new() }.run()
            })
            .map_err(|error| StoreError::disk(Operation::Open, &place, &error))?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Queues `item`. Never blocks on the disk; the ticket resolves when the item is durable.
    ///
    /// # Errors
    /// The refused item and why; nothing of it was applied.
    pub fn submit(&self, item: S::Item) -> Result<Ticket<S::Receipt>, Refused<S::Item>> {
        let bytes = S::weigh(&item);
        let mut queue = self.shared.lock();
        let why = if let Some(error) = &queue.stopped {
            Refusal::Stopped(error.clone())
        } else if queue.closed {
            Refusal::Closed
        } else if self.is_full(&queue, bytes) {
            Refusal::Full
        } else {
            let (promise, ticket) = ticket(&self.shared.place);
            queue.waiting.push_back(Pending { item, promise });
            queue.bytes += bytes;
            drop(queue);
            self.shared.arrived.notify_one();
            return Ok(ticket);
        };
        Err(Refused { item, why })
    }

    /// Queues `item`, blocking this thread while the queue is full.
    ///
    /// # Errors
    /// Any refusal but `Full`.
    pub fn submit_blocking(
        &self,
        mut item: S::Item,
    ) -> Result<Ticket<S::Receipt>, Refused<S::Item>> {
        loop {
            let listener = self.shared.room.listen();
            match self.submit(item) {
                Err(Refused { item: refused, why: Refusal::Full }) => item = refused,
                other => return other,
            }
            listener.wait();
        }
    }

    /// Resolves when a refused submission is worth another attempt: there is room, or the writer
    /// has stopped or closed and says so.
    pub async fn room(&self) {
        loop {
            let listener = self.shared.room.listen();
            {
                let queue = self.shared.lock();
                let over = queue.closed || queue.stopped.is_some();
                if over || !self.is_full(&queue, 1) {
                    return;
                }
            }
            listener.await;
        }
    }

    /// Resolves to the error that stopped the writer, when one does.
    pub async fn stopped(&self) -> StoreError {
        loop {
            let listener = self.shared.room.listen();
            if let Some(error) = self.failure() {
                return error;
            }
            listener.await;
        }
    }

    /// The number of items and bytes that wait.
    #[must_use]
    pub fn backlog(&self) -> (usize, usize) {
        let queue = self.shared.lock();
        (queue.waiting.len(), queue.bytes)
    }

    /// The error that stopped the writer, if any.
    #[must_use]
    pub fn failure(&self) -> Option<StoreError> {
        self.shared.lock().stopped.clone()
    }

    /// Takes nothing more, commits what waits and ends the thread. Blocks until then. Idempotent.
    pub fn close(&self) {
        self.shared.lock().closed = true;
        self.shared.arrived.notify_one();
        self.shared.room.notify(usize::MAX);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Err(_)) = thread.map(JoinHandle::join) {
            log::error!("the writer of the store at {} ended by a panic", self.shared.place);
        }
    }

    fn is_full(&self, queue: &Queue<S>, bytes: usize) -> bool {
        let options = &self.shared.options;
        queue.waiting.len() >= options.queue_max
            || (queue.bytes + bytes > options.queue_bytes_max && !queue.waiting.is_empty())
    }
}

impl<S: Sink> Drop for Writer<S> {
    fn drop(&mut self) {
        self.close();
    }
}

impl<S: Sink> fmt::Debug for Writer<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("place", &self.shared.place).finish_non_exhaustive()
    }
}

type Answer<S> = (Promise<<S as Sink>::Receipt>, Result<<S as Sink>::Receipt, StoreError>);

/// The thread's side. Dropped by a panic as well, it leaves nobody waiting.
struct Committer<S: Sink> {
    shared: Arc<Shared<S>>,
    sink: S,
    /// Taken from the queue, but too late for the last group.
    carried: VecDeque<Pending<S>>,
}

impl<S: Sink> Committer<S> {
    fn run(mut self) {
        while self.wait_for_items() {
            let mut answers = Vec::new();
            let committed = self.apply_group(&mut answers).and_then(|()| self.sink.sync());
            match committed {
                Ok(()) => {
                    for (promise, answer) in answers {
                        promise.resolve(answer);
                    }
                }
                Err(error) => {
                    log::error!("nothing more is acknowledged: {error}");
                    self.shared.stop(&error);
                    let carried = self.carried.drain(..).map(|pending| pending.promise);
                    for promise in answers.into_iter().map(|(promise, _)| promise).chain(carried) {
                        promise.resolve(Err(error.clone()));
                    }
                    return;
                }
            }
        }
    }

    /// Waits until there is something to commit; false when closed and empty.
    fn wait_for_items(&mut self) -> bool {
        if !self.carried.is_empty() {
            return true;
        }
        let mut queue = self.shared.lock();
        while queue.waiting.is_empty() {
            if queue.closed {
                return false;
            }
            queue = self.shared.arrived.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        true
    }

    fn apply_group(&mut self, answers: &mut Vec<Answer<S>>) -> Result<(), StoreError> {
        let group_max = self.shared.options.group_max.max(1);
        let budget = Duration::from_millis(self.shared.options.group_apply_ms_max);
        let begun = Instant::now();
        while answers.len() < group_max && (answers.is_empty() || begun.elapsed() < budget) {
            if self.carried.is_empty() && !self.take_from_queue(group_max - answers.len()) {
                break;
            }
            let Some(Pending { item, promise }) = self.carried.pop_front() else { break };
            match self.sink.apply(item) {
                Err(error) if !matches!(error.blame, Blame::Caller(_)) => {
                    promise.resolve(Err(error.clone()));
                    return Err(error);
                }
                answer => answers.push((promise, answer)),
            }
        }
        Ok(())
    }

    fn take_from_queue(&mut self, count_max: usize) -> bool {
        {
            let mut queue = self.shared.lock();
            let count = queue.waiting.len().min(count_max);
            self.carried.extend(queue.waiting.drain(..count));
            let taken: usize = self.carried.iter().map(|pending| S::weigh(&pending.item)).sum();
            queue.bytes = queue.bytes.saturating_sub(taken);
        }
        self.shared.room.notify(usize::MAX);
        !self.carried.is_empty()
    }
}

impl<S: Sink> Drop for Committer<S> {
    fn drop(&mut self) {
        if thread::panicking() {
            let error = StoreError::new(Operation::Apply, &self.shared.place, Blame::Stopped);
            self.shared.stop(&error);
        }
    }
}
