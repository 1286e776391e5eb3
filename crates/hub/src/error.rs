//! Why the hub did not do something. Free of HTTP; the server maps each to problem details.

use guard::{PasswordError, PolicyError, Reason, Wait};
use model::Refusal;
use ngsild::Invalid;
use store::StoreError;

/// Why a session may not, and what would change it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Why {
    pub action: String,
    pub dataset: String,
    pub purpose: Option<String>,
    pub reasons: Vec<Reason>,
    /// Purposes under which it would be allowed.
    pub purposes: Vec<String>,
    /// Who could grant it: the steward's login.
    pub grantor: String,
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "not permitted to {} dataset `{}`", self.action, self.dataset)?;
        match &self.purpose {
            Some(purpose) => write!(f, " for the purpose `{purpose}`")?,
            None => f.write_str(" without a declared purpose")?,
        }
        for reason in &self.reasons {
            write!(f, "; policy `{}`: {}", reason.policy, reason.title)?;
        }
        if !self.purposes.is_empty() {
            write!(f, "; it would be for: {}", self.purposes.join(", "))?;
        }
        if !self.grantor.is_empty() {
            write!(f, "; who could grant it: {}", self.grantor)?;
        }
        Ok(())
    }
}

/// Why the hub did not do something.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    #[error("a credential is needed: {0}")]
    Unauthenticated(String),
    #[error("{0}")]
    Forbidden(Box<Why>),
    #[error("{0}")]
    NotFound(String),
    #[error("{0}")]
    Invalid(#[from] Invalid),
    #[error("{0}")]
    Refusal(#[from] Refusal),
    #[error(
        "no dataset claims the type {0}; ask an administrator for a dataset that does, or send one of: {1}"
    )]
    NoDataset(String, String),
    #[error("{0}")]
    Conflict(String),
    #[error("a {0} with the id `{1}` exists already")]
    Exists(&'static str, String),
    #[error("`{name}` is limited to {limit}: {remedy}")]
    Limit { name: &'static str, limit: u64, remedy: String },
    #[error("too many tries; come back in {} seconds", .0.seconds)]
    Throttled(Wait),
    #[error("{0}")]
    Password(#[from] PasswordError),
    #[error("{0}")]
    Policy(#[from] PolicyError),
    #[error("{0} is not offered")]
    NotOffered(String),
    /// An `@context` that is not known here.
    #[error("{0}")]
    NoContext(String),
    #[error(
        "a full replace would take away what you cannot see of `{0}`; change its attributes instead"
    )]
    PartialSight(String),
    #[error(
        "dataset `{0}` is sealed: it can be read again when the custodians open the sensitive root"
    )]
    Sealed(String),
    #[error(transparent)]
    Storage(#[from] StoreError),
    #[error("the hub is stopping")]
    Stopping,
}
