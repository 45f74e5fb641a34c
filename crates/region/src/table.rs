//! All operations, gathered from the files of their nouns.

use std::sync::OnceLock;

use crate::operation::Operation;
use crate::v1;

/// Every operation of the product.
#[must_use]
pub fn all() -> Vec<&'static Operation> {
    let mut table: Vec<&'static Operation> = [
        crate::account::OPERATIONS,
        crate::bcache::OPERATIONS,
        crate::bcache_cache_set::OPERATIONS,
        crate::block_device::ops::OPERATIONS,
        crate::boot::OPERATIONS,
        crate::boot_resource::OPERATIONS,
        crate::boot_source::OPERATIONS,
        crate::boot_source_selection::OPERATIONS,
        crate::boot_upload::OPERATIONS,
        crate::describe::OPERATIONS,
        crate::discovery::OPERATIONS,
        crate::dhcp_snippet::OPERATIONS,
        crate::dns_record::OPERATIONS,
        crate::dns_resource::OPERATIONS,
        crate::domain::OPERATIONS,
        crate::device::OPERATIONS,
        crate::device::SHARED,
        crate::event_query::OPERATIONS,
        crate::fabric::OPERATIONS,
        crate::file::OPERATIONS,
        crate::filesystem::OPERATIONS,
        crate::interface::ops::OPERATIONS,
        crate::ip_address::OPERATIONS,
        crate::ip_range::OPERATIONS,
        crate::layout::OPERATIONS,
        crate::license_key::OPERATIONS,
        crate::machine::OPERATIONS,
        crate::machine::SHARED,
        crate::metadata::OPERATIONS,
        crate::network::OPERATIONS,
        crate::notification::OPERATIONS,
        crate::package_repository::OPERATIONS,
        crate::rack_controller::OPERATIONS,
        crate::reserved_ip::OPERATIONS,
        crate::partition::OPERATIONS,
        crate::rack_controller::OPERATIONS,
        crate::raid::OPERATIONS,
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
        crate::space::OPERATIONS,
        crate::sshkey::OPERATIONS,
        crate::static_route::OPERATIONS,
        crate::sslkey::OPERATIONS,
        crate::subnet::ops::OPERATIONS,
        crate::sync_progress::OPERATIONS,
        crate::tag::OPERATIONS,
        crate::user::OPERATIONS,
        crate::v1::changes::OPERATIONS,
        crate::v1::openapi::OPERATIONS,
        crate::v1::operations::OPERATIONS,
        crate::version::OPERATIONS,
        crate::vlan::ops::OPERATIONS,
        crate::vmfs_datastore::OPERATIONS,
        crate::volume_group::OPERATIONS,
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
