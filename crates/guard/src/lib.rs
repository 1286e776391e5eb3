//! Who may: authentication checks and authorisation over a snapshot that is handed in. The guard
//! fetches and keeps nothing itself; it returns verdicts, lenses and new throttle states.

mod decide;
mod password;
mod policy;
mod throttle;
mod token;

pub use decide::{Datasets, Reason, Snapshot, Verdict, hub_dataset};
pub use password::{
    MIN_PASSWORD_CHARS, PasswordError, check_new_password, hash_password, verify_password,
};
pub use policy::{DEFAULT_POLICIES, Policies, PolicyError, SCHEMA};
pub use throttle::{Throttle, Wait};
pub use token::{TOKEN_BYTES, TokenKind, new_code, new_token, token_digest};
