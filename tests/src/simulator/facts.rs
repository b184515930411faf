//! What happens on the simulated machine: services change, processes come and go, names are looked
//! up.
//!
//! Every fact carries a `source_seq`, counted here and nowhere else: the oracle's own count.

use lapwing_protocol::element::{Change, Feature, Field, Kind, Value, dns, process, service};

use super::chance::Chance;

/// What kind of fact.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Nature {
    pub(crate) kind: Kind,
    pub(crate) change: Change,
}

/// A fact, owned.
#[derive(Clone, Debug)]
pub(crate) struct MadeFact {
    pub(crate) nature: Nature,
    pub(crate) source_seq: u64,
    fields: Vec<(Feature, Made)>,
}

#[derive(Clone, Debug)]
enum Made {
    Number(u64),
    Text(String),
}

impl MadeFact {
    /// The fields as the sensor takes them.
    pub(crate) fn fields(&self) -> Vec<Field<'_>> {
        let number = Field::new(Feature::SOURCE_SEQ, Value::U64(self.source_seq));
        let rest = self.fields.iter().map(|(feature, made)| {
            let value = match made {
                Made::Number(number) => Value::U64(*number),
                Made::Text(text) => Value::text(text),
            };
            Field::new(*feature, value)
        });
        std::iter::once(number).chain(rest).collect()
    }
}

/// The machine.
#[derive(Debug)]
pub(crate) struct Machine {
    next_source_seq: u64,
    next_pid: u64,
    running: Vec<u64>,
    revision: u64,
}

/// Processes at once.
const RUNNING_MAX: usize = 24;
/// Services of the machine.
const SERVICES: u64 = 12;

impl Machine {
    /// The machine whose facts are numbered from `number` times 2^32 on: no two share a number.
    pub(crate) fn new(number: usize) -> Self {
        let next_source_seq = (number as u64) << 32;
        Self { next_source_seq, next_pid: 0, running: Vec::new(), revision: 0 }
    }

    /// A service changes: state that a quiet machine tells.
    pub(crate) fn stir(&mut self, chance: &mut Chance) -> MadeFact {
        self.revision += 1;
        self.change_service(chance)
    }

    /// The next thing that happens.
    pub(crate) fn happen(&mut self, chance: &mut Chance) -> MadeFact {
        self.revision += 1;
        match chance.below(10) {
            0..=2 => self.start_process(chance),
            3..=4 => self.end_process(chance),
            5..=6 => self.change_service(chance),
            _ => self.look_up(chance),
        }
    }

    fn fact(&mut self, kind: Kind, change: Change, fields: Vec<(Feature, Made)>) -> MadeFact {
        self.next_source_seq += 1;
        let nature = Nature { kind, change };
        MadeFact { nature, source_seq: self.next_source_seq, fields }
    }

    fn start_process(&mut self, chance: &mut Chance) -> MadeFact {
        if self.running.len() >= RUNNING_MAX {
            return self.end_process(chance);
        }
        self.next_pid += 1;
        let pid = self.next_pid;
        self.running.push(pid);
        let fields = vec![
            (process::pid, Made::Number(pid)),
            (process::start_ticks, Made::Number(pid * 7)),
            (process::image_path, Made::Text(format!("/usr/bin/tool-{}", chance.below(9)))),
            (process::command_line, Made::Text(format!("tool --run {}", self.revision))),
        ];
        self.fact(process::KIND, Change::Whole, fields)
    }

    fn end_process(&mut self, chance: &mut Chance) -> MadeFact {
        if self.running.is_empty() {
            return self.look_up(chance);
        }
        let which = chance.below(self.running.len() as u64) as usize;
        let pid = self.running.swap_remove(which);
        let fields = vec![
            (process::pid, Made::Number(pid)),
            (process::start_ticks, Made::Number(pid * 7)),
            (process::duration_ms, Made::Number(chance.below(10_000))),
        ];
        self.fact(process::KIND, Change::Ended, fields)
    }

    fn change_service(&mut self, chance: &mut Chance) -> MadeFact {
        let name = format!("service-{}", chance.below(SERVICES));
        // The revision makes each state another one, so that none is taken for a repeat.
        let fields = vec![
            (service::name, Made::Text(name)),
            (service::state, Made::Text(format!("state-{}", self.revision))),
        ];
        self.fact(service::KIND, Change::Whole, fields)
    }

    fn look_up(&mut self, chance: &mut Chance) -> MadeFact {
        let question = format!("host-{}.example", chance.below(40));
        let fields = vec![(dns::question, Made::Text(question))];
        self.fact(dns::KIND, Change::Event, fields)
    }
}
