//! Every bound of the graph, with its reason. The rule at a bound is in the module above.

/// The most elements kept, living and past. At about 700 bytes an element with its text, a million
/// fill what `BYTES_MAX` allows; the bound keeps maps small where elements are tiny.
pub const ELEMENTS_MAX: usize = 1_000_000;

/// The most memory that elements are counted with, in bytes: half of what a small appliance has.
/// Text is counted in full for each element although the decoder shares it, so the true figure is
/// lower.
pub const BYTES_MAX: u64 = 512 << 20;

/// What one element costs beside its own size, fields and text: its entries in the map of ids, in
/// the row of past elements and in the referrers of what it names.
pub const ELEMENT_OVERHEAD_BYTES: usize = 96;

/// Models of agents' own kinds, and of built-in kinds that a newer sensor widened, that queries
/// know by name: 64 a log, in a fleet of agents of one or two versions.
pub const MODELS_MAX: usize = 1_024;

/// The longest label of an element, in bytes: one line of a page.
pub const LABEL_BYTES_MAX: usize = 160;

/// The bounds of one graph; the default is that of this file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GraphLimits {
    /// The most elements.
    pub elements_max: usize,
    /// The most bytes, counted as [`BYTES_MAX`] says.
    pub bytes_max: u64,
}

impl Default for GraphLimits {
    fn default() -> Self {
        Self { elements_max: ELEMENTS_MAX, bytes_max: BYTES_MAX }
    }
}
