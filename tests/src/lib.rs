//! Tests through the front door: a running Steelyard, real HTTP, real packets, real databases, foreign peers.
