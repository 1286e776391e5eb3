//! The hub's own acts: datasets, policies, keys, quarantine; those on principals are in `people`.

mod people;

use crate::act::{ActKind, Effects, Second};
use crate::job::{Planned, Shred};
use crate::kept::{DatasetDoc, PoliciesDoc, Version, document, from_json, to_json};
use crate::recorder::map;
use crate::write::Quarantined;
use crate::{Hub, HubError, TENANT, kinds};
use guard::Policies;
use model::{Action, Dataset, Principal, Sensitivity, Session, Value, Verb, Zone};
use ngsild::Invalid;
pub use people::Known;
use std::collections::BTreeSet;
use std::sync::Arc;
use store::Under;

/// Whom, and what.
type Seen = BTreeSet<(String, String)>;

/// What is in one and not in the other, a line for everybody concerned.
fn beyond(one: &Seen, other: &Seen) -> Vec<String> {
    let mut lines: Vec<(&str, String)> = Vec::new();
    for (who, what) in one.difference(other) {
        match lines.last_mut() {
            Some((last, line)) if last == who => line.extend([", ", what]),
            _ => lines.push((who, format!("{who}: {what}"))),
        }
    }
    lines.into_iter().map(|(_, line)| line).collect()
}

pub(crate) fn text(body: &Value, key: &str) -> Result<String, HubError> {
    let text = body.get(key).and_then(Value::as_text).filter(|text| !text.is_empty());
    let missing = || Invalid::data(format!("/{key}"), "is missing, or no text");
    Ok(text.ok_or_else(missing)?.to_owned())
}

fn texts(body: &Value, key: &str) -> Vec<String> {
    let items = body.get(key).map(Value::items).unwrap_or_default();
    items.iter().filter_map(Value::as_text).map(str::to_owned).collect()
}

fn of_field(key: &'static str) -> Box<dyn Fn(&Value) -> Option<String> + Send + Sync> {
    Box::new(move |body| Some(body.get(key)?.as_text()?.to_owned()))
}

fn of_hub() -> Box<dyn Fn(&Value) -> Option<String> + Send + Sync> {
    Box::new(|_| None)
}

/// Registers the hub's own acts.
pub fn register_all(hub: &Hub) {
    let kind = |name,
                title,
                second,
                dataset,
                prepare: fn(&Hub, &Session, &Value) -> Result<Effects, HubError>| {
        ActKind {
            name,
            title,
            action: Action::Govern,
            second,
            blind: false,
            dataset,
            touches: None,
            prepare: Box::new(prepare),
        }
    };
    let touching = |key, kind| ActKind { touches: Some(of_field(key)), ..kind };
    for kind in [
        kind(
            "principal.enrol",
            "Enrol an official, an app or a device",
            Second::Always,
            of_hub(),
            people::enrol,
        ),
        touching(
            "login",
            kind(
                "device.enrol",
                "Enrol a device",
                Second::OfOthers,
                of_field("dataset"),
                people::enrol_device,
            ),
        ),
        kind(
            "administrator.revoke",
            "Revoke an administrator",
            Second::Always,
            of_hub(),
            people::revoke_administrator,
        ),
        kind(
            "principal.revoke",
            "Revoke a principal and all its credentials",
            Second::Never,
            of_hub(),
            people::revoke,
        ),
        touching(
            "login",
            kind(
                "device.revoke",
                "Revoke a device of one's dataset",
                Second::Never,
                of_field("dataset"),
                people::revoke_device,
            ),
        ),
        touching(
            "login",
            kind(
                "device.quarantine",
                "Set a device's readings apart",
                Second::Never,
                of_field("dataset"),
                people::quarantine_device,
            ),
        ),
        kind("app.token", "Give an app a token", Second::Always, of_hub(), people::app_token),
        kind(
            "principal.code",
            "Give somebody a new one-time code",
            Second::Always,
            of_hub(),
            people::new_code_for,
        ),
        kind(
            "dataset.put",
            "Create or change a dataset",
            Second::Always,
            Box::new(|body| Some(body.get("dataset")?.get("id")?.as_text()?.to_owned())),
            put_dataset,
        ),
        kind(
            "dataset.rotate_key",
            "Encrypt a dataset under a fresh key",
            Second::Never,
            of_field("dataset"),
            rotate_key,
        ),
        kind(
            "dataset.shred",
            "Delete a dataset's keys: nothing in it can be read again",
            Second::Always,
            of_field("dataset"),
            shred,
        ),
        // Whether somebody is on a list is not told by a trial.
        ActKind {
            blind: true,
            ..kind(
                "subject.erase",
                "Erase a person's data by deleting its key",
                Second::Always,
                of_field("dataset"),
                erase,
            )
        },
        kind("policies.put", "Change the policies", Second::Always, of_hub(), put_policies),
        kind("purpose.put", "Add a purpose", Second::Always, of_hub(), put_purpose),
        touching(
            "reading",
            kind(
                "quarantine.discard",
                "Discard a quarantined reading",
                Second::Never,
                of_field("dataset"),
                discard,
            ),
        ),
        touching(
            "reading",
            kind(
                "quarantine.accept",
                "Take a quarantined reading in, mended or as it is",
                Second::Never,
                of_field("dataset"),
                accept,
            ),
        ),
        kind(
            "principals.enrol",
            "Enrol several officials, apps or devices at once",
            Second::Always,
            of_hub(),
            people::enrol_many,
        ),
    ] {
        hub.register(kind);
    }
}

fn put_dataset(hub: &Hub, session: &Session, body: &Value) -> Result<Effects, HubError> {
    let given = body.get("dataset").ok_or_else(|| Invalid::data("/dataset", "is missing"))?;
    let mut dataset: Dataset = serde_json::from_slice(&to_json(given))
        .map_err(|error| Invalid::data("/dataset", error.to_string()))?;
    check_dataset(hub, &dataset)?;
    let snapshot = hub.state.snapshot();
    let old = snapshot.dataset(&dataset.id).cloned();
    let highest = snapshot.datasets.values().map(|(number, _)| *number).max();
    // The tenant is in every key, as the upper bits of the dataset's surrogate.
    let number =
        old.as_ref().map_or_else(|| highest.map_or(TENANT << 20, |last| last) + 1, |(n, _)| *n);
    dataset.version = old.as_ref().map_or(1, |(_, old)| old.version + 1);
    if old.as_ref().is_some_and(|(_, old)| old.about_people != dataset.about_people) {
        return Err(HubError::Conflict(
            "whether a dataset is about people is fixed when it is created".into(),
        ));
    }
    hub.check_strangers(&snapshot, &Arc::new(dataset.clone()))?;
    let (gains, loses) = hub.effect_of(old.as_ref().map(|(_, old)| old), &dataset);
    let doc = DatasetDoc { number, dataset: dataset.clone() };
    let effect = map([
        ("gain", Value::List(gains.into_iter().map(Value::from).collect())),
        ("lose", Value::List(loses.into_iter().map(Value::from).collect())),
    ]);
    let detail = map([
        ("dataset", Value::from(dataset.id.as_str())),
        ("version", Value::Integer(dataset.version.cast_signed())),
        ("digest", Value::from(crate::recorder::hex(&vault::digest(&to_json(&dataset))))),
    ]);
    let mut documents = vec![document(kinds::DATASET, &dataset.id, Some(to_json(&doc)))];
    let mut keep = |version: Version| {
        let name = format!("{}/{:010}", version.dataset.id, version.dataset.version);
        if hub.store.document(kinds::DATASET_VERSION, &name).is_none() {
            documents.push(document(kinds::DATASET_VERSION, &name, Some(to_json(&version))));
        }
    };
    if let Some((_, old)) = &old {
        keep(Version { time: None, by: 0, dataset: old.as_ref().clone() });
    }
    keep(Version { time: Some(hub.now()), by: session.principal.number, dataset: dataset.clone() });
    // What becomes confidential lies under the sensitive root from now on, and the old is rewritten.
    let sensitive = dataset.is_sensitive();
    let other_root = old.as_ref().is_some_and(|(_, old)| old.is_sensitive() != sensitive);
    let first =
        (other_root && hub.store.has_key(Under::Dataset(number))).then(|| -> crate::act::First {
            Box::new(move |hub| Ok(hub.store.new_key(Under::Dataset(number), sensitive)?))
        });
    Ok(Effects {
        documents,
        first,
        answer: map([("dataset", Value::from(dataset.id.as_str())), ("effect", effect)]),
        detail,
        public: true,
        ..Effects::default()
    })
}

fn check_dataset(hub: &Hub, dataset: &Dataset) -> Result<(), HubError> {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if dataset.id.is_empty() || dataset.id.len() > 60 || !dataset.id.chars().all(good) {
        let what = "is a word of small letters, digits and `-`, at most 60";
        return Err(Invalid::data("/dataset/id", what).into());
    }
    let snapshot = hub.state.snapshot();
    for (_, other) in snapshot.datasets.values().filter(|(_, other)| other.id != dataset.id) {
        if let Some(claim) = dataset.overlap(other) {
            let what = format!(
                "dataset `{}` claims type `{}` {} too; take a scope, or change that one",
                other.id,
                claim.of_type,
                if claim.scope.is_empty() {
                    "everywhere".into()
                } else {
                    format!("at `{}`", claim.scope)
                },
            );
            return Err(HubError::Conflict(what));
        }
        if dataset.catch_all && other.catch_all {
            let what = format!("dataset `{}` is the catch-all already", other.id);
            return Err(HubError::Conflict(what));
        }
    }
    Ok(())
}

fn put_policies(hub: &Hub, _: &Session, body: &Value) -> Result<Effects, HubError> {
    let text = text(body, "text")?;
    let policies = Policies::parse(&text)?;
    let old = hub.state.snapshot();
    let mut new = old.as_ref().clone();
    new.policies = Arc::new(policies);
    hub.check_governed(&new, None)?;
    let (mut gains, mut loses) = (Vec::new(), Vec::new());
    for (_, dataset) in old.datasets.values() {
        hub.check_strangers(&new, dataset)?;
        let before = hub.seen_by(&old, dataset);
        let after = hub.seen_by(&new, dataset);
        gains.extend(beyond(&after, &before).iter().map(|who| format!("{}: {who}", dataset.id)));
        loses.extend(beyond(&before, &after).iter().map(|who| format!("{}: {who}", dataset.id)));
    }
    let effect = map([
        ("gain", Value::List(gains.into_iter().map(Value::from).collect())),
        ("lose", Value::List(loses.into_iter().map(Value::from).collect())),
    ]);
    let digest = crate::recorder::hex(&vault::digest(text.as_bytes()));
    Ok(Effects {
        documents: vec![document(kinds::POLICIES, "", Some(to_json(&PoliciesDoc { text })))],
        detail: map([("digest", Value::from(digest))]),
        answer: map([("effect", effect)]),
        public: true,
        ..Effects::default()
    })
}

fn put_purpose(_: &Hub, _: &Session, body: &Value) -> Result<Effects, HubError> {
    let purpose: model::Purpose = serde_json::from_slice(&to_json(body))
        .map_err(|error| Invalid::data("", error.to_string()))?;
    Ok(Effects {
        documents: vec![document(kinds::PURPOSE, &purpose.id, Some(to_json(&purpose)))],
        detail: map([("purpose", Value::from(purpose.id.as_str()))]),
        public: true,
        ..Effects::default()
    })
}

fn dataset_of(hub: &Hub, body: &Value) -> Result<(u32, Arc<Dataset>), HubError> {
    let id = text(body, "dataset")?;
    let found = hub.state.snapshot().dataset(&id).cloned();
    found.ok_or_else(|| HubError::NotFound(format!("there is no dataset `{id}`")))
}

fn rotate_key(hub: &Hub, _: &Session, body: &Value) -> Result<Effects, HubError> {
    let (number, dataset) = dataset_of(hub, body)?;
    if hub.store.leaving().contains(&Under::Dataset(number)) {
        // What is to be deleted would be saved under the new key.
        return Err(model::Refusal::Leaving(dataset.id.clone()).into());
    }
    let sensitive = dataset.is_sensitive();
    Ok(Effects {
        detail: map([("dataset", Value::from(dataset.id.as_str()))]),
        // From now on everything is written under the new key; the upkeep has the old rewritten in steps.
        first: Some(Box::new(move |hub| {
            Ok(hub.store.new_key(Under::Dataset(number), sensitive)?)
        })),
        ..Effects::default()
    })
}

fn shred(hub: &Hub, _: &Session, body: &Value) -> Result<Effects, HubError> {
    let (number, dataset) = dataset_of(hub, body)?;
    if hub.is_closed(number, &dataset) {
        // What waits for the root could not be found, and would outlive the deletion.
        return Err(HubError::Sealed(dataset.id.clone()));
    }
    hub.ring_is_home()?;
    Ok(Effects {
        detail: map([("dataset", Value::from(dataset.id.as_str()))]),
        public: true,
        shred: Some(Shred::of(Under::Dataset(number), &dataset.id)),
        ..Effects::default()
    })
}

fn erase(hub: &Hub, _: &Session, body: &Value) -> Result<Effects, HubError> {
    let (number, dataset) = dataset_of(hub, body)?;
    let id = text(body, "entity")?;
    if !dataset.about_people {
        let what =
            format!("dataset `{}` is not about people; delete the entity instead", dataset.id);
        return Err(HubError::Conflict(what));
    }
    let held = hub.store.entity(&id).filter(|held| held.dataset == number);
    let held =
        held.ok_or_else(|| HubError::NotFound(format!("there is no entity with the id `{id}`")))?;
    hub.ring_is_home()?;
    let reference = hub.subject(number, &dataset, &id, Some(held.number));
    let prefix = format!("{}/", dataset.id);
    // What was set apart lies under the dataset's key: it goes with the person's all the same.
    let apart = hub.store.documents(kinds::QUARANTINE).into_iter().filter(|(name, body)| {
        let of = || ngsild::parse_json(from_json::<Quarantined>(body).ok()?.entity.as_bytes()).ok();
        name.starts_with(&prefix)
            && of().is_none_or(|entity| entity.get("id") == Some(&Value::from(id.as_str())))
    });
    let gone = apart.map(|(name, _)| document(kinds::QUARANTINE, &name, None));
    // What waits to be told of the person is told to nobody.
    let told = hub.store.documents(kinds::OUTBOX).into_iter();
    let told = told.filter(|(_, body)| String::from_utf8_lossy(body).contains(&id));
    let told = told.map(|(name, _)| document(kinds::OUTBOX, &name, None));
    Ok(Effects {
        documents: gone.chain(told).collect(),
        detail: map([
            ("dataset", Value::from(dataset.id.as_str())),
            ("subject", Value::from(reference)),
        ]),
        shred: Some(Shred::of(Under::Subject(number, held.number), &dataset.id)),
        ..Effects::default()
    })
}

fn discard(hub: &Hub, _: &Session, body: &Value) -> Result<Effects, HubError> {
    let (dataset, name) = (text(body, "dataset")?, text(body, "reading")?);
    if !name.starts_with(&format!("{dataset}/"))
        || hub.store.document(kinds::QUARANTINE, &name).is_none()
    {
        return Err(HubError::NotFound(format!("there is no quarantined reading `{name}`")));
    }
    Ok(Effects {
        documents: vec![document(kinds::QUARANTINE, &name, None)],
        detail: map([("dataset", Value::from(dataset)), ("reading", Value::from(name))]),
        ..Effects::default()
    })
}

fn accept(hub: &Hub, session: &Session, body: &Value) -> Result<Effects, HubError> {
    let (id, name) = (text(body, "dataset")?, text(body, "reading")?);
    let (number, dataset) = dataset_of(hub, body)?;
    if hub.is_closed(number, &dataset) {
        return Err(HubError::Sealed(dataset.id.clone()));
    }
    if !name.starts_with(&format!("{id}/")) {
        return Err(HubError::NotFound(format!("there is no quarantined reading `{name}`")));
    }
    let kept = hub.quarantined_reading(&name)?;
    // Whoever accepts takes it as his own: he has to be one who may write here.
    if !hub.state.verdict(session, Action::Write, number, &dataset).allowed {
        return Err(hub.forbidden(session, Action::Write, &dataset));
    }
    let original = ngsild::parse_json(kept.entity.as_bytes())?;
    let given = body.get("entity").unwrap_or(&original);
    let form = ngsild::Form::Any;
    let entity = ngsild::parse_entity(given, &ngsild::Context::core(), form)?;
    let before = hub.store.entity(&entity.id).filter(|held| held.deleted.is_none());
    let owned = match &before {
        Some(held) => held.dataset == number,
        None => hub
            .state
            .snapshot()
            .claimant(&entity.types, &entity.scopes)
            .is_some_and(|(claimant, _)| *claimant == number),
    };
    if !owned {
        let what = format!("`{}` does not belong to dataset `{id}`", entity.id);
        return Err(HubError::Conflict(what));
    }
    // A jump that a steward looked at is no error: floods jump. All else has to fit.
    if let Some(reason) = hub.problem(&entity, &dataset, None, before.is_none()) {
        return Err(Invalid::data("/entity", reason).into());
    }
    let mended = body.get("entity").is_some_and(|given| *given != original);
    Ok(Effects {
        documents: vec![document(kinds::QUARANTINE, &name, None)],
        change: Some(Planned {
            change: model::Change::Upsert(entity),
            number,
            dataset,
            late: true,
        }),
        detail: map([
            ("dataset", Value::from(id)),
            ("reading", Value::from(name)),
            ("mended", Value::Bool(mended)),
        ]),
        ..Effects::default()
    })
}

/// No purpose and each, from everywhere.
fn declarations(purposes: &BTreeSet<String>) -> impl Iterator<Item = (Option<&str>, Zone)> {
    let purposes = std::iter::once(None).chain(purposes.iter().map(|p| Some(p.as_str())));
    purposes
        .flat_map(|purpose| [Zone::Local, Zone::City, Zone::Outside].map(|zone| (purpose, zone)))
}

impl Hub {
    /// Nobody locks all out: under these policies somebody governs the hub, and so could change them,
    /// also without one who is to go.
    pub(crate) fn check_governed(
        &self,
        snapshot: &guard::Snapshot,
        without: Option<u64>,
    ) -> Result<(), HubError> {
        let purposes = self.purposes_of(snapshot);
        let governs = |official: &Arc<Principal>| {
            declarations(&purposes).any(|(purpose, zone)| {
                let session = Session { zone, ..self.imagine(official.clone(), purpose) };
                snapshot.decide_hub(&session, Action::Govern).allowed
            })
        };
        let others = self.state.principals().into_iter().filter(|principal| {
            principal.kind == model::Kind::Official
                && principal.status == model::Status::Active
                && Some(principal.number) != without
        });
        if others.into_iter().any(|official| governs(&official)) {
            return Ok(());
        }
        let what = "no official could govern the hub any more, nor undo this";
        Err(HubError::Conflict(what.into()))
    }

    /// What can be declared: purposes that are known, or that something is kept for.
    fn purposes_of(&self, snapshot: &guard::Snapshot) -> BTreeSet<String> {
        let kept = snapshot.datasets.values().flat_map(|(_, dataset)| dataset.purposes.clone());
        self.state.purposes.read().keys().cloned().chain(kept).collect()
    }

    /// No majority makes a register of people public, or writable by anybody, wherever they are and
    /// whatever they declare.
    fn check_strangers(
        &self,
        snapshot: &guard::Snapshot,
        dataset: &Arc<Dataset>,
    ) -> Result<(), HubError> {
        let mut purposes = self.purposes_of(snapshot);
        purposes.extend(dataset.purposes.iter().cloned());
        let stranger = Arc::new(Principal::public());
        for (purpose, zone) in declarations(&purposes) {
            let session = Session { assurance: 0, zone, ..self.imagine(stranger.clone(), purpose) };
            let lens = snapshot.lens(&session, dataset).lens;
            let closed = [Sensitivity::Confidential, Sensitivity::Personal, Sensitivity::Special];
            let reads = closed.iter().any(|s| lens.sight_of(*s) != model::Sight::Hidden);
            let acts = [Action::Write, Action::Delete, Action::Govern, Action::Audit];
            let does = |action| snapshot.decide(&session, action, dataset).allowed;
            if reads || acts.into_iter().any(does) {
                return Err(HubError::Conflict(format!(
                    "anybody could read what is confidential, or write, in dataset `{}`",
                    dataset.id
                )));
            }
        }
        Ok(())
    }

    /// Who sees and writes what of a dataset under a snapshot: whom, and each thing by itself.
    fn seen_by(&self, snapshot: &guard::Snapshot, dataset: &Arc<Dataset>) -> Seen {
        let mut seen = Seen::new();
        for (possible, lens) in self.who_can_see_of(snapshot, dataset) {
            let purpose = possible.purpose.unwrap_or_else(|| "no purpose".into());
            let who = format!("{} for {purpose}", possible.login);
            let mut add = |what: String| seen.insert((who.clone(), what));
            if possible.writes {
                add("writing".into());
            }
            let named = dataset.attributes.iter().map(|a| (a.name.clone(), a.sensitivity));
            let others =
                (!dataset.closed).then(|| (model::Name::new("any other"), dataset.undeclared));
            for (name, sensitivity) in named.chain(others) {
                match lens.sight_of(sensitivity) {
                    // A history is one person's: of people there are no sums.
                    model::Sight::Clear if lens.aggregate_only && dataset.about_people => continue,
                    model::Sight::Clear if lens.aggregate_only => add(format!("sums of `{name}`")),
                    model::Sight::Clear => add(format!("`{name}`")),
                    model::Sight::Glimpse => add(format!("`{name}` masked or coarsened")),
                    model::Sight::Hidden => continue,
                };
            }
        }
        seen
    }

    /// Who gains and who loses when a dataset changes.
    fn effect_of(&self, old: Option<&Arc<Dataset>>, new: &Dataset) -> (Vec<String>, Vec<String>) {
        let snapshot = self.state.snapshot();
        let before = old.map(|old| self.seen_by(&snapshot, old)).unwrap_or_default();
        let after = self.seen_by(&snapshot, &Arc::new(new.clone()));
        (beyond(&after, &before), beyond(&before, &after))
    }

    /// The quarantined readings of a dataset, for those who may govern it or see it clearly.
    ///
    /// # Errors
    /// When there is no such dataset or it may not be governed.
    pub async fn quarantined(
        &self,
        session: &Session,
        dataset: &str,
    ) -> Result<Vec<(String, Quarantined)>, HubError> {
        let snapshot = self.state.snapshot();
        let found = snapshot.dataset(dataset).cloned();
        let (number, dataset) =
            found.ok_or_else(|| HubError::NotFound(format!("there is no dataset `{dataset}`")))?;
        let governs = self.state.verdict(session, Action::Govern, number, &dataset).allowed;
        let clear = self.state.verdict(session, Action::Read, number, &dataset).lens.is_clear();
        // A reading that did not fit may say anything the dataset may hold.
        let people = if dataset.about_people { Sensitivity::Personal } else { Sensitivity::Open };
        let level = dataset.ceiling().max(dataset.undeclared).max(people);
        if !(governs && (clear || level < Sensitivity::Confidential)) {
            self.record_refusal(session, Verb::Read, Action::Govern, &dataset.id).await;
            return Err(self.forbidden(session, Action::Govern, &dataset));
        }
        let prefix = format!("{}/", dataset.id);
        let mut readings = Vec::new();
        for (name, body) in self.store.documents(kinds::QUARANTINE) {
            if name.starts_with(&prefix) {
                readings.push((name, from_json(&body)?));
            }
        }
        self.record_read(
            session,
            &dataset.id,
            level,
            Vec::new(),
            map([("quarantine", Value::Integer(readings.len() as i64))]),
        )
        .await?;
        Ok(readings)
    }
}
