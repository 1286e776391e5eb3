//! What one writer can do to everybody else: by growing what is his, by asking again and again, by being
//! there just when something ends.

use super::{city, dataset, device, now, reading, session, start, start_at, start_with};
use crate::committer;
use crate::job::Job;
use crate::write::Kept;
use crate::{Act, Hub, HubError, HubOptions, ItemResult, NewPrincipal};
use model::{Change, Dataset, Kind, Principal, Refusal, Session, Time};
use ngsild::{Context, Form, parse_entity, parse_json};
use serde_json::{Value, json};
use std::sync::Arc;
use store::Under;

fn upsert(body: &Value) -> Change {
    let value = parse_json(body.to_string().as_bytes()).unwrap();
    Change::Upsert(parse_entity(&value, &Context::core(), Form::Full).unwrap())
}

fn act(name: &str, body: &Value) -> Act {
    Act { name: name.into(), body: parse_json(body.to_string().as_bytes()).unwrap() }
}

/// A city and the token of an app in it.
async fn with_app(directory: &tempfile::TempDir) -> (Arc<Hub>, String) {
    let hub = start(directory, 0).await;
    let datasets = vec![dataset("rivers", "River", true), dataset("meters", "Meter", false)];
    hub.bootstrap_datasets(datasets).await.unwrap();
    let principal = Principal {
        kind: Kind::App,
        login: "app".into(),
        datasets: vec!["rivers".into(), "meters".into()],
        ..Principal::public()
    };
    let app = NewPrincipal { principal, purpose: None, expires: Time::MAX };
    let token = hub.bootstrap_principals(vec![app]).await.unwrap().remove(0);
    (hub, token)
}

/// The same again, with other limits.
async fn under(directory: &tempfile::TempDir, hub: Arc<Hub>, limits: crate::Limits) -> Arc<Hub> {
    let mut options = hub.options.clone();
    hub.stop().await;
    drop(hub);
    options.limits = limits;
    let files = store::Files::new(&directory.path().join("data"), None);
    tokio::task::spawn_blocking(|| Hub::start(files, options)).await.unwrap().unwrap()
}

fn subscription(n: usize, more: &Value) -> model::Value {
    let mut body = json!({"id": format!("urn:ngsi-ld:Subscription:{n}"), "type": "Subscription",
        "entities": [{"type": "Meter"}], "notification": {"endpoint": {"uri": "http://127.0.0.1:9/"}}});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    parse_json(body.to_string().as_bytes()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_dead_receiver_has_its_limits() {
    let directory = tempfile::tempdir().unwrap();
    let (hub, token) = with_app(&directory).await;
    let limits =
        crate::Limits { outbox_bytes: 50_000, outbox_all: 75_000, ..crate::Limits::default() };
    let hub = under(&directory, hub, limits).await;
    let app = session(&hub, &token);
    let courier = courier::Courier::new(vec!["127.0.0.1".into()]).unwrap();
    for n in 0..3 {
        hub.subscribe(&app, subscription(n, &json!({})), model::Value::Null, &courier)
            .await
            .unwrap();
    }
    let meter = |n: usize| {
        let note = format!("{n}{}", "x".repeat(10_000));
        upsert(&json!({"id": "urn:x:1", "type": "Meter", "note": {"value": note}}))
    };
    let told = || {
        let all = hub.store.documents(crate::kinds::OUTBOX).into_iter();
        all.map(|(_, body)| body.len()).sum::<usize>()
    };
    // Again and again, and many in one commit.
    for n in 0..10 {
        assert_eq!(ended(&hub, &app, vec![meter(n)]).await, ["done"]);
        assert!(told() <= 75_000, "{}", told());
    }
    let many = (10..30).map(meter).collect();
    assert!(ended(&hub, &app, many).await.iter().all(|one| one == "done"));
    assert!((20_000..=75_000).contains(&told()), "{}", told());
    assert!(hub.counters().get(crate::Counter::NotificationsLost) > 20);
    // A person's, and those of one who ended his subscription, are told to nobody.
    for n in 0..3 {
        hub.unsubscribe(&app, &format!("urn:ngsi-ld:Subscription:{n}")).await.unwrap();
    }
    assert_eq!(told(), 0);
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_subscriber_has_his_share() {
    let directory = tempfile::tempdir().unwrap();
    let (hub, token) = with_app(&directory).await;
    let limits = crate::Limits {
        subscriptions_each: 2,
        subscription_positions: 8,
        ..crate::Limits::default()
    };
    let hub = under(&directory, hub, limits).await;
    let app = session(&hub, &token);
    let courier = courier::Courier::new(vec!["127.0.0.1".into()]).unwrap();
    let square = json!({"geoQ": {"georel": "within", "geometry": "Polygon",
        "coordinates": [[[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]]]}});
    let subscribe = |n: usize, more: Value| {
        let (hub, app, courier) = (&hub, &app, &courier);
        async move { hub.subscribe(app, subscription(n, &more), model::Value::Null, courier).await }
    };
    subscribe(1, square.clone()).await.unwrap();
    let much = subscribe(2, square).await;
    assert!(
        matches!(much, Err(HubError::Limit { name: "subscription_positions", .. })),
        "{much:?}"
    );
    subscribe(2, json!({})).await.unwrap();
    let many = subscribe(3, json!({})).await;
    assert!(matches!(many, Err(HubError::Limit { name: "subscriptions_each", .. })), "{many:?}");
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_principal_has_his_share() {
    let directory = tempfile::tempdir().unwrap();
    let (hub, token) = with_app(&directory).await;
    let limits = crate::Limits { watches_each: 2, contexts_each: 1, ..crate::Limits::default() };
    let hub = under(&directory, hub, limits).await;
    let app = session(&hub, &token);
    let watch = || hub.watch(&app, ngsild::Filter::default());
    let (one, _two) = (watch().unwrap(), watch().unwrap());
    assert!(matches!(watch().err(), Some(HubError::Limit { name: "watches_each", .. })));
    drop(one);
    assert!(watch().is_ok());
    let body = parse_json(br#"{"@context":{"a":"urn:a"}}"#).unwrap();
    let id = hub.host_context(&app, body.clone()).await.unwrap();
    let more = hub.host_context(&app, body.clone()).await;
    assert!(matches!(more, Err(HubError::Limit { name: "contexts_each", .. })), "{more:?}");
    let shown = String::from_utf8(hub.hosted_context(&id).unwrap()).unwrap();
    assert_eq!(shown, r#"{"@context":{"a":"urn:a"}}"#);
    // Nobody deletes what another hosts, but who governs.
    let other = hub.host_context(&hub.own_session(), body).await.unwrap();
    assert!(matches!(hub.drop_context(&app, &other).await, Err(HubError::Conflict(_))));
    hub.drop_context(&hub.own_session(), &id).await.unwrap();
    hub.stop().await;
}

/// What was asked for is what is agreed to; it ends, can be taken back, and fills nothing.
#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_second_person() {
    let directory = tempfile::tempdir().unwrap();
    let hub = start(&directory, 0).await;
    hub.bootstrap_datasets(vec![dataset("rivers", "River", true)]).await.unwrap();
    let official = |login: &str| NewPrincipal {
        principal: Principal {
            kind: Kind::Official,
            login: login.into(),
            roles: vec![model::Role::Administrator],
            ..Principal::public()
        },
        purpose: None,
        expires: Time::MAX,
    };
    let all = ["one", "two"].map(official).into();
    let tokens = hub.bootstrap_principals(all).await.unwrap();
    let (one, two) = (session(&hub, &tokens[0]), session(&hub, &tokens[1]));
    let put = |retention: u32| {
        let mut rivers = dataset("rivers", "River", true);
        rivers.retention_days = Some(retention);
        act("dataset.put", &json!({"dataset": rivers}))
    };
    let ask = |act: Act| async { hub.act(&one, act).await.unwrap().pending.unwrap() };
    let (first, second) = (ask(put(30)).await, ask(put(60)).await);
    hub.approve(&two, &first).await.unwrap();
    let stale = hub.approve(&two, &second).await;
    assert!(matches!(stale, Err(HubError::Conflict(_))), "{stale:?}");
    assert_eq!(hub.pending(&two).len(), 1);
    hub.withdraw(&one, &second).await.unwrap();
    assert!(hub.pending(&one).is_empty());
    // Who governs nothing sees nothing of it, and a device for a dataset of another needs two.
    ask(put(90)).await;
    let gauge = json!({"login": "gauge", "dataset": "rivers", "streams": ["urn:x:*"]});
    let report = hub.act(&one, act("device.enrol", &gauge)).await.unwrap();
    assert!(report.pending.is_some());
    let nowhere = json!({"login": "early", "dataset": "not-yet", "streams": ["urn:x:*"]});
    let early = hub.act(&one, act("device.enrol", &nowhere)).await;
    assert!(matches!(early, Err(HubError::NotFound(_))), "{early:?}");
    for n in 0..200 {
        let body = json!({"id": format!("p{n}"), "title": "t", "kind": "service"});
        match hub.act(&one, act("purpose.put", &body)).await {
            Ok(_) => assert!(n < 100),
            Err(HubError::Limit { name: "pending", .. }) => return hub.stop().await,
            Err(other) => panic!("{other}"),
        }
    }
    panic!("without end");
}

/// Acts on different things go on side by side, and two on one thing do not.
#[tokio::test(flavor = "multi_thread")]
async fn acts_side_by_side_never_take_the_same_login_number_or_code() {
    const LOGINS: usize = 16;
    let directory = tempfile::tempdir().unwrap();
    let hub = start(&directory, 0).await;
    let rivers = Dataset { department: "water".into(), ..dataset("rivers", "River", true) };
    hub.bootstrap_datasets(vec![rivers]).await.unwrap();
    let principal = Principal {
        kind: Kind::Official,
        login: "steward".into(),
        department: "water".into(),
        roles: vec![model::Role::Steward],
        datasets: vec!["rivers".into()],
        ..Principal::public()
    };
    let steward = NewPrincipal { principal, purpose: None, expires: Time::MAX };
    let token = hub.bootstrap_principals(vec![steward]).await.unwrap().remove(0);
    let steward = session(&hub, &token);
    let all = (0..3 * LOGINS).map(|n| {
        let body = json!({"login": format!("gauge-{}", n % LOGINS), "dataset": "rivers",
            "streams": [format!("urn:x:{n}")]});
        let (hub, steward) = (hub.clone(), steward.clone());
        tokio::spawn(async move { hub.act(&steward, act("device.enrol", &body)).await })
    });
    let (mut codes, mut numbers) = (Vec::new(), std::collections::BTreeSet::new());
    for one in all.collect::<Vec<_>>() {
        match one.await.unwrap() {
            Ok(report) => {
                let of = |key: &str| report.answer.get(key).cloned().unwrap();
                numbers.insert(of("principal").as_number().unwrap() as u64);
                codes.push(of("code").as_text().unwrap().to_owned());
            }
            Err(HubError::Conflict(_)) => {}
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!((codes.len(), numbers.len()), (LOGINS, LOGINS));
    // A code is good once, however many come with it at once.
    let source = crate::Source { zone: model::Zone::City, block: crate::Block::Own, browser: None };
    let redeemed = codes.iter().chain(&codes).map(|code| {
        let (hub, code, source) = (hub.clone(), code.clone(), source.clone());
        tokio::spawn(async move { hub.redeem(&code, None, &source).await.is_ok() })
    });
    let mut good = 0;
    for one in redeemed.collect::<Vec<_>>() {
        good += usize::from(one.await.unwrap());
    }
    assert_eq!(good, LOGINS);
    hub.stop().await;
}

/// Whoever signs in with the old password while another is chosen is not in when that is done.
#[tokio::test(flavor = "multi_thread")]
async fn an_old_password_opens_nothing_once_another_is_chosen() {
    let directory = tempfile::tempdir().unwrap();
    let hub = start(&directory, 0).await;
    let source = crate::Source { zone: model::Zone::City, block: crate::Block::Own, browser: None };
    let code = hub.first_code("one").await.unwrap();
    hub.redeem(&code, Some("the password of before"), &source).await.unwrap();
    let code = hub.sign_in_code("one").await.unwrap();
    let mut signing = Box::pin(hub.sign_in("one", "the password of before", &source));
    std::future::poll_fn(|context| {
        // It knows the old hash now, and computes.
        assert!(signing.as_mut().poll(context).is_pending());
        std::task::Poll::Ready(())
    })
    .await;
    hub.redeem(&code, Some("another password than before"), &source).await.unwrap();
    let signed_in = signing.await;
    assert!(matches!(signed_in, Err(HubError::Unauthenticated(_))), "{signed_in:?}");
    hub.sign_in("one", "another password than before", &source).await.unwrap();
    hub.stop().await;
}

/// What waits to be told is decided again when it is told, and an erased person is told of to nobody.
#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_told_only_as_it_may_be_seen_now() {
    let directory = tempfile::tempdir().unwrap();
    let (hub, token) = with_app(&directory).await;
    let (app, own) = (session(&hub, &token), hub.own_session());
    let courier = Arc::new(courier::Courier::new(vec!["127.0.0.1".into()]).unwrap());
    // It takes connections and never answers, until it does.
    let receiver = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}/", receiver.local_addr().unwrap());
    let body = json!({"notification": {"endpoint": {"uri": uri}}});
    hub.subscribe(&app, subscription(1, &body), model::Value::Null, &courier).await.unwrap();
    assert_eq!(ended(&hub, &app, vec![reading("Meter", 7.0, 0)]).await, ["done"]);
    let waits = || hub.store.count_documents(crate::kinds::OUTBOX, "");
    assert_eq!(waits(), 1);
    // Others are being told, and it waits for its turn.
    let mut turns = Vec::new();
    for _ in 0..courier::AT_ONCE_EACH {
        turns.push(courier.turn(&uri, false).await.unwrap());
    }
    let delivering = tokio::spawn(hub.clone().deliver(courier.clone()));
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let mut meters = dataset("meters", "Meter", false);
    meters.attributes[0].sensitivity = model::Sensitivity::Confidential;
    hub.act(&own, act("dataset.put", &json!({"dataset": meters}))).await.unwrap();
    assert_eq!(waits(), 1);
    drop(turns);
    for _ in 0..200 {
        if waits() == 0 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(waits(), 0, "it is given up");
    let connected = tokio::time::timeout(std::time::Duration::from_millis(100), receiver.accept());
    assert!(connected.await.is_err(), "nothing was sent");
    delivering.abort();
    hub.stop().await;
}

/// How each of the changes ended, as text.
async fn ended(hub: &Hub, session: &Session, changes: Vec<Change>) -> Vec<String> {
    let report = hub.write(session, changes).await.unwrap();
    let text = |result: &ItemResult| match result {
        ItemResult::Done(_) => "done".to_owned(),
        ItemResult::Refused(error) => error.to_string(),
        other => format!("{other:?}"),
    };
    report.results.iter().map(text).collect()
}

/// In however small parts it comes.
#[tokio::test(flavor = "multi_thread")]
async fn an_entity_grows_only_so_far() {
    let directory = tempfile::tempdir().unwrap();
    let (hub, _) = city(&directory).await;
    let own = hub.own_session();
    let river = |more: Value| {
        let mut body = json!({"id": "urn:x:1", "type": "River"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        upsert(&body)
    };
    let instances = |from: usize, count: usize| -> Value {
        let one = |n: usize| json!({"value": n, "datasetId": format!("urn:d:{n}")});
        (from..from + count).map(one).collect()
    };
    let ends = |what: &str, answers: Vec<String>| {
        assert!(answers.iter().rev().skip(1).all(|one| one == "done"), "{answers:?}");
        let last = answers.last().unwrap();
        assert!(last.contains(&format!("would have more than {what}")), "{last}");
    };
    let all = vec![river(json!({"level": instances(0, 1_001)}))];
    ends("1000 instances", ended(&hub, &own, all).await);
    let some = |from, count| river(json!({"level": instances(from, count)}));
    ends("1000 instances", ended(&hub, &own, vec![some(0, 600), some(600, 600)]).await);
    let held = hub.store.entity("urn:x:1").unwrap();
    assert_eq!(held.entity.attribute("level").unwrap().instances.len(), 600);

    let attributes = |from: usize, count: usize| {
        let one = |n: usize| (format!("a{n}"), json!(n));
        river(Value::Object((from..from + count).map(one).collect()))
    };
    let wide = vec![attributes(0, 300), attributes(300, 300)];
    ends("1000 instances", ended(&hub, &own, wide).await);

    let long = |name: &str| river(json!({name: {"value": "x".repeat(3 << 20)}}));
    ends("4194304 bytes", ended(&hub, &own, vec![long("one"), long("two")]).await);

    // An attribute that has another unit each time has another history each time.
    let unit = |n: usize| {
        let level = json!({"value": 1, "unitCode": format!("u{n}")});
        upsert(&json!({"id": "urn:x:2", "type": "River", "level": level}))
    };
    ends("2000 histories", ended(&hub, &own, (0..2_001).map(unit).collect()).await);
    let again = ended(&hub, &own, vec![unit(7)]).await;
    assert_eq!(again, ["done"], "what is there goes on");
    hub.stop().await;
}

/// What an entity looked like before takes no memory.
#[tokio::test(flavor = "multi_thread")]
async fn an_entity_that_changes_its_looks_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let (hub, _) = city(&directory).await;
    let own = hub.own_session();
    let tables = || hub.store.now().tables().len();
    hub.write(&own, vec![reading("River", 1.0, 0)]).await.unwrap();
    let before = tables();
    for n in 0..200 {
        let level = json!({"value": n, "datasetId": format!("urn:d:{n}")});
        let change = upsert(&json!({"id": "urn:x:1", "type": "River", "level": level}));
        assert_eq!(ended(&hub, &own, vec![change]).await, ["done"]);
    }
    assert!(tables() <= before + 2, "{} tables, {before} before", tables());
    // One that has more numbers than tables are made for is found all the same.
    let held = hub.store.entity("urn:x:1").unwrap();
    assert_eq!(held.entity.attribute("level").unwrap().instances.len(), 200);
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_posts_as_others_is_recorded_in_proportion() {
    let directory = tempfile::tempdir().unwrap();
    let (hub, token) = city(&directory).await;
    let gauge = session(&hub, &token);
    let before = hub.store.log_size();
    let foreign = |n: usize| upsert(&json!({"id": format!("urn:y:{n}"), "type": "River"}));
    let answers = ended(&hub, &gauge, (0..1_000).map(foreign).collect()).await;
    assert!(answers.iter().all(|one| one != "done"));
    hub.stop().await;
    let most = crate::Limits::default().refusals_recorded as u64;
    let made = hub.store.log_size() - before;
    // With the one that says how many more there were, and those of the hub's own stop.
    assert!((most..most + 5).contains(&made), "{made} records");
}

#[tokio::test(flavor = "multi_thread")]
async fn quarantine_holds_so_many_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let (hub, token) = city(&directory).await;
    let gauge = session(&hub, &token);
    let most = hub.limits().quarantine_bytes;
    let misfit = |n: usize| {
        let level = json!({"value": "x".repeat(1 << 20)});
        upsert(&json!({"id": format!("urn:x:{n}"), "type": "River", "level": level}))
    };
    let room = most / (1 << 20);
    for n in 0..room + 8 {
        let report = hub.write(&gauge, vec![misfit(n)]).await.unwrap();
        match &report.results[0] {
            ItemResult::Quarantined(_) => assert!(n < room),
            ItemResult::Refused(HubError::Limit { name: "quarantine_bytes", .. }) => {
                assert!(n + 8 > room, "{n} of {room}");
            }
            other => panic!("{other:?}"),
        }
    }
    let (_, bytes) = hub.store.documents_under(crate::kinds::QUARANTINE, "rivers/");
    assert!(bytes <= most);
    hub.stop().await;
}

/// Neither by coming back as something else, nor by becoming something more.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_lies_in_a_dataset_that_does_not_claim_it() {
    let directory = tempfile::tempdir().unwrap();
    let (hub, token) = city(&directory).await;
    let (own, gauge) = (hub.own_session(), session(&hub, &token));
    let at =
        |of_type: &str| upsert(&json!({"id": "urn:x:1", "type": of_type, "level": {"value": 1}}));
    let leaves = |answer: &[String]| answer[0].contains("would leave dataset `meters`");
    assert_eq!(ended(&hub, &own, vec![at("Meter")]).await, ["done"]);
    let both = ended(&hub, &gauge, vec![at("River")]).await;
    assert!(leaves(&both), "{both:?}");
    assert_eq!(ended(&hub, &own, vec![Change::Delete { id: "urn:x:1".into() }]).await, ["done"]);
    let again = ended(&hub, &gauge, vec![at("River")]).await;
    assert!(leaves(&again), "{again:?}");
    assert_eq!(ended(&hub, &gauge, vec![at("Meter")]).await, ["done"]);
    assert_eq!(hub.store.entity("urn:x:1").unwrap().entity.types, [model::Name::new("Meter")]);
    hub.stop().await;
}

/// What was set apart of a person lies under the dataset's key, not under his.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_set_apart_of_a_person_goes_with_him() {
    let directory = tempfile::tempdir().unwrap();
    let (hub, token) = city(&directory).await;
    let mut people = dataset("people", "Person", false);
    people.about_people = true;
    let own = hub.own_session();
    hub.act(&own, act("dataset.put", &json!({"dataset": people}))).await.unwrap();
    let (number, people) = hub.state.snapshot().dataset("people").unwrap().clone();
    let gauge = session(&hub, &token).principal.number;
    let person = |id: &str, level: Value| {
        upsert(&json!({"id": id, "type": "Person", "level": {"value": level}}))
    };
    for id in ["urn:x:1", "urn:x:2"] {
        assert_eq!(ended(&hub, &own, vec![person(id, json!(1))]).await, ["done"]);
        let Change::Upsert(misfit) = person(id, json!("high")) else { unreachable!() };
        let why = "no number".to_owned();
        let plan = hub.set_apart(gauge, &misfit, number, &people, why, Kept::default());
        let crate::write::Plan::Keep(document, _) = plan else { panic!("not set apart") };
        let documents = vec![document];
        let batch = store::Batch { documents, time: hub.now(), ..store::Batch::default() };
        hub.store.commit(batch).unwrap();
    }
    let kept = || hub.store.count_documents(crate::kinds::QUARANTINE, "people/");
    assert_eq!(kept(), 2);
    let erase = json!({"dataset": "people", "entity": "urn:x:1"});
    hub.act(&own, act("subject.erase", &erase)).await.unwrap();
    assert_eq!(kept(), 1);
    let left = hub.quarantined(&own, "people").await.unwrap();
    assert!(left[0].1.entity.contains("urn:x:2"));
    hub.stop().await;
}

/// While a dataset's keys are being deleted nothing is promised under them, and nobody else's write fails.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_set_apart_under_a_key_that_goes() {
    let directory = tempfile::tempdir().unwrap();
    let (hub, token) = city(&directory).await;
    let gauge = session(&hub, &token);
    hub.write(&gauge, vec![reading("River", 1.0, 0)]).await.unwrap();
    let misfit = upsert(&json!({"id": "urn:x:2", "type": "River", "level": {"value": "high"}}));
    let apart = hub.write(&gauge, vec![misfit.clone()]).await.unwrap();
    assert!(matches!(apart.results[0], ItemResult::Quarantined(_)));
    let number = hub.state.snapshot().dataset("rivers").unwrap().0;
    hub.store.leave(Under::Dataset(number));
    let (refused, other) = tokio::join!(
        hub.write(&gauge, vec![misfit]),
        hub.write(&gauge, vec![reading("Meter", 1.0, 0)])
    );
    assert!(matches!(refused, Err(HubError::Storage(store::StoreError::NoKey(_)))), "{refused:?}");
    assert!(matches!(other.unwrap().results[0], ItemResult::Done(_)));
    // An act whose change is refused is not done either, and not recorded as done.
    let own = hub.own_session();
    let kept = hub.quarantined(&own, "rivers").await.unwrap();
    let fits = json!({"id": "urn:x:2", "type": "River", "level": {"type": "Property", "value": 2}});
    let body = json!({"dataset": "rivers", "reading": kept[0].0, "entity": fits});
    let refused = hub.act(&own, act("quarantine.accept", &body)).await;
    assert!(matches!(refused, Err(HubError::Refusal(Refusal::Leaving(_)))), "{refused:?}");
    assert_eq!(hub.quarantined(&own, "rivers").await.unwrap().len(), 1, "it is still there");
    hub.stop().await;
    let records = (0..hub.store.log_size()).filter_map(|index| hub.store.record(index).unwrap());
    let done =
        records.filter(|(_, body)| String::from_utf8_lossy(body).contains("quarantine.accept"));
    assert_eq!(done.count(), 0);
}

/// A hub on what is there without threads: whoever has the queue is its committer.
pub(super) fn assembled(
    directory: &tempfile::TempDir,
) -> (Arc<Hub>, tokio::sync::mpsc::Receiver<Job>) {
    let options = HubOptions {
        origin: "test.example/log".into(),
        now,
        contexts: std::collections::HashMap::new(),
        store: store::Options { min_free_bytes: 0, ..store::Options::default() },
        seal: store::SealPlan { max_blobs: 3, ..store::SealPlan::default() },
        tidying: crate::Tidying::default(),
        patience: std::time::Duration::ZERO,
        limits: crate::Limits { group_changes: 1, ..crate::Limits::default() },
        notice: None,
    };
    Hub::assemble(store::Files::new(&directory.path().join("data"), None), options).unwrap()
}

/// What was asked of the committer before it heard of it is done, also behind the word to stop.
#[tokio::test]
async fn nothing_that_waits_behind_a_stop_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    let (hub, _) = city(&directory).await;
    hub.stop().await;
    drop(hub);
    let (hub, mut queue) = assembled(&directory);
    let (reply, mut stopped) = tokio::sync::oneshot::channel();
    hub.jobs.try_send(Job::Stop(reply)).ok().unwrap();
    for n in 0..5 {
        let detail = crate::recorder::map([("late", model::Value::Integer(n))]);
        let own = hub.own_session();
        let made = crate::recorder::record(&own, model::Verb::Read, "rivers", hub.now(), detail);
        hub.jobs.try_send(Job::Records { records: vec![made], reply: None }).ok().unwrap();
    }
    let before = hub.store.log_size();
    let first = queue.try_recv().unwrap();
    assert!(!committer::step(&hub, first, &mut queue));
    assert!(stopped.try_recv().is_ok());
    assert_eq!(hub.store.log_size(), before + 5);
    let last = hub.jobs.try_send(Job::Checkpoint);
    assert!(last.is_err(), "nobody waits for what nobody does");
}

/// A subscription that was answered before a reading was committed hears of it, though there was none when
/// the reading was looked at.
#[tokio::test]
async fn a_subscription_hears_of_what_was_under_way() {
    let directory = tempfile::tempdir().unwrap();
    let (hub, token) = with_app(&directory).await;
    let app = session(&hub, &token);
    hub.write(&app, vec![reading("River", 1.0, 0)]).await.unwrap();
    hub.stop().await;
    drop(hub);
    let (hub, mut queue) = assembled(&directory);
    let app = session(&hub, &token);
    let body = json!({"id": "urn:ngsi-ld:Subscription:1", "type": "Subscription",
        "entities": [{"type": "River"}],
        "notification": {"endpoint": {"uri": "http://127.0.0.1:9/"}}});
    let body = parse_json(body.to_string().as_bytes()).unwrap();
    let courier = courier::Courier::new(vec!["127.0.0.1".into()]).unwrap();
    let mut subscribing = Box::pin(hub.subscribe(&app, body, model::Value::Null, &courier));
    let text = r#"[{"id":"urn:x:River","type":"River","level":{"value":2,"observedAt":"2026-01-01T11:00:00Z"}}]"#;
    let readings = ngsild::parse_readings(text.as_bytes()).unwrap();
    let mut writing = Box::pin(hub.write_readings(&app, None, &readings));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(subscribing.as_mut().poll(&mut context).is_pending());
    assert!(writing.as_mut().poll(&mut context).is_pending());
    let first = queue.try_recv().unwrap();
    assert!(committer::step(&hub, first, &mut queue), "the subscription alone");
    assert!(subscribing.as_mut().poll(&mut context).is_ready());
    assert_eq!(hub.store.count_documents(crate::kinds::OUTBOX, ""), 0);
    let second = queue.try_recv().unwrap();
    assert!(committer::step(&hub, second, &mut queue));
    assert!(writing.as_mut().poll(&mut context).is_ready());
    assert_eq!(hub.store.count_documents(crate::kinds::OUTBOX, ""), 1);
}

/// Of an app every value counts in the order in which it came, the short way as the long way.
#[tokio::test]
async fn what_an_app_says_last_is_so() {
    let directory = tempfile::tempdir().unwrap();
    let (hub, _) = city(&directory).await;
    let own = hub.own_session();
    hub.write(&own, vec![reading("River", 1.0, 0)]).await.unwrap();
    let one = |value: u32, minute: u32| {
        json!({"id": "urn:x:River", "type": "River",
            "level": {"value": value, "observedAt": format!("2026-01-01T10:{minute:02}:00Z")}})
    };
    let both = json!([one(20, 20), one(10, 10)]).to_string();
    let readings = ngsild::parse_readings(both.as_bytes()).unwrap();
    assert!(hub.write_readings(&own, None, &readings).await.unwrap().is_some(), "the short way");
    let level = |hub: &Hub| {
        let held = hub.store.entity("urn:x:River").unwrap();
        held.entity.attribute("level").unwrap().default_instance().unwrap().value().as_number()
    };
    assert_eq!(level(&hub), Some(10.0));
    hub.stop().await;
    drop(hub);
    let hub = start(&directory, 0).await;
    assert_eq!(level(&hub), Some(10.0), "after a restart");
    hub.stop().await;
}

/// Values that bring no time of their own are all in the history, also those of one commit.
#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_time_of_its_own_replaces_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (hub, _) = city(&directory).await;
    let own = hub.own_session();
    let river = |n: u32| upsert(&json!({"id": "urn:x:1", "type": "River", "level": {"value": n}}));
    let all = (0..5).map(river).collect();
    assert!(ended(&hub, &own, all).await.iter().all(|one| one == "done"));
    let query = crate::HistoryQuery {
        filter: ngsild::Filter { ids: vec!["urn:x:1".into()], ..ngsild::Filter::default() },
        ..crate::HistoryQuery::default()
    };
    let answer = hub.read_history(&own, &query, true).await.unwrap();
    let crate::SeriesAnswer::Instances(points) = &answer.entities[0].1[0].1 else { panic!() };
    let values: Vec<f64> = points.iter().map(|p| p.value().as_number().unwrap()).collect();
    assert_eq!(values, [0.0, 1.0, 2.0, 3.0, 4.0]);
    hub.stop().await;
}

/// What could not be committed was not told of: the next change is, though it comes soon.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_committed_keeps_no_subscription_silent() {
    let directory = tempfile::tempdir().unwrap();
    let (hub, token) = with_app(&directory).await;
    let own = hub.own_session();
    let body = json!({"id": "urn:ngsi-ld:Subscription:1", "type": "Subscription",
        "entities": [{"type": "Meter"}], "throttling": 3_600,
        "notification": {"endpoint": {"uri": "http://127.0.0.1:9/"}}});
    let body = parse_json(body.to_string().as_bytes()).unwrap();
    let courier = courier::Courier::new(vec!["127.0.0.1".into()]).unwrap();
    hub.subscribe(&session(&hub, &token), body, model::Value::Null, &courier).await.unwrap();
    hub.write(&own, vec![reading("River", 1.0, 0)]).await.unwrap();
    hub.stop().await;
    drop(hub);
    let hub = start_at(&directory, u64::MAX, 12, now, 0).await;
    let app = session(&hub, &token);
    assert!(hub.write(&app, vec![reading("Meter", 1.0, 0)]).await.is_err());
    assert_eq!(hub.last_told("urn:ngsi-ld:Subscription:1"), None);
    hub.stop().await;
}

/// A start that was ended in the midst of making its directory goes on at the next one, with the same roots.
#[test]
fn a_start_that_was_cut_short_is_gone_on_with() {
    let directory = tempfile::tempdir().unwrap();
    let files = store::Files::new(&directory.path().join("data"), None);
    files.create().unwrap();
    let root = std::fs::read(files.keys.join("operational.key")).unwrap();
    std::fs::remove_file(files.data.join("format")).unwrap();
    std::fs::write(files.data.join("format.new"), "").unwrap();
    std::fs::remove_file(files.keys.join("sensitive.key")).unwrap();
    std::fs::write(files.keys.join("sensitive.new"), "12").unwrap();
    files.create().unwrap();
    assert!(files.exist() && files.keys.join("sensitive.key").exists());
    assert_eq!(std::fs::read(files.keys.join("operational.key")).unwrap(), root);
    // What was in use is not taken for that.
    std::fs::remove_file(files.data.join("format")).unwrap();
    std::fs::write(files.keys.join("keyring"), "").unwrap();
    assert!(matches!(files.create(), Err(store::StoreError::NotOurs(..))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_stands_still_takes_no_point_away() {
    let directory = tempfile::tempdir().unwrap();
    let mut hub = start_with(&directory, 0, 2).await;
    let mut rivers = dataset("rivers", "River", true);
    rivers.attributes[0].kind = model::ValueKind::Any;
    hub.bootstrap_datasets(vec![rivers]).await.unwrap();
    let token = hub.bootstrap_principals(vec![device()]).await.unwrap().remove(0);
    // Numbers and texts, which lie apart, in seals of their own, by hubs that start anew.
    for n in 0..40 {
        if n % 10 == 9 {
            hub.stop().await;
            drop(hub);
            hub = start_with(&directory, 0, 2).await;
        }
        let gauge = session(&hub, &token);
        let value = if n % 2 == 0 { format!("{n}") } else { format!("\"{n}\"") };
        let body = format!(r#"{{"id":"urn:x:1","type":"River","level":{{"value":{value}}}}}"#);
        let value = &parse_json(body.as_bytes()).unwrap();
        let entity = parse_entity(value, &Context::core(), Form::Full).unwrap();
        hub.write(&gauge, vec![Change::Upsert(entity)]).await.unwrap();
        if n % 7 == 6 {
            let hub = hub.clone();
            tokio::task::spawn_blocking(move || hub.tidy()).await.unwrap();
        }
    }
    let open: u64 = (0..5).map(|dataset| hub.store.open_points_of(dataset)).sum();
    let query = crate::HistoryQuery {
        filter: ngsild::Filter { ids: vec!["urn:x:1".into()], ..ngsild::Filter::default() },
        ..crate::HistoryQuery::default()
    };
    let answer = hub.read_history(&session(&hub, ""), &query, true).await.unwrap();
    let crate::SeriesAnswer::Instances(points) = &answer.entities[0].1[0].1 else { panic!() };
    assert!(points.len() == 40 && open < 40, "{} points, {open} of them open", points.len());
    hub.stop().await;
}
