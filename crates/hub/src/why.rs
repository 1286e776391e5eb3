//! Why, who can, and what would be: questions about decisions, answered by deciding.

use crate::{Hub, HubError, Why};
use model::{Action, Dataset, Principal, Session, Zone};
use std::sync::Arc;

/// Somebody who can see a dataset for a purpose, and how much of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Possible {
    pub login: String,
    pub name: String,
    pub purpose: Option<String>,
    /// Sensitivities seen as they are, by word.
    pub clear: Vec<&'static str>,
    /// Sensitivities of which stand-ins are seen.
    pub glimpsed: Vec<&'static str>,
    pub writes: bool,
    pub policies: Vec<String>,
}

/// Whether somebody may, and what would change it.
#[derive(Debug)]
pub struct Answered {
    pub allowed: bool,
    pub why: Why,
    /// Roles any of which would do, if he had it.
    pub roles: Vec<&'static str>,
    /// Sensitivities seen as they are, and as stand-ins.
    pub clear: Vec<&'static str>,
    pub glimpsed: Vec<&'static str>,
}

impl Hub {
    /// Whether somebody else may, for those who govern or audit the dataset.
    ///
    /// # Errors
    /// When there is no such dataset or nobody of that login, or the session may not ask.
    pub async fn why_for(
        &self,
        session: &Session,
        login: &str,
        purpose: Option<&str>,
        action: Action,
        dataset: &str,
    ) -> Result<Answered, HubError> {
        let snapshot = self.state.snapshot();
        let (number, dataset) = self.dataset_of(&snapshot, dataset)?;
        let own = session.principal.login == login;
        let governs = self.state.verdict(session, Action::Govern, number, &dataset).allowed;
        if !own && !governs && !self.may_govern(session) && !self.may_audit(session) {
            self.record_refusal(session, model::Verb::Read, Action::Govern, &dataset.id).await;
            return Err(self.forbidden(session, Action::Govern, &dataset));
        }
        let principal = if login == "public" {
            Arc::new(Principal::public())
        } else {
            let found = self.state.principal_by_login(login);
            found.ok_or_else(|| {
                HubError::NotFound(format!("there is nobody with the login `{login}`"))
            })?
        };
        let revoked = principal.status == model::Status::Revoked;
        let decide = |principal: Arc<Principal>| {
            let imagined = self.imagine(principal, purpose);
            match action {
                Action::Read => snapshot.lens(&imagined, &dataset),
                action => snapshot.decide(&imagined, action, &dataset),
            }
        };
        let verdict = decide(principal.clone());
        let would = |role: &model::Role| {
            let mut other = principal.as_ref().clone();
            other.roles.push(*role);
            other.status = model::Status::Active;
            !principal.roles.contains(role) && decide(Arc::new(other)).allowed
        };
        let official = principal.kind == model::Kind::Official;
        let roles = model::Role::ALL.iter().filter(|role| official && would(role));
        let used = dataset.sensitivities();
        let seen = |sight| {
            let of = used.iter().filter(|s| {
                action == Action::Read && verdict.allowed && verdict.lens.sight_of(**s) == sight
            });
            of.map(|s| s.word()).collect::<Vec<_>>()
        };
        let mut why = self.why_not(&self.imagine(principal.clone(), purpose), action, &dataset);
        if revoked {
            let title = "whoever is revoked may do nothing".to_owned();
            why.reasons = vec![guard::Reason { policy: "revoked".into(), title }];
        }
        Ok(Answered {
            allowed: verdict.allowed && !revoked,
            roles: if verdict.allowed {
                Vec::new()
            } else {
                roles.map(|role| role.word()).collect()
            },
            clear: seen(model::Sight::Clear),
            glimpsed: seen(model::Sight::Glimpse),
            why,
        })
    }

    /// Whether the session may, and why (not).
    ///
    /// # Errors
    /// When there is no such dataset.
    pub fn why(
        &self,
        session: &Session,
        action: Action,
        dataset: &str,
    ) -> Result<(bool, Why), HubError> {
        let snapshot = self.state.snapshot();
        let (number, dataset) = self.dataset_of(&snapshot, dataset)?;
        let verdict = self.state.verdict(session, action, number, &dataset);
        Ok((verdict.allowed, self.why_not(session, action, &dataset)))
    }

    fn dataset_of(
        &self,
        snapshot: &guard::Snapshot,
        id: &str,
    ) -> Result<(u32, Arc<Dataset>), HubError> {
        let found = snapshot.dataset(id).map(|(number, dataset)| (*number, dataset.clone()));
        found.ok_or_else(|| HubError::NotFound(format!("there is no dataset `{id}`")))
    }

    /// A session as somebody else would have it: for questions, never for data.
    pub(crate) fn imagine(&self, principal: Arc<Principal>, purpose: Option<&str>) -> Session {
        Session {
            principal,
            tenant: crate::TENANT,
            purpose: purpose.map(Into::into),
            assurance: 2,
            zone: Zone::City,
            expires: model::Time::MAX,
            credential: 0,
        }
    }

    /// Who can see the dataset, for what.
    ///
    /// # Errors
    /// When there is no such dataset.
    pub async fn who_can_see(self: Arc<Hub>, dataset: String) -> Result<Vec<Possible>, HubError> {
        let snapshot = self.state.snapshot();
        let (_, dataset) = self.dataset_of(&snapshot, &dataset)?;
        // Everybody is asked about: one such question at a time, and in nobody's way.
        let place = self.asking.clone().acquire_owned().await.map_err(|_| HubError::Stopping)?;
        let asked = tokio::task::spawn_blocking(move || {
            let all = self.who_can_see_of(&snapshot, &dataset);
            drop(place);
            all.into_iter().map(|(possible, _)| possible).collect()
        });
        asked.await.map_err(|_| HubError::Stopping)
    }

    pub(crate) fn who_can_see_of(
        &self,
        snapshot: &guard::Snapshot,
        dataset: &Arc<Dataset>,
    ) -> Vec<(Possible, model::Lens)> {
        let mut all = Vec::new();
        let mut principals = self.state.principals();
        principals.retain(|p| p.status == model::Status::Active && p.kind != model::Kind::Device);
        principals.push(Arc::new(Principal::public()));
        for principal in principals {
            let purposes = dataset.purposes.iter().map(|p| Some(p.as_str()));
            for purpose in std::iter::once(None).chain(purposes) {
                let verdict = snapshot.lens(&self.imagine(principal.clone(), purpose), dataset);
                let session = self.imagine(principal.clone(), purpose);
                let writes = snapshot.decide(&session, Action::Write, dataset).allowed;
                if !verdict.allowed && !writes {
                    continue;
                }
                let used = dataset.sensitivities();
                let seen = |sight| {
                    let of = used.iter().filter(|s| verdict.lens.sight_of(**s) == sight);
                    of.map(|s| s.word()).collect::<Vec<_>>()
                };
                let possible = Possible {
                    login: principal.login.clone(),
                    name: principal.name.clone(),
                    purpose: purpose.map(str::to_owned),
                    clear: seen(model::Sight::Clear),
                    glimpsed: seen(model::Sight::Glimpse),
                    writes,
                    policies: verdict.reasons.iter().map(|reason| reason.policy.clone()).collect(),
                };
                all.push((possible, verdict.lens));
            }
        }
        all
    }

    /// Datasets with their surrogates' counts: what is here, which is never secret.
    pub fn datasets(&self) -> Vec<(Arc<Dataset>, u64)> {
        let snapshot = self.state.snapshot();
        let count = |number: u32| self.store.count_of(number);
        snapshot
            .datasets
            .values()
            .map(|(number, dataset)| (dataset.clone(), count(*number)))
            .collect()
    }

    /// The policies' text and the version of everything decisions rest on.
    pub fn policies(&self) -> (String, u64) {
        let snapshot = self.state.snapshot();
        (snapshot.policies.text().to_owned(), snapshot.version)
    }
}
