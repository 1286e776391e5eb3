//! Decisions: may this session do that to this dataset, and through which lens.

use crate::Policies;
use cedar_policy::{
    Authorizer, Context, Decision, Entities, Entity, EntityId, EntityTypeName, EntityUid, Request,
    RestrictedExpression,
};
use model::{Action, Dataset, Lens, Principal, Sensitivity, Session, Sight};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Everything decisions rest on, at one version.
#[derive(Clone)]
pub struct Snapshot {
    /// Counted up by every change of policies, datasets or principals.
    pub version: u64,
    /// By id, with the dataset's surrogate.
    pub datasets: Arc<Datasets>,
    pub policies: Arc<Policies>,
}

/// The policy that permitted or forbade.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    pub policy: String,
    pub title: String,
}

/// A decision about one action on one dataset.
#[derive(Clone, Debug)]
pub struct Verdict {
    pub allowed: bool,
    pub lens: Lens,
    /// The policies that decided; empty when none permits.
    pub reasons: Vec<Reason>,
    pub version: u64,
    /// Everything is shown as it is: [`Lens::is_clear`], worked out once.
    pub clear: bool,
    /// Told apart from every other verdict of this process, so that what was seen through its lens
    /// can be kept under it.
    pub id: u64,
}

impl Verdict {
    /// An entity through this verdict's lens.
    pub fn see(&self, entity: &Arc<model::Entity>) -> Arc<model::Entity> {
        if self.clear { entity.clone() } else { Arc::new(self.lens.apply(entity)) }
    }
}

/// Datasets by id, with their surrogates; and by surrogate.
#[derive(Clone, Debug, Default)]
pub struct Datasets {
    by_id: BTreeMap<String, (u32, Arc<Dataset>)>,
    by_number: HashMap<u32, Arc<Dataset>>,
}

impl Datasets {
    /// From the map by id.
    pub fn new(by_id: BTreeMap<String, (u32, Arc<Dataset>)>) -> Datasets {
        let by_number = by_id.values().cloned().collect();
        Datasets { by_id, by_number }
    }
}

impl std::ops::Deref for Datasets {
    type Target = BTreeMap<String, (u32, Arc<Dataset>)>;

    fn deref(&self) -> &Self::Target {
        &self.by_id
    }
}

impl Verdict {
    fn new(allowed: bool, lens: Lens, reasons: Vec<Reason>, version: u64) -> Verdict {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let (clear, id) = (lens.is_clear(), NEXT.fetch_add(1, Ordering::Relaxed));
        Verdict { allowed, lens, reasons, version, clear, id }
    }
}

impl Snapshot {
    /// The dataset with this id.
    pub fn dataset(&self, id: &str) -> Option<&(u32, Arc<Dataset>)> {
        self.datasets.get(id)
    }

    /// The dataset with this surrogate.
    pub fn by_number(&self, number: u32) -> Option<&Arc<Dataset>> {
        self.datasets.by_number.get(&number)
    }

    /// The dataset that claims an entity, or else the catch-all.
    pub fn claimant(
        &self,
        types: &[model::Name],
        scopes: &[String],
    ) -> Option<&(u32, Arc<Dataset>)> {
        let claims = |dataset: &Dataset| types.iter().any(|name| dataset.claims(name, scopes));
        // The narrowest claim wins: one with a scope before one without.
        let narrow = |dataset: &Dataset| {
            dataset
                .claims
                .iter()
                .filter(|c| types.contains(&c.of_type))
                .map(|c| c.scope.len())
                .max()
        };
        self.datasets
            .values()
            .filter(|(_, dataset)| claims(dataset))
            .max_by_key(|(_, dataset)| narrow(dataset))
            .or_else(|| self.datasets.values().find(|(_, dataset)| dataset.catch_all))
    }

    /// Decides a read: what the session sees of the dataset, attribute by attribute.
    pub fn lens(&self, session: &Session, dataset: &Arc<Dataset>) -> Verdict {
        let mut lens =
            Lens { dataset: dataset.clone(), sights: [Sight::Hidden; 5], aggregate_only: false };
        let mut reasons: Vec<Reason> = Vec::new();
        let mut note = |found: Vec<Reason>| {
            for reason in found {
                if !reasons.contains(&reason) {
                    reasons.push(reason);
                }
            }
        };
        for sensitivity in Sensitivity::ALL {
            let (read, why) = self.ask(session, Action::Read, dataset, sensitivity);
            let (glimpse, why_glimpse) = if read {
                (false, Vec::new())
            } else {
                self.ask(session, Action::Glimpse, dataset, sensitivity)
            };
            let used = dataset.sensitivities().contains(&sensitivity);
            if used {
                note(why);
                note(why_glimpse);
            }
            lens.sights[sensitivity as usize] = match (read, glimpse) {
                (true, _) => Sight::Clear,
                (_, true) => Sight::Glimpse,
                _ => Sight::Hidden,
            };
        }
        if lens.is_blind() {
            let sums = |s: &Sensitivity| self.ask(session, Action::Aggregate, dataset, *s).0;
            let summed: Vec<_> = dataset.sensitivities().into_iter().filter(sums).collect();
            lens.aggregate_only = !summed.is_empty();
            for sensitivity in summed {
                lens.sights[sensitivity as usize] = Sight::Clear;
            }
        }
        Verdict::new(!lens.is_blind(), lens, reasons, self.version)
    }

    /// Decides any other action on the dataset, at the height of its most sensitive attribute.
    pub fn decide(&self, session: &Session, action: Action, dataset: &Arc<Dataset>) -> Verdict {
        let (allowed, reasons) = self.ask(session, action, dataset, dataset.ceiling());
        let lens =
            Lens { dataset: dataset.clone(), sights: [Sight::Hidden; 5], aggregate_only: false };
        Verdict::new(allowed, lens, reasons, self.version)
    }

    /// Decides an action on the hub itself.
    pub fn decide_hub(&self, session: &Session, action: Action) -> Verdict {
        self.decide(session, action, &hub_dataset())
    }

    fn ask(
        &self,
        session: &Session,
        action: Action,
        dataset: &Dataset,
        sensitivity: Sensitivity,
    ) -> (bool, Vec<Reason>) {
        if session.principal.kind == model::Kind::Hub {
            return (true, Vec::new());
        }
        // Whatever the policies say: whose session outlived him may nothing.
        if session.principal.status == model::Status::Revoked {
            return (false, Vec::new());
        }
        let Some((request, entities)) = self.request(session, action, dataset, sensitivity) else {
            return (false, Vec::new());
        };
        let response = Authorizer::new().is_authorized(&request, &self.policies.set, &entities);
        let reason = |id| {
            let (policy, title) = self.policies.title(id);
            Reason { policy, title }
        };
        let mut reasons: Vec<Reason> = response.diagnostics().reason().map(reason).collect();
        reasons.sort_by(|a, b| a.policy.cmp(&b.policy));
        (response.decision() == Decision::Allow, reasons)
    }

    fn request(
        &self,
        session: &Session,
        action: Action,
        dataset: &Dataset,
        sensitivity: Sensitivity,
    ) -> Option<(Request, Entities)> {
        let principal = principal_entity(&session.principal)?;
        let resource = dataset_entity(dataset)?;
        let purpose = session.purpose.as_deref().unwrap_or_default();
        let may_declare = session.principal.purposes.is_empty()
            || session.principal.purposes.iter().any(|allowed| allowed == purpose);
        let fits = may_declare && dataset.purposes.iter().any(|kept_for| kept_for == purpose);
        let declared = if may_declare { purpose } else { "" };
        let context = Context::from_pairs([
            ("level".into(), RestrictedExpression::new_long(sensitivity as i64)),
            ("purpose".into(), text(declared)),
            ("purposeFits".into(), RestrictedExpression::new_bool(fits)),
            ("zone".into(), text(session.zone.word())),
            ("assurance".into(), RestrictedExpression::new_long(i64::from(session.assurance))),
        ])
        .ok()?;
        let request = Request::new(
            principal.uid(),
            uid("Tanggul::Action", action.word())?,
            resource.uid(),
            context,
            Some(&self.policies.schema),
        )
        .ok()?;
        let entities = Entities::from_entities([principal, resource], Some(&self.policies.schema));
        Some((request, entities.ok()?))
    }
}

/// The dataset that stands for the hub itself.
pub fn hub_dataset() -> Arc<Dataset> {
    Arc::new(Dataset {
        id: "*".into(),
        title: "The hub".into(),
        department: String::new(),
        steward: String::new(),
        claims: Vec::new(),
        catch_all: false,
        attributes: Vec::new(),
        undeclared: Sensitivity::Open,
        closed: false,
        purposes: Vec::new(),
        legal_basis: String::new(),
        recipients: Vec::new(),
        retention_days: None,
        publication: model::Publication::Withheld,
        about_people: false,
        life_safety: false,
        version: 0,
    })
}

fn text(text: &str) -> RestrictedExpression {
    RestrictedExpression::new_string(text.to_owned())
}

fn texts<'a>(texts: impl Iterator<Item = &'a str>) -> RestrictedExpression {
    RestrictedExpression::new_set(texts.map(text))
}

fn uid(of_type: &str, id: &str) -> Option<EntityUid> {
    Some(EntityUid::from_type_name_and_id(
        EntityTypeName::from_str(of_type).ok()?,
        EntityId::new(id),
    ))
}

fn principal_entity(principal: &Principal) -> Option<Entity> {
    let kind = match principal.kind {
        model::Kind::Official => "official",
        model::Kind::Device => "device",
        model::Kind::App => "app",
        model::Kind::Public => "public",
        model::Kind::Hub => "hub",
    };
    let attributes = HashMap::from([
        ("kind".to_owned(), text(kind)),
        ("department".to_owned(), text(&principal.department)),
        ("login".to_owned(), text(&principal.login)),
        ("roles".to_owned(), texts(principal.roles.iter().map(|role| role.word()))),
        ("datasets".to_owned(), texts(principal.datasets.iter().map(String::as_str))),
    ]);
    let uid = uid("Tanggul::Principal", &principal.number.to_string())?;
    Entity::new(uid, attributes, HashSet::new()).ok()
}

fn dataset_entity(dataset: &Dataset) -> Option<Entity> {
    let published = dataset.publication == model::Publication::Open;
    let attributes = HashMap::from([
        ("id".to_owned(), text(&dataset.id)),
        ("department".to_owned(), text(&dataset.department)),
        ("steward".to_owned(), text(&dataset.steward)),
        ("published".to_owned(), RestrictedExpression::new_bool(published)),
        ("lifeSafety".to_owned(), RestrictedExpression::new_bool(dataset.life_safety)),
        ("purposes".to_owned(), texts(dataset.purposes.iter().map(String::as_str))),
    ]);
    Entity::new(uid("Tanggul::Dataset", &dataset.id)?, attributes, HashSet::new()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{AttributeModel, Kind, Name, Role, Time, ValueKind, Withheld, Zone};

    fn register() -> Arc<Dataset> {
        let attribute = |name: &str, sensitivity, withheld| AttributeModel {
            name: Name::new(name),
            kind: ValueKind::Any,
            sensitivity,
            withheld,
            unit: None,
            minimum: None,
            maximum: None,
            max_step: None,
            choices: Vec::new(),
            required: false,
            history: false,
        };
        let mut dataset = hub_dataset().as_ref().clone();
        dataset.id = "evacuation".into();
        dataset.department = "social".into();
        dataset.steward = "siti".into();
        dataset.closed = true;
        dataset.purposes = vec!["flood-response".into(), "social-care".into()];
        dataset.attributes = vec![
            attribute("district", Sensitivity::Internal, Withheld::Hide),
            attribute("name", Sensitivity::Personal, Withheld::Mask),
            attribute("illness", Sensitivity::Special, Withheld::Hide),
        ];
        Arc::new(dataset)
    }

    fn session(kind: Kind, roles: &[Role], department: &str, purpose: Option<&str>) -> Session {
        let principal = Principal {
            number: 7,
            kind,
            login: "siti".into(),
            name: String::new(),
            department: department.into(),
            roles: roles.to_vec(),
            ..Principal::public()
        };
        Session {
            principal: Arc::new(principal),
            tenant: 1,
            purpose: purpose.map(Into::into),
            assurance: 1,
            zone: Zone::City,
            expires: Time::MAX,
            credential: 0,
        }
    }

    /// What is seen of: internal, personal, special.
    fn sights(session: &Session) -> [Sight; 3] {
        let snapshot = Snapshot {
            version: 1,
            datasets: Arc::default(),
            policies: Arc::new(Policies::parse(crate::DEFAULT_POLICIES).unwrap()),
        };
        let lens = snapshot.lens(session, &register()).lens;
        [Sensitivity::Internal, Sensitivity::Personal, Sensitivity::Special]
            .map(|s| lens.sight_of(s))
    }

    #[test]
    fn the_register_is_seen_by_those_who_need_it() {
        use Sight::{Clear, Glimpse, Hidden};
        let official = Kind::Official;
        let check = |kind, role, department, purpose, expected: [Sight; 3]| {
            assert_eq!(
                sights(&session(kind, &[role], department, purpose)),
                expected,
                "{role:?} {department} {purpose:?}"
            );
        };
        check(official, Role::Crisis, "crisis", Some("flood-response"), [Clear; 3]);
        check(official, Role::Crisis, "crisis", Some("social-care"), [Hidden; 3]);
        check(official, Role::Crisis, "crisis", None, [Hidden; 3]);
        check(official, Role::Department, "social", Some("social-care"), [Clear; 3]);
        check(official, Role::Department, "social", None, [Clear, Hidden, Hidden]);
        check(official, Role::Department, "water", Some("flood-response"), [Glimpse; 3]);
        check(official, Role::Department, "water", Some("marketing"), [Hidden; 3]);
        check(
            official,
            Role::Administrator,
            "social",
            Some("social-care"),
            [Clear, Hidden, Hidden],
        );
        check(official, Role::Auditor, "social", Some("social-care"), [Hidden; 3]);
        check(official, Role::Steward, "elsewhere", Some("social-care"), [Clear; 3]);
        check(Kind::App, Role::App, "social", Some("flood-response"), [Hidden; 3]);
        check(Kind::Device, Role::Device, "social", Some("flood-response"), [Hidden; 3]);
        check(Kind::Public, Role::Crisis, "social", None, [Hidden; 3]);
    }

    #[test]
    fn a_token_bound_to_one_purpose_cannot_declare_another() {
        let mut session =
            session(Kind::Official, &[Role::Crisis], "crisis", Some("flood-response"));
        Arc::make_mut(&mut session.principal).purposes = vec!["social-care".into()];
        assert_eq!(sights(&session), [Sight::Hidden; 3]);
    }

    #[test]
    fn whoever_was_revoked_sees_nothing() {
        let mut session =
            session(Kind::Official, &[Role::Crisis], "crisis", Some("flood-response"));
        assert_eq!(sights(&session), [Sight::Clear; 3]);
        Arc::make_mut(&mut session.principal).status = model::Status::Quarantined;
        assert_eq!(sights(&session), [Sight::Clear; 3]);
        Arc::make_mut(&mut session.principal).status = model::Status::Revoked;
        assert_eq!(sights(&session), [Sight::Hidden; 3]);
    }

    fn snapshot_of(policies: &str, datasets: Vec<Dataset>) -> Snapshot {
        let numbered = (7..).zip(datasets).map(|(n, d)| (d.id.clone(), (n, Arc::new(d))));
        Snapshot {
            version: 3,
            datasets: Arc::new(Datasets::new(numbered.collect())),
            policies: Arc::new(Policies::parse(policies).unwrap()),
        }
    }

    #[test]
    fn datasets_are_found_and_the_narrowest_claims() {
        let dataset = |id: &str, claims: &[(&str, &str)], catch_all| {
            let mut dataset = hub_dataset().as_ref().clone();
            dataset.id = id.into();
            let claim = |(of_type, scope): &(&str, &str)| model::Claim {
                of_type: Name::new(of_type),
                scope: (*scope).into(),
            };
            dataset.claims = claims.iter().map(claim).collect();
            dataset.catch_all = catch_all;
            dataset
        };
        let all = vec![
            dataset("rivers", &[("River", "")], false),
            dataset("north", &[("River", "/north")], false),
            dataset("rest", &[], true),
        ];
        let snapshot = snapshot_of(crate::DEFAULT_POLICIES, all);
        assert_eq!(snapshot.datasets.len(), 3);
        assert_eq!(snapshot.dataset("north").unwrap().0, 8);
        assert!(snapshot.dataset("south").is_none());
        assert_eq!(snapshot.by_number(9).unwrap().id, "rest");
        assert!(snapshot.by_number(1).is_none());
        let claimant = |of_type: &str, scope: &str| {
            let scopes: Vec<String> =
                [scope.to_owned()].into_iter().filter(|s| !s.is_empty()).collect();
            snapshot.claimant(&[Name::new(of_type)], &scopes).unwrap().1.id.clone()
        };
        assert_eq!(claimant("River", ""), "rivers");
        assert_eq!(claimant("River", "/north/1"), "north");
        assert_eq!(claimant("River", "/south"), "rivers");
        assert_eq!(claimant("Lamp", "/north"), "rest");
    }

    #[test]
    fn a_lens_says_whether_why_and_that_it_is_not_for_sums_only() {
        let snapshot = snapshot_of(crate::DEFAULT_POLICIES, Vec::new());
        let official = |department, purpose| {
            session(Kind::Official, &[Role::Department], department, Some(purpose))
        };
        let seen = snapshot.lens(&official("social", "social-care"), &register());
        assert!(seen.allowed && seen.clear && !seen.lens.aggregate_only);
        let reasons: Vec<_> = seen.reasons.iter().map(|r| r.policy.as_str()).collect();
        assert_eq!(reasons, ["department-duty", "officials-internal"], "each once");
        assert!(seen.reasons.iter().all(|reason| reason.title.ends_with('.')));
        let glimpsed = snapshot.lens(&official("water", "social-care"), &register());
        assert!(glimpsed.allowed && !glimpsed.clear && !glimpsed.lens.aggregate_only);
        let blind = snapshot.lens(&official("water", "marketing"), &register());
        assert!(!blind.allowed && !blind.lens.aggregate_only && blind.reasons.is_empty());
        // Sums are for those who see nothing else.
        let sums = r#"@id("sums") @title("Sums.") permit (principal, action == Tanggul::Action::"aggregate", resource)
            when { context.level == 3 };"#;
        let summed = snapshot_of(sums, Vec::new());
        let summed = summed.lens(&official("water", "social-care"), &register());
        assert!(summed.allowed && summed.lens.aggregate_only);
        assert_eq!(summed.lens.sight_of(Sensitivity::Personal), Sight::Clear);
        assert_eq!(summed.lens.sight_of(Sensitivity::Special), Sight::Hidden);
    }

    #[test]
    fn open_is_for_all_only_where_it_is_published() {
        let snapshot = snapshot_of(crate::DEFAULT_POLICIES, Vec::new());
        let public = session(Kind::Public, &[], "", None);
        for (publication, allowed) in
            [(model::Publication::Open, true), (model::Publication::Withheld, false)]
        {
            let mut dataset = register().as_ref().clone();
            dataset.attributes[0].sensitivity = Sensitivity::Open;
            dataset.publication = publication;
            assert_eq!(snapshot.lens(&public, &Arc::new(dataset)).allowed, allowed);
        }
    }

    #[test]
    fn two_roles_do_not_add_up_to_personal_data_for_an_administrator() {
        let roles = [Role::Administrator, Role::Crisis];
        let session = session(Kind::Official, &roles, "crisis", Some("flood-response"));
        assert_eq!(sights(&session), [Sight::Clear, Sight::Hidden, Sight::Hidden]);
    }
}
