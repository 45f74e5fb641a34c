//! What boot loaders are told, as text: pure functions from the snapshot.
