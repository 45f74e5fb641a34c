//! Addresses for interfaces. (face; being filled in)

use metal::Timestamp;
use store::Tx;

use crate::error::ApiError;
use crate::node::NodeRow;

/// Gives every AUTO link of a node an address: 503 when a subnet has none left.
pub async fn claim_auto(_tx: &mut Tx, _node: &NodeRow, _now: Timestamp) -> Result<(), ApiError> {
    Err(ApiError::bug("ipam"))
}
