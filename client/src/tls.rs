//! What the client believes of who is at the other end: the system's authorities, and those that it was given.
//!
//! The rule this file upholds: the crypto provider is always named (ring), never the process's default.

use std::sync::Arc;

use reqwest::Url;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::Verifier;

use crate::error::Error;

/// The settings for this address. The system's authorities are read for one with TLS only.
pub(crate) fn settings(url: &Url, authorities: Vec<CertificateDer<'static>>) -> Result<ClientConfig, Error> {
    let unusable = |error: rustls::Error| Error::invalid(format!("no TLS with {url}: {error}"));
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(unusable)?;
    if url.scheme() != "https" {
        return Ok(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth());
    }
    // "Dangerous" is any verifier but rustls' own; this is that one, with the authorities of the system.
    let verifier = Verifier::new_with_extra_roots(authorities, provider).map_err(unusable)?;
    Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth())
}

/// The certificates of a PEM text, at least one.
pub(crate) fn authorities(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let bad = |why: &str| Error::invalid(format!("the authority is no certificate in PEM form: {why}"));
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|error| bad(&error.to_string()))?;
    if found.is_empty() {
        return Err(bad("there is no line -----BEGIN CERTIFICATE-----"));
    }
    for certificate in &found {
        RootCertStore::empty().add(certificate.clone()).map_err(|error| bad(&error.to_string()))?;
    }
    Ok(found)
}
