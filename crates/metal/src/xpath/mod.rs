//! XPath 1.0 (W3C, 16 November 1999) over a small document tree: what the definitions of tags are written
//! in. A [`Document`] is built node by node; an [`Expression`] is parsed once and asked of many documents.
//!
//! Names are compared as they are written, with their prefix; there are no namespaces beside that, no
//! comments and no variables. Everything is bounded: the text of an expression, its depth, and the number
//! of nodes that one evaluation may look at.

mod eval;
mod parse;
mod tree;

#[cfg(test)]
mod tests;

pub use parse::{Expression, MAX_DEPTH, MAX_EXPRESSION};
pub use tree::{Document, MAX_NODES, NodeId};

/// Most nodes that one evaluation may look at.
pub const MAX_VISITS: u64 = 5_000_000;

/// Why an expression cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum XPathError {
    /// Too many bytes.
    #[error("the expression is longer than {MAX_EXPRESSION} bytes")]
    Long,
    /// Too deep.
    #[error("the expression is nested more than {MAX_DEPTH} deep")]
    Deep,
    /// What stands where it cannot.
    #[error("'{found}' cannot stand at character {at}: {expected} was expected")]
    Syntax {
        /// Where, counted from 1.
        at: usize,
        /// What stands there.
        found: String,
        /// What could.
        expected: &'static str,
    },
    /// A function that there is not, or not with so many arguments.
    #[error("there is no function {name}() with {arguments} argument(s)")]
    Function {
        /// Its name.
        name: String,
        /// How many arguments it was given.
        arguments: usize,
    },
    /// Something other than nodes where nodes are needed.
    #[error("{0} works on nodes")]
    NotNodes(&'static str),
    /// The evaluation looked at too much.
    #[error("the expression looks at more than {MAX_VISITS} nodes of this document")]
    Work,
}
