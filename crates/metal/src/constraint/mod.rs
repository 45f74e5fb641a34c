//! What a caller of `allocate` demands of a machine's disks and interfaces: the grammar, and whether a
//! machine has it. Which rows a machine has is the caller's to find out.

pub mod interface;
pub mod storage;

/// Longest constraint text, in bytes.
pub const MAX_TEXT: usize = 16 << 10;
/// Most items of one constraint text.
pub const MAX_ITEMS: usize = 128;
