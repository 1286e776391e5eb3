//! The hub's own certificate authority: made at first start, so that TLS works out of the box.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use std::path::PathBuf;
use store::Files;

/// Days a server certificate holds; a new one is made at each start.
const SERVER_DAYS: i64 = 397;

/// Why certificates cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("a certificate cannot be made: {0}")]
    Make(#[from] rcgen::Error),
    #[error(transparent)]
    Files(#[from] store::StoreError),
    #[error("`{0}` cannot be read")]
    Read(String, #[source] std::io::Error),
}

/// Paths of what TLS needs.
pub struct Made {
    pub ca: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// Until when the first certificate in a file holds; none when there is none.
pub fn until(path: &std::path::Path) -> Option<model::Time> {
    let pem = std::fs::read(path).ok()?;
    let (_, block) = x509_parser::pem::parse_x509_pem(&pem).ok()?;
    let certificate = block.parse_x509().ok()?;
    Some(model::Time(certificate.validity().not_after.timestamp() * 1_000_000))
}

/// Makes the authority if there is none, and a fresh server certificate for these names.
///
/// # Errors
/// When a file cannot be read or written, or a name is none.
pub fn make(files: &Files, names: &[String]) -> Result<Made, CertificateError> {
    // Certificate and key in one file: the two always belong together.
    let both = files.keys.join("server.pem");
    let made = Made { ca: files.data.join("ca.pem"), certificate: both.clone(), key: both };
    let ca_key_path = files.keys.join("ca.key.pem");
    let read = |path: &PathBuf| {
        std::fs::read_to_string(path)
            .map_err(|error| CertificateError::Read(path.display().to_string(), error))
    };
    if !made.ca.exists() {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "Tanggul hub CA");
        params.not_before = time::OffsetDateTime::now_utc() - time::Duration::days(1);
        params.not_after = time::OffsetDateTime::now_utc() + time::Duration::days(3_650);
        let certificate = params.self_signed(&key)?;
        files.replace(&ca_key_path, key.serialize_pem().as_bytes())?;
        files.replace(&made.ca, certificate.pem().as_bytes())?;
    }
    let issuer =
        Issuer::from_ca_cert_pem(&read(&made.ca)?, KeyPair::from_pem(&read(&ca_key_path)?)?)?;
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(names.to_vec())?;
    params.distinguished_name.push(DnType::CommonName, "Tanggul hub");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.not_before = time::OffsetDateTime::now_utc() - time::Duration::days(1);
    params.not_after = time::OffsetDateTime::now_utc() + time::Duration::days(SERVER_DAYS);
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&key, &issuer)?;
    let both = certificate.pem() + &key.serialize_pem();
    match files.replace(&made.certificate, both.as_bytes()) {
        // A full disk keeps nobody from starting: the last one still holds.
        Err(error) if made.certificate.exists() => {
            tracing::warn!(%error, "the certificate of the last start is used again");
            Ok(made)
        }
        written => Ok(written.map(|()| made)?),
    }
}
