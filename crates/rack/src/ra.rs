//! Router advertisements.
