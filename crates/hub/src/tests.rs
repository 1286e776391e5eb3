//! The verbs, without doors: what happens when the disk is full, and what a late reading changes.

mod disk;
mod hostile;
mod images;
mod ring;
mod schedules;
mod tamper;
mod turns;

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
    start_with(directory, min_free_bytes, 40).await
}

async fn start_with(directory: &TempDir, min_free_bytes: u64, max_blobs: usize) -> Arc<Hub> {
    start_at(directory, min_free_bytes, max_blobs, now, 0).await
}

async fn start_at(
    directory: &TempDir,
    min_free_bytes: u64,
    max_blobs: usize,
    now: fn() -> Time,
    patience_ms: u64,
) -> Arc<Hub> {
    let files = Files::new(&directory.path().join("data"), None);
    if !files.exist() {
        files.create().unwrap();
    }
    let options = HubOptions {
        origin: "test.example/log".into(),
        now,
        contexts: HashMap::new(),
        // So little that tables of the engine go to files.
        store: store::Options { min_free_bytes, memtable_bytes: 16 << 10 },
        seal: store::SealPlan { max_blobs, max_part: 7, ..store::SealPlan::default() },
        tidying: crate::Tidying::default(),
        patience: std::time::Duration::from_millis(patience_ms),
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
    let source = Source { zone: Zone::Local, block: crate::Block::Own, browser: None };
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

/// Somebody whose question began before a dataset changed leaves nothing of what was shown before to those
/// who come after.
#[tokio::test(flavor = "multi_thread")]
async fn a_decision_is_never_on_what_was() {
    let directory = tempfile::tempdir().unwrap();
    let (hub, token) = city(&directory).await;
    let everybody = session(&hub, "");
    let gauge = session(&hub, &token);
    let (number, before) = hub.state.snapshot().dataset("rivers").unwrap().clone();
    let level = model::Name::new("level");
    let sees = |session: &Session| {
        let verdict = hub.state.verdict(session, model::Action::Read, number, &before);
        verdict.allowed && verdict.lens.sight(&level).0 == model::Sight::Clear
    };
    assert!(sees(&everybody));
    let own = hub.own_session();
    let mut rivers = dataset("rivers", "River", true);
    rivers.attributes[0].sensitivity = model::Sensitivity::Confidential;
    let act = |name: &str, body: serde_json::Value| crate::Act {
        name: name.into(),
        body: parse_json(body.to_string().as_bytes()).unwrap(),
    };
    hub.act(&own, act("dataset.put", serde_json::json!({"dataset": rivers}))).await.unwrap();
    assert!(!sees(&everybody), "it is asked with the dataset of before");
    // Nor as the principal of before.
    let writes = |session: &Session| {
        hub.state.verdict(session, model::Action::Write, number, &before).allowed
    };
    assert!(writes(&gauge));
    hub.act(&own, act("principal.revoke", serde_json::json!({"login": "gauge"}))).await.unwrap();
    assert!(!writes(&gauge), "its session is older than its revocation");
    let late = act("credential.renew", serde_json::json!({}));
    let refused = hub.act(&gauge, late.clone()).await;
    assert!(matches!(refused, Err(HubError::Unauthenticated(_))), "{refused:?}");
    assert!(matches!(hub.approve(&gauge, "x").await, Err(HubError::Unauthenticated(_))));
    hub.stop().await;
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

/// Numbers below a bound, the same for the same seed.
fn numbers(mut seed: u64) -> impl FnMut(u64) -> u64 {
    move |below| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    }
}

/// What a hub holds of an entity, state and history, as text.
async fn picture(hub: &Hub) -> String {
    let mut shown = String::new();
    for n in 0..4 {
        let id = format!("urn:x:{n}");
        let held = hub.store.entity(&id);
        let state = held.as_ref().map(|held| (held.deleted.is_some(), held.entity.clone()));
        shown += &format!("{state:?}\n");
        let query = crate::HistoryQuery {
            filter: Filter { ids: vec![id], ..Filter::default() },
            ..crate::HistoryQuery::default()
        };
        if let Ok(answer) = hub.read_history(&session(hub, ""), &query, true).await {
            shown += &format!("{:?}\n", answer.entities.first().map(|(_, attributes)| attributes));
        }
    }
    shown
}

/// Bodies of writes to four entities: mostly readings, early and late, and now and then something
/// that makes of the next reading more than a step.
fn body(random: &mut impl FnMut(u64) -> u64) -> String {
    let n = random(4);
    let value = random(1_000) as f64 / 10.0;
    let at = format!("2026-01-01T10:{:02}:00Z", random(60));
    let level = match random(12) {
        0 => format!(r#"{{"value":{value}}}"#),
        1 => format!(r#"{{"value":{value},"unitCode":"MTR","observedAt":"{at}"}}"#),
        2 => r#"{"value":"broken"}"#.to_owned(),
        3 => format!(r#"{{"value":{value},"observedAt":"{at}","accuracy":{{"value":1}}}}"#),
        _ => format!(r#"{{"value":{value},"observedAt":"{at}"}}"#),
    };
    let more = if random(6) == 0 { format!(r#","flow":{value}"#) } else { String::new() };
    format!(r#"[{{"id":"urn:x:{n}","type":"River","level":{level}{more}}}]"#)
}

/// Seals again and again beside readings, in commits they share: no state stays behind its history.
#[tokio::test(flavor = "multi_thread")]
async fn seals_take_nothing_from_the_readings_beside_them() {
    const DEVICES: usize = 12;
    let directory = tempfile::tempdir().unwrap();
    let hub = start_with(&directory, 0, 2).await;
    hub.bootstrap_datasets(vec![dataset("rivers", "River", true)]).await.unwrap();
    let token = hub.bootstrap_principals(vec![device()]).await.unwrap().remove(0);
    let last_minute = 59;
    let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let sealing = {
        let (hub, done) = (hub.clone(), done.clone());
        tokio::task::spawn_blocking(move || {
            while !done.load(std::sync::atomic::Ordering::Acquire) {
                hub.tidy();
            }
        })
    };
    let mut writers = tokio::task::JoinSet::new();
    for device in 0..DEVICES {
        let (hub, token) = (hub.clone(), token.clone());
        writers.spawn(async move {
            let gauge = session(&hub, &token);
            for minute in 0..=last_minute {
                let level = device * 100 + minute;
                let body = format!(
                    r#"[{{"id":"urn:x:{device}","type":"River","level":{{"type":"Property","value":{level},"observedAt":"2026-01-01T10:{minute:02}:00Z"}}}}]"#
                );
                let readings = ngsild::parse_readings(body.as_bytes()).unwrap();
                if hub.write_readings(&gauge, None, &readings).await.unwrap().is_none() {
                    let value = &parse_json(body.as_bytes()).unwrap();
                    let context = Context::core();
                    let entity = parse_entity(&value.items()[0], &context, Form::Full).unwrap();
                    hub.write(&gauge, vec![Change::Upsert(entity)]).await.unwrap();
                }
            }
        });
    }
    while let Some(ended) = writers.join_next().await {
        ended.unwrap();
    }
    done.store(true, std::sync::atomic::Ordering::Release);
    sealing.await.unwrap();
    let levels = |hub: &Hub| -> Vec<Option<f64>> {
        let level = |device: usize| {
            let held = hub.store.entity(&format!("urn:x:{device}"))?;
            held.entity.attribute("level")?.default_instance()?.value().as_number()
        };
        (0..DEVICES).map(level).collect()
    };
    let last: Vec<_> = (0..DEVICES).map(|n| Some((n * 100 + last_minute) as f64)).collect();
    assert_eq!(levels(&hub), last);
    hub.stop().await;
    let vkey = journal::VerifyingKey::parse(&hub.vkey()).unwrap();
    drop(hub);
    let hub = start(&directory, 0).await;
    assert_eq!(levels(&hub), last, "after a restart");
    hub.stop().await;
    assert_eq!(crate::verify(&hub.store, &vkey).unwrap().findings, []);
}

#[tokio::test]
async fn readings_the_short_way_are_what_they_are_the_long_way() {
    let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let mut hubs = Vec::new();
    for directory in &directories {
        let hub = start(directory, 0).await;
        let mut rivers = dataset("rivers", "River", true);
        rivers.attributes[0].kind = model::ValueKind::Any;
        hub.bootstrap_datasets(vec![rivers]).await.unwrap();
        let token = hub.bootstrap_principals(vec![device()]).await.unwrap().remove(0);
        hubs.push((hub, token));
    }
    let mut random = numbers(0x2545_f491_4f6c_dd1du64);
    let mut short = 0;
    for round in 0..120 {
        // Several at once, so that they share a commit.
        let bodies: Vec<(String, bool)> =
            (0..1 + random(8)).map(|_| (body(&mut random), random(25) == 0)).collect();
        for (way, (hub, token)) in hubs.iter().enumerate() {
            let gauge = &session(hub, token);
            let own = &hub.own_session();
            let writes = bodies.iter().map(|(body, deletes)| async move {
                if *deletes {
                    let id = "urn:x:0".to_owned();
                    hub.write(own, vec![Change::Delete { id }]).await.unwrap();
                    return false;
                }
                let readings = ngsild::parse_readings(body.as_bytes());
                if let (1, Some(readings)) = (way, &readings)
                    && let Some(report) = hub.write_readings(gauge, None, readings).await.unwrap()
                {
                    assert!(matches!(report.results[0], ItemResult::Done(_)));
                    return true;
                }
                let value = &parse_json(body.as_bytes()).unwrap();
                let entity = parse_entity(&value.items()[0], &Context::core(), Form::Full).unwrap();
                hub.write(gauge, vec![Change::Upsert(entity)]).await.unwrap();
                false
            });
            // One after the other as to the queue, together as to the commit.
            let mut writes: Vec<_> = writes.map(Box::pin).collect();
            let mut done = vec![None; writes.len()];
            std::future::poll_fn(|context| {
                for (write, done) in writes.iter_mut().zip(&mut done) {
                    if done.is_none()
                        && let std::task::Poll::Ready(ended) = write.as_mut().poll(context)
                    {
                        *done = Some(ended);
                    }
                }
                if done.iter().all(Option::is_some) {
                    std::task::Poll::Ready(())
                } else {
                    std::task::Poll::Pending
                }
            })
            .await;
            short += done.iter().filter(|done| **done == Some(true)).count();
        }
        let (long, short) = (picture(&hubs[0].0).await, picture(&hubs[1].0).await);
        for (long, short) in long.lines().zip(short.lines()) {
            assert!(long == short, "round {round}: {bodies:?}\n{long:.900}\n{short:.900}");
        }
    }
    assert!(short > 150, "the short way was hardly taken: {short}");
    let mut after = Vec::new();
    for ((hub, _), directory) in hubs.into_iter().zip(&directories) {
        hub.stop().await;
        let vkey = journal::VerifyingKey::parse(&hub.vkey()).unwrap();
        assert_eq!(crate::verify(&hub.store, &vkey).unwrap().findings, []);
        drop(hub);
        let hub = start(directory, 0).await;
        after.push(picture(&hub).await);
        hub.stop().await;
    }
    assert!(after[0] == after[1], "after a restart");
}

fn copy_all(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_all(&path, &target);
        } else {
            let _ = std::fs::copy(&path, &target).unwrap();
        }
    }
}

fn files_under(directory: &std::path::Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files_under(&path, found) } else { found.push(path) }
    }
}

/// Everything a store holds, as text.
fn contents(store: &store::Store) -> String {
    let mut shown = format!("{} records\n", store.log_size());
    let now = store.now();
    for held in now.of_types(None, 0).filter_map(|number| now.peek(number)) {
        shown += &format!("{:?} {:?}\n", held.deleted, held.entity);
        for series in held.series.iter() {
            let points = store.points(series, Time::MIN, Time::MAX, None);
            shown += &format!("{points:?}\n");
        }
    }
    for kind in 0..20 {
        shown += &format!("{:?}\n", store.documents(kind));
    }
    shown
}

/// Does one thing to a file; says what.
fn damage(path: &std::path::Path, random: &mut impl FnMut(u64) -> u64) -> String {
    let mut bytes = std::fs::read(path).unwrap();
    let at = random(bytes.len().max(1) as u64) as usize;
    let what = match random(6) {
        5 => {
            std::fs::remove_file(path).unwrap();
            return format!("{}: gone", path.display());
        }
        0 => {
            bytes.truncate(at);
            format!("cut at {at}")
        }
        1 => {
            let end = bytes.len().min(at + 4_096);
            bytes[at..end].fill(0);
            format!("zeros from {at} to {end}")
        }
        _ if bytes.is_empty() => "as it was".to_owned(),
        _ => {
            let bit = random(8);
            bytes[at] ^= 1 << bit;
            format!("bit {bit} of byte {at} flipped")
        }
    };
    std::fs::write(path, bytes).unwrap();
    format!("{}: {what}", path.display())
}

fn damage_runs() -> u64 {
    std::env::var("TANGGUL_DAMAGE_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(80)
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_at_rest_never_hides_a_loss() {
    let directory = tempfile::tempdir().unwrap();
    let (hub, token) = city(&directory).await;
    let gauge = session(&hub, &token);
    for minute in 0..40 {
        for of_type in ["River", "Meter"] {
            hub.write(&gauge, vec![reading(of_type, f64::from(minute), minute)]).await.unwrap();
        }
    }
    let sealing = hub.clone();
    tokio::task::spawn_blocking(move || sealing.tidy()).await.unwrap();
    hub.write(&gauge, vec![reading("River", 77.0, 50)]).await.unwrap();
    hub.stop().await;
    let vkey = journal::VerifyingKey::parse(&hub.vkey()).unwrap();
    drop(hub);
    // Some of it in the engine's tables, the rest in its journal.
    let options = store::Options { min_free_bytes: 0, ..store::Options::default() };
    let open = |root: &std::path::Path| {
        store::Store::open(Files::new(&root.join("data"), None), options.clone())
    };
    let whole = contents(&open(directory.path()).unwrap());
    let runs = damage_runs();
    let mut tables = Vec::new();
    files_under(&directory.path().join("data/store"), &mut tables);
    tables.retain(|path| path.parent().is_some_and(|parent| parent.ends_with("tables")));
    assert!(!tables.is_empty(), "nothing lies in the engine's tables");
    let mut random = numbers(0x9e37_79b9_7f4a_7c15u64);
    let (mut refused, mut named, mut harmless) = (0, 0, 0);
    for run in 0..runs {
        let copy = tempfile::tempdir().unwrap();
        copy_all(directory.path(), copy.path());
        let mut files = Vec::new();
        files_under(copy.path(), &mut files);
        files.retain(|path| !path.ends_with("ring"));
        // The engine's journal above all.
        let journals: Vec<_> = files
            .iter()
            .filter(|path| path.extension().is_some_and(|e| e == "jnl"))
            .cloned()
            .collect();
        let among = if random(2) == 0 && !journals.is_empty() { &journals } else { &files };
        let file = &among[random(among.len() as u64) as usize];
        let what = damage(file, &mut random);
        match open(copy.path()) {
            Err(error) => {
                assert!(error.to_string().len() > 10, "run {run}, {what}: {error}");
                refused += 1;
            }
            Ok(store) => {
                let findings = crate::verify(&store, &vkey).map(|report| report.findings);
                match findings {
                    Ok(findings) if findings.is_empty() => {
                        assert!(contents(&store) == whole, "run {run}, {what}: a loss is hidden");
                        harmless += 1;
                    }
                    // Of the engine's journal no loss gets as far as that.
                    _ if journals.contains(file) => panic!("run {run}, {what}: opened short"),
                    _ => named += 1,
                }
            }
        }
    }
    println!("{refused} refused, {named} named by verify, {harmless} without harm");
    assert!(refused > 0 && refused + named > runs / 4, "{refused} {named} {harmless}");
}

/// A river with numbers, texts, a place or none of them, of which a part is masked or hidden.
fn river(n: u64, random: &mut impl FnMut(u64) -> u64) -> String {
    let mut members = String::new();
    let value = |random: &mut dyn FnMut(u64) -> u64| match random(6) {
        0 => r#""low""#.to_owned(),
        1 => format!("[{},{}]", random(9), random(9)),
        _ => random(20).to_string(),
    };
    for name in ["level", "flow", "depth", "hidden"] {
        members += &match random(8) {
            0 => String::new(),
            1 => format!(
                r#","{name}":[{{"value":{}}},{{"value":{},"datasetId":"urn:d:1"}}]"#,
                value(random),
                value(random)
            ),
            _ => format!(r#","{name}":{{"value":{}}}"#, value(random)),
        };
    }
    if random(4) > 0 {
        let (lon, lat) = (random(20) as f64 / 10.0, random(20) as f64 / 10.0);
        members += &format!(
            r#","location":{{"type":"GeoProperty","value":{{"type":"Point","coordinates":[{lon},{lat}]}}}}"#
        );
    }
    format!(r#"{{"id":"urn:x:{n}","type":"River"{members}}}"#)
}

/// Of two entities, which comes first.
fn in_order(keys: &[ngsild::OrderKey], a: &Entity, b: &Entity) -> std::cmp::Ordering {
    let by = keys.iter().map(|key| match (key.value(a), key.value(b)) {
        (Some(a), Some(b)) if key.descending => b.total_order(&a),
        (Some(a), Some(b)) => a.total_order(&b),
        (a, b) => b.is_some().cmp(&a.is_some()),
    });
    by.fold(std::cmp::Ordering::Equal, std::cmp::Ordering::then)
}

#[tokio::test]
async fn columns_answer_what_entities_would() {
    let directory = tempfile::tempdir().unwrap();
    let hub = start(&directory, 0).await;
    let mut rivers = dataset("rivers", "River", false);
    let attribute = |name: &str, sensitivity: &str| {
        serde_json::from_value(serde_json::json!({
            "name": name, "kind": "any", "sensitivity": sensitivity,
            "withheld": {"coarsen": {"step": 5.0}},
        }))
        .unwrap()
    };
    rivers.attributes = vec![
        attribute("level", "open"),
        attribute("flow", "open"),
        attribute("depth", "internal"),
        attribute("location", "open"),
    ];
    hub.bootstrap_datasets(vec![rivers]).await.unwrap();
    let mut random = numbers(0x9e37_79b9_7f4a_7c15u64);
    let changes = (0..300).map(|n| {
        let json = river(n, &mut random);
        Change::Create(
            parse_entity(&parse_json(json.as_bytes()).unwrap(), &Context::core(), Form::Full)
                .unwrap(),
        )
    });
    hub.write(&hub.own_session(), changes.collect()).await.unwrap();
    let terms = |random: &mut dyn FnMut(u64) -> u64| {
        let name = ["level", "flow", "depth", "hidden", "missing"][random(5) as usize];
        let (a, b) = (random(20), random(20));
        match random(9) {
            0 => name.to_owned(),
            1 => format!("{name}=={a}"),
            2 => format!("{name}!={a}"),
            3 => format!("{name}>{a}"),
            4 => format!("{name}<={a}"),
            5 => format!("{name}=={a}..{b}"),
            6 => format!("{name}==\"low\",{b}"),
            7 => format!("{name}~=\"^l\""),
            _ => format!("{name}!~=\"^l\""),
        }
    };
    let sessions = [session(&hub, ""), hub.own_session()];
    let mut found = 0;
    for round in 0..600 {
        let q = match random(4) {
            0 => None,
            1 => Some(terms(&mut random)),
            2 => Some(format!("{};{}", terms(&mut random), terms(&mut random))),
            _ => Some(format!(
                "({}|{});{}",
                terms(&mut random),
                terms(&mut random),
                terms(&mut random)
            )),
        };
        let georel =
            ["near;maxDistance==80000", "near;minDistance==90000", "within", "disjoint", "equals"];
        let shapes = [("Point", "[1,1]"), ("Polygon", "[[[0,0],[1.5,0],[1.5,1.5],[0,1.5],[0,0]]]")];
        let (shape, coordinates) = shapes[random(2) as usize];
        let geo = (random(3) == 0).then(|| {
            let georel = georel[random(5) as usize];
            ngsild::GeoQuery::parse(georel, shape, coordinates, model::Name::new("location"))
                .unwrap()
        });
        let filter = Filter {
            q: q.as_deref().map(|q| ngsild::parse_q(q, &Context::core()).unwrap()),
            geo,
            types: (random(2) == 0).then(|| TypeSelection(vec![vec![model::Name::new("River")]])),
            attributes: (random(5) == 0).then(|| model::Name::new("depth")).into_iter().collect(),
            ..Filter::default()
        };
        let key = |random: &mut dyn FnMut(u64) -> u64| ngsild::OrderKey {
            attribute: model::Name::new(
                ["level", "depth", "hidden", "id", "location"][random(5) as usize],
            ),
            parts: Vec::new(),
            meta: None,
            descending: random(2) == 0,
        };
        let order: Vec<_> =
            (0..[0, 0, 1, 1, 2][random(5) as usize]).map(|_| key(&mut random)).collect();
        let query = Query {
            filter,
            order,
            offset: random(30) as usize,
            limit: Some(random(40) as usize),
            count: random(2) == 0,
        };
        for session in &sessions {
            let answer = hub.read(session, &query).await.unwrap();
            let mut all = Vec::new();
            let mut lenses = crate::lenses::Lenses::new(&hub, session);
            let now = hub.store.now();
            for held in now.of_types(None, 0).filter_map(|number| now.peek(number)) {
                all.extend(lenses.see(&held).filter(|seen| query.filter.matches(seen)));
            }
            drop(now);
            all.sort_by(|a, b| in_order(&query.order, a, b));
            let page: Vec<_> = all.iter().skip(query.offset).take(query.limit.unwrap()).collect();
            let page: Vec<_> = page.iter().map(|seen| &seen.id).collect();
            let answered: Vec<_> = answer.entities.iter().map(|seen| &seen.id).collect();
            let more = all.len() > query.offset + query.limit.unwrap();
            assert!(answered == page, "round {round}: {q:?} {query:?}\n{answered:?}\n{page:?}");
            assert_eq!(answer.more, more, "round {round}: {q:?} {query:?}");
            assert_eq!(answer.count, query.count.then_some(all.len()), "round {round}: {q:?}");
            found += page.len();
        }
    }
    assert!(found > 2_000, "hardly anything was found: {found}");
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn short_runs_are_sealed_together_or_written_anew_in_parts_that_verify() {
    let directory = tempfile::tempdir().unwrap();
    let hub = start(&directory, 0).await;
    let mut people = dataset("meters", "Meter", false);
    people.about_people = true;
    hub.bootstrap_datasets(vec![dataset("rivers", "River", true), people]).await.unwrap();
    let token = hub.bootstrap_principals(vec![device()]).await.unwrap().remove(0);
    let gauge = session(&hub, &token);
    // In more commits than are kept as they came.
    for minute in 0..50 {
        for of_type in ["River", "Meter"] {
            let changes = vec![reading(of_type, f64::from(minute), minute)];
            hub.write(&gauge, changes).await.unwrap();
        }
    }
    let shown = picture_of(&hub).await;
    let sealing = hub.clone();
    tokio::task::spawn_blocking(move || crate::upkeep::seal_all(&sealing)).await.unwrap();
    hub.stop().await;
    let vkey = journal::VerifyingKey::parse(&hub.vkey()).unwrap();
    let report = crate::verify(&hub.store, &vkey).unwrap();
    assert_eq!(report.findings, []);
    // Fifty points about people in parts of seven; those of the river in a segment.
    assert_eq!((report.blobs, report.manifests), (8, 1));
    assert_eq!(hub.store.usage().open_points, 50);
    drop(hub);
    let hub = start(&directory, 0).await;
    assert_eq!(picture_of(&hub).await, shown);
    hub.stop().await;
}

/// The history of the one river.
async fn picture_of(hub: &Hub) -> String {
    let query = crate::HistoryQuery {
        filter: Filter { ids: vec!["urn:x:River".into()], ..Filter::default() },
        ..crate::HistoryQuery::default()
    };
    let answer = hub.read_history(&session(hub, ""), &query, true).await.unwrap();
    format!("{:?}", answer.entities[0].1)
}

#[tokio::test(flavor = "multi_thread")]
async fn sums_are_those_of_the_points() {
    const RIVERS: u64 = 100;
    let directory = tempfile::tempdir().unwrap();
    let hub = start(&directory, 0).await;
    hub.bootstrap_datasets(vec![dataset("rivers", "River", false)]).await.unwrap();
    let mut random = numbers(0x2545_f491_4f6c_dd1du64);
    for round in 0..60 {
        if round == 30 || round == 45 {
            let sealing = hub.clone();
            tokio::task::spawn_blocking(move || crate::upkeep::seal_all(&sealing)).await.unwrap();
        }
        // Late, early and again, sealed and open, of two instances.
        let changes = (0..RIVERS).map(|river| {
            let (minute, second, value) = (random(240), random(60), random(1_000) as f64 / 8.0);
            let of = if random(4) == 0 { r#","datasetId":"urn:d:1""# } else { "" };
            let json = format!(
                r#"{{"id":"urn:x:{river:03}","type":"River","level":{{"value":{value}{of},"observedAt":"2026-01-01T{:02}:{:02}:{second:02}Z"}}}}"#,
                minute / 60, minute % 60
            );
            let json = parse_json(json.as_bytes()).unwrap();
            Change::Upsert(parse_entity(&json, &Context::core(), Form::Full).unwrap())
        });
        hub.write(&hub.own_session(), changes.collect()).await.unwrap();
    }
    let types = TypeSelection(vec![vec![model::Name::new("River")]]);
    let mut query = crate::HistoryQuery {
        filter: Filter { types: Some(types), ..Filter::default() },
        limit: Some(RIVERS as usize),
        time: ngsild::TemporalQuery {
            offset: 0,
            from: Time::parse("2026-01-01T00:10:00Z").unwrap(),
            until: Time::parse("2026-01-01T03:30:00Z").unwrap(),
            last: None,
            origin: Some(Time::parse("2026-01-01T00:00:00Z").unwrap()),
        },
        ..crate::HistoryQuery::default()
    };
    let session = hub.own_session();
    let points = hub.read_history(&session, &query, false).await.unwrap();
    let methods = "totalCount,distinctCount,sum,avg,min,max,stddev,sumsq";
    let aggregation = ngsild::Aggregation::parse(methods, Some("PT1H")).unwrap();
    query.aggregation = Some(aggregation);
    let sums = hub.read_history(&session, &query, false).await.unwrap();
    assert_eq!((points.entities.len(), sums.entities.len()), (100, 100));
    let (mut compared, hour) = (0, 3_600_000_000);
    for ((of, points), (entity, sums)) in points.entities.iter().zip(&sums.entities) {
        assert_eq!(of.id, entity.id);
        let [(_, crate::SeriesAnswer::Instances(points))] = points.as_slice() else { panic!() };
        let [(_, crate::SeriesAnswer::Aggregated(sums))] = sums.as_slice() else { panic!() };
        let mut hours: std::collections::BTreeMap<i64, Vec<f64>> = Default::default();
        for point in points {
            let at = point.observed_at.unwrap().0.div_euclid(hour) * hour;
            hours.entry(at).or_default().push(point.value().as_number().unwrap());
        }
        for (method, periods) in sums {
            assert_eq!(periods.len(), hours.len(), "{}", of.id);
            for ((value, start, end), (hour_starts, values)) in periods.iter().zip(&hours) {
                assert_eq!((start.0, end.0), (*hour_starts, hour_starts + hour));
                let count = values.len() as f64;
                let mean = values.iter().sum::<f64>() / count;
                let distinct: std::collections::HashSet<u64> =
                    values.iter().map(|value| value.to_bits()).collect();
                let expected = match method.word() {
                    "totalCount" => count,
                    "distinctCount" => distinct.len() as f64,
                    "sum" => mean * count,
                    "avg" => mean,
                    "min" => values.iter().copied().fold(f64::MAX, f64::min),
                    "max" => values.iter().copied().fold(f64::MIN, f64::max),
                    "sumsq" => values.iter().map(|value| value * value).sum(),
                    _ => {
                        let squares = values.iter().map(|value| (value - mean).powi(2));
                        (squares.sum::<f64>() / count).sqrt()
                    }
                };
                let value = value.as_number().unwrap();
                let what = method.word();
                assert!((value - expected).abs() < 1e-6, "{} {what} {value} {expected}", of.id);
                compared += 1;
            }
        }
    }
    assert!(compared > 3_000, "{compared}");
    hub.stop().await;
}
