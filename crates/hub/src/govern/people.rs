//! Principals and their credentials: enrolling, revoking, tokens, one-time codes.

use super::{document, text, texts};
use crate::act::Effects;
use crate::kept::{CredentialDoc, to_json};
use crate::open::hex_digest;
use crate::recorder::map;
use crate::{Hub, HubError, kinds};
use guard::{TokenKind, new_code, new_token};
use model::{Action, Kind, Principal, Role, Session, Status, Time, Value, Verb};
use ngsild::Invalid;
use std::collections::BTreeSet;
use std::sync::Arc;
use store::Document;

/// Seconds that a one-time code holds.
const CODE_S: i64 = 7 * 86_400;
/// Most days an app's token holds.
const MAX_TOKEN_DAYS: i64 = 366;

/// Reads a principal out of a body.
pub fn principal_of(hub: &Hub, body: &Value, kind: Kind) -> Result<Principal, HubError> {
    let login = text(body, "login")?;
    let good = |c: char| c.is_ascii_alphanumeric() || "-_.@:".contains(c);
    if login.len() > 100 || !login.chars().all(good) {
        return Err(Invalid::data("/login", "has letters, digits and `-_.@:`, at most 100").into());
    }
    if hub.state.principal_by_login(&login).is_some() {
        return Err(HubError::Conflict(format!("the login `{login}` is taken")));
    }
    let role = |word: String| {
        Role::ALL.into_iter().find(|role| role.word() == word).ok_or_else(|| {
            let all: Vec<_> = Role::ALL.iter().map(|role| role.word()).collect();
            HubError::Invalid(Invalid::data(
                "/roles",
                format!("`{word}` is none of: {}", all.join(", ")),
            ))
        })
    };
    let roles = match kind {
        Kind::Device => vec![Role::Device],
        Kind::App => vec![Role::App],
        _ => texts(body, "roles").into_iter().map(role).collect::<Result<_, _>>()?,
    };
    Ok(Principal {
        number: hub.state.next_principal(),
        kind,
        name: body.get("name").and_then(Value::as_text).unwrap_or(&login).to_owned(),
        login,
        department: body.get("department").and_then(Value::as_text).unwrap_or_default().to_owned(),
        roles,
        datasets: texts(body, "datasets"),
        streams: texts(body, "streams"),
        purposes: texts(body, "purposes"),
        status: Status::Active,
    })
}

pub fn enrol(hub: &Hub, _: &Session, body: &Value) -> Result<Effects, HubError> {
    let kind = match text(body, "kind")?.as_str() {
        "official" => Kind::Official,
        "app" => Kind::App,
        "device" => Kind::Device,
        other => {
            let what = format!("`{other}` is none of: official, app, device");
            return Err(Invalid::data("/kind", what).into());
        }
    };
    with_code(hub, principal_of(hub, body, kind)?)
}

pub fn enrol_device(hub: &Hub, _: &Session, body: &Value) -> Result<Effects, HubError> {
    // Nobody is to be there before a dataset is, and its steward.
    super::dataset_of(hub, body)?;
    let mut principal = principal_of(hub, body, Kind::Device)?;
    principal.datasets = vec![text(body, "dataset")?];
    if principal.streams.is_empty() {
        return Err(
            Invalid::data("/streams", "is empty: name the entities the device writes").into()
        );
    }
    with_code(hub, principal)
}

/// A new one-time code for somebody who is known: the old ones end.
pub fn new_code_for(hub: &Hub, _: &Session, body: &Value) -> Result<Effects, HubError> {
    let principal = find(hub, body)?;
    if principal.status == Status::Revoked {
        return Err(HubError::Conflict("whoever is revoked gets no code; enrol anew".into()));
    }
    let mut effects = with_code(hub, principal.as_ref().clone())?;
    effects.documents.retain(|one| one.kind == kinds::CREDENTIAL);
    let old = hub.state.credentials_of(principal.number);
    let old = old.into_iter().filter(|(_, credential)| credential.one_time);
    effects.documents.extend(old.map(|(digest, _)| document(kinds::CREDENTIAL, &digest, None)));
    Ok(effects)
}

/// Most that are enrolled at once.
const MAX_ENROLLED: usize = 1_000;

pub fn enrol_many(hub: &Hub, session: &Session, body: &Value) -> Result<Effects, HubError> {
    let items = body.get("items").map(Value::items).unwrap_or_default();
    if items.is_empty() || items.len() > MAX_ENROLLED {
        return Err(Invalid::data("/items", format!("has 1 to {MAX_ENROLLED} entries")).into());
    }
    let mut all = Effects::default();
    let (mut answers, mut numbers) = (Vec::new(), Vec::new());
    let mut logins = BTreeSet::new();
    let first = hub.state.next_principal();
    for (place, item) in items.iter().enumerate() {
        let at = |error: HubError| match error {
            HubError::Invalid(invalid) => {
                let place = format!("/items/{place}{}", invalid.place);
                HubError::Invalid(Invalid::data(place, invalid.what))
            }
            HubError::Conflict(what) => HubError::Conflict(format!("/items/{place}: {what}")),
            other => other,
        };
        let kind = match text(item, "kind").map_err(at)?.as_str() {
            "official" => Kind::Official,
            "app" => Kind::App,
            "device" => Kind::Device,
            other => {
                let what = format!("`{other}` is none of: official, app, device");
                return Err(at(Invalid::data("/kind", what).into()));
            }
        };
        let mut principal = principal_of(hub, item, kind).map_err(at)?;
        principal.number = first + place as u64;
        if !logins.insert(principal.login.clone()) {
            let what = format!("the login `{}` is there twice", principal.login);
            return Err(at(Invalid::data("/login", what).into()));
        }
        let snapshot = hub.state.snapshot();
        if let Some(unknown) = principal.datasets.iter().find(|id| snapshot.dataset(id).is_none()) {
            return Err(at(Invalid::data("/datasets", format!("there is no `{unknown}`")).into()));
        }
        let one = with_code(hub, principal)?;
        all.documents.extend(one.documents);
        numbers.extend(one.detail.get("principal").cloned());
        answers.push(one.answer);
    }
    debug_assert!(session.principal.number != 0);
    all.detail = map([("principals", Value::List(numbers))]);
    all.answer = map([("enrolled", Value::List(answers))]);
    Ok(all)
}

/// A principal with a one-time code, which its holder redeems.
pub fn with_code(hub: &Hub, principal: Principal) -> Result<Effects, HubError> {
    let code = new_code(&vault::random());
    let credential = CredentialDoc {
        number: u64::from_be_bytes(vault::random()) >> 1 | 1,
        principal: principal.number,
        assurance: 0,
        expires: hub.now().plus_seconds(CODE_S),
        purpose: None,
        one_time: true,
    };
    let number = Value::Integer(principal.number.cast_signed());
    let roles = principal.roles.iter().map(|role| Value::from(role.word())).collect();
    Ok(Effects {
        documents: vec![
            document(kinds::PRINCIPAL, &principal.number.to_string(), Some(to_json(&principal))),
            document(kinds::CREDENTIAL, &hex_digest(&code), Some(to_json(&credential))),
        ],
        detail: map([("principal", number.clone()), ("roles", Value::List(roles))]),
        answer: map([
            ("principal", number),
            ("login", Value::from(principal.login.as_str())),
            ("code", Value::from(code)),
            ("expires", Value::from(credential.expires.to_string())),
        ]),
        ..Effects::default()
    })
}

pub fn find(hub: &Hub, body: &Value) -> Result<Arc<Principal>, HubError> {
    let login = text(body, "login")?;
    let found = hub.state.principal_by_login(&login);
    found.ok_or_else(|| HubError::NotFound(format!("there is nobody with the login `{login}`")))
}

pub fn set_status(hub: &Hub, principal: &Principal, status: Status) -> Effects {
    let mut changed = principal.clone();
    changed.status = status;
    let number = principal.number.to_string();
    let mut documents = vec![document(kinds::PRINCIPAL, &number, Some(to_json(&changed)))];
    if status == Status::Revoked {
        let credentials = hub.state.credentials_of(principal.number);
        documents.extend(
            credentials.iter().map(|(digest, _)| document(kinds::CREDENTIAL, digest, None)),
        );
        documents.push(document(kinds::PASSWORD, &number, None));
    }
    let word = match status {
        Status::Active => "active",
        Status::Quarantined => "quarantined",
        Status::Revoked => "revoked",
    };
    let detail = map([
        ("principal", Value::Integer(principal.number.cast_signed())),
        ("status", Value::from(word)),
    ]);
    Effects { documents, answer: detail.clone(), detail, ..Effects::default() }
}

pub fn revoke(hub: &Hub, _: &Session, body: &Value) -> Result<Effects, HubError> {
    let principal = find(hub, body)?;
    if principal.has(Role::Administrator) {
        // One alone must not become the only one, and so escape the second person.
        let what = "an administrator is revoked with `administrator.revoke`, by two";
        return Err(HubError::Conflict(what.into()));
    }
    if principal.kind == Kind::Official {
        hub.check_governed(&hub.state.snapshot(), Some(principal.number))?;
    }
    Ok(set_status(hub, &principal, Status::Revoked))
}

pub fn revoke_administrator(
    hub: &Hub,
    session: &Session,
    body: &Value,
) -> Result<Effects, HubError> {
    let principal = find(hub, body)?;
    if principal.number == session.principal.number {
        return Err(HubError::Conflict("nobody revokes himself; another can".into()));
    }
    hub.check_governed(&hub.state.snapshot(), Some(principal.number))?;
    Ok(set_status(hub, &principal, Status::Revoked))
}

/// A device of the dataset that the caller was found to govern.
pub fn own_device(hub: &Hub, body: &Value) -> Result<Arc<Principal>, HubError> {
    let dataset = text(body, "dataset")?;
    let device = find(hub, body)?;
    if device.kind != Kind::Device || !device.datasets.contains(&dataset) {
        return Err(HubError::NotFound(format!("dataset `{dataset}` has no such device")));
    }
    Ok(device)
}

pub fn revoke_device(hub: &Hub, _: &Session, body: &Value) -> Result<Effects, HubError> {
    Ok(set_status(hub, own_device(hub, body)?.as_ref(), Status::Revoked))
}

pub fn quarantine_device(hub: &Hub, _: &Session, body: &Value) -> Result<Effects, HubError> {
    let release = body.get("release") == Some(&Value::Bool(true));
    let device = own_device(hub, body)?;
    if device.status == Status::Revoked {
        return Err(HubError::Conflict("the device is revoked; enrol it anew".into()));
    }
    Ok(set_status(hub, &device, if release { Status::Active } else { Status::Quarantined }))
}

pub fn app_token(hub: &Hub, _: &Session, body: &Value) -> Result<Effects, HubError> {
    let principal = find(hub, body)?;
    if principal.kind != Kind::App || principal.status != Status::Active {
        return Err(HubError::Conflict("only an active app gets tokens; officials sign in".into()));
    }
    let days = body.get("days").and_then(Value::as_number).unwrap_or(90.0) as i64;
    if !(1..=MAX_TOKEN_DAYS).contains(&days) {
        return Err(Invalid::data("/days", format!("is not from 1 to {MAX_TOKEN_DAYS}")).into());
    }
    let purpose = body.get("purpose").and_then(Value::as_text).map(str::to_owned);
    let expires = hub.now().plus_seconds(days * 86_400);
    let (token, credential) = hub.credential(&principal, TokenKind::App, expires, purpose);
    Ok(Effects {
        documents: vec![credential],
        detail: map([
            ("principal", Value::Integer(principal.number.cast_signed())),
            ("expires", Value::from(expires.to_string())),
        ]),
        answer: map([("token", Value::from(token)), ("expires", Value::from(expires.to_string()))]),
        ..Effects::default()
    })
}

impl Hub {
    /// A fresh token and the document that stands for it.
    pub(crate) fn credential(
        &self,
        principal: &Principal,
        kind: TokenKind,
        expires: Time,
        purpose: Option<String>,
    ) -> (String, Document) {
        let token = new_token(kind, &vault::random());
        let credential = CredentialDoc {
            number: u64::from_be_bytes(vault::random()) >> 1 | 1,
            principal: principal.number,
            assurance: 1,
            expires,
            purpose,
            one_time: false,
        };
        let document = document(kinds::CREDENTIAL, &hex_digest(&token), Some(to_json(&credential)));
        (token, document)
    }

    /// Redeems a one-time code: an official sets a password with it, a device or app gets a token.
    /// Gives the token, which is shown once.
    ///
    /// # Errors
    /// When the code is unknown, used or expired, or the password will not do.
    pub async fn redeem(
        &self,
        code: &str,
        password: Option<&str>,
        source: &crate::Source,
    ) -> Result<String, HubError> {
        let wrong = || HubError::Unauthenticated("the code is unknown, used or expired".into());
        let now = self.now();
        let digest = hex_digest(&code.trim().to_uppercase());
        let owner = || {
            let found = self.state.credential(&digest).filter(|c| c.one_time && c.expires > now)?;
            self.state.principal(found.principal).filter(|p| p.status == Status::Active)
        };
        let Some(principal) = owner() else {
            // Whoever has a code that is good waits for nobody who guesses.
            let block = source.block.to_string();
            let tries = self.state.codes.lock().take(&block, source.browser, now);
            tries.map_err(HubError::Throttled)?;
            self.count_unknown("code", &block);
            return Err(wrong());
        };
        // Hashed before anything waits for it: whoever governs is not kept waiting by a flood.
        let hash = match (principal.kind, password) {
            (Kind::Official, None) => {
                return Err(Invalid::data("/password", "is missing: choose one").into());
            }
            (Kind::Official, Some(password)) => {
                guard::check_new_password(password, &principal.login)?;
                let password = password.to_owned();
                let hash = move || guard::hash_password(&password, &vault::random());
                // Nor at hashing: he is known by his code.
                let known = crate::Source { browser: Some(principal.number), ..source.clone() };
                Some(self.hashes.turn(&known)?.hash(hash).await??)
            }
            _ => None,
        };
        // Of an official it ends his sign-ins: no act of his goes on beside it.
        let official = principal.kind == Kind::Official;
        let _alone = if official { Some(self.governing.alone().await) } else { None };
        let _beside =
            if official { None } else { Some(self.governing.beside(&principal.login).await) };
        let principal = owner().filter(|now| now.number == principal.number).ok_or_else(wrong)?;
        let mut effects = Effects {
            documents: vec![document(kinds::CREDENTIAL, &digest, None)],
            detail: map([("principal", Value::Integer(principal.number.cast_signed()))]),
            ..Effects::default()
        };
        let token = if let Some(hash) = hash {
            let number = principal.number.to_string();
            effects.documents.push(document(kinds::PASSWORD, &number, Some(hash.into_bytes())));
            None
        } else {
            let kind = if principal.kind == Kind::App { TokenKind::App } else { TokenKind::Device };
            let expires = now.plus_seconds(MAX_TOKEN_DAYS * 86_400);
            let (token, credential) = self.credential(&principal, kind, expires, None);
            effects.documents.push(credential);
            Some(token)
        };
        let own = self.imagine(principal.clone(), None);
        self.commit_act(&own, "credential.redeem", effects, Vec::new()).await?;
        match token {
            Some(token) => Ok(token),
            None => {
                // Whoever was signed in with the old password is not any more.
                self.state.drop_sign_ins_of(principal.number);
                Ok(self.open_session(&principal, 2, source)?.0)
            }
        }
    }

    /// Everybody the hub knows, for those who govern or audit it; for stewards, the devices of their
    /// datasets.
    ///
    /// # Errors
    /// When the session is none of these.
    pub async fn principals(&self, session: &Session) -> Result<Vec<Known>, HubError> {
        let all = self.state.principals().into_iter();
        let known: Vec<_> = if self.may_govern(session) || self.may_audit(session) {
            all.collect()
        } else {
            let governed = self.governed(session);
            if governed.is_empty() {
                self.record_refusal(session, Verb::Read, Action::Govern, "*").await;
                return Err(self.forbidden(session, Action::Govern, &guard::hub_dataset()));
            }
            let own = |principal: &Arc<Principal>| {
                principal.kind == Kind::Device
                    && principal.datasets.iter().any(|id| governed.contains(id))
            };
            all.filter(own).collect()
        };
        let now = self.now();
        let known = known.into_iter().map(|principal| {
            let (seen, refused) = self.state.presence(principal.number);
            let credentials = self.state.credentials_of(principal.number);
            let living = credentials.iter().filter(|(_, credential)| credential.expires > now);
            let expires = living.clone().filter(|(_, c)| !c.one_time).map(|(_, c)| c.expires).max();
            let invited = living.clone().any(|(_, credential)| credential.one_time);
            Known { principal, seen, refused, expires, invited }
        });
        Ok(known.collect())
    }
}

/// Somebody the hub knows, and how he is.
#[derive(Debug)]
pub struct Known {
    pub principal: Arc<Principal>,
    /// When it was last heard of, and how often it was refused, since the hub started.
    pub seen: Option<Time>,
    pub refused: u64,
    /// When its last token ends.
    pub expires: Option<Time>,
    /// It has a one-time code that was not used yet.
    pub invited: bool,
}
