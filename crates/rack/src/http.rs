//! The HTTP server that machines boot from.
