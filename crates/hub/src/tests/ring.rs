//! While the disk is full: what goes on through the ring, what is told, and what is recorded.

use super::{city, dataset, level, now, reading, session, start, start_at};
use crate::job::{Job, Planned, WriteJob};
use crate::{Hub, HubError, ItemResult};
use model::{Change, Refusal, Session};
use ngsild::{Context, Filter, Form, parse_entity, parse_json};
use std::sync::Arc;

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

/// Whoever is told that nothing was done has done nothing, though a neighbour went on.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_ring_did_not_take_is_not_shown() {
    let directory = tempfile::tempdir().unwrap();
    let (hub, token) = city(&directory).await;
    let gauge = session(&hub, &token);
    hub.write(&gauge, vec![reading("River", 1.0, 0)]).await.unwrap();
    hub.stop().await;
    drop(hub);
    let hub = start(&directory, u64::MAX).await;
    let (own, gauge) = (hub.own_session(), session(&hub, &token));
    for round in 1..200 {
        let Change::Upsert(refused) = reading("River", -1.0, 59) else { unreachable!() };
        let refused = vec![Change::Merge(refused)];
        let minute = round % 50;
        let taken = vec![reading("River", f64::from(round), minute)];
        let (refused, taken) = tokio::join!(hub.write(&own, refused), hub.write(&gauge, taken));
        assert!(refused.is_err());
        taken.unwrap();
        assert!(level(&hub, "River").await.unwrap() > 0.0, "round {round}");
    }
    hub.stop().await;
}

fn dated(level: f64) -> Change {
    let json = format!(r#"{{"id":"urn:x:River","type":"River","level":{{"value":{level}}}}}"#);
    let value = parse_json(json.as_bytes()).unwrap();
    Change::Upsert(parse_entity(&value, &Context::core(), Form::Full).unwrap())
}

/// What the ring took is as old as it is when it is brought into the store.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_in_the_ring_takes_nothing_from_what_came_after_it() {
    static SECOND: std::sync::atomic::AtomicI64 = std::sync::atomic::AtomicI64::new(0);
    let clock = || now().plus_seconds(SECOND.load(std::sync::atomic::Ordering::SeqCst));
    let at = |second| SECOND.store(second, std::sync::atomic::Ordering::SeqCst);
    let directory = tempfile::tempdir().unwrap();
    let (hub, token) = city(&directory).await;
    hub.stop().await;
    drop(hub);
    let hub = start_at(&directory, 0, 40, clock, 300).await;
    let gauge = session(&hub, &token);
    hub.write(&gauge, vec![dated(1.0)]).await.unwrap();
    let ring = |level| {
        let Change::Upsert(entity) = dated(level) else { unreachable!() };
        let home = hub.store.entity("urn:x:River").unwrap().dataset;
        let urgent = vec![crate::ring::Urgent { home, entity }];
        assert!(hub.ring_write(gauge.principal.number, urgent, Vec::new()).is_some());
    };
    at(10);
    ring(5.0);
    at(20);
    ring(5.5);
    at(30);
    hub.write(&gauge, vec![dated(6.0)]).await.unwrap();
    at(40);
    let brought = hub.clone();
    tokio::task::spawn_blocking(move || brought.reconcile_ring()).await.unwrap();
    let history = |hub: Arc<Hub>| async move {
        let query = crate::HistoryQuery {
            filter: Filter { ids: vec!["urn:x:River".into()], ..Filter::default() },
            ..crate::HistoryQuery::default()
        };
        let answer = hub.read_history(&session(&hub, ""), &query, true).await.unwrap();
        let crate::SeriesAnswer::Instances(points) = &answer.entities[0].1[0].1 else { panic!() };
        points
            .iter()
            .map(|p| (p.modified.0 - now().0) / 1_000_000)
            .zip(points.iter().map(|p| p.value().as_number().unwrap()))
            .collect::<Vec<_>>()
    };
    let whole = [(0, 1.0), (10, 5.0), (20, 5.5), (30, 6.0)];
    assert_eq!(level(&hub, "River").await, Some(6.0), "what came after it stays");
    assert_eq!(history(hub.clone()).await, whole);
    // Nor does it in one commit with what comes the short way just then.
    let before = level(&hub, "River").await;
    let mut expected = whole.to_vec();
    for round in 0..3 {
        let second = 51 + 2 * round;
        at(second - 1);
        ring(7.0 + round as f64);
        expected.push((second - 1, 7.0 + round as f64));
        at(second);
        let live = 100.0 + round as f64;
        let body = format!(r#"[{{"id":"urn:x:River","type":"River","level":{{"value":{live}}}}}]"#);
        let (hub, gauge, brought) = (hub.clone(), gauge.clone(), hub.clone());
        let written = tokio::spawn(async move {
            let readings = ngsild::parse_readings(body.as_bytes()).unwrap();
            hub.write_readings(&gauge, None, &readings).await.unwrap().unwrap();
            hub
        });
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        tokio::task::spawn_blocking(move || brought.reconcile_ring()).await.unwrap();
        let hub = written.await.unwrap();
        assert_eq!(level(&hub, "River").await, Some(live), "round {round}, after {before:?}");
        expected.push((second, live));
    }
    assert_eq!(history(hub.clone()).await, expected);
    let whole = expected;
    let modified = hub.store.entity("urn:x:River").unwrap().entity.modified;
    assert_eq!((modified.0 - now().0) / 1_000_000, 55, "it does not go back");
    let records = hub.store.log_size();
    let again = hub.clone();
    tokio::task::spawn_blocking(move || again.reconcile_ring()).await.unwrap();
    assert_eq!(hub.store.log_size(), records, "the ring is empty");
    hub.stop().await;
    drop(hub);
    let hub = start_at(&directory, 0, 40, clock, 300).await;
    assert_eq!(level(&hub, "River").await, Some(102.0));
    assert_eq!(history(hub.clone()).await, whole);
    hub.stop().await;
    let vkey = journal::VerifyingKey::parse(&hub.vkey()).unwrap();
    assert_eq!(crate::verify(&hub.store, &vkey).unwrap().findings, []);
}

/// What the ring holds of a dataset whose root is closed when the disk has room again waits for that.
#[tokio::test(flavor = "multi_thread")]
async fn the_ring_waits_for_the_sensitive_root() {
    let directory = tempfile::tempdir().unwrap();
    let hub = start(&directory, 0).await;
    let mut rivers = dataset("rivers", "River", true);
    rivers.attributes[0].sensitivity = model::Sensitivity::Confidential;
    let mut others = dataset("others", "Other", false);
    others.catch_all = true;
    hub.bootstrap_datasets(vec![rivers, others]).await.unwrap();
    let own = hub.own_session();
    hub.write(&own, vec![dated(1.0)]).await.unwrap();
    // As readings come the short way: without a type.
    let Change::Upsert(mut entity) = dated(5.0) else { unreachable!() };
    entity.types.clear();
    let home = hub.store.entity("urn:x:River").unwrap().dataset;
    let urgent = vec![crate::ring::Urgent { home, entity }];
    assert!(hub.ring_write(1, urgent, Vec::new()).is_some());
    hub.stop().await;
    drop(hub);
    let (key, away) =
        (directory.path().join("data.keys/sensitive.key"), directory.path().join("away"));
    std::fs::rename(&key, &away).unwrap();
    let hub = start(&directory, 0).await;
    assert_eq!(hub.ring.lock().count(), 1, "it waits");
    hub.write(&hub.own_session(), vec![reading("Other", 1.0, 0)]).await.unwrap();
    hub.stop().await;
    drop(hub);
    std::fs::rename(&away, &key).unwrap();
    let hub = start(&directory, 0).await;
    assert_eq!(hub.ring.lock().count(), 0);
    let held = hub.store.entity("urn:x:River").unwrap();
    let level = held.entity.attribute("level").unwrap().default_instance().unwrap();
    assert_eq!(level.value().as_number(), Some(5.0));
    hub.stop().await;
    let vkey = journal::VerifyingKey::parse(&hub.vkey()).unwrap();
    assert_eq!(crate::verify(&hub.store, &vkey).unwrap().findings, []);
}

/// With a full disk nothing that has a record of its own is read without it, and what could not be
/// recorded then is recorded later.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_confidential_is_read_unrecorded() {
    let directory = tempfile::tempdir().unwrap();
    let (hub, _) = city(&directory).await;
    let own = hub.own_session();
    let level = model::Sensitivity::Confidential;
    let look = |hub: Arc<Hub>, own: Session, what: &'static str| async move {
        let detail = crate::recorder::map([("look", model::Value::from(what))]);
        hub.record_read(&own, "pipes", level, Vec::new(), detail).await
    };
    hub.recorder.keep(Vec::new(), 0);
    assert!(look(hub.clone(), own.clone(), "waits").await.unwrap().is_some(), "it has its record");
    assert!(look(hub.clone(), own.clone(), "soon").await.unwrap().is_none(), "caught up");
    let kept = crate::recorder::record(
        &own,
        model::Verb::Read,
        "pipes",
        hub.now(),
        crate::recorder::map([("look", model::Value::from("kept"))]),
    );
    hub.recorder.keep(vec![kept.clone(), kept], 1);
    hub.stop().await;
    let records: String = (0..hub.store.log_size())
        .filter_map(|index| hub.store.record(index).ok().flatten())
        .map(|(_, body)| String::from_utf8_lossy(&body).into_owned())
        .collect();
    for look in ["waits", "soon", "kept"] {
        assert_eq!(records.matches(&format!("\"{look}\"")).count(), 1, "{look}");
    }
    drop(hub);
    // Full: the first look is not known to fail yet, and is kept; the next is refused.
    let hub = start(&directory, u64::MAX).await;
    let own = hub.own_session();
    look(hub.clone(), own.clone(), "first").await.unwrap();
    let refused = async {
        while look(hub.clone(), own.clone(), "next").await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), refused).await.unwrap();
    hub.stop().await;
}

/// A ring that was damaged while the hub was off gives back what is whole, and says in its record how
/// much is not there.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_ring_says_what_it_lost() {
    use std::os::unix::fs::FileExt;
    const KEPT: u32 = 20;
    let directory = tempfile::tempdir().unwrap();
    let (hub, token) = city(&directory).await;
    hub.stop().await;
    drop(hub);
    let hub = start(&directory, u64::MAX).await;
    let gauge = session(&hub, &token);
    for minute in 1..=KEPT {
        let kept = hub.write(&gauge, vec![reading("River", f64::from(minute), minute)]).await;
        assert!(matches!(kept.unwrap().results[0], ItemResult::Done(_)));
    }
    hub.stop().await;
    drop(hub);
    let ring = std::fs::read(directory.path().join("data/ring")).unwrap();
    let end = ring.iter().rposition(|byte| *byte != 0).unwrap() as u64 + 1;
    let mut random = super::numbers(0x9e37_79b9_7f4a_7c15);
    let mut lossy = 0;
    for run in 0..super::damage_runs() / 2 {
        let copy = tempfile::tempdir().unwrap();
        super::copy_all(directory.path(), copy.path());
        let file = std::fs::OpenOptions::new().write(true).open(copy.path().join("data/ring"));
        let (file, at) = (file.unwrap(), random(end));
        match run % 4 {
            0 => file.set_len(at).unwrap(),
            1 => file.write_all_at(&vec![0; random(end - at) as usize + 1], at).unwrap(),
            // A length, the first byte of all among them, or any byte.
            2 => file.write_all_at(&[ring[3] ^ 1 << random(8)], 3).unwrap(),
            _ => file.write_all_at(&[ring[at as usize] ^ 1 << random(8)], at).unwrap(),
        }
        drop(file);
        let hub = start(&copy, 0).await;
        let number = hub.store.entity("urn:x:River").map_or(0, |held| {
            let series = held.series.iter();
            series
                .map(|s| {
                    hub.store.points(s, model::Time::MIN, model::Time::MAX, None).unwrap().len()
                })
                .sum()
        });
        let lost = KEPT as usize - number;
        let said: f64 = (0..hub.store.log_size())
            .filter_map(|index| hub.store.record(index).unwrap())
            .filter_map(|(_, body)| {
                let record: model::Record = crate::kept::from_json(&body).unwrap();
                let number = |name: &str| record.detail.get(name).and_then(model::Value::as_number);
                Some(number("damaged")? + number("missing")?)
            })
            .sum();
        assert!(said >= lost as f64, "run {run} at {at}: {lost} lost, {said} said");
        assert!(
            lost > 0 || said == 0.0 || number == KEPT as usize,
            "run {run} at {at}: {said} said"
        );
        lossy += u32::from(lost > 0);
        hub.stop().await;
        let vkey = journal::VerifyingKey::parse(&hub.vkey()).unwrap();
        assert_eq!(crate::verify(&hub.store, &vkey).unwrap().findings, [], "run {run}");
    }
    assert!(lossy > 20, "{lossy}");
}

/// What is in the ring was decided for one dataset: whoever takes its id in another one meanwhile does not
/// get it, and the record that goes with it comes home as well.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_the_ring_goes_where_it_was_for_or_to_the_steward() {
    let directory = tempfile::tempdir().unwrap();
    let (hub, token) = city(&directory).await;
    let gauge = session(&hub, &token);
    hub.write(&gauge, vec![reading("River", 1.0, 0)]).await.unwrap();
    let erased = crate::Act {
        name: "dataset.shred".into(),
        body: crate::recorder::map([("dataset", model::Value::from("rivers"))]),
    };
    let Change::Upsert(river) = reading("River", 2.0, 1) else { unreachable!() };
    let rivers = hub.store.entity("urn:x:River").unwrap().dataset;
    let taken = model::Entity { id: "urn:x:taken".into(), ..river.clone() };
    let gone = model::Entity { id: "urn:x:gone".into(), ..river.clone() };
    hub.write(&hub.own_session(), vec![Change::Create(gone.clone())]).await.unwrap();
    let urgent = [river, taken, gone].map(|entity| crate::ring::Urgent { home: rivers, entity });
    let detail = crate::recorder::map([("told", model::Value::from("with it"))]);
    let made = crate::recorder::record(&gauge, model::Verb::Write, "rivers", hub.now(), detail);
    assert!(hub.ring_write(gauge.principal.number, urgent.into(), vec![made]).is_some());
    let Change::Upsert(meter) = reading("Meter", 7.0, 0) else { unreachable!() };
    let meter = Change::Create(model::Entity { id: "urn:x:taken".into(), ..meter });
    let gone = Change::Delete { id: "urn:x:gone".into() };
    hub.write(&hub.own_session(), vec![meter, gone]).await.unwrap();
    let refused = hub.act(&hub.own_session(), erased).await;
    assert!(matches!(refused, Err(HubError::Conflict(_))), "{refused:?}");
    let brought = hub.clone();
    tokio::task::spawn_blocking(move || brought.reconcile_ring()).await.unwrap();
    assert_eq!(hub.ring.lock().count(), 0);
    assert_eq!(level(&hub, "River").await, Some(2.0));
    let held = hub.store.entity("urn:x:taken").unwrap();
    assert_ne!(held.dataset, rivers);
    assert_eq!(held.entity.types, [model::Name::new("Meter")], "it is what it was made as");
    assert_eq!(level(&hub, "Meter").await, Some(7.0));
    assert_eq!(hub.store.count_documents(crate::kinds::QUARANTINE, "rivers/"), 2);
    assert!(hub.store.entity("urn:x:gone").unwrap().deleted.is_some(), "it stays deleted");
    let records = (0..hub.store.log_size()).filter_map(|index| hub.store.record(index).unwrap());
    let told = records.filter(|(_, body)| String::from_utf8_lossy(body).contains("with it"));
    assert_eq!(told.count(), 1);
    let ring = std::fs::read(directory.path().join("data/ring")).unwrap();
    assert!(ring.iter().all(|byte| *byte == 0), "what came home is not kept here as well");
    hub.stop().await;
    let vkey = journal::VerifyingKey::parse(&hub.vkey()).unwrap();
    assert_eq!(crate::verify(&hub.store, &vkey).unwrap().findings, []);
}

/// Between the decision and the commit somebody else may have made what has the id.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_goes_into_no_other_dataset_than_it_was_decided_for() {
    let directory = tempfile::tempdir().unwrap();
    let (hub, token) = city(&directory).await;
    let gauge = session(&hub, &token);
    let at = |of_type: &str, value: f64| {
        let Change::Upsert(entity) = reading(of_type, value, 0) else { unreachable!() };
        model::Entity { id: "urn:x:both".into(), ..entity }
    };
    hub.write(&hub.own_session(), vec![Change::Create(at("Meter", 1.0))]).await.unwrap();
    let snapshot = hub.state.snapshot();
    let (number, rivers) = snapshot.dataset("rivers").unwrap().clone();
    for (change, late) in [
        (Change::Upsert(at("River", 2.0)), true),
        (Change::Put(at("River", 3.0)), false),
        (Change::Delete { id: "urn:x:both".into() }, false),
    ] {
        let planned = vec![Planned { change, number, dataset: rivers.clone(), late }];
        let writer = gauge.principal.number;
        let committed = hub
            .submit(|reply| Job::Write(WriteJob { planned, ..WriteJob::new(writer, reply) }))
            .await
            .unwrap()
            .unwrap();
        let taken = Refusal::Exists("urn:x:both".into());
        assert_eq!(committed.results, [Err(taken)]);
    }
    assert_eq!(level(&hub, "Meter").await, Some(1.0));
    hub.stop().await;
}
