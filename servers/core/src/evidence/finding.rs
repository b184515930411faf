//! What a rule says of an element, and how it becomes an evidence with all it rests on.

use lapwing_protocol::console::{ActivityType, Severity};
use lapwing_protocol::element::{connection, process};

use super::limits::{CHAIN_MAX, PARENT_TEXT_BYTES_MAX, TEXT_BYTES_MAX};
use super::record::{Evidence, evidence_id};
use crate::graph::view::named_fields;
use crate::graph::{Element, Graph};
use crate::view::{OwnedCell, OwnedNamedCell};

/// What a rule found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) rule: &'static str,
    pub(crate) title: String,
    pub(crate) severity: Severity,
    pub(crate) activity: ActivityType,
    pub(crate) suspicious: bool,
    pub(crate) techniques: &'static [&'static str],
    pub(crate) root_cause: String,
    /// Tells several findings of the rule about one element apart.
    pub(crate) event_key: String,
    pub(crate) reputation: Vec<OwnedNamedCell>,
}

impl Finding {
    /// The evidence of this finding about `element` as the graph has it now.
    pub(crate) fn into_evidence(self, now_ms: u64, graph: &Graph, element: &Element) -> Evidence {
        let chain = graph.chain(element, CHAIN_MAX);
        let mut fields = named_fields(element);
        cut_texts(&mut fields, TEXT_BYTES_MAX);
        let processes = chain.iter().enumerate().map(|(place, process)| {
            let mut view = graph.describe(process);
            let bytes_max = if place == 0 { TEXT_BYTES_MAX } else { PARENT_TEXT_BYTES_MAX };
            cut_texts(&mut view.fields, bytes_max);
            view
        });
        Evidence {
            evidence: evidence_id(self.rule, element.guid(), &self.event_key),
            rule: self.rule.to_owned(),
            title: self.title,
            sensor: graph.sensor_of(element),
            machine: graph.machine_name(element).into_owned(),
            user: user(element, &chain),
            element: element.guid(),
            kind: element.kind(),
            label: element.label(),
            root_cause: self.root_cause,
            happened_ms: element.happened_ms(),
            raised_ms: now_ms,
            severity: self.severity,
            activity: self.activity,
            suspicious: self.suspicious,
            techniques: self.techniques.iter().map(|it| (*it).to_owned()).collect(),
            reputation: self.reputation,
            fields,
            processes: processes.collect(),
        }
    }
}

/// The user by the element's own word, else by its process's; a number where there is no name.
fn user(element: &Element, chain: &[&Element]) -> String {
    let named = |element: &Element| {
        let user = element.value_named("user")?.text()?.into_owned();
        (!user.is_empty()).then_some(user)
    };
    let numbered = |element: &Element| {
        let uid = if element.kind() == connection::KIND { connection::uid } else { process::uid };
        let has_uid = matches!(element.kind(), connection::KIND | process::KIND);
        has_uid.then(|| element.number(uid)).flatten().map(|uid| uid.to_string())
    };
    let who = || std::iter::once(element).chain(chain.first().copied());
    who().find_map(named).or_else(|| who().find_map(numbered)).unwrap_or_default()
}

fn cut_texts(fields: &mut [OwnedNamedCell], bytes_max: usize) {
    for (_, cell) in fields {
        if let OwnedCell::Text(text) = cell
            && text.len() > bytes_max
        {
            let end = (0..=bytes_max).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
            text.truncate(end);
            text.push_str("...");
        }
    }
}
