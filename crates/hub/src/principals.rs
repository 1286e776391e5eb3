//! Who there is, and what they prove it with, as documents have it. One that changed is taken in alone: a
//! city has more devices than can be read again whenever one of them is enrolled.

use crate::kept::CredentialDoc;
use model::Principal;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

#[derive(Default)]
pub struct Principals {
    by_number: BTreeMap<u64, Arc<Principal>>,
    by_login: HashMap<String, u64>,
    credentials: HashMap<String, Arc<CredentialDoc>>,
    /// Digests of the credentials, by principal.
    digests: HashMap<u64, Vec<String>>,
}

impl Principals {
    pub fn get(&self, number: u64) -> Option<Arc<Principal>> {
        self.by_number.get(&number).cloned()
    }

    pub fn by_login(&self, login: &str) -> Option<Arc<Principal>> {
        self.get(*self.by_login.get(login)?)
    }

    /// By number.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Principal>> {
        self.by_number.values()
    }

    pub fn credential(&self, digest: &str) -> Option<Arc<CredentialDoc>> {
        self.credentials.get(digest).cloned()
    }

    /// The digests of a principal's credentials.
    pub fn digests(&self, principal: u64) -> &[String] {
        self.digests.get(&principal).map(Vec::as_slice).unwrap_or_default()
    }

    /// Takes in a principal as it is now; none: there is none of that number any more.
    pub fn put(&mut self, number: u64, principal: Option<Principal>) {
        if let Some(old) = self.by_number.remove(&number)
            && self.by_login.get(&old.login) == Some(&number)
        {
            self.by_login.remove(&old.login);
        }
        if let Some(principal) = principal {
            self.by_login.insert(principal.login.clone(), number);
            self.by_number.insert(number, Arc::new(principal));
        }
    }

    /// Takes in a credential as it is now; none: it has ended.
    pub fn put_credential(&mut self, digest: &str, credential: Option<CredentialDoc>) {
        if let Some(old) = self.credentials.remove(digest)
            && let Some(digests) = self.digests.get_mut(&old.principal)
        {
            digests.retain(|one| one != digest);
            if digests.is_empty() {
                self.digests.remove(&old.principal);
            }
        }
        if let Some(credential) = credential {
            self.digests.entry(credential.principal).or_default().push(digest.to_owned());
            self.credentials.insert(digest.to_owned(), Arc::new(credential));
        }
    }
}
