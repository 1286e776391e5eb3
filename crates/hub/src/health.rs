//! How the hub and its datasets are: for those who look after them.

use crate::job::Job;
use crate::kept::{Version, from_json};
use crate::write::Quarantined;
use crate::{Hub, HubError, kinds};
use model::{Action, Kind, Name, Session, Sight, Status, Time, Verb};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Entities looked at for a dataset's health; of more, the first ones stand for all.
const LOOKED_AT: usize = 20_000;
/// Upper bounds of the ages that freshness is told in, in seconds.
pub const AGES_S: [i64; 3] = [300, 3_600, 86_400];

/// How a dataset is.
#[derive(Debug, Default)]
pub struct Health {
    pub entities: u64,
    /// Entities the rest of this rests on.
    pub looked_at: u64,
    /// The latest observation.
    pub newest: Option<Time>,
    /// Entities by the age of their latest observation: within each of [`AGES_S`], and older.
    pub ages: [u64; 4],
    /// Entities without any observation.
    pub unobserved: u64,
    /// Of each attribute of the model, how many entities have it.
    pub filled: Vec<(String, u64)>,
    /// Observations not sealed yet, and readings set apart; for those who govern it.
    pub open_points: Option<u64>,
    pub quarantined: Option<u64>,
    pub devices: u64,
    /// Devices that were not heard of since the hub started.
    pub silent_devices: u64,
}

/// How the hub is.
#[derive(Debug)]
pub struct Condition {
    pub started: Time,
    pub trouble: Option<String>,
    pub sealed: bool,
    /// Changes that wait for the sensitive root.
    pub inbox: u64,
    pub usage: store::Usage,
    /// Bytes the store keeps free.
    pub min_free: u64,
    /// Waiting for the committer, and how many may.
    pub queue: (u64, u64),
    pub watches: (u64, u64),
    pub subscriptions: (u64, u64),
    pub quarantined: u64,
    pub pending: u64,
    /// The last look at the whole log.
    pub checked: Option<Checked>,
}

/// A look at the whole log.
#[derive(Clone, Debug)]
pub struct Checked {
    pub time: Time,
    pub records: u64,
    pub findings: Vec<String>,
}

impl Hub {
    /// How a dataset is, for those who govern or audit it, and for whoever is known and sees some of it.
    ///
    /// # Errors
    /// When there is no such dataset, or the session may do none of these.
    pub async fn dataset_health(&self, session: &Session, id: &str) -> Result<Health, HubError> {
        let snapshot = self.state.snapshot();
        let missing = || HubError::NotFound(format!("there is no dataset `{id}`"));
        let (number, dataset) = snapshot.dataset(id).cloned().ok_or_else(missing)?;
        let decide = |action| self.state.verdict(session, action, number, &dataset);
        let governs = decide(Action::Govern).allowed || self.may_audit(session);
        let known = session.principal.kind != Kind::Public;
        let verdict = decide(Action::Read);
        let sees_some = known && verdict.allowed && !verdict.lens.aggregate_only;
        if !governs && (!sees_some || dataset.about_people) {
            self.record_refusal(session, Verb::Read, Action::Govern, id).await;
            return Err(self.forbidden(session, Action::Govern, &dataset));
        }
        let devices = self.state.principals();
        let devices = devices.iter().filter(|principal| {
            principal.kind == Kind::Device
                && principal.status != Status::Revoked
                && principal.datasets.contains(&dataset.id)
        });
        let (mut count, mut silent) = (0, 0);
        for device in devices {
            count += 1;
            silent += u64::from(self.state.presence(device.number).0.is_none());
        }
        let mut health = Health {
            entities: self.store.count_of(number),
            // Of the whole dataset: of what a reader does not see, too.
            open_points: governs.then(|| self.store.open_points_of(number)),
            quarantined: governs
                .then(|| self.store.count_documents(kinds::QUARANTINE, &format!("{id}/")) as u64),
            devices: count,
            silent_devices: silent,
            ..Health::default()
        };
        let (store, now) = (self.store.clone(), self.now());
        // Of who only reads, what the lens does not show as it is does not exist.
        let sees = move |name: &Name| governs || verdict.lens.sight(name).0 == Sight::Clear;
        let looked = tokio::task::spawn_blocking(move || {
            look(&store, number, &dataset, &sees, now, &mut health);
            health
        });
        looked.await.map_err(|_| HubError::Stopping)
    }

    /// Whether the session may read records.
    pub fn may_audit(&self, session: &Session) -> bool {
        self.state.snapshot().decide_hub(session, Action::Audit).allowed
    }

    /// Whether the session governs the hub itself.
    pub fn may_govern(&self, session: &Session) -> bool {
        self.state.snapshot().decide_hub(session, Action::Govern).allowed
    }

    /// Datasets that the session governs.
    pub fn governed(&self, session: &Session) -> Vec<String> {
        let snapshot = self.state.snapshot();
        let all = snapshot.datasets.values();
        let governs = |(number, dataset): &&(u32, Arc<model::Dataset>)| {
            self.state.verdict(session, Action::Govern, *number, dataset).allowed
        };
        all.filter(governs).map(|(_, dataset)| dataset.id.clone()).collect()
    }

    /// How the hub is, for officials who look after it.
    ///
    /// # Errors
    /// When the session may neither govern nor audit anything.
    pub async fn condition(&self, session: &Session) -> Result<Condition, HubError> {
        let known = session.principal.kind == Kind::Official;
        let may = self.may_govern(session)
            || self.may_audit(session)
            || !self.governed(session).is_empty();
        if !(known && may) {
            self.record_refusal(session, Verb::Read, Action::Govern, "*").await;
            return Err(self.forbidden(session, Action::Govern, &guard::hub_dataset()));
        }
        let limits = &self.options.limits;
        let waiting = self.jobs.max_capacity() - self.jobs.capacity();
        let subscriptions = self.store.count_documents(kinds::SUBSCRIPTION, "");
        Ok(Condition {
            started: self.started,
            trouble: self.trouble(),
            sealed: self.store.is_sealed(),
            inbox: self.store.inbox(),
            usage: self.store.usage(),
            min_free: self.options.store.min_free_bytes,
            queue: (waiting as u64, self.jobs.max_capacity() as u64),
            watches: (self.watches.count() as u64, limits.watches as u64),
            subscriptions: (subscriptions as u64, limits.subscriptions as u64),
            quarantined: self.store.count_documents(kinds::QUARANTINE, "") as u64,
            pending: self.store.count_documents(kinds::PENDING, "") as u64,
            checked: self.checked.lock().clone(),
        })
    }

    /// Looks at every record, leaf and tile again, in a thread of its own; one look at a time.
    pub fn check_log(self: &Arc<Self>) {
        if self.checking.swap(true, Ordering::AcqRel) {
            return;
        }
        let hub = self.clone();
        let started = std::thread::Builder::new().name("verifier".into()).spawn(move || {
            let looked = crate::verify::verify_live_log(&hub.store, &hub.signing.verifying_key());
            let (records, findings) = match looked {
                Ok(report) => {
                    let said = report.findings.iter().map(|f| format!("{}: {}", f.what, f.why));
                    (report.records, said.collect())
                }
                Err(error) => (0, vec![error.to_string()]),
            };
            let checked = Checked { time: hub.now(), records, findings };
            if !checked.findings.is_empty() {
                tracing::error!(
                    findings = checked.findings.len(),
                    "the log does not fit; run `tanggul verify`"
                );
            }
            *hub.checked.lock() = Some(checked);
            hub.checking.store(false, Ordering::Release);
        });
        if started.is_err() {
            self.checking.store(false, Ordering::Release);
        }
    }

    /// Notes why somebody acts for another purpose than before. Gives the record's index.
    ///
    /// # Errors
    /// When the purpose is not known, the reason does not fit, or it cannot be recorded.
    pub async fn declare(
        &self,
        session: &Session,
        purpose: &str,
        reason: &str,
    ) -> Result<u64, HubError> {
        use ngsild::Invalid;
        Self::check_known(session)?;
        if !self.state.knows_purpose(purpose) {
            let what = format!("`{purpose}` is no purpose that anything is kept for");
            return Err(Invalid::data("/purpose", what).into());
        }
        let length = reason.trim().chars().count();
        if !(3..=300).contains(&length) {
            return Err(Invalid::data("/reason", "has 3 to 300 characters").into());
        }
        let detail = crate::recorder::map([("reason", model::Value::from(reason.trim()))]);
        let mut made = crate::recorder::record(session, Verb::Open, "", self.now(), detail);
        made.purpose = Some(purpose.to_owned());
        made.policy_version = self.state.snapshot().version;
        let records = vec![made];
        let index = self.submit(|reply| Job::Records { records, reply: Some(reply) }).await??;
        Ok(index)
    }

    /// Purposes that data is kept for, with titles.
    pub fn purposes(&self) -> Vec<model::Purpose> {
        let mut all = self.state.purposes.read().clone();
        let snapshot = self.state.snapshot();
        for (_, dataset) in snapshot.datasets.values() {
            for id in &dataset.purposes {
                all.entry(id.clone()).or_insert_with(|| model::Purpose {
                    id: id.clone(),
                    title: id.replace('-', " "),
                    kind: model::PurposeKind::Service,
                    emergency: false,
                });
            }
        }
        all.into_values().collect()
    }

    /// A dataset as it was, newest first: when, by whom (a surrogate; 0 when nobody knows), and what.
    ///
    /// # Errors
    /// When there is no such dataset, or a version is damaged.
    pub fn versions(&self, id: &str) -> Result<Vec<Version>, HubError> {
        let snapshot = self.state.snapshot();
        if snapshot.dataset(id).is_none() {
            return Err(HubError::NotFound(format!("there is no dataset `{id}`")));
        }
        let prefix = format!("{id}/");
        let all = self.store.documents(kinds::DATASET_VERSION);
        let own = all.iter().filter(|(name, _)| name.starts_with(&prefix));
        let mut versions =
            own.map(|(_, body)| from_json::<Version>(body)).collect::<Result<Vec<_>, _>>()?;
        versions.sort_by_key(|version| std::cmp::Reverse(version.dataset.version));
        Ok(versions)
    }

    /// A quarantined reading.
    pub(crate) fn quarantined_reading(&self, name: &str) -> Result<Quarantined, HubError> {
        let missing = || HubError::NotFound(format!("there is no quarantined reading `{name}`"));
        from_json(&self.store.document(kinds::QUARANTINE, name).ok_or_else(missing)?)
    }
}

/// Looks at a dataset's entities, one by one, so that commits go on beside it.
fn look(
    store: &store::Store,
    number: u32,
    dataset: &model::Dataset,
    sees: &dyn Fn(&Name) -> bool,
    now: Time,
    health: &mut Health,
) {
    let declared: Vec<&Name> =
        dataset.attributes.iter().map(|attribute| &attribute.name).filter(|n| sees(n)).collect();
    health.filled = declared.iter().map(|name| (name.to_string(), 0)).collect();
    let types: Vec<_> = dataset.claims.iter().map(|claim| claim.of_type.clone()).collect();
    let numbers: Vec<u64> = {
        let view = store.now();
        let all = view.of_types((!dataset.catch_all).then_some(types.as_slice()), 0);
        all.take(LOOKED_AT).collect()
    };
    let held = numbers.into_iter().filter_map(|entity| store.peek(entity));
    for held in held.filter(|held| held.dataset == number && held.deleted.is_none()) {
        health.looked_at += 1;
        let mut newest = None;
        for attribute in &held.entity.attributes {
            if !sees(&attribute.name) {
                continue;
            }
            let times = attribute.instances.iter().filter_map(|i| i.observed_at);
            newest = times.chain(newest).max();
            if let Some(place) = declared.iter().position(|name| **name == attribute.name) {
                health.filled[place].1 += 1;
            }
        }
        let Some(newest) = newest else {
            health.unobserved += 1;
            continue;
        };
        health.newest = health.newest.max(Some(newest));
        let age = (now.0 - newest.0) / 1_000_000;
        let class = AGES_S.iter().position(|limit| age <= *limit).unwrap_or(AGES_S.len());
        health.ages[class] += 1;
    }
}
