//! Raw Ethernet frames, for clients without an address.
