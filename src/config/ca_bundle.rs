//! Certificates in PEM, checked by what a TLS client will do with them.

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// Checks that a bundle holds certificates and that each can be trusted: a TLS client refuses all for the sake of one.
///
/// # Errors
/// A clause that says what is wrong, without the content.
pub fn check_ca_bundle(pem: &str) -> Result<(), String> {
    let mut roots = RootCertStore::empty();
    for (i, certificate) in CertificateDer::pem_slice_iter(pem.as_bytes()).enumerate() {
        let certificate = certificate.map_err(|_syntax| format!("certificate {} is broken PEM", i + 1))?;
        roots.add(certificate).map_err(|_fault| format!("certificate {} is no X.509 certificate", i + 1))?;
    }
    if roots.is_empty() { Err("there is no certificate in it".to_owned()) } else { Ok(()) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn certificate() -> String {
        rcgen::generate_simple_self_signed(["ca.example".to_owned()]).unwrap().cert.pem()
    }

    #[test]
    fn a_bundle_is_one_certificate_or_more_with_whatever_between_them() {
        assert_eq!(check_ca_bundle(&certificate()), Ok(()));
        assert_eq!(check_ca_bundle(&format!("# ours\n{}\n\n# theirs\n{}", certificate(), certificate())), Ok(()));
    }

    #[test]
    fn one_bad_certificate_spoils_a_bundle() {
        let good = certificate();
        let torn = good.replace("-----END CERTIFICATE-----", "");
        let no_x509 = "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n";
        let no_base64 = "-----BEGIN CERTIFICATE-----\n*\n-----END CERTIFICATE-----\n";
        for bad in ["", "hello", &torn, no_x509, &format!("{good}{no_x509}"), &format!("{good}{no_base64}")] {
            assert!(check_ca_bundle(bad).is_err(), "{bad}");
        }
    }
}
