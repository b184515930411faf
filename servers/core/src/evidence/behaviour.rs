//! Built-in detections of behaviour: what an element and its neighbours do, whoever they are.
//!
//! Each is one file with what it means, what else may look so, and a test for each side. They are
//! suspicions; below High they make no MalOp by themselves.

mod server_shell;
mod shell_connection;
mod unnamed_executable;

use lapwing_protocol::element::{Kind, process};

use super::finding::Finding;
use crate::graph::{Element, Graph};

/// One detection.
pub(super) trait Behaviour: Sync {
    /// The kind it looks at.
    fn kind(&self) -> Kind;

    /// The features whose change makes it look; bit i stands for feature i.
    fn features(&self) -> u64;

    /// What it says of `element`.
    fn judge(&self, graph: &Graph, element: &Element) -> Option<Finding>;
}

/// Every detection. The position of one means nothing outside one run.
pub(super) static BEHAVIOURS: [&dyn Behaviour; 3] = [
    &unnamed_executable::UnnamedExecutable,
    &server_shell::ServerShell,
    &shell_connection::ShellConnection,
];

/// The last part of the path of `process`'s executable, else its short name.
fn program(process: &Element) -> Option<String> {
    let path = process.text(process::image_path).filter(|path| !path.is_empty());
    let name = path.or_else(|| process.text(process::name))?;
    Some(base(&name).to_owned())
}

/// The last part of a path, without the mark of a removed file.
fn base(path: &str) -> &str {
    let path = path.strip_suffix(" (deleted)").unwrap_or(path);
    path.rsplit('/').next().unwrap_or(path)
}

/// Whether a program of that name reads commands.
fn is_shell(program: &str) -> bool {
    matches!(program, "sh" | "bash" | "dash" | "ash" | "zsh" | "ksh" | "fish" | "csh" | "tcsh")
}

/// The cause of a suspicion about `process`: its executable, where its hash is known.
fn cause(process: &Element) -> String {
    match process.value(process::image_hash) {
        Some(hash) => format!("hash:{hash}"),
        None => format!("process:{}", process.guid()),
    }
}

#[cfg(test)]
mod fixture {
    //! A graph with a process and its parent, for the tests of the detections.

    use std::sync::Arc;

    use lapwing_protocol::element::{Feature, kind};
    use lapwing_protocol::id::{ElementGuid, SensorId};

    use super::*;
    use crate::change::{Change, KindModel, OwnedValue, What};
    use crate::graph::limits::GraphLimits;

    pub(super) fn text(text: &str) -> OwnedValue {
        OwnedValue::Text(text.as_bytes().into())
    }

    pub(super) fn guid(number: u8) -> ElementGuid {
        ElementGuid([number; 16])
    }

    /// What `behaviour` says of the last of these elements.
    pub(super) fn judge(
        behaviour: &dyn Behaviour,
        elements: Vec<(Kind, Vec<(Feature, OwnedValue)>)>,
    ) -> Option<Finding> {
        let mut graph = Graph::new(GraphLimits::default(), 1);
        let mut last = 0;
        for (number, (of, mut fields)) in (1..).zip(elements) {
            fields.sort_by_key(|(feature, _)| *feature);
            let change = Change {
                guid: guid(number),
                model: Arc::new(KindModel::new(kind(of).unwrap())),
                what: What::Put,
                time_ns: 1,
                wall_ns: 1,
                index: None,
                source_seq: None,
                fields,
            };
            graph.apply(1, SensorId([1; 16]), change);
            last = number;
        }
        behaviour.judge(&graph, graph.find(guid(last)).unwrap())
    }
}
