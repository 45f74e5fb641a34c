//! wire-simplestreams
