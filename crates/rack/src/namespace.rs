//! The paths that boot loaders ask for, parsed.
