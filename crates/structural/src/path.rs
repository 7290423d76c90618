//! Where in an object a walk is. Nothing is written down until somebody wants to know.

use std::fmt;

#[derive(Clone, Copy)]
pub(crate) enum At<'a> {
    /// The beginning, with its name, which is empty for the object itself.
    Start(&'a str),
    Key(&'a At<'a>, &'a str),
    Index(&'a At<'a>, usize),
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start(name) => f.write_str(name),
            Self::Key(Self::Start(""), key) => f.write_str(key),
            Self::Key(parent, key) => write!(f, "{parent}.{key}"),
            Self::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}
