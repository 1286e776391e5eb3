//! What the hub keeps as documents, and how their bodies are read and written.

use crate::HubError;
use model::{Dataset, Time};
use serde::{Deserialize, Serialize};
use store::{Document, StoreError, Under};

/// A dataset with its surrogate, as kept.
#[derive(Serialize, Deserialize)]
pub struct DatasetDoc {
    pub number: u32,
    pub dataset: Dataset,
}

/// A dataset as it was, as kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Version {
    /// None: it was there before versions were kept.
    pub time: Option<Time>,
    pub by: u64,
    pub dataset: Dataset,
}

/// What a token or code stands for, as kept under its digest.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CredentialDoc {
    /// Surrogate.
    pub number: u64,
    pub principal: u64,
    pub assurance: u8,
    pub expires: Time,
    /// The one purpose it is for; then none needs to be declared.
    pub purpose: Option<String>,
    /// A code that enrols, to be used once.
    pub one_time: bool,
}

/// Policies with the version of everything, as kept.
#[derive(Serialize, Deserialize)]
pub struct PoliciesDoc {
    pub text: String,
}

/// A document under the hub's key; without a body, the one that is to go.
pub fn document(kind: u8, name: &str, body: Option<Vec<u8>>) -> Document {
    Document { kind, name: name.to_owned(), under: Under::Hub, body }
}

/// Reads a document.
pub fn from_json<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, HubError> {
    serde_json::from_slice(body)
        .map_err(|error| HubError::Storage(StoreError::Damaged(format!("a document ({error})"))))
}

/// Writes a document.
pub fn to_json<T: Serialize>(value: &T) -> Vec<u8> {
    // Plain data into memory: this cannot fail.
    serde_json::to_vec(value).unwrap_or_default()
}
