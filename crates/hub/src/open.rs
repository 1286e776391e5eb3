//! Being somebody: the only way in.

use crate::kept::CredentialDoc;
use crate::{Counter, Hub, HubError, TENANT, kinds};
use guard::{TokenKind, new_token, token_digest, verify_password};
use model::{Credential, Principal, Session, Status, Time, Zone};
use std::sync::Arc;

/// How long a sign-in lasts, in seconds.
pub const SIGN_IN_S: i64 = 12 * 3600;

/// Where a credential was shown.
#[derive(Clone, Debug)]
pub struct Source {
    pub zone: Zone,
    pub block: Block,
    /// A browser that once signed in, by the number in its cookie.
    pub browser: Option<u64>,
}

/// The block an address lies in, for counting: /24 or /48.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Block {
    /// Inside the process.
    Own,
    Of(std::net::IpAddr),
}

impl std::fmt::Display for Block {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Block::Own => f.write_str("own"),
            Block::Of(std::net::IpAddr::V4(address)) => {
                let [a, b, c, _] = address.octets();
                write!(f, "{a}.{b}.{c}.0/24")
            }
            Block::Of(std::net::IpAddr::V6(address)) => {
                let [a, b, c, ..] = address.segments();
                write!(f, "{a:x}:{b:x}:{c:x}::/48")
            }
        }
    }
}

pub(crate) fn hex_digest(token: &str) -> String {
    crate::recorder::hex(&token_digest(token))
}

impl Hub {
    /// Makes a session of a token, or of nothing: the public.
    ///
    /// # Errors
    /// When the token is unknown, expired or revoked.
    pub fn open(
        &self,
        credential: &Credential,
        source: &Source,
        purpose: Option<&str>,
    ) -> Result<Session, HubError> {
        // What nothing is kept for is no purpose: else records could be filled with any text.
        let purpose = purpose.filter(|purpose| self.state.knows_purpose(purpose));
        let unknown = || {
            self.count_unknown("token", &source.block.to_string());
            HubError::Unauthenticated("the token is unknown, expired or revoked".into())
        };
        match credential {
            Credential::None => Ok(Session {
                principal: Arc::new(Principal::public()),
                tenant: TENANT,
                purpose: purpose.map(Into::into),
                assurance: 0,
                zone: source.zone,
                expires: Time::MAX,
                credential: 0,
            }),
            Credential::Bearer(token) => {
                let found = self.state.credential(&hex_digest(token)).ok_or_else(unknown)?;
                if found.one_time || found.expires <= self.now() {
                    return Err(unknown());
                }
                let principal = self.state.principal(found.principal).ok_or_else(unknown)?;
                if principal.status == Status::Revoked {
                    return Err(unknown());
                }
                self.state.note_seen(principal.number, self.now());
                // A token with one purpose is for no other; what one may not declare is not declared.
                let own = &principal.purposes;
                let purpose = found.purpose.as_deref().or(purpose);
                let purpose = purpose.filter(|p| own.is_empty() || own.iter().any(|one| one == p));
                Ok(Session {
                    tenant: TENANT,
                    purpose: purpose.map(Into::into),
                    principal: principal.clone(),
                    assurance: found.assurance,
                    zone: source.zone,
                    expires: found.expires,
                    credential: found.number,
                })
            }
            Credential::Password { .. } | Credential::OneTime(_) => {
                Err(HubError::Unauthenticated("sign in first; this is not a token".into()))
            }
        }
    }

    /// Whether a session still stands: its credential is there, its principal active.
    pub fn is_live(&self, session: &Session) -> bool {
        if session.credential == 0 {
            return true;
        }
        let credentials = self.state.credentials_of(session.principal.number);
        let there = credentials
            .iter()
            .any(|(_, c)| c.number == session.credential && c.expires > self.now());
        let principal = self.state.principal(session.principal.number);
        there && principal.is_some_and(|principal| principal.status != Status::Revoked)
    }

    /// The session as it is now, for what goes on long after it was opened.
    ///
    /// # Errors
    /// When its credential was revoked or has expired.
    pub fn still(&self, session: &Session) -> Result<Session, HubError> {
        if !self.is_live(session) {
            let what = "the token was revoked or has expired while the request was under way";
            return Err(HubError::Unauthenticated(what.into()));
        }
        let now = self.state.principal(session.principal.number);
        let principal = now.unwrap_or_else(|| session.principal.clone());
        Ok(Session { principal, ..session.clone() })
    }

    /// Signs an official in with a password: gives a token that lasts half a day.
    ///
    /// # Errors
    /// When login or password is wrong (the answer does not say which), or tries come too fast.
    pub async fn sign_in(
        &self,
        login: &str,
        password: &str,
        source: &Source,
    ) -> Result<(String, Session), HubError> {
        let wrong = || {
            self.counters.add(Counter::SignInsFailed, 1);
            self.count_unknown("sign-in", &source.block.to_string());
            HubError::Unauthenticated("the login or the password is wrong".into())
        };
        if login.len() > 200 {
            return Err(wrong());
        }
        let turn = self.hashes.turn(source)?;
        let now = self.now();
        self.state.throttle.lock().take(login, source.browser, now).map_err(HubError::Throttled)?;
        let principal = self.state.principal_by_login(login).filter(|p| p.status == Status::Active);
        let hash_of = |number: u64| self.store.document(kinds::PASSWORD, &number.to_string());
        let kept = principal.as_ref().and_then(|principal| hash_of(principal.number));
        let hash = kept.as_ref().and_then(|body| String::from_utf8(body.to_vec()).ok());
        let password = password.to_owned();
        let fits = turn.hash(move || verify_password(&password, hash.as_deref())).await?;
        let (Some(principal), true) = (principal, fits) else { return Err(wrong()) };
        self.state.throttle.lock().give_back(login, source.browser);
        let (token, session) = self.open_session(&principal, 2, source)?;
        // Whoever chose another password meanwhile ended what the old one opens: before this one was
        // there, or he sees it and ends it.
        let now = self.state.principal(principal.number);
        let active = now.is_some_and(|principal| principal.status == Status::Active);
        if !active || hash_of(principal.number) != kept {
            self.sign_out(&token);
            return Err(wrong());
        }
        Ok((token, session))
    }

    /// A mark for a browser that signed in, so that strangers who guess never slow its owner down.
    pub fn browser_mark(&self, login: &str) -> String {
        let number = u64::from_be_bytes(vault::random()) >> 1;
        format!("{number}.{}", self.mark_digest(login, number))
    }

    /// The browser that a mark belongs to, if it was made for this login.
    pub fn read_browser_mark(&self, login: &str, mark: &str) -> Option<u64> {
        let (number, digest) = mark.split_once('.')?;
        let number = number.parse().ok()?;
        vault::equal(self.mark_digest(login, number).as_bytes(), digest.as_bytes())
            .then_some(number)
    }

    fn mark_digest(&self, login: &str, number: u64) -> String {
        let key = self.store.derived_key("browser marks");
        crate::recorder::hex(
            &vault::keyed_digest(&key, &[login.as_bytes(), &number.to_be_bytes()])[..16],
        )
    }

    /// Ends a sign-in before its time.
    pub fn sign_out(&self, token: &str) {
        self.state.drop_sign_in(&hex_digest(token));
    }

    pub(crate) fn open_session(
        &self,
        principal: &Arc<Principal>,
        assurance: u8,
        source: &Source,
    ) -> Result<(String, Session), HubError> {
        let token = new_token(TokenKind::Session, &vault::random());
        let credential = CredentialDoc {
            number: u64::from_be_bytes(vault::random()) >> 1 | 1,
            principal: principal.number,
            assurance,
            expires: self.now().plus_seconds(SIGN_IN_S),
            purpose: None,
            one_time: false,
        };
        let session = Session {
            principal: principal.clone(),
            tenant: TENANT,
            purpose: None,
            assurance,
            zone: source.zone,
            expires: credential.expires,
            credential: credential.number,
        };
        self.state.add_sign_in(hex_digest(&token), credential);
        Ok((token, session))
    }
}
