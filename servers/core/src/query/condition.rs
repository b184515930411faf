//! Whether a condition is true of an element, and what a column shows of it.

use std::cell::Cell;
use std::cmp::Ordering;
use std::sync::Arc;

use lapwing_protocol::element::Feature;

use super::literal::{Literal, matches};
use super::moment;
use super::syntax::{Condition, Name, Operator};
use super::vocabulary::Common;
use crate::change::{KindModel, OwnedValue};
use crate::graph::view::cell_of;
use crate::graph::{Element, Graph};
use crate::view::OwnedCell;

/// Looks at elements of one graph.
pub(super) struct Eye<'g> {
    pub(super) graph: &'g Graph,
    /// The last name that was looked up, in which model, and what it is there: neighbours in the
    /// search are mostly of one kind and asked the same.
    last: Cell<Option<(usize, usize, Option<Feature>)>>,
}

impl<'g> Eye<'g> {
    pub(super) fn new(graph: &'g Graph) -> Self {
        Self { graph, last: Cell::new(None) }
    }

    /// Whether `condition` is true of `element`. A comparison with what is missing is false.
    pub(super) fn holds(&self, condition: &Condition, element: &Element) -> bool {
        match condition {
            Condition::All(all) => all.iter().all(|it| self.holds(it, element)),
            Condition::Any(any) => any.iter().any(|it| self.holds(it, element)),
            Condition::Not(inner) => !self.holds(inner, element),
            Condition::Compare(name, operator, literal) => {
                self.compare(name, *operator, literal, element)
            }
            Condition::In(name, list) => {
                list.iter().any(|literal| self.compare(name, Operator::Equal, literal, element))
            }
            Condition::Missing(name) => self.is_missing(name, element),
        }
    }

    /// What `name` is of `element`.
    pub(super) fn cell(&self, name: &Name, element: &Element) -> OwnedCell {
        match name {
            Name::Common(common) => self.common_cell(*common, element),
            Name::Feature(name) => match self.feature(name, element) {
                Some((feature, value)) => cell_of(element.model(), feature, value),
                None => OwnedCell::Absent,
            },
        }
    }

    fn common_cell(&self, common: Common, element: &Element) -> OwnedCell {
        match common {
            Common::Guid => OwnedCell::Element(element.guid()),
            Common::Ended => OwnedCell::Bool(element.ended()),
            Common::FirstSeen => OwnedCell::Text(moment::show(element.first_seen_ms())),
            Common::Changed => OwnedCell::Text(moment::show(element.changed_ms())),
            Common::Happened => OwnedCell::Text(moment::show(element.happened_ms())),
            Common::Kind | Common::Label | Common::Machine | Common::Sensor | Common::Presence => {
                match self.common_text(common, element) {
                    text if text.is_empty() => OwnedCell::Absent,
                    text => OwnedCell::Text(text),
                }
            }
        }
    }

    fn common_text(&self, common: Common, element: &Element) -> String {
        match common {
            Common::Kind => element.model().name.to_string(),
            Common::Label => element.label(),
            Common::Machine => self.graph.machine_name(element).into_owned(),
            Common::Sensor => self.graph.sensor_of(element).to_string(),
            Common::Presence => element.presence().name().to_owned(),
            Common::Guid
            | Common::FirstSeen
            | Common::Changed
            | Common::Happened
            | Common::Ended => String::new(),
        }
    }

    fn compare(
        &self,
        name: &Name,
        operator: Operator,
        literal: &Literal,
        element: &Element,
    ) -> bool {
        let common = match name {
            Name::Feature(name) => {
                return self
                    .feature(name, element)
                    .is_some_and(|(_, value)| compare_value(value, operator, literal));
            }
            Name::Common(common) => *common,
        };
        match common {
            Common::Guid => compare_value(&OwnedValue::Element(element.guid()), operator, literal),
            Common::Ended => compare_value(&OwnedValue::Bool(element.ended()), operator, literal),
            Common::FirstSeen => compare_moment(element.first_seen_ms(), operator, literal),
            Common::Changed => compare_moment(element.changed_ms(), operator, literal),
            Common::Happened => compare_moment(element.happened_ms(), operator, literal),
            Common::Kind => compare_text(element.model().name.as_bytes(), operator, literal),
            Common::Machine => {
                compare_text(self.graph.machine_name(element).as_bytes(), operator, literal)
            }
            Common::Label | Common::Sensor | Common::Presence => {
                compare_text(self.common_text(common, element).as_bytes(), operator, literal)
            }
        }
    }

    fn is_missing(&self, name: &Name, element: &Element) -> bool {
        match name {
            Name::Feature(name) => self.feature(name, element).is_none(),
            Name::Common(common) => self.common_cell(*common, element) == OwnedCell::Absent,
        }
    }

    fn feature<'e>(&self, name: &str, element: &'e Element) -> Option<(Feature, &'e OwnedValue)> {
        let feature = self.feature_of(name, element.model())?;
        element.value(feature).map(|value| (feature, value))
    }

    fn feature_of(&self, name: &str, model: &Arc<KindModel>) -> Option<Feature> {
        let (name_at, model_at) = (name.as_ptr() as usize, Arc::as_ptr(model) as usize);
        match self.last.get() {
            Some((name, model, feature)) if (name, model) == (name_at, model_at) => feature,
            _ => {
                let feature = model.feature_named(name).map(|feature| feature.feature);
                self.last.set(Some((name_at, model_at, feature)));
                feature
            }
        }
    }
}

fn compare_value(value: &OwnedValue, operator: Operator, literal: &Literal) -> bool {
    match (operator.is_of_text(), value) {
        (true, OwnedValue::Text(text)) => compare_text(text, operator, literal),
        (true, value) => compare_text(value.to_string().as_bytes(), operator, literal),
        (false, value) => literal.order_of(value).is_some_and(|order| is_so(order, operator)),
    }
}

fn compare_text(text: &[u8], operator: Operator, literal: &Literal) -> bool {
    let wanted = literal.text.as_bytes();
    match operator {
        Operator::Contains => {
            wanted.is_empty() || text.windows(wanted.len()).any(|part| part == wanted)
        }
        Operator::StartsWith => text.starts_with(wanted),
        Operator::EndsWith => text.ends_with(wanted),
        Operator::Matches => matches(wanted, text),
        _ => is_so(text.cmp(wanted), operator),
    }
}

fn compare_moment(moment_ms: u64, operator: Operator, literal: &Literal) -> bool {
    if operator.is_of_text() {
        return compare_text(moment::show(moment_ms).as_bytes(), operator, literal);
    }
    literal.moment_ms.is_some_and(|wanted| is_so(moment_ms.cmp(&wanted), operator))
}

fn is_so(order: Ordering, operator: Operator) -> bool {
    match operator {
        Operator::Equal => order.is_eq(),
        Operator::NotEqual => order.is_ne(),
        Operator::Less => order.is_lt(),
        Operator::LessOrEqual => order.is_le(),
        Operator::Greater => order.is_gt(),
        Operator::GreaterOrEqual => order.is_ge(),
        Operator::Contains | Operator::StartsWith | Operator::EndsWith | Operator::Matches => false,
    }
}
