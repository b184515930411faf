//! The search: depth first along the path, in the order of the graph's places, in slices.
//!
//! Between two slices the graph may change. Nothing of it is held then but a position; rows are
//! copied as they are found. An element that moves behind the position meanwhile is not found, as
//! if the question had been asked earlier.

use std::collections::BTreeSet;

use lapwing_protocol::element::{self as model};
use lapwing_protocol::id::ElementGuid;

use super::condition::Eye;
use super::limits::{ANSWER_BYTES_MAX, ROWS_MAX, WORK_MAX, WORK_PER_MS};
use super::partial::lacks;
use super::syntax::{Condition, How, Name, Operator, Query, Step, Target, Window};
use super::vocabulary::{Common, Vocabulary};
use crate::change::OwnedValue;
use crate::graph::view::cell_of;
use crate::graph::{Element, ElementIndex, Graph, Presence};
use crate::view::{OwnedCell, OwnedNamedCell};

/// What a query may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueryLimits {
    /// Rows at the most; the expression may ask for fewer.
    pub rows_max: u32,
    /// Elements looked at and links followed, at the most.
    pub work_max: u64,
}

impl QueryLimits {
    /// The limits of a question that allows this many rows and milliseconds; 0 means as many as
    /// there may be.
    #[must_use]
    pub fn new(rows_max: u32, timeout_ms: u32) -> Self {
        let or_all = |wanted: u64, all: u64| if wanted == 0 { all } else { wanted.min(all) };
        let rows_max = or_all(u64::from(rows_max), u64::from(ROWS_MAX));
        Self {
            rows_max: u32::try_from(rows_max).unwrap_or(ROWS_MAX),
            work_max: or_all(u64::from(timeout_ms).saturating_mul(WORK_PER_MS), WORK_MAX),
        }
    }
}

/// The answer to a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Names of the columns.
    pub columns: Vec<String>,
    /// Each row has one cell a column.
    pub rows: Vec<Vec<OwnedCell>>,
    /// Why this is not the whole answer; empty when it is.
    pub partial: String,
}

/// Whether a search goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There is more to search.
    More,
    /// It is over.
    Done,
}

enum Stop {
    Rows(u32),
    Work,
    Bytes,
}

/// A query under way.
pub struct Search {
    query: Query,
    limits: QueryLimits,
    position: usize,
    work: u64,
    bytes: usize,
    rows: Vec<Vec<OwnedNamedCell>>,
    seen: BTreeSet<Vec<ElementGuid>>,
    done: bool,
    stop: Option<Stop>,
}

impl Search {
    /// A search that has not begun.
    #[must_use]
    pub fn new(query: Query, limits: QueryLimits) -> Self {
        Self {
            query,
            limits,
            position: 0,
            work: 0,
            bytes: 0,
            rows: Vec::new(),
            seen: BTreeSet::new(),
            done: false,
            stop: None,
        }
    }

    /// Searches on in `graph` for about `work` steps of work.
    pub fn advance(&mut self, graph: &Graph, work: u64) -> Progress {
        let until = self.work.saturating_add(work);
        let eye = Eye::new(graph);
        let mut path = Vec::new();
        if let Some(guid) = self.query.steps.first().and_then(start_guid) {
            if let Some(index) = graph.index(guid) {
                self.visit(&eye, index, &mut path);
            }
            self.done = true;
        }
        while !self.done && self.stop.is_none() && self.work < until {
            match graph.place(self.position) {
                Some(index) => self.visit(&eye, index, &mut path),
                None => self.done = true,
            }
            self.position += 1;
        }
        if self.done || self.stop.is_some() { Progress::Done } else { Progress::More }
    }

    /// The answer of a search that is done in `graph`.
    #[must_use]
    pub fn finish(self, graph: &Graph) -> Answer {
        let mut reasons = Vec::new();
        match &self.stop {
            // Who asked for so many rows has them all.
            Some(Stop::Rows(rows)) if self.query.limit == Some(*rows) => {}
            Some(Stop::Rows(rows)) => {
                reasons.push(format!("there may be more than these {rows} rows"));
            }
            Some(Stop::Work) => reasons.push(format!(
                "the search ended after {} elements and links, its time being over; narrow it",
                self.limits.work_max
            )),
            Some(Stop::Bytes) => {
                reasons.push("the answer is as large as it may be; ask for fewer columns".into());
            }
            None if !self.done => reasons.push("the search was given up".to_owned()),
            None => {}
        }
        reasons.extend(lacks(graph, &self.query));
        let columns = self.columns(graph);
        let rows = self.rows.into_iter().map(|row| in_order(&columns, row)).collect();
        Answer { columns, rows, partial: reasons.join("; ") }
    }

    fn visit(&mut self, eye: &Eye<'_>, index: ElementIndex, path: &mut Vec<ElementIndex>) {
        self.work += 1;
        if self.work > self.limits.work_max {
            self.stop = Some(Stop::Work);
        }
        let depth = path.len();
        let (Some(element), Some(step)) = (eye.graph.element(index), self.query.steps.get(depth))
        else {
            return;
        };
        if self.stop.is_some() || !fits(eye, step, element) {
            return;
        }
        path.push(index);
        let next = match self.query.steps.get(depth + 1).map(|step| &step.how) {
            None => {
                self.emit(eye, path);
                Vec::new()
            }
            Some(how) => neighbours(eye.graph, element, how, &mut self.work),
        };
        for index in next {
            self.visit(eye, index, path);
            if self.stop.is_some() {
                break;
            }
        }
        path.pop();
    }

    fn emit(&mut self, eye: &Eye<'_>, path: &[ElementIndex]) {
        let at = |step: usize| path.get(step).and_then(|index| eye.graph.element(*index));
        let last = path.len().saturating_sub(1);
        let Some(element) = at(last) else { return };
        if self.query.window.is_some_and(|window| !existed(element, window)) {
            return;
        }
        let shown: BTreeSet<usize> =
            self.query.show.iter().map(|column| column.step).chain([last]).collect();
        let key = shown.into_iter().filter_map(|step| Some(at(step)?.guid())).collect();
        if !self.seen.insert(key) {
            return;
        }
        let rows_max = self.query.limit.unwrap_or(u32::MAX).min(self.limits.rows_max);
        if self.rows.len() >= rows_max as usize {
            self.stop = Some(Stop::Rows(rows_max));
            return;
        }
        let row: Vec<OwnedNamedCell> = if self.query.show.is_empty() {
            whole_row(eye, element)
        } else {
            let cell = |step: usize, name: &Name| match at(step) {
                Some(element) => eye.cell(name, element),
                None => OwnedCell::Absent,
            };
            let columns = self.query.show.iter();
            columns.map(|it| (it.heading.clone(), cell(it.step, &it.name))).collect()
        };
        let bytes = |(name, cell): &OwnedNamedCell| name.len() + 24 + cell.heap_bytes();
        self.bytes += row.iter().map(bytes).sum::<usize>();
        if self.bytes > ANSWER_BYTES_MAX {
            self.stop = Some(Stop::Bytes);
            return;
        }
        self.rows.push(row);
    }

    /// The columns asked for; else what every element has, the features of the kind, and whatever
    /// else was found.
    fn columns(&self, graph: &Graph) -> Vec<String> {
        if !self.query.show.is_empty() {
            return self.query.show.iter().map(|column| column.heading.clone()).collect();
        }
        let mut columns: Vec<String> =
            Common::SHOWN.iter().map(|common| common.name().to_owned()).collect();
        if let Some(kind) = self.query.steps.last().and_then(|step| step.how.kind()) {
            let vocabulary = Vocabulary::of(graph);
            let features = vocabulary.models(Some(kind)).flat_map(|model| &model.features);
            let own = features.filter(|it| it.feature >= model::Feature::FIRST_OF_KIND);
            for feature in own {
                push_new(&mut columns, Name::Feature(feature.name.to_string()).heading());
            }
        }
        let mut known: BTreeSet<String> = columns.iter().cloned().collect();
        for (name, _) in self.rows.iter().flatten() {
            if !known.contains(name) {
                known.insert(name.clone());
                columns.push(name.clone());
            }
        }
        columns
    }
}

fn push_new(columns: &mut Vec<String>, name: String) {
    if !columns.contains(&name) {
        columns.push(name);
    }
}

fn in_order(columns: &[String], mut row: Vec<OwnedNamedCell>) -> Vec<OwnedCell> {
    let is_in_order = row.len() == columns.len()
        && row.iter().zip(columns).all(|((name, _), column)| name == column);
    if is_in_order {
        return row.into_iter().map(|(_, cell)| cell).collect();
    }
    let take = |column: &String| {
        let position = row.iter().position(|(name, _)| name == column)?;
        Some(row.swap_remove(position).1)
    };
    columns.iter().map(take).map(|cell| cell.unwrap_or(OwnedCell::Absent)).collect()
}

fn whole_row(eye: &Eye<'_>, element: &Element) -> Vec<OwnedNamedCell> {
    let common = Common::SHOWN.iter().map(|common| {
        let name = Name::Common(*common);
        (name.heading(), eye.cell(&name, element))
    });
    // Not by the eye: it remembers a name by its address, and these names live for one turn only.
    let features = element.fields().iter().filter_map(|(feature, value)| {
        let name = Name::Feature(element.model().feature(*feature)?.name.to_string());
        Some((name.heading(), cell_of(element.model(), *feature, value)))
    });
    common.chain(features).collect()
}

fn fits(eye: &Eye<'_>, step: &Step, element: &Element) -> bool {
    step.how.kind().is_none_or(|kind| *element.model().name == *kind)
        && step.condition.as_ref().is_none_or(|condition| eye.holds(condition, element))
}

/// Whether `element` was there at any time of `window`, by this server's clock.
fn existed(element: &Element, window: Window) -> bool {
    let is_there = element.presence() == Presence::Live;
    element.first_seen_ms() <= window.to_ms && (is_there || element.changed_ms() >= window.from_ms)
}

/// The elements that one link in the direction of `how` leads to.
fn neighbours(graph: &Graph, element: &Element, how: &How, work: &mut u64) -> Vec<ElementIndex> {
    let machine = model::machine::SPEC.name;
    match how {
        How::Start(_) => Vec::new(),
        How::Forward(Target::Kind(Some(kind))) if kind == machine => {
            let machine = graph.machine_of(element).map(Element::guid);
            machine.and_then(|guid| graph.index(guid)).into_iter().collect()
        }
        How::Backward(Target::Kind(_)) if element.kind() == model::machine::KIND => {
            on_machine(graph, element, work)
        }
        How::Forward(target) => {
            let links = element.fields().iter().filter(|(feature, _)| match target {
                Target::Kind(_) => true,
                Target::Link(link) => is_called(element, *feature, link),
            });
            let guids = links.filter_map(|(_, value)| match value {
                OwnedValue::Element(guid) => Some(*guid),
                _ => None,
            });
            guids.filter_map(|guid| graph.index(guid)).collect()
        }
        How::Backward(target) => {
            let guid = element.guid();
            let referrers = graph.referrers(guid).inspect(|_| *work += 1);
            let names = |referrer: &Element| match target {
                Target::Kind(kind) => {
                    kind.as_ref().is_none_or(|kind| *referrer.model().name == **kind)
                }
                Target::Link(link) => {
                    referrer.value_named(link) == Some(&OwnedValue::Element(guid))
                }
            };
            referrers.filter(|index| graph.element(*index).is_some_and(names)).collect()
        }
    }
}

fn is_called(element: &Element, feature: model::Feature, link: &str) -> bool {
    element.model().feature(feature).is_some_and(|model| *model.name == *link)
}

/// Every other element of the machine's sensor.
fn on_machine(graph: &Graph, machine: &Element, work: &mut u64) -> Vec<ElementIndex> {
    let sensor = graph.sensor_of(machine);
    let places = (0..).map_while(|position| graph.place(position)).inspect(|_| *work += 1);
    let is_there = |index: &ElementIndex| {
        graph.element(*index).is_some_and(|element| {
            graph.sensor_of(element) == sensor && element.guid() != machine.guid()
        })
    };
    places.filter(is_there).collect()
}

/// The id that the first step's condition demands, so that nothing need be searched for it.
fn start_guid(step: &Step) -> Option<ElementGuid> {
    let found = |condition: &Condition| match condition {
        Condition::Compare(Name::Common(Common::Guid), Operator::Equal, literal) => literal.guid,
        _ => None,
    };
    match step.condition.as_ref()? {
        Condition::All(all) => all.iter().find_map(found),
        condition => found(condition),
    }
}
