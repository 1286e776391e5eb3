//! The verbs, without doors: what happens when the disk is full, and what a late reading changes.

use crate::{Hub, HubError, HubOptions, ItemResult, NewPrincipal, Query, Source};
use model::{Change, Credential, Dataset, Entity, Kind, Principal, Session, Time, Zone};
use ngsild::{Context, Filter, Form, TypeSelection, parse_entity, parse_json};
use std::collections::HashMap;
use std::sync::Arc;
use store::Files;
use tempfile::TempDir;

fn now() -> Time {
    Time::parse("2026-01-01T12:00:00Z").unwrap()
}

async fn start(directory: &TempDir, min_free_bytes: u64) -> Arc<Hub> {
    let files = Files::new(&directory.path().join("data"), None);
    if !files.exist() {
        files.create().unwrap();
    }
    let options = HubOptions {
        origin: "test.example/log".into(),
        now,
        contexts: HashMap::new(),
        store: store::Options { min_free_bytes },
        seal: store::SealPlan::default(),
        limits: crate::Limits::default(),
        notice: Some("The data shown here is simulated."),
    };
    tokio::task::spawn_blocking(|| Hub::start(files, options)).await.unwrap().unwrap()
}

fn dataset(id: &str, of_type: &str, life_safety: bool) -> Dataset {
    serde_json::from_value(serde_json::json!({
        "id": id, "title": id, "department": "water", "steward": "steward",
        "claims": [{"type": of_type}],
        "attributes": [{"name": "level", "kind": "number", "sensitivity": "open"}],
        "undeclared": "internal", "purposes": [], "legal_basis": "test", "life_safety": life_safety,
        "publication": "open",
    }))
    .unwrap()
}

fn device() -> NewPrincipal {
    let principal = Principal {
        kind: Kind::Device,
        login: "gauge".into(),
        datasets: vec!["rivers".into(), "meters".into()],
        streams: vec!["urn:x:*".into()],
        ..Principal::public()
    };
    NewPrincipal { principal, purpose: None, expires: Time::MAX }
}

async fn city(directory: &TempDir) -> (Arc<Hub>, String) {
    let hub = start(directory, 0).await;
    let datasets = vec![dataset("rivers", "River", true), dataset("meters", "Meter", false)];
    hub.bootstrap_datasets(datasets).await.unwrap();
    let mut tokens = hub.bootstrap_principals(vec![device()]).await.unwrap();
    (hub, tokens.remove(0))
}

fn session(hub: &Hub, token: &str) -> Session {
    let source = Source { zone: Zone::Local, block: "test".into(), browser: None };
    let credential =
        if token.is_empty() { Credential::None } else { Credential::Bearer(token.to_owned()) };
    hub.open(&credential, &source, None).unwrap()
}

fn reading(of_type: &str, level: f64, minute: u32) -> Change {
    let json = format!(
        r#"{{"id":"urn:x:{of_type}","type":"{of_type}","level":{{"value":{level},"observedAt":"2026-01-01T10:{minute:02}:00Z"}}}}"#
    );
    let value = parse_json(json.as_bytes()).unwrap();
    let entity: Entity = parse_entity(&value, &Context::core(), Form::Full).unwrap();
    Change::Upsert(entity)
}

async fn level(hub: &Hub, of_type: &str) -> Option<f64> {
    let types = TypeSelection(vec![vec![model::Name::new(of_type)]]);
    let filter = Filter { types: Some(types), ..Filter::default() };
    let answer = hub.read(&session(hub, ""), &Query { filter, ..Query::default() }).await.unwrap();
    answer.entities.first()?.attribute("level")?.default_instance()?.value().as_number()
}

#[tokio::test(flavor = "multi_thread")]
async fn life_safety_goes_on_through_the_ring_when_the_disk_is_full() {
    let directory = tempfile::tempdir().unwrap();
    let (hub, token) = city(&directory).await;
    let gauge = session(&hub, &token);
    for of_type in ["River", "Meter"] {
        hub.write(&gauge, vec![reading(of_type, 1.0, 0)]).await.unwrap();
    }
    hub.stop().await;
    drop(hub);

    let hub = start(&directory, u64::MAX).await;
    assert!(hub.trouble().is_some());
    let gauge = session(&hub, &token);
    let refused = hub.write(&gauge, vec![reading("Meter", 2.0, 1)]).await;
    assert!(matches!(refused, Err(HubError::Storage(store::StoreError::Full(_)))), "class A");
    let kept = hub.write(&gauge, vec![reading("River", 2.0, 1)]).await.unwrap();
    assert!(matches!(kept.results[0], ItemResult::Done(_)), "class B");
    assert_eq!(kept.receipt.unwrap().to_string(), "pending");
    assert_eq!(level(&hub, "River").await, Some(2.0), "the flood picture goes on");
    assert_eq!(level(&hub, "Meter").await, Some(1.0));
    hub.stop().await;
    drop(hub);

    let hub = start(&directory, 0).await;
    assert_eq!(level(&hub, "River").await, Some(2.0), "reconciled");
    hub.stop().await;
    let vkey = journal::VerifyingKey::parse(&hub.vkey()).unwrap();
    assert_eq!(crate::verify(&hub.store, &vkey).unwrap().findings, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_reading_changes_the_history_and_not_the_state() {
    let directory = tempfile::tempdir().unwrap();
    let (hub, token) = city(&directory).await;
    let gauge = session(&hub, &token);
    for (value, minute) in [(1.0, 10), (3.0, 30), (2.0, 20), (3.5, 30)] {
        hub.write(&gauge, vec![reading("River", value, minute)]).await.unwrap();
    }
    let check = |hub: Arc<Hub>| async move {
        assert_eq!(level(&hub, "River").await, Some(3.5));
        let query = crate::HistoryQuery {
            filter: Filter { ids: vec!["urn:x:River".into()], ..Filter::default() },
            ..crate::HistoryQuery::default()
        };
        let answer = hub.read_history(&session(&hub, ""), &query, true).await.unwrap();
        let crate::SeriesAnswer::Instances(points) = &answer.entities[0].1[0].1 else { panic!() };
        let values: Vec<f64> = points.iter().map(|p| p.value().as_number().unwrap()).collect();
        assert_eq!(values, [1.0, 2.0, 3.5]);
    };
    check(hub.clone()).await;
    hub.stop().await;
    drop(hub);
    let hub = start(&directory, 0).await;
    check(hub.clone()).await;
    hub.stop().await;
}
