//! What elements were called, for facts that do not name theirs: an end, a change.
//!
//! Not here: the graph, which knows all that is. Invariant: bounded; the oldest name leaves, and a
//! fact about it is told by the element's id.

use std::collections::{HashMap, VecDeque};

use crate::limits::NAMES_MAX;
use crate::view::Event;

/// Characters of a name that are kept: what follows it in the line is to be seen as well.
const NAME_CHARS: usize = 60;

/// The name, cut; of a long one the program's folders go first, since its own name says most.
fn cut(name: &str) -> String {
    if name.chars().count() <= NAME_CHARS {
        return name.to_owned();
    }
    let (program, rest) = name.split_at(name.find(' ').unwrap_or(name.len()));
    let own = program.rsplit('/').next().unwrap_or(program);
    let brief = format!("{own}{rest}");
    match brief.char_indices().nth(NAME_CHARS) {
        Some((at, _)) => format!("{}...", &brief[..at]),
        None => brief,
    }
}

/// Names by element.
#[derive(Default)]
pub(super) struct Names {
    by_element: HashMap<String, String>,
    /// The elements in the order in which they were named.
    order: VecDeque<String>,
}

impl Names {
    /// Learns the name that `fact` gives its element, or tells it what an earlier one gave.
    pub(super) fn tell(&mut self, fact: &mut Event) {
        if !fact.names_its_element() {
            fact.about = self.by_element.get(&fact.element).cloned();
            return;
        }
        let name = cut(&fact.summary());
        // What happens once is not heard of again.
        if fact.op == "event" || name.is_empty() {
            return;
        }
        if self.by_element.insert(fact.element.clone(), name).is_none() {
            self.order.push_back(fact.element.clone());
        }
        while self.order.len() > NAMES_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.by_element.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::cut;

    #[test]
    fn of_a_long_name_the_program_and_its_first_arguments_stay() {
        assert_eq!(cut("/bin/sleep 1"), "/bin/sleep 1");
        let folder = format!("/{}/", "x".repeat(80));
        assert_eq!(cut(&format!("{folder}rustc --version")), "rustc --version");
        let long = cut(&format!("{folder}rustc {}", "\u{fc}".repeat(100)));
        assert!(long.starts_with("rustc \u{fc}") && long.ends_with("..."), "{long}");
        assert_eq!(cut(&"\u{fc}".repeat(61)).chars().count(), 63);
    }
}
