//! All operations, gathered from the files of their nouns.

use crate::operation::Operation;

/// Every operation of the product.
#[must_use]
pub fn all() -> Vec<&'static Operation> {
    [
        crate::account::OPERATIONS,
        crate::describe::OPERATIONS,
        crate::machine::OPERATIONS,
        crate::setting::OPERATIONS,
        crate::sshkey::OPERATIONS,
        crate::user::OPERATIONS,
        crate::version::OPERATIONS,
    ]
    .into_iter()
    .flatten()
    .collect()
}
