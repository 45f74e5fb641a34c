//! Whom HTTPS clients trust: the authorities of the system, or, where it has none, Mozilla's list.
//!
//! The program is one file that runs in an empty root. There the platform has no certificates, and an HTTP
//! client that insists on them cannot be made, not even for plain HTTP.

use std::sync::OnceLock;

use reqwest::{Certificate, ClientBuilder};

/// Gives a client somebody to trust where the system has nobody. Looks at the system once per process.
pub fn somebody(builder: ClientBuilder) -> ClientBuilder {
    static SYSTEM_HAS_NONE: OnceLock<bool> = OnceLock::new();
    if *SYSTEM_HAS_NONE.get_or_init(|| rustls_native_certs::load_native_certs().certs.is_empty()) {
        builder.tls_certs_only(mozilla())
    } else {
        builder
    }
}

fn mozilla() -> impl Iterator<Item = Certificate> {
    // Each of them is parsed where this list is made; one that reqwest did not like would be left out.
    webpki_root_certs::TLS_SERVER_ROOT_CERTS
        .iter()
        .filter_map(|der| Certificate::from_der(der).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_holds_the_authorities_of_today() {
        assert!(mozilla().count() > 100);
    }
}
