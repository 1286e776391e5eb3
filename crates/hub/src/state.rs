//! What decisions rest on, in memory, as documents have it.

use crate::kept::{CredentialDoc, DatasetDoc, PoliciesDoc, from_json};
use crate::kinds;
use crate::principals::Principals;
use guard::{DEFAULT_POLICIES, Policies, Snapshot, Throttle, Verdict};
use model::{Action, Dataset, Principal, Purpose, Time, Zone};
use parking_lot::{Mutex, RwLock};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use store::Store;

type DecisionKey = (u64, Action, u32, Option<Arc<str>>, Zone, u8);

/// Counts that `/metrics` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    Writes,
    Observations,
    Commits,
    Reads,
    Records,
    Refusals,
    Quarantined,
    SignInsFailed,
    Notifications,
    NotificationsLost,
    Sealed,
    RingFrames,
}

impl Counter {
    const NAMES: [&'static str; 12] = [
        "tanggul_changes_total",
        "tanggul_observations_total",
        "tanggul_commits_total",
        "tanggul_reads_total",
        "tanggul_records_total",
        "tanggul_refusals_total",
        "tanggul_quarantined_total",
        "tanggul_sign_ins_failed_total",
        "tanggul_notifications_total",
        "tanggul_notifications_lost_total",
        "tanggul_sealed_points_total",
        "tanggul_ring_frames_total",
    ];
}

/// All counts.
#[derive(Default)]
pub struct Counters([AtomicU64; 12]);

impl Counters {
    /// Adds to a count.
    pub fn add(&self, counter: Counter, count: u64) {
        self.0[counter as usize].fetch_add(count, Ordering::Relaxed);
    }

    /// A count.
    pub fn get(&self, counter: Counter) -> u64 {
        self.0[counter as usize].load(Ordering::Relaxed)
    }

    /// Names and counts.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Counter::NAMES.into_iter().zip(self.0.iter().map(|count| count.load(Ordering::Relaxed)))
    }
}

/// Durations by powers of two: bucket `n` holds those under `64 << n` microseconds.
#[derive(Default)]
pub struct Durations([AtomicU64; Durations::BUCKETS]);

impl Durations {
    /// The last bucket holds everything over half a minute.
    pub const BUCKETS: usize = 20;

    /// Counts a duration.
    pub fn add(&self, duration: std::time::Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = (u64::BITS - (micros >> 6).leading_zeros()) as usize;
        self.0[bucket.min(Self::BUCKETS - 1)].fetch_add(1, Ordering::Relaxed);
    }

    /// Upper bounds in seconds (infinite for the last), and counts.
    pub fn all(&self) -> impl Iterator<Item = (f64, u64)> {
        self.0.iter().enumerate().map(|(bucket, count)| {
            let bound = if bucket + 1 == Self::BUCKETS {
                f64::INFINITY
            } else {
                (64u64 << bucket) as f64 / 1e6
            };
            (bound, count.load(Ordering::Relaxed))
        })
    }
}

/// When a principal was last heard of, and how often it was refused, since the hub started.
#[derive(Default)]
struct Presence {
    seen: AtomicI64,
    refused: AtomicU64,
}

/// Sign-ins of one principal at a time.
const MAX_SIGN_INS: usize = 20;

/// Sign-ins by digest of their token, and those digests by principal, oldest first.
#[derive(Default)]
struct SignIns {
    all: HashMap<String, Arc<CredentialDoc>>,
    of: HashMap<u64, Vec<String>>,
}

/// Everything in memory that is not data.
pub struct State {
    pub snapshot: RwLock<Arc<Snapshot>>,
    principals: RwLock<Principals>,
    /// Sign-ins: in memory only, they end with the process.
    signed_in: RwLock<SignIns>,
    decisions: RwLock<HashMap<DecisionKey, Arc<Verdict>>>,
    pub throttle: Mutex<Throttle>,
    /// Of codes, by where they come from.
    pub codes: Mutex<Throttle>,
    pub purposes: RwLock<BTreeMap<String, Purpose>>,
    presences: RwLock<HashMap<u64, Presence>>,
    next_principal: AtomicU64,
    most_decisions: usize,
}

impl State {
    fn with_presence(&self, principal: u64, note: impl Fn(&Presence)) {
        if let Some(presence) = self.presences.read().get(&principal) {
            return note(presence);
        }
        note(self.presences.write().entry(principal).or_default());
    }

    /// Notes that a principal was heard of.
    pub fn note_seen(&self, principal: u64, now: Time) {
        self.with_presence(principal, |presence| presence.seen.store(now.0, Ordering::Relaxed));
    }

    /// Notes that a principal was refused something.
    pub fn note_refused(&self, principal: u64) {
        self.with_presence(principal, |presence| {
            presence.refused.fetch_add(1, Ordering::Relaxed);
        });
    }

    /// When a principal was last heard of, and how often it was refused, since the hub started.
    pub fn presence(&self, principal: u64) -> (Option<Time>, u64) {
        let presences = self.presences.read();
        let Some(presence) = presences.get(&principal) else { return (None, 0) };
        let seen = presence.seen.load(Ordering::Relaxed);
        ((seen != 0).then_some(Time(seen)), presence.refused.load(Ordering::Relaxed))
    }

    /// Reads everything from the store's documents.
    pub fn load(store: &Store, most_decisions: usize) -> Result<State, crate::HubError> {
        let snapshot = Snapshot {
            version: store.next_commit(),
            datasets: Arc::default(),
            policies: Arc::new(policies_of(store)?),
        };
        let state = State {
            snapshot: RwLock::new(Arc::new(snapshot)),
            principals: RwLock::default(),
            signed_in: RwLock::default(),
            decisions: RwLock::default(),
            throttle: Mutex::default(),
            codes: Mutex::default(),
            purposes: RwLock::default(),
            presences: RwLock::default(),
            // 0 is the public, 1 the hub.
            next_principal: AtomicU64::new(2),
            most_decisions,
        };
        let of_kind = |kind| store.documents(kind).into_iter().map(move |(name, _)| (kind, name));
        let all: Vec<(u8, String)> = State::KINDS.into_iter().flat_map(of_kind).collect();
        state.refresh(store, &all)?;
        Ok(state)
    }

    /// Documents of these kinds are what is held here.
    pub const KINDS: [u8; 5] =
        [kinds::DATASET, kinds::POLICIES, kinds::PRINCIPAL, kinds::CREDENTIAL, kinds::PURPOSE];

    /// Takes in the documents that changed; the version is the commit's.
    pub fn refresh(&self, store: &Store, changed: &[(u8, String)]) -> Result<(), crate::HubError> {
        let any = |kind| changed.iter().any(|(of, _)| *of == kind);
        let old = self.snapshot();
        let datasets = if any(kinds::DATASET) {
            Arc::new(guard::Datasets::new(datasets_of(store)?))
        } else {
            old.datasets.clone()
        };
        let policies =
            if any(kinds::POLICIES) { Arc::new(policies_of(store)?) } else { old.policies.clone() };
        let (mut principals, mut credentials, mut purposes) = (vec![], vec![], vec![]);
        for (kind, name) in changed {
            let body = store.document(*kind, name);
            let body = body.as_deref();
            match *kind {
                kinds::PRINCIPAL => {
                    let number = name.parse().map_err(|_| {
                        store::StoreError::Damaged(format!("there is no principal number `{name}`"))
                    })?;
                    principals.push((number, body.map(from_json).transpose()?));
                }
                kinds::CREDENTIAL => credentials.push((name, body.map(from_json).transpose()?)),
                kinds::PURPOSE => purposes.push((name, body.map(from_json).transpose()?)),
                _ => {}
            }
        }
        {
            let mut held = self.principals.write();
            for (number, principal) in principals {
                self.next_principal.fetch_max(number + 1, Ordering::Relaxed);
                held.put(number, principal);
            }
            for (digest, credential) in credentials {
                held.put_credential(digest, credential);
            }
        }
        {
            let mut held = self.purposes.write();
            for (id, purpose) in purposes {
                match purpose {
                    Some(purpose) => held.insert(id.clone(), purpose),
                    None => held.remove(id),
                };
            }
        }
        let version = store.next_commit();
        *self.snapshot.write() = Arc::new(Snapshot { version, datasets, policies });
        self.decisions.write().clear();
        Ok(())
    }

    /// Whether some dataset is kept for this purpose, or it is listed.
    pub fn knows_purpose(&self, purpose: &str) -> bool {
        let snapshot = self.snapshot();
        let kept_for = |dataset: &Dataset| dataset.purposes.iter().any(|known| known == purpose);
        self.purposes.read().contains_key(purpose)
            || snapshot.datasets.values().any(|(_, dataset)| kept_for(dataset))
    }

    /// Whether reads for this purpose go on while the log cannot be written.
    pub fn is_emergency(&self, purpose: &str) -> bool {
        self.purposes.read().get(purpose).is_some_and(|purpose| purpose.emergency)
    }

    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.read().clone()
    }

    pub fn principal(&self, number: u64) -> Option<Arc<Principal>> {
        self.principals.read().get(number)
    }

    pub fn principal_by_login(&self, login: &str) -> Option<Arc<Principal>> {
        self.principals.read().by_login(login)
    }

    pub fn principals(&self) -> Vec<Arc<Principal>> {
        self.principals.read().all().cloned().collect()
    }

    pub fn credential(&self, digest: &str) -> Option<Arc<CredentialDoc>> {
        let kept = self.principals.read().credential(digest);
        kept.or_else(|| self.signed_in.read().all.get(digest).cloned())
    }

    pub fn credentials_of(&self, principal: u64) -> Vec<(String, Arc<CredentialDoc>)> {
        let held = self.principals.read();
        let of = |digest: &String| Some((digest.clone(), held.credential(digest)?));
        let mut found: Vec<_> = held.digests(principal).iter().filter_map(of).collect();
        let signed_in = self.signed_in.read();
        let own = signed_in.of.get(&principal).into_iter().flatten();
        found.extend(own.filter_map(|one| Some((one.clone(), signed_in.all.get(one)?.clone()))));
        found
    }

    /// Whether a principal has a token that is good now.
    pub fn has_credential(&self, principal: u64, now: Time) -> bool {
        let held = self.principals.read();
        let lives = |one: &CredentialDoc| !one.one_time && one.expires > now;
        let digests = held.digests(principal).iter();
        digests.filter_map(|digest| held.credential(digest)).any(|one| lives(&one))
    }

    /// Adds a sign-in; of one principal there are so many, and the oldest ends for the newest.
    pub fn add_sign_in(&self, digest: String, credential: CredentialDoc) {
        let mut signed_in = self.signed_in.write();
        let SignIns { all, of } = &mut *signed_in;
        let own = of.entry(credential.principal).or_default();
        if own.len() >= MAX_SIGN_INS {
            all.remove(&own.remove(0));
        }
        own.push(digest.clone());
        all.insert(digest, Arc::new(credential));
    }

    /// Ends a sign-in.
    pub fn drop_sign_in(&self, digest: &str) {
        let mut signed_in = self.signed_in.write();
        let Some(gone) = signed_in.all.remove(digest) else { return };
        if let Some(own) = signed_in.of.get_mut(&gone.principal) {
            own.retain(|one| one != digest);
        }
    }

    /// Ends all of a principal.
    pub fn drop_sign_ins_of(&self, principal: u64) {
        let mut signed_in = self.signed_in.write();
        for digest in signed_in.of.remove(&principal).unwrap_or_default() {
            signed_in.all.remove(&digest);
        }
    }

    /// A number for a new principal, which nobody else gets.
    pub fn next_principal(&self) -> u64 {
        self.next_principal.fetch_add(1, Ordering::Relaxed)
    }

    /// A decision, from the cache or made now. Reads are decided as a lens. What is decided on is dataset
    /// and principal as they are now: a caller that looked before one of them changed would otherwise
    /// leave what it was allowed then to all who come later.
    pub fn verdict(
        &self,
        session: &model::Session,
        action: Action,
        number: u32,
        dataset: &Arc<Dataset>,
    ) -> Arc<Verdict> {
        let principal = &session.principal;
        let key = (
            principal.number,
            action,
            number,
            session.purpose.clone(),
            session.zone,
            session.assurance,
        );
        let snapshot = self.snapshot();
        if let Some(verdict) = self.decisions.read().get(&key)
            && verdict.version == snapshot.version
        {
            return verdict.clone();
        }
        // The principal after the snapshot: the other way round they change.
        let dataset = snapshot.by_number(number).unwrap_or(dataset);
        let now = self.principal(principal.number).filter(|now| !Arc::ptr_eq(now, principal));
        let changed = now.map(|principal| model::Session { principal, ..session.clone() });
        let session = changed.as_ref().unwrap_or(session);
        let verdict = Arc::new(match action {
            Action::Read => snapshot.lens(session, dataset),
            action => snapshot.decide(session, action, dataset),
        });
        let mut decisions = self.decisions.write();
        if decisions.len() >= self.most_decisions {
            decisions.clear();
        }
        decisions.insert(key, verdict.clone());
        verdict
    }
}

fn policies_of(store: &Store) -> Result<Policies, crate::HubError> {
    let text = match store.document(kinds::POLICIES, "") {
        Some(body) => from_json::<PoliciesDoc>(&body)?.text,
        None => DEFAULT_POLICIES.to_owned(),
    };
    Ok(Policies::parse(&text)?)
}

fn datasets_of(store: &Store) -> Result<BTreeMap<String, (u32, Arc<Dataset>)>, crate::HubError> {
    let read = |(id, body): (String, Arc<[u8]>)| {
        let doc: DatasetDoc = from_json(&body)?;
        Ok((id, (doc.number, Arc::new(doc.dataset))))
    };
    store.documents(kinds::DATASET).into_iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_sign_in_ends_for_the_newest() {
        let directory = tempfile::tempdir().unwrap();
        let files = store::Files::new(&directory.path().join("data"), None);
        files.create().unwrap();
        let store =
            Store::open(files, store::Options { min_free_bytes: 0, ..store::Options::default() })
                .unwrap();
        let state = State::load(&store, 10).unwrap();
        let sign_in = |principal: u64| CredentialDoc {
            number: principal,
            principal,
            assurance: 2,
            expires: Time::MAX,
            purpose: None,
            one_time: false,
        };
        state.add_sign_in("other".into(), sign_in(3));
        for n in 0..=MAX_SIGN_INS {
            state.add_sign_in(n.to_string(), sign_in(2));
        }
        assert!(state.credential("0").is_none());
        assert_eq!(state.credentials_of(2).len(), MAX_SIGN_INS);
        state.drop_sign_in("1");
        assert!(state.credential("1").is_none());
        assert_eq!(state.credentials_of(2).len(), MAX_SIGN_INS - 1);
        state.drop_sign_ins_of(2);
        assert!(state.credential("2").is_none());
        assert!(state.credential("other").is_some());
    }
}
