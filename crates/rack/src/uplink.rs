//! The link to the region.
