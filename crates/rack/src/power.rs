//! Power orders.
