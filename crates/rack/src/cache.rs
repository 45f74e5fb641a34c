//! The image cache: content by its hash.
