//! An expression as a tree: what the parser makes and the search walks.

use super::literal::Literal;
use super::vocabulary::Common;

/// A query that can be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    pub(super) steps: Vec<Step>,
    pub(super) window: Option<Window>,
    pub(super) show: Vec<Column>,
    pub(super) limit: Option<u32>,
}

/// One element of the path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) how: How,
    pub(super) condition: Option<Condition>,
}

/// How a step is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// The first: every element of this kind; `None` for any.
    Start(Option<String>),
    /// What the element before names.
    Forward(Target),
    /// Who names the element before.
    Backward(Target),
}

/// Which elements a link leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// Those of this kind, by whatever link; `None` for any.
    Kind(Option<String>),
    /// Those that the link of this name joins.
    Link(String),
}

impl How {
    /// The kind of the elements, where the expression says it.
    pub(super) fn kind(&self) -> Option<&str> {
        match self {
            Self::Start(kind)
            | Self::Forward(Target::Kind(kind))
            | Self::Backward(Target::Kind(kind)) => kind.as_deref(),
            Self::Forward(Target::Link(_)) | Self::Backward(Target::Link(_)) => None,
        }
    }
}

/// What must be true of an element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    All(Vec<Self>),
    Any(Vec<Self>),
    Not(Box<Self>),
    Compare(Name, Operator, Literal),
    In(Name, Vec<Literal>),
    Missing(Name),
}

/// What is looked at of an element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Name {
    Common(Common),
    Feature(String),
}

impl Name {
    /// As a column is headed: a feature that is called like what every element has gets a dot.
    pub(super) fn heading(&self) -> String {
        match self {
            Self::Common(common) => common.name().to_owned(),
            Self::Feature(name) if Common::named(name).is_some() => format!(".{name}"),
            Self::Feature(name) => name.clone(),
        }
    }
}

/// A column that was asked for: of which step, and what of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) step: usize,
    pub(super) name: Name,
    pub(super) heading: String,
}

/// How two values are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Contains,
    StartsWith,
    EndsWith,
    Matches,
}

impl Operator {
    pub(super) const ALL: [(Self, &'static str); 10] = [
        (Self::Equal, "="),
        (Self::NotEqual, "!="),
        (Self::Less, "<"),
        (Self::LessOrEqual, "<="),
        (Self::Greater, ">"),
        (Self::GreaterOrEqual, ">="),
        (Self::Contains, "contains"),
        (Self::StartsWith, "startswith"),
        (Self::EndsWith, "endswith"),
        (Self::Matches, "matches"),
    ];

    /// Whether it looks at the characters of a text.
    pub(super) const fn is_of_text(self) -> bool {
        matches!(self, Self::Contains | Self::StartsWith | Self::EndsWith | Self::Matches)
    }
}

/// From when to when, in milliseconds since 1970, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) from_ms: u64,
    pub(super) to_ms: u64,
}
