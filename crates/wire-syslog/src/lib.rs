//! wire-syslog
