//! All operations, gathered from the files of their nouns.

use std::sync::OnceLock;

use crate::operation::Operation;
use crate::v1;

/// Every operation of the product.
#[must_use]
pub fn all() -> Vec<&'static Operation> {
    let mut table: Vec<&'static Operation> = [
        crate::account::OPERATIONS,
        crate::block_device::ops::OPERATIONS,
        crate::boot::OPERATIONS,
        crate::boot_resource::OPERATIONS,
        crate::boot_source::OPERATIONS,
        crate::boot_source_selection::OPERATIONS,
        crate::describe::OPERATIONS,
        crate::event_query::OPERATIONS,
        crate::fabric::OPERATIONS,
        crate::interface::ops::OPERATIONS,
        crate::ip_range::OPERATIONS,
        crate::layout::OPERATIONS,
        crate::machine::OPERATIONS,
        crate::metadata::OPERATIONS,
        crate::rack_controller::OPERATIONS,
        crate::script_result::OPERATIONS,
        crate::setting::OPERATIONS,
        crate::sshkey::OPERATIONS,
        crate::subnet::ops::OPERATIONS,
        crate::tag::OPERATIONS,
        crate::user::OPERATIONS,
        crate::v1::changes::OPERATIONS,
        crate::v1::openapi::OPERATIONS,
        crate::v1::operations::OPERATIONS,
        crate::version::OPERATIONS,
        crate::vlan::ops::OPERATIONS,
        crate::zone::OPERATIONS,
    ]
    .into_iter()
    .flatten()
    .collect();
    table.extend(SECOND_FACE.get_or_init(|| v1::derive(&table)));
    table
}

/// What follows from the table for our own face: made once, as it lives as long as the process.
static SECOND_FACE: OnceLock<Vec<&'static Operation>> = OnceLock::new();
