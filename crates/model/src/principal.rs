//! Who acts, and as what they are authenticated.

use crate::Time;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The kinds of principal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Official,
    Device,
    App,
    Public,
    /// The hub itself: sealing, retention, rotation.
    Hub,
}

/// What an official or app is trusted with; policies give each its rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Administrator,
    Steward,
    Department,
    Crisis,
    Auditor,
    App,
    Device,
}

impl Role {
    /// All roles.
    pub const ALL: [Role; 7] = [
        Role::Administrator,
        Role::Steward,
        Role::Department,
        Role::Crisis,
        Role::Auditor,
        Role::App,
        Role::Device,
    ];

    /// The word for it, as policies write it.
    pub fn word(self) -> &'static str {
        match self {
            Role::Administrator => "administrator",
            Role::Steward => "steward",
            Role::Department => "department",
            Role::Crisis => "crisis",
            Role::Auditor => "auditor",
            Role::App => "app",
            Role::Device => "device",
        }
    }
}

/// Whether a principal may act at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Active,
    /// What it sends is kept apart for the steward.
    Quarantined,
    Revoked,
}

/// Somebody the hub knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Principal {
    /// The surrogate by which records name it: no personal data.
    pub number: u64,
    pub kind: Kind,
    /// Login of an official, name of an app, client id of a device; unique in the tenant.
    pub login: String,
    pub name: String,
    pub department: String,
    pub roles: Vec<Role>,
    /// Datasets this principal is bound to (apps and devices); empty for officials.
    #[serde(default)]
    pub datasets: Vec<String>,
    /// The entity ids a device may write: exact, or a prefix ending in `*`.
    #[serde(default)]
    pub streams: Vec<String>,
    /// Purposes this principal may declare; empty: any the dataset names.
    #[serde(default)]
    pub purposes: Vec<String>,
    pub status: Status,
}

impl Principal {
    /// Anybody who shows no credential.
    pub fn public() -> Principal {
        Principal {
            number: 0,
            kind: Kind::Public,
            login: "public".into(),
            name: "The public".into(),
            department: String::new(),
            roles: Vec::new(),
            datasets: Vec::new(),
            streams: Vec::new(),
            purposes: Vec::new(),
            status: Status::Active,
        }
    }

    /// The hub itself.
    pub fn hub() -> Principal {
        Principal {
            number: 1,
            kind: Kind::Hub,
            login: "hub".into(),
            name: "The hub".into(),
            ..Self::public()
        }
    }

    /// Whether it has the role.
    pub fn has(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }

    /// Whether a device may write the entity with this id.
    pub fn may_stream(&self, id: &str) -> bool {
        self.streams.iter().any(|stream| match stream.strip_suffix('*') {
            Some(prefix) => id.starts_with(prefix),
            None => stream == id,
        })
    }
}

/// Where a session comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Zone {
    /// The machine itself.
    Local,
    /// The city's own networks.
    City,
    /// Anywhere else.
    Outside,
}

impl Zone {
    /// The word policies use.
    pub fn word(self) -> &'static str {
        match self {
            Zone::Local => "local",
            Zone::City => "city",
            Zone::Outside => "outside",
        }
    }
}

/// What a caller shows to be somebody. Never logged: it has no `Debug`.
pub enum Credential {
    /// Nothing.
    None,
    /// A token of an app, a device or a signed-in official.
    Bearer(String),
    /// A login and password.
    Password { login: String, password: String },
    /// A one-time code, for enrolment and first start.
    OneTime(String),
}

/// An authenticated principal with its declared purpose.
#[derive(Clone, Debug)]
pub struct Session {
    pub principal: Arc<Principal>,
    pub tenant: u32,
    pub purpose: Option<Arc<str>>,
    /// 0 nobody, 1 token, 2 password, 3 password with a second factor or passkey.
    pub assurance: u8,
    pub zone: Zone,
    pub expires: Time,
    /// Surrogate of the credential, so that revoking it ends the session; 0 for none.
    pub credential: u64,
}
