//! Which Detection server is mine: when to ask Registration, and when to dial what.
//!
//! An assignment is kept until there is trouble with its server: two failed attempts and five
//! seconds since the session was lost, nothing acknowledged for thirty seconds with data in flight,
//! or a server that refuses or drains. Only then Registration is asked again, so a healthy sensor
//! never comes back to it, and nothing but trouble moves a sensor: it does not flap.
//!
//! Not here: addresses and the call itself; the shell keeps and makes them.

use lapwing_protocol::code::Code;
use lapwing_protocol::id::ServerId;
use lapwing_protocol::registration::AssignReason;

use crate::backoff::Backoff;
use crate::error::CloseReason;
use crate::event::DialTarget;
use crate::limits::{STABLE_MS, TROUBLE_ATTEMPTS, TROUBLE_MS};
use crate::time::Now;

/// What the installation package and earlier runs say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Installation {
    /// Whether there is a Registration server.
    pub has_registration: bool,
    /// Whether the package names a Detection server.
    pub has_detection: bool,
    /// The assignment that was kept.
    pub assigned: Option<ServerId>,
}

/// Where a sensor stands on its way to a Detection server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Not started.
    Stopped,
    /// It has no server, and waits before it asks again.
    Unassigned,
    /// It asks Registration.
    Asking,
    /// It waits before it dials.
    Waiting,
    /// It dials.
    Dialing,
    /// It has a connection.
    Connected,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Ask(AssignReason),
    Dial,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Stopped,
    Waiting { until_ns: u64, step: Step },
    Asking,
    Dialing,
    Connected { since_ns: u64 },
}

/// How far a session came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Served {
    /// The server did not even greet.
    Nothing,
    /// It greeted.
    Greeting,
    /// It stored something.
    Storing,
}

/// What the shell is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    Ask { reason: AssignReason, trouble_with: Option<ServerId> },
    Dial(DialTarget),
}

#[derive(Debug)]
pub(crate) struct Registrar {
    installation: Installation,
    state: State,
    backoff: Backoff,
    /// Registration did not answer: the package's server serves until it does.
    is_package_used: bool,
    failed_attempts: u32,
    lost_ns: u64,
    /// Until when the assigned server wants to be left alone.
    not_before_ns: u64,
}

impl Registrar {
    pub(crate) fn new(installation: Installation, seed: u64) -> Self {
        Self {
            installation,
            state: State::Stopped,
            backoff: Backoff::new(seed),
            is_package_used: false,
            failed_attempts: 0,
            lost_ns: 0,
            not_before_ns: 0,
        }
    }

    pub(crate) fn place(&self) -> Place {
        match self.state {
            State::Stopped => Place::Stopped,
            State::Waiting { .. } if self.target().is_none() => Place::Unassigned,
            State::Waiting { .. } => Place::Waiting,
            State::Asking => Place::Asking,
            State::Dialing => Place::Dialing,
            State::Connected { .. } => Place::Connected,
        }
    }

    pub(crate) fn assigned(&self) -> Option<ServerId> {
        self.installation.assigned
    }

    pub(crate) fn start(&mut self, now: Now) {
        self.lost_ns = now.monotonic_ns;
        let step = if self.target().is_some() || !self.installation.has_registration {
            Step::Dial
        } else {
            Step::Ask(AssignReason::First)
        };
        self.state = State::Waiting { until_ns: now.monotonic_ns, step };
    }

    pub(crate) fn stop(&mut self) {
        self.state = State::Stopped;
    }

    /// What is due now.
    pub(crate) fn poll(&mut self, now: Now) -> Option<Want> {
        let State::Waiting { until_ns, step } = self.state else { return None };
        if until_ns > now.monotonic_ns {
            return None;
        }
        match (step, self.target()) {
            (Step::Dial, Some(target)) => {
                self.state = State::Dialing;
                Some(Want::Dial(target))
            }
            (Step::Dial, None) if !self.installation.has_registration => {
                // Neither a Registration nor a Detection server is named: nothing can be dialed.
                self.state = State::Stopped;
                None
            }
            (Step::Dial, None) => Some(self.ask(AssignReason::First)),
            (Step::Ask(reason), _) => Some(self.ask(reason)),
        }
    }

    fn ask(&mut self, reason: AssignReason) -> Want {
        self.state = State::Asking;
        self.backoff.asked();
        Want::Ask { reason, trouble_with: self.installation.assigned }
    }

    pub(crate) fn deadline_ns(&self) -> Option<u64> {
        match self.state {
            State::Waiting { until_ns, .. } => Some(until_ns),
            State::Stopped | State::Asking | State::Dialing | State::Connected { .. } => None,
        }
    }

    fn target(&self) -> Option<DialTarget> {
        let Installation { has_registration, has_detection, assigned } = self.installation;
        match assigned {
            Some(server) => Some(DialTarget::Assigned(server)),
            None if has_detection && (!has_registration || self.is_package_used) => {
                Some(DialTarget::Package)
            }
            None => None,
        }
    }

    pub(crate) fn handle_assigned(&mut self, now: Now, server: ServerId) {
        if self.state != State::Asking {
            return;
        }
        let is_same = self.installation.assigned == Some(server);
        self.installation.assigned = Some(server);
        self.failed_attempts = 0;
        self.lost_ns = now.monotonic_ns;
        // The same server again: it gets the time it asked for, and the window goes on growing.
        let until_ns = if is_same {
            self.not_before_ns.max(now.after_ms(self.backoff.next_ms()))
        } else {
            now.monotonic_ns
        };
        self.state = State::Waiting { until_ns, step: Step::Dial };
    }

    pub(crate) fn handle_ask_failed(&mut self, now: Now, retry_after_ms: u32) {
        if self.state != State::Asking {
            return;
        }
        self.is_package_used = !cfg!(mutant = "package_unused");
        let step = match self.target() {
            Some(_) => Step::Dial,
            None => Step::Ask(AssignReason::First),
        };
        let is_package = self.target() == Some(DialTarget::Package) && self.failed_attempts == 0;
        let until_ns = match retry_after_ms {
            _ if is_package => now.monotonic_ns,
            0 => now.after_ms(self.backoff.next_ms()),
            wanted => now.after_ms(u64::from(wanted) + self.backoff.jitter_ms()),
        };
        // The server that is dialed for want of an answer may be one that wants to be left alone.
        let until_ns = if step == Step::Dial { until_ns.max(self.not_before_ns) } else { until_ns };
        self.state = State::Waiting { until_ns, step };
    }

    pub(crate) fn handle_connected(&mut self, now: Now) {
        self.state = State::Connected { since_ns: now.monotonic_ns };
    }

    pub(crate) fn handle_dial_failed(&mut self, now: Now) {
        if self.state == State::Dialing {
            self.failed_attempts += 1;
            self.wait(now, None, 0);
        }
    }

    /// The connection is gone; `reason` is why the sensor closed it, if it did. A server that
    /// greeted can be reached, and one that stored something or held on for long is waited for from
    /// the beginning again.
    pub(crate) fn handle_lost(&mut self, now: Now, reason: Option<CloseReason>, served: Served) {
        let State::Connected { since_ns } = self.state else { return };
        if let Some(CloseReason::Refused { code: Code::FENCED, retry_after_ms }) = reason
            && !cfg!(mutant = "fenced_moves")
        {
            return self.wait_fenced(now, retry_after_ms);
        }
        if served == Served::Storing || now.is_past(since_ns, STABLE_MS) {
            self.backoff.reset();
        }
        if served != Served::Nothing || now.is_past(since_ns, STABLE_MS) {
            self.failed_attempts = 0;
            self.lost_ns = now.monotonic_ns;
        } else {
            self.failed_attempts += 1;
        }
        let (trouble, retry_after_ms) = match reason {
            Some(CloseReason::Refused { .. }) if cfg!(mutant = "refusal_ignored") => (None, 0),
            None if cfg!(mutant = "registration_asked_when_well") => {
                (Some(AssignReason::Unreachable), 0)
            }
            Some(CloseReason::Refused { retry_after_ms, .. }) => {
                (Some(AssignReason::Refused), retry_after_ms)
            }
            Some(CloseReason::Draining { retry_after_ms }) => {
                (Some(AssignReason::Draining), retry_after_ms)
            }
            Some(CloseReason::NoProgress) => (Some(AssignReason::NoProgress), 0),
            Some(CloseReason::Stopped) => {
                self.state = State::Stopped;
                return;
            }
            Some(CloseReason::Peer(_) | CloseReason::Idle | CloseReason::GreetingTimedOut)
            | None => (None, 0),
        };
        self.wait(now, trouble, retry_after_ms);
    }

    /// Another process took over with this identity: a clone, for a connection of our own that was
    /// left half-open is not heard of any more. Both would fence each other for ever, so the window
    /// grows however well the session went. It is no trouble with the server: another one would
    /// only hide it.
    fn wait_fenced(&mut self, now: Now, retry_after_ms: u32) {
        self.backoff.asked();
        let wanted_ms = match retry_after_ms {
            0 => 0,
            wanted => u64::from(wanted) + self.backoff.jitter_ms(),
        };
        let mut until_ns = now.after_ms(self.backoff.next_ms().max(wanted_ms));
        if cfg!(mutant = "fenced_back_at_once") {
            until_ns = now.after_ms(0);
        }
        self.not_before_ns = until_ns;
        self.state = State::Waiting { until_ns, step: Step::Dial };
    }

    fn wait(&mut self, now: Now, trouble: Option<AssignReason>, retry_after_ms: u32) {
        let is_unreachable =
            self.failed_attempts >= TROUBLE_ATTEMPTS && now.is_past(self.lost_ns, TROUBLE_MS);
        let trouble = trouble.or(is_unreachable.then_some(AssignReason::Unreachable));
        let delay_ns = now.after_ms(self.backoff.next_ms());
        if retry_after_ms > 0 {
            let spread_ms = self.backoff.jitter_ms();
            self.not_before_ns = now.after_ms(u64::from(retry_after_ms) + spread_ms);
        }
        self.state = match trouble.filter(|_| self.installation.has_registration) {
            Some(reason) => State::Waiting { until_ns: delay_ns, step: Step::Ask(reason) },
            None if retry_after_ms > 0 => {
                State::Waiting { until_ns: self.not_before_ns, step: Step::Dial }
            }
            None => State::Waiting { until_ns: delay_ns, step: Step::Dial },
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::nanoseconds;

    const A: ServerId = ServerId([0xa; 16]);
    const B: ServerId = ServerId([0xb; 16]);

    fn at(ms: u64) -> Now {
        Now { monotonic_ns: nanoseconds(ms), wall_ms: 0 }
    }

    fn registrar(
        has_registration: bool,
        has_detection: bool,
        assigned: Option<ServerId>,
    ) -> Registrar {
        Registrar::new(Installation { has_registration, has_detection, assigned }, 3)
    }

    /// Lets time pass until something is wanted.
    fn next(registrar: &mut Registrar, now: &mut Now) -> Want {
        if let Some(due) = registrar.deadline_ns() {
            now.monotonic_ns = now.monotonic_ns.max(due);
        }
        registrar.poll(*now).expect("nothing is wanted")
    }

    #[test]
    fn an_assignment_is_kept_over_lost_sessions() {
        let (mut sensor, mut now) = (registrar(true, false, None), at(0));
        sensor.start(now);
        let asked = Want::Ask { reason: AssignReason::First, trouble_with: None };
        assert_eq!(next(&mut sensor, &mut now), asked);
        sensor.handle_assigned(now, A);
        for _ in 0..10 {
            assert_eq!(next(&mut sensor, &mut now), Want::Dial(DialTarget::Assigned(A)));
            sensor.handle_connected(now);
            now.monotonic_ns += nanoseconds(100);
            sensor.handle_lost(now, None, Served::Storing);
        }
    }

    #[test]
    fn two_failures_and_five_seconds_are_trouble() {
        let (mut sensor, mut now) = (registrar(true, false, Some(A)), at(0));
        sensor.start(now);
        let mut failures = 0;
        loop {
            match next(&mut sensor, &mut now) {
                Want::Dial(_) => {
                    failures += 1;
                    sensor.handle_dial_failed(now);
                }
                Want::Ask { reason, trouble_with } => {
                    assert_eq!((reason, trouble_with), (AssignReason::Unreachable, Some(A)));
                    break;
                }
            }
        }
        assert!(failures >= 2 && now.monotonic_ns >= nanoseconds(5_000));
        assert!(now.monotonic_ns <= nanoseconds(13_000));
        sensor.handle_assigned(now, B);
        assert_eq!(next(&mut sensor, &mut now), Want::Dial(DialTarget::Assigned(B)));
    }

    #[test]
    fn a_draining_server_is_left_at_once_and_not_dialed_before_its_time() {
        let (mut sensor, mut now) = (registrar(true, false, Some(A)), at(0));
        sensor.start(now);
        next(&mut sensor, &mut now);
        sensor.handle_connected(now);
        now = at(60_000);
        let reason = CloseReason::Draining { retry_after_ms: 20_000 };
        sensor.handle_lost(now, Some(reason), Served::Greeting);
        let asked = Want::Ask { reason: AssignReason::Draining, trouble_with: Some(A) };
        assert_eq!(next(&mut sensor, &mut now), asked);
        assert!(now.monotonic_ns <= nanoseconds(62_000));
        sensor.handle_assigned(now, A);
        assert_eq!(next(&mut sensor, &mut now), Want::Dial(DialTarget::Assigned(A)));
        assert!(now.monotonic_ns >= nanoseconds(80_000));
    }

    #[test]
    fn a_server_that_refuses_is_left_alone_also_where_registration_does_not_answer() {
        for (has_detection, assigned) in [(false, Some(A)), (true, None)] {
            let (mut sensor, mut now) = (registrar(true, has_detection, assigned), at(0));
            sensor.start(now);
            if assigned.is_none() {
                next(&mut sensor, &mut now);
                sensor.handle_ask_failed(now, 0);
            }
            assert!(matches!(next(&mut sensor, &mut now), Want::Dial(_)));
            sensor.handle_connected(now);
            let code = Code::BUSY;
            let reason = CloseReason::Refused { code, retry_after_ms: 60_000 };
            sensor.handle_lost(now, Some(reason), Served::Greeting);
            let refused = now;
            assert!(matches!(next(&mut sensor, &mut now), Want::Ask { .. }));
            sensor.handle_ask_failed(now, 0);
            assert!(matches!(next(&mut sensor, &mut now), Want::Dial(_)));
            assert!(now.is_past(refused.monotonic_ns, 60_000));
        }
    }

    #[test]
    fn hel_037_two_clones_that_fence_each_other_come_ever_more_rarely_and_ask_nobody() {
        let mut clones = [3, 4].map(|seed| {
            let installation = Installation { has_registration: true, ..Installation::default() };
            Registrar::new(Installation { assigned: Some(A), ..installation }, seed)
        });
        clones.iter_mut().for_each(|clone| clone.start(at(0)));
        // Whoever is due next connects, stores something, and so fences the other one.
        let (mut now, mut sessions, mut last) = (at(0), 0, None);
        while now.monotonic_ns < nanoseconds(3_600_000) {
            let due = |clone: &Registrar| clone.deadline_ns().unwrap_or(u64::MAX);
            let next = usize::from(due(&clones[1]) < due(&clones[0]));
            now.monotonic_ns = now.monotonic_ns.max(due(&clones[next]));
            assert_eq!(clones[next].poll(now), Some(Want::Dial(DialTarget::Assigned(A))));
            clones[next].handle_connected(now);
            sessions += 1;
            if let Some(other) = last.replace(next).filter(|other| *other != next) {
                let fenced = CloseReason::Refused { code: Code::FENCED, retry_after_ms: 0 };
                let other: &mut Registrar = &mut clones[other];
                other.handle_lost(now, Some(fenced), Served::Storing);
            }
        }
        assert!((20..=80).contains(&sessions), "{sessions} sessions in an hour");
    }

    #[test]
    fn without_registration_the_package_names_the_server() {
        let (mut sensor, mut now) = (registrar(false, true, None), at(0));
        sensor.start(now);
        for _ in 0..20 {
            assert_eq!(next(&mut sensor, &mut now), Want::Dial(DialTarget::Package));
            sensor.handle_dial_failed(now);
        }
    }

    #[test]
    fn a_silent_registration_sends_a_fresh_sensor_to_the_package_or_leaves_it_unassigned() {
        let (mut sensor, mut now) = (registrar(true, true, None), at(0));
        sensor.start(now);
        assert!(matches!(next(&mut sensor, &mut now), Want::Ask { .. }));
        sensor.handle_ask_failed(now, 0);
        assert_eq!(next(&mut sensor, &mut now), Want::Dial(DialTarget::Package));

        let (mut sensor, mut now) = (registrar(true, false, None), at(0));
        sensor.start(now);
        for _ in 0..5 {
            assert!(matches!(next(&mut sensor, &mut now), Want::Ask { .. }));
            sensor.handle_ask_failed(now, 0);
            assert_eq!(sensor.place(), Place::Unassigned);
        }
    }
}
