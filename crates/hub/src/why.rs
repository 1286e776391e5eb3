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

impl Hub {
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
    pub fn who_can_see(&self, dataset: &str) -> Result<Vec<Possible>, HubError> {
        let snapshot = self.state.snapshot();
        let (_, dataset) = self.dataset_of(&snapshot, dataset)?;
        let all = self.who_can_see_of(&snapshot, &dataset);
        Ok(all.into_iter().map(|(possible, _)| possible).collect())
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
