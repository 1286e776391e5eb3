//! First start: a new hub sets itself up before it knows anybody.

use crate::act::Act;
use crate::kept::{CredentialDoc, document, to_json};
use crate::recorder::map;
use crate::{Hub, HubError, kinds};
use guard::TokenKind;
use model::{Dataset, Kind, Principal, Status, Time, Value};

/// Somebody to be known from the start.
#[derive(Clone, Debug)]
pub struct NewPrincipal {
    pub principal: Principal,
    /// The one purpose of its token.
    pub purpose: Option<String>,
    pub expires: Time,
}

impl Hub {
    /// Whether nobody is known yet.
    pub fn is_new(&self) -> bool {
        self.state.principals().is_empty()
    }

    /// Adds datasets to a hub that knows nobody yet.
    ///
    /// # Errors
    /// When somebody is known, or a dataset does not fit.
    pub async fn bootstrap_datasets(&self, datasets: Vec<Dataset>) -> Result<(), HubError> {
        self.only_new()?;
        for dataset in datasets {
            let body: Value = serde_json::from_slice(&to_json(&dataset))
                .map_err(|error| HubError::Conflict(error.to_string()))?;
            let act = Act { name: "dataset.put".into(), body: map([("dataset", body)]) };
            self.act(&self.own_session(), act).await?;
        }
        Ok(())
    }

    /// Adds purposes to a hub that knows nobody yet.
    ///
    /// # Errors
    /// When somebody is known.
    pub async fn bootstrap_purposes(&self, purposes: Vec<model::Purpose>) -> Result<(), HubError> {
        self.only_new()?;
        for purpose in purposes {
            let body: Value = serde_json::from_slice(&to_json(&purpose))
                .map_err(|error| HubError::Conflict(error.to_string()))?;
            self.act(&self.own_session(), Act { name: "purpose.put".into(), body }).await?;
        }
        Ok(())
    }

    /// Adds principals to a hub that knows nobody yet; gives each one's token.
    ///
    /// # Errors
    /// When somebody is known.
    pub async fn bootstrap_principals(
        &self,
        newcomers: Vec<NewPrincipal>,
    ) -> Result<Vec<String>, HubError> {
        self.only_new()?;
        let mut documents = Vec::new();
        let mut tokens = Vec::new();
        for (number, newcomer) in (2u64..).zip(newcomers) {
            let principal = Principal { number, status: Status::Active, ..newcomer.principal };
            let kind = match principal.kind {
                Kind::Device => TokenKind::Device,
                Kind::App => TokenKind::App,
                _ => TokenKind::Session,
            };
            let (token, credential) =
                self.credential(&principal, kind, newcomer.expires, newcomer.purpose);
            documents.push(document(
                kinds::PRINCIPAL,
                &number.to_string(),
                Some(to_json(&principal)),
            ));
            documents.push(credential);
            tokens.push(token);
        }
        let effects = crate::Effects {
            documents,
            detail: map([("principals", Value::Integer(tokens.len() as i64))]),
            ..crate::Effects::default()
        };
        self.commit_act(&self.own_session(), "hub.bootstrap", effects, Vec::new()).await?;
        Ok(tokens)
    }

    /// A one-time code with which the first administrator of a new hub sets a password.
    ///
    /// # Errors
    /// When somebody is known.
    pub async fn first_code(&self, login: &str) -> Result<String, HubError> {
        self.only_new()?;
        let body = map([
            ("kind", Value::from("official")),
            ("login", Value::from(login)),
            ("roles", Value::List(vec![Value::from("administrator")])),
        ]);
        let act = Act { name: "principal.enrol".into(), body };
        let report = self.act(&self.own_session(), act).await?;
        let code = report.answer.get("code").and_then(Value::as_text);
        code.map(str::to_owned).ok_or(HubError::Stopping)
    }

    /// A fresh one-time code for an official, for a sign-in link on the terminal.
    ///
    /// # Errors
    /// When there is nobody with that login, or it cannot be committed.
    pub async fn sign_in_code(&self, login: &str) -> Result<String, HubError> {
        let principal = self.state.principal_by_login(login);
        let principal = principal
            .ok_or_else(|| HubError::NotFound(format!("nobody has the login `{login}`")))?;
        if principal.status == Status::Revoked {
            return Err(HubError::Conflict(format!("`{login}` is revoked")));
        }
        let code = guard::new_code(&vault::random());
        let credential = CredentialDoc {
            number: u64::from_be_bytes(vault::random()) >> 1 | 1,
            principal: principal.number,
            assurance: 0,
            expires: self.now().plus_seconds(86_400),
            purpose: None,
            one_time: true,
        };
        let name = crate::open::hex_digest(&code);
        let effects = crate::Effects {
            documents: vec![document(kinds::CREDENTIAL, &name, Some(to_json(&credential)))],
            detail: map([("principal", Value::Integer(principal.number.cast_signed()))]),
            ..crate::Effects::default()
        };
        self.commit_act(&self.own_session(), "credential.code", effects, Vec::new()).await?;
        Ok(code)
    }

    fn only_new(&self) -> Result<(), HubError> {
        if self.is_new() {
            return Ok(());
        }
        Err(HubError::Conflict("only a hub that knows nobody yet sets itself up".into()))
    }
}

impl Hub {
    /// Fresh tokens for principals known by login, from within the process: for a demo that starts
    /// again. The ones before are ended.
    ///
    /// # Errors
    /// When somebody is not known, or it cannot be committed.
    pub async fn renew_tokens(
        &self,
        logins: Vec<String>,
        expires: Time,
    ) -> Result<Vec<String>, HubError> {
        let mut documents = Vec::new();
        let mut tokens = Vec::new();
        for login in logins {
            let principal = self.state.principal_by_login(&login);
            let principal = principal
                .ok_or_else(|| HubError::NotFound(format!("nobody has the login `{login}`")))?;
            let old = self.state.credentials_of(principal.number);
            documents
                .extend(old.iter().map(|(digest, _)| document(kinds::CREDENTIAL, digest, None)));
            let kind = match principal.kind {
                Kind::Device => TokenKind::Device,
                Kind::App => TokenKind::App,
                _ => TokenKind::Session,
            };
            let (token, credential) = self.credential(&principal, kind, expires, None);
            documents.push(credential);
            tokens.push(token);
        }
        let effects = crate::Effects {
            documents,
            detail: map([("tokens", Value::Integer(tokens.len() as i64))]),
            ..crate::Effects::default()
        };
        self.commit_act(&self.own_session(), "hub.renew_tokens", effects, Vec::new()).await?;
        Ok(tokens)
    }
}
