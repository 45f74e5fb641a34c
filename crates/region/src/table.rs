//! All operations, gathered from the files of their nouns.

use crate::operation::Operation;

/// Every operation of the product.
#[must_use]
pub fn all() -> Vec<&'static Operation> {
    [
        crate::account::OPERATIONS,
        crate::block_device::ops::OPERATIONS,
        crate::boot::OPERATIONS,
        crate::boot_resource::OPERATIONS,
        crate::boot_source::OPERATIONS,
        crate::boot_source_selection::OPERATIONS,
        crate::describe::OPERATIONS,
        crate::device::OPERATIONS,
        crate::device::SHARED,
        crate::event_query::OPERATIONS,
        crate::fabric::OPERATIONS,
        crate::interface::ops::OPERATIONS,
        crate::ip_range::OPERATIONS,
        crate::layout::OPERATIONS,
        crate::machine::OPERATIONS,
        crate::machine::SHARED,
        crate::metadata::OPERATIONS,
        crate::node::family::OPERATIONS,
        crate::node::family::SHARED,
        crate::node_device::OPERATIONS,
        crate::node_result::OPERATIONS,
        crate::node_script::OPERATIONS,
        crate::node_script::commissioning::OPERATIONS,
        crate::rack_controller::OPERATIONS,
        crate::rack_controller::SHARED,
        crate::region_controller::OPERATIONS,
        crate::region_controller::SHARED,
        crate::script_result::OPERATIONS,
        crate::setting::OPERATIONS,
        crate::sshkey::OPERATIONS,
        crate::subnet::ops::OPERATIONS,
        crate::tag::OPERATIONS,
        crate::user::OPERATIONS,
        crate::version::OPERATIONS,
        crate::vlan::ops::OPERATIONS,
        crate::zone::OPERATIONS,
    ]
    .into_iter()
    .flatten()
    .collect()
}
