//! The promise of an answer: a future that a writer's thread resolves.
//!
//! It needs no runtime: awaiting stores a waker, waiting parks the thread. Resolved exactly once;
//! dropping a ticket abandons the answer, never the write.

use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use crate::error::{Blame, Operation, StoreError};

enum State<R> {
    Waiting(Option<Waker>),
    Resolved(Result<R, StoreError>),
    Taken,
}

/// Resolves to a receipt once the submitted write is durable, or to the error that stopped it.
#[must_use = "nothing is durable before the ticket says so"]
pub struct Ticket<R>(Arc<Mutex<State<R>>>);

/// The writer's end of a ticket. One that is dropped without an answer answers "stopped", so that
/// no waiter outlives a writer.
pub(crate) struct Promise<R> {
    state: Arc<Mutex<State<R>>>,
    place: Arc<str>,
}

/// A ticket and its promise, for a writer of the store at `place`.
pub(crate) fn ticket<R>(place: &Arc<str>) -> (Promise<R>, Ticket<R>) {
    let state = Arc::new(Mutex::new(State::Waiting(None)));
    (Promise { state: Arc::clone(&state), place: Arc::clone(place) }, Ticket(state))
}

fn lock<R>(state: &Mutex<State<R>>) -> MutexGuard<'_, State<R>> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<R> Promise<R> {
    pub(crate) fn resolve(self, answer: Result<R, StoreError>) {
        answer_once(&self.state, answer);
    }
}

impl<R> Drop for Promise<R> {
    fn drop(&mut self) {
        let stopped = StoreError::new(Operation::Sync, &self.place, Blame::Stopped);
        answer_once(&self.state, Err(stopped));
    }
}

fn answer_once<R>(state: &Mutex<State<R>>, answer: Result<R, StoreError>) {
    let mut state = lock(state);
    if let State::Waiting(waker) = &mut *state {
        let waker = waker.take();
        *state = State::Resolved(answer);
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<R> Ticket<R> {
    /// Blocks this thread until the answer is there.
    ///
    /// # Errors
    /// The failure that kept the write from becoming durable.
    pub fn wait(self) -> Result<R, StoreError> {
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        let mut context = Context::from_waker(&waker);
        let mut ticket = pin!(self);
        loop {
            match ticket.as_mut().poll(&mut context) {
                Poll::Ready(answer) => return answer,
                Poll::Pending => std::thread::park(),
            }
        }
    }
}

impl<R> Future for Ticket<R> {
    type Output = Result<R, StoreError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = lock(&self.0);
        match std::mem::replace(&mut *state, State::Taken) {
            State::Resolved(answer) => Poll::Ready(answer),
            State::Waiting(_) => {
                *state = State::Waiting(Some(context.waker().clone()));
                Poll::Pending
            }
            // Polled after completion: there is nothing left to give.
            State::Taken => Poll::Pending,
        }
    }
}

impl<R> fmt::Debug for Ticket<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").finish_non_exhaustive()
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
