//! Subscriptions: what matches is delivered at least once and in order, through the owner's lens, to
//! allowed receivers only; a dead receiver's notifications wait.

use crate::harness::{City, receiver};
use serde_json::{Value, json};
use std::net::TcpListener;
use std::time::Duration;

fn city_that_may_send(port: u16) -> (City, tempfile::NamedTempFile) {
    let config = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(config.path(), format!("[egress]\nallow = [\"127.0.0.1:{port}\"]\n")).unwrap();
    (City::start_with(&["--devices", "0", "--config", config.path().to_str().unwrap()]), config)
}

fn subscription(port: u16, more: Value) -> Value {
    let mut body = json!({
        "type": "Subscription",
        "entities": [{"type": "T"}],
        "notification": {"format": "keyValues", "endpoint": {"uri": format!("http://127.0.0.1:{port}/n"), "accept": "application/json"}},
    });
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    body
}

#[test]
fn delivered_in_order_and_kept_for_a_dead_receiver() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (mut city, _config) = city_that_may_send(port);
    let asked = subscription(port, json!({"q": "a>10", "watchedAttributes": ["a"]}));
    let created = city.post("/ngsi-ld/v1/subscriptions", "app", &asked);
    assert_eq!(created.status, 201, "{}", created.text);
    let own = created.header("location").to_owned();
    let write = |city: &City, a: i64| {
        let entity =
            json!([{"id": "urn:ngsi-ld:T:1", "type": "T", "a": {"value": a}, "b": {"value": 1}}]);
        assert!(
            city.post("/ngsi-ld/v1/entityOperations/upsert?options=update", "app", &entity).status
                < 300
        );
    };
    // Nobody answers yet: the listener takes no connection. 5 does not match.
    for a in [11, 5, 12, 13] {
        write(&city, a);
    }
    // Killed before anything was delivered: what was committed is delivered all the same.
    city.kill();
    city.launch();
    let received = receiver(listener);
    // What the killed hub had sent may come once more: the key says that it is the same.
    let (mut keys, mut seen) = (std::collections::HashSet::new(), Vec::new());
    while seen.last() != Some(&13) {
        let (head, body) = received.recv_timeout(Duration::from_secs(20)).unwrap();
        let key = head.lines().find_map(|line| line.strip_prefix("idempotency-key: ")).unwrap();
        assert!(key.starts_with("urn:ngsi-ld:notification:"), "{head}");
        assert_eq!(body["type"], "Notification");
        if keys.insert(key.to_owned()) {
            seen.push(body["data"][0]["a"].as_i64().unwrap());
        }
    }
    assert_eq!(seen, [11, 12, 13]);
    let shown = city.get(&own, "app").json();
    assert_eq!(shown["status"], "active");
    // Nor may it lead elsewhere behind the address that is allowed.
    let mut elsewhere = asked.clone();
    elsewhere["notification"]["endpoint"]["receiverInfo"] =
        json!([{"key": "Host", "value": "inner"}]);
    assert_eq!(city.post("/ngsi-ld/v1/subscriptions", "app", &elsewhere).status, 400);
    // Others do not see it, and when it is deleted it stops.
    assert_eq!(city.get(&own, "crisis").status, 404);
    assert_eq!(city.call("DELETE", &own, "app", None).status, 204);
    write(&city, 14);
    // Nothing but what came before, perhaps once more.
    while let Ok((head, body)) = received.recv_timeout(Duration::from_millis(1_500)) {
        assert!(keys.iter().any(|key| head.contains(key)), "{body}");
    }
}

#[test]
fn notifications_go_through_the_lens() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (city, _config) = city_that_may_send(port);
    let received = receiver(listener);
    // The app may not read rivers: it may ask, and gets nothing. The crisis room sees what is kept
    // for its purpose, with which it subscribed.
    let rivers = subscription(port, json!({"entities": [{"type": "FloodMonitoring"}]}));
    assert_eq!(city.post("/ngsi-ld/v1/subscriptions", "app", &rivers).status, 201);
    let reading = json!([{"id": "urn:ngsi-ld:FloodMonitoring:demo-9", "type": "FloodMonitoring", "currentLevel": {"value": 7}, "maintainer": {"value": "Dinas Air"}}]);
    let write =
        || city.post("/ngsi-ld/v1/entityOperations/upsert?options=update", "device", &reading);
    assert!(write().status < 300);
    assert!(received.recv_timeout(Duration::from_millis(1_200)).is_err(), "nothing for the app");
    assert_eq!(
        city.post("/ngsi-ld/v1/subscriptions", "crisis:flood-response", &rivers).status,
        201
    );
    assert!(write().status < 300);
    let (_, body) = received.recv_timeout(Duration::from_secs(10)).unwrap();
    assert_eq!(body["data"][0]["currentLevel"], json!(7));
    assert_eq!(body["data"][0]["maintainer"], "Dinas Air");
}

#[test]
fn a_changed_dataset_or_a_revoked_principal_ends_what_a_stream_shows() {
    let city = City::start();
    let write = |level: u32| {
        let reading = json!([{"id": "urn:ngsi-ld:FloodMonitoring:demo-w", "type": "FloodMonitoring",
            "currentLevel": {"value": level}}]);
        let sent =
            city.post("/ngsi-ld/v1/entityOperations/upsert?options=update", "device", &reading);
        assert!(sent.status < 300, "{}", sent.text);
    };
    write(100);
    let streams =
        [watch(&city, "auditor", "flood-response"), watch(&city, "crisis", "flood-response")];
    std::thread::sleep(Duration::from_millis(700));
    (101..111).for_each(write);
    // A stream tells of what changed a few times a second.
    std::thread::sleep(Duration::from_millis(600));
    let mut dataset = city.get("/api/v1/datasets/rivers", "admin").json();
    dataset["attributes"][0]["sensitivity"] = json!("confidential");
    let put = city.act("admin", "dataset.put", json!({"dataset": dataset}));
    assert!(put.text.contains("public for no purpose: `currentLevel`"), "{}", put.text);
    // The dataset's steward is the second person.
    let approve = format!("/api/v1/acts/{}/approve", put.json()["pending"].as_str().unwrap());
    assert_eq!(city.post(&approve, "steward", &json!({})).status, 200);
    assert_eq!(city.act("admin", "principal.revoke", json!({"login": "crisis"})).status, 200);
    (200..210).for_each(write);
    for (who, stream) in ["auditor", "crisis"].iter().zip(streams) {
        let output = stream.wait_with_output().unwrap();
        let seen = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(seen.contains("110"), "{who} saw what it might: {seen}");
        assert!((200..210).all(|level| !seen.contains(&level.to_string())), "{who}: {seen}");
    }
}

/// Watches for three seconds with `curl`; gives what came.
fn watch(city: &City, who: &str, purpose: &str) -> std::process::Child {
    std::process::Command::new("curl")
        .args(["-sN", "--max-time", "3", "--cacert", city.ca()])
        .args(["-H", &format!("Authorization: Bearer {}", city.token(who))])
        .args(["-H", &format!("Tanggul-Purpose: {purpose}")])
        .arg(format!("{}/api/v1/watch?type=FloodMonitoring", city.url()))
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn a_watch_shows_changes_live_and_only_through_the_lens() {
    let city = City::start();
    let streams = [
        ("crisis", "flood-response", true, true),
        ("steward", "water-management", true, true),
        ("app", "app-development", false, false),
        // What is published is for officials too; who maintains the gauge is not.
        ("auditor", "flood-response", true, false),
    ];
    let watches: Vec<_> =
        streams.iter().map(|(who, purpose, ..)| watch(&city, who, purpose)).collect();
    let mut level = 0;
    let writes_until = std::time::Instant::now() + Duration::from_millis(2_500);
    while std::time::Instant::now() < writes_until {
        level += 1;
        let reading = json!([{"id": "urn:ngsi-ld:FloodMonitoring:demo-w", "type": "FloodMonitoring",
            "currentLevel": {"value": level}, "maintainer": {"value": "Dinas Air"}}]);
        let sent =
            city.post("/ngsi-ld/v1/entityOperations/upsert?options=update", "device", &reading);
        assert!(sent.status < 300, "{}", sent.text);
        std::thread::sleep(Duration::from_millis(50));
    }
    for ((who, _, changes, maintainer), watch) in streams.iter().zip(watches) {
        let output = watch.wait_with_output().unwrap();
        let seen = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(seen.contains("event: changes"), *changes, "{who}: {seen}");
        assert_eq!(seen.contains("Dinas Air"), *maintainer, "{who}: {seen}");
    }
}

#[test]
fn what_triggers_is_told_with_what_was_and_what_it_leads_to() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (city, _config) = city_that_may_send(port);
    let received = receiver(listener);
    let entities = "/ngsi-ld/v1/entities";
    let create = |body: Value| {
        let created = city.post(entities, "app", &body);
        assert_eq!(created.status, 201, "{}", created.text);
    };
    create(json!({"id": "urn:x:at", "type": "Place", "name": {"value": "Dago"}}));
    let subscribe = |more: Value, of_notification: Value| {
        let mut body = subscription(port, more);
        body["notification"]["format"] = json!("normalized");
        for (key, value) in of_notification.as_object().unwrap() {
            body["notification"][key] = value.clone();
        }
        let created = city.post("/ngsi-ld/v1/subscriptions", "app", &body);
        assert_eq!(created.status, 201, "{}", created.text);
        created.header("location").to_owned()
    };
    let next = || received.recv_timeout(Duration::from_secs(10)).unwrap().1["data"].clone();
    let one = "urn:x:1";

    let own = subscribe(
        json!({"notificationTrigger": ["entityCreated", "attributeUpdated", "attributeDeleted", "entityDeleted"]}),
        json!({"showChanges": true, "join": "inline"}),
    );
    create(
        json!({"id": one, "type": "T", "a": {"value": 1}, "b": {"value": 2}, "at": {"object": "urn:x:at"}}),
    );
    let data = next();
    assert_eq!(data[0]["at"]["entity"]["name"]["value"], "Dago", "{data}");
    assert_eq!(data[0]["a"], json!({"type": "Property", "value": 1}));
    let attrs = format!("{entities}/{one}/attrs");
    let patch = json!({"a": {"value": 7}});
    assert_eq!(city.call("PATCH", &attrs, "app", Some(&patch)).status, 204);
    assert_eq!(next()[0]["a"], json!({"type": "Property", "value": 7, "previousValue": 1}));
    assert_eq!(city.call("DELETE", &format!("{attrs}/b"), "app", None).status, 204);
    let gone = next()[0]["b"].clone();
    assert_eq!(gone, json!({"type": "Property", "value": "urn:ngsi-ld:null", "previousValue": 2}));
    // An attribute that comes anew is not what was asked for.
    let more = json!({"c": {"value": 1}});
    assert!(city.call("POST", &attrs, "app", Some(&more)).status < 300);
    assert_eq!(city.call("DELETE", &format!("{entities}/{one}"), "app", None).status, 204);
    let data = next();
    assert_eq!(data[0]["at"]["object"], "urn:ngsi-ld:null", "{data}");
    assert!(data[0]["deletedAt"].is_string(), "{data}");
    assert_eq!(city.call("DELETE", &own, "app", None).status, 204);

    // At intervals, whatever happens, and only what is there.
    create(json!({"id": one, "type": "T", "a": {"value": 1}}));
    let own = subscribe(json!({"timeInterval": 1}), json!({}));
    for _ in 0..2 {
        assert_eq!(next()[0]["id"], one);
    }
    let shown = city.get(&own, "app").json();
    assert_eq!(shown["notification"]["status"], "ok", "{shown}");
    let both = subscription(port, json!({"timeInterval": 1, "watchedAttributes": ["a"]}));
    assert_eq!(city.post("/ngsi-ld/v1/subscriptions", "app", &both).status, 400);
}

/// What changed is told as the owner sees it, and no more.
#[test]
fn what_was_is_told_through_the_lens() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (city, _config) = city_that_may_send(port);
    let received = receiver(listener);
    let mut body = subscription(
        port,
        json!({"entities": [{"type": "FloodMonitoring"}],
            "notificationTrigger": ["attributeUpdated", "attributeDeleted", "entityDeleted"]}),
    );
    body["notification"]["showChanges"] = json!(true);
    body["notification"]["format"] = json!("normalized");
    // The auditor sees what is published of rivers, not who maintains a gauge.
    let created = city.post("/ngsi-ld/v1/subscriptions", "auditor:flood-response", &body);
    assert_eq!(created.status, 201, "{}", created.text);
    let own = "urn:ngsi-ld:FloodMonitoring:demo-8";
    let write = |level: u32, maintainer: &str| {
        let reading = json!([{"id": own, "type": "FloodMonitoring", "currentLevel": {"value": level},
            "maintainer": {"value": maintainer}}]);
        let sent =
            city.post("/ngsi-ld/v1/entityOperations/upsert?options=update", "device", &reading);
        assert!(sent.status < 300, "{}", sent.text);
    };
    write(1, "Dinas Air");
    write(2, "Dinas Lain");
    let gone = city.call(
        "DELETE",
        &format!("/ngsi-ld/v1/entities/{own}"),
        "steward:water-management",
        None,
    );
    assert!(gone.status < 300, "{}", gone.text);
    let mut told = String::new();
    while !told.contains("deletedAt") {
        told += &received.recv_timeout(Duration::from_secs(10)).unwrap().1.to_string();
    }
    assert!(told.contains("\"previousValue\":1"), "{told}");
    assert!(!told.contains("maintainer") && !told.contains("Dinas"), "{told}");
}

/// What is told of as gone was looked at: it is recorded like the value itself.
#[test]
fn a_confidential_value_that_is_told_of_as_gone_is_recorded() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (city, _config) = city_that_may_send(port);
    let received = receiver(listener);
    let pipe = "urn:ngsi-ld:WaterObserved:gone";
    let device = city.enrol_device("gone-pipe", "pipes", pipe);
    let entity = json!({"id": pipe, "type": "WaterObserved", "flow": {"value": 3, "unitCode": "G51"},
        "location": {"type": "GeoProperty", "value": {"type": "Point", "coordinates": [106.8, -6.2]}}});
    assert_eq!(city.post("/ngsi-ld/v1/entities", &device, &entity).status, 201);
    let mut body = subscription(
        port,
        json!({"entities": [{"type": "WaterObserved"}], "notificationTrigger": ["attributeDeleted"]}),
    );
    body["notification"]["showChanges"] = json!(true);
    body["notification"]["format"] = json!("normalized");
    let steward = "steward:water-management";
    let created = city.post("/ngsi-ld/v1/subscriptions", steward, &body);
    assert_eq!(created.status, 201, "{}", created.text);
    let path = format!("/ngsi-ld/v1/entities/{pipe}/attrs/flow");
    let gone = city.call("DELETE", &path, &device, None);
    assert!(gone.status < 300, "{}", gone.text);
    let (_, told) = received.recv_timeout(Duration::from_secs(20)).unwrap();
    assert!(told.to_string().contains("\"previousValue\":3"), "{told}");
    let records = city.get("/api/v1/records?dataset=pipes&verb=watch&limit=10", "auditor");
    assert!(records.text.contains("delivered"), "{}", records.text);
}
