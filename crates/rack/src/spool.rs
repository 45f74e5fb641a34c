//! Reports on their way to the region.
