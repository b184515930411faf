//! Commands: each runs at most once, and what became of it goes back as a fact.
//!
//! A command's number is made durable by the shell before it is carried out; a number that is not
//! above the last accepted one is refused. Expiry is judged by the sensor's monotonic clock. One
//! command is accepted at a time, in order; carrying out may overlap.
//!
//! Bound: [`COMMANDS_MAX`] commands between receipt and outcome. One more is turned away, and so is
//! every one behind it until the next HelloAck, or a later number would make the earlier one old.
//! They stay with the server, which sends them again after a Hello; the sensor says one as soon as
//! its inbox is empty.

use core::cmp::Ordering;

use heapless::Vec;
use lapwing_protocol::command::{Action, Command, CommandNumber, Outcome};

use crate::limits::COMMANDS_MAX;
use crate::time::Now;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Received; its number is to be made durable.
    Received,
    /// The shell makes its number durable.
    Accepting,
    /// Its number is durable; it is to be carried out.
    Accepted,
    /// The shell carries it out.
    Executing,
    /// Over; the outcome is to be recorded.
    Over(Outcome),
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    command: Command,
    expires_ns: u64,
    stage: Stage,
}

/// Work of the shell on a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    Accept(CommandNumber),
    Execute(Command),
}

/// What became of receiving a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Receipt {
    Taken,
    Repeated,
    /// It stays with the server.
    TurnedAway,
}

#[derive(Debug)]
pub(crate) struct Inbox {
    last: Option<CommandNumber>,
    entries: Vec<Entry, COMMANDS_MAX>,
    /// A command was turned away since the last HelloAck.
    is_turning_away: bool,
}

impl Inbox {
    pub(crate) fn new(last: Option<CommandNumber>) -> Self {
        Self { last, entries: Vec::new(), is_turning_away: false }
    }

    /// The highest number accepted.
    pub(crate) fn last(&self) -> Option<CommandNumber> {
        self.last
    }

    pub(crate) fn handle_command(&mut self, now: Now, command: Command) -> Receipt {
        if self.entries.iter().any(|entry| entry.command.number == command.number) {
            return Receipt::Repeated;
        }
        let is_turning = self.is_turning_away && !cfg!(mutant = "turned_away_overtaken");
        if is_turning || self.entries.is_full() {
            self.is_turning_away = true;
            return Receipt::TurnedAway;
        }
        let highest = self.entries.iter().map(|entry| entry.command.number).max().max(self.last);
        let is_stale = highest.is_some_and(|highest| match command.number.cmp(&highest) {
            Ordering::Less => !cfg!(mutant = "command_number_reset"),
            Ordering::Equal => !cfg!(mutant = "command_run_twice"),
            Ordering::Greater => false,
        });
        let stage = if is_stale { Stage::Over(Outcome::Refused) } else { Stage::Received };
        let expires_ns = now.after_ms(command.expires_after_ms);
        // There is room, as was seen above.
        let _ = self.entries.push(Entry { command, expires_ns, stage });
        Receipt::Taken
    }

    /// Whether a Hello is to be said for what was turned away.
    pub(crate) fn wants_hello(&self) -> bool {
        self.is_turning_away && self.entries.is_empty()
    }

    /// The server answered a Hello: what it sends from now on follows the last accepted number.
    pub(crate) fn handle_hello_ack(&mut self) {
        self.is_turning_away = false;
    }

    /// What the shell is to do next.
    pub(crate) fn poll(&mut self, now: Now) -> Option<Work> {
        let expired = |entry: &Entry| {
            entry.expires_ns <= now.monotonic_ns && !cfg!(mutant = "expired_command_run")
        };
        let waiting = |entry: &&mut Entry| {
            matches!(entry.stage, Stage::Received | Stage::Accepted) && expired(entry)
        };
        for entry in self.entries.iter_mut().filter(waiting) {
            entry.stage = Stage::Over(Outcome::Expired);
        }
        let is_accepting = self.entries.iter().any(|entry| entry.stage == Stage::Accepting);
        for entry in &mut self.entries {
            match entry.stage {
                Stage::Received if !is_accepting => {
                    entry.stage = Stage::Accepting;
                    return Some(Work::Accept(entry.command.number));
                }
                Stage::Accepted => {
                    entry.stage = Stage::Executing;
                    return Some(Work::Execute(entry.command));
                }
                Stage::Received | Stage::Accepting | Stage::Executing | Stage::Over(_) => {}
            }
        }
        None
    }

    /// The shell made the number durable.
    pub(crate) fn handle_accepted(&mut self, number: CommandNumber) {
        let accepting =
            |entry: &&mut Entry| entry.command.number == number && entry.stage == Stage::Accepting;
        if let Some(entry) = self.entries.iter_mut().find(accepting) {
            entry.stage = Stage::Accepted;
            self.last = self.last.max(Some(number));
        }
    }

    /// The action of a command that the shell carries out, to name it in its outcome.
    pub(crate) fn action(&self, number: CommandNumber) -> Option<Action> {
        let mut entries = self.entries.iter();
        entries.find(|entry| entry.command.number == number).map(|entry| entry.command.action)
    }

    /// The outcome of `number` is recorded.
    pub(crate) fn finish(&mut self, number: CommandNumber) {
        self.entries.retain(|entry| entry.command.number != number);
    }

    /// An outcome that the inbox itself decided.
    pub(crate) fn decided(&self) -> Option<(Command, Outcome)> {
        self.entries.iter().find_map(|entry| match entry.stage {
            Stage::Over(outcome) => Some((entry.command, outcome)),
            Stage::Received | Stage::Accepting | Stage::Accepted | Stage::Executing => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(seq: u64) -> CommandNumber {
        CommandNumber { issuer: 1, seq }
    }

    fn command(seq: u64) -> Command {
        Command { number: number(seq), expires_after_ms: 100, action: Action::Restart }
    }

    #[test]
    fn a_command_is_accepted_before_it_is_carried_out() {
        let mut inbox = Inbox::new(Some(number(4)));
        let now = Now::default();
        assert_eq!(inbox.handle_command(now, command(5)), Receipt::Taken);
        assert_eq!(inbox.handle_command(now, command(6)), Receipt::Taken);
        assert_eq!(inbox.poll(now), Some(Work::Accept(number(5))));
        assert_eq!(inbox.poll(now), None);
        inbox.handle_accepted(number(5));
        assert_eq!(inbox.last(), Some(number(5)));
        assert_eq!(inbox.poll(now), Some(Work::Execute(command(5))));
        assert_eq!(inbox.poll(now), Some(Work::Accept(number(6))));
        assert_eq!(inbox.handle_command(now, command(5)), Receipt::Repeated);
        inbox.finish(number(5));
        assert_eq!(inbox.handle_command(now, command(5)), Receipt::Taken);
        assert_eq!(inbox.decided(), Some((command(5), Outcome::Refused)));
    }

    #[test]
    fn what_is_late_is_not_carried_out() {
        let mut inbox = Inbox::new(None);
        inbox.handle_command(Now::default(), command(1));
        let late = Now { monotonic_ns: 100_000_000, wall_ms: 0 };
        assert_eq!(inbox.poll(late), None);
        assert_eq!(inbox.decided(), Some((command(1), Outcome::Expired)));
        assert_eq!(inbox.last(), None);
    }

    #[test]
    fn what_a_full_inbox_turns_away_is_not_overtaken() {
        let mut inbox = Inbox::new(None);
        for seq in 1..=COMMANDS_MAX as u64 {
            assert_eq!(inbox.handle_command(Now::default(), command(seq)), Receipt::Taken);
        }
        let late = COMMANDS_MAX as u64 + 1;
        assert_eq!(inbox.handle_command(Now::default(), command(late)), Receipt::TurnedAway);
        assert!(!inbox.wants_hello(), "it has no room yet");
        for seq in 1..=COMMANDS_MAX as u64 {
            inbox.finish(number(seq));
        }
        assert!(inbox.wants_hello());
        // A later one may have been under way: taken, it would make the earlier one old.
        assert_eq!(inbox.handle_command(Now::default(), command(late + 1)), Receipt::TurnedAway);
        inbox.handle_hello_ack();
        assert!(!inbox.wants_hello());
        assert_eq!(inbox.handle_command(Now::default(), command(late)), Receipt::Taken);
    }
}
