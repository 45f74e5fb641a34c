//! Sockets bound to an interface.
