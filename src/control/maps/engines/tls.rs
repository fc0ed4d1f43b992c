//! Encrypted connections to databases. Words of all that have them:
//!
//! ```text
//! tls_ca FILE         certificates of the authorities that are trusted, PEM; those of the system when not given
//! tls_cert FILE       our certificate and those that signed it, where the server wants one
//! tls_key FILE        its key
//! tls_verify yes|no   whether the server's certificate has to be good for its name; yes when not given
//! ```
//!
//! The files are read when a connection is made. A certificate that nobody trusted has signed, that is out of
//! date or names somebody else ends the connection before anything is said over it.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{self, CryptoProvider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};

use super::Settings;

/// What a client needs to begin.
pub(super) fn config(settings: &Settings) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = if settings.switch("tls_verify")?.unwrap_or(true) {
        builder.with_root_certificates(roots(settings)?)
    } else {
        let anybody = Arc::new(Anybody(provider));
        builder
            .dangerous()
            .with_custom_certificate_verifier(anybody)
    };
    let config = match (settings.find("tls_cert"), settings.find("tls_key")) {
        (None, None) => builder.with_no_client_auth(),
        (Some(chain), Some(key)) => {
            let private = PrivateKeyDer::from_pem_file(key);
            let private = private.map_err(|error| format!("tls_key {key}: {error}"))?;
            builder
                .with_client_auth_cert(certificates("tls_cert", chain)?, private)
                .map_err(|error| format!("tls_cert {chain}: {error}"))?
        }
        _ => return Err("of tls_cert and tls_key one is missing".to_owned()),
    };
    Ok(Arc::new(config))
}

fn roots(settings: &Settings) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    match settings.find("tls_ca") {
        Some(file) => {
            for certificate in certificates("tls_ca", file)? {
                let added = roots.add(certificate);
                added.map_err(|error| format!("tls_ca {file}: {error}"))?;
            }
        }
        None => {
            // Some of the system's may be unusable; those are not trusted.
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
            if roots.is_empty() {
                return Err("this system trusts nobody: tls_ca has to name a file".to_owned());
            }
        }
    }
    Ok(roots)
}

fn certificates(word: &str, file: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let failed = |problem: String| format!("{word} {file}: {problem}");
    let read = CertificateDer::pem_file_iter(Path::new(file));
    let read = read.and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(list) if list.is_empty() => Err(failed("has no certificate".to_owned())),
        Ok(list) => Ok(list),
        Err(error) => Err(failed(error.to_string())),
    }
}

/// Why a connection failed, with what helps when it is the certificate.
pub(super) fn explain(error: &(dyn Error + 'static)) -> String {
    let mut texts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        // Many only repeat what they wrap.
        if !texts.iter().any(|known| known.contains(&text)) {
            texts.push(text);
        }
        next = error.source();
    }
    let text = texts.join(": ");
    match hint(error) {
        Some(hint) => format!("{text} ({hint})"),
        None => text,
    }
}

fn hint(error: &(dyn Error + 'static)) -> Option<&'static str> {
    let mut next = Some(error);
    while let Some(error) = next {
        // An I/O error hides what it carries from `source`.
        let inner = error
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref)
            .and_then(|inner| inner.downcast_ref::<rustls::Error>());
        let found = inner.or_else(|| error.downcast_ref::<rustls::Error>());
        if let Some(rustls::Error::InvalidCertificate(why)) = found {
            return match why {
                CertificateError::UnknownIssuer => {
                    Some("nobody trusted has signed it; tls_ca FILE names who is")
                }
                CertificateError::NotValidForNameContext { .. }
                | CertificateError::NotValidForName => {
                    Some("connect by a name that the certificate has")
                }
                _ => None,
            };
        }
        next = error.source();
    }
    None
}

/// Takes any certificate; that the server has its key is still checked.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
