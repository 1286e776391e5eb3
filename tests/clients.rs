//! Clients nobody here wrote do their everyday work: `curl`, `paho-mqtt`, `ngsildclient`.

use crate::harness::{City, stdout};
use serde_json::{Value, json};
use std::process::Command;

const PAHO: &str = r#"
import os, sys, ssl, paho.mqtt.client as mqtt
acks = []
c = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="paho", protocol=mqtt.MQTTv5)
c.tls_set(ca_certs=os.environ["CA"], tls_version=ssl.PROTOCOL_TLS_CLIENT)
c.username_pw_set("device", os.environ["TOKEN"])
c.on_publish = lambda client, data, mid, reason, properties: acks.append(str(reason))
c.connect("localhost", int(os.environ["PORT"]))
c.loop_start()
infos = [c.publish("in/rivers/urn:ngsi-ld:FloodMonitoring:demo-p/currentLevel", str(n), qos=1) for n in range(1)]
first = c.publish("in/rivers", '{"id":"urn:ngsi-ld:FloodMonitoring:demo-p","type":"FloodMonitoring","currentLevel":0}', qos=1)
first.wait_for_publish(20)
for n in range(1, 200):
    last = c.publish("in/rivers/urn:ngsi-ld:FloodMonitoring:demo-p/currentLevel", str(n), qos=1)
last.wait_for_publish(20)
c.disconnect(); c.loop_stop()
print(len(acks), acks.count("Success"))
"#;

const NGSILDCLIENT: &str = r#"
import os, requests
session_get = requests.Session.request
def trusted(self, method, url, **options):
    options["verify"] = os.environ["CA"]
    headers = dict(options.get("headers") or {})
    headers["Authorization"] = "Bearer " + os.environ["TOKEN"]
    options["headers"] = headers
    return session_get(self, method, url, **options)
requests.Session.request = trusted
from ngsildclient import Client, Entity
client = Client("localhost", int(os.environ["PORT"]), secure=True)
e = Entity("AgriFarm", "AgriFarm:72d9fb43")
e.prop("name", "Wheat farm").prop("size", 5)
print(client.upsert(e))
again = client.get(e.id)
print(again["size"]["value"])
print(len(client.query(type="AgriFarm")))
print(client.delete(e))
"#;

fn python(script: &str, variables: &[(&str, String)]) -> Option<String> {
    let Ok(python) = std::env::var("TANGGUL_TEST_PYTHON") else {
        println!("not run: `cargo xtask test` installs the Python clients");
        return None;
    };
    let variables = variables.iter().map(|(name, value)| (*name, value));
    let output = Command::new(python).args(["-c", script]).envs(variables).output().unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        stdout(&output),
        String::from_utf8_lossy(&output.stderr)
    );
    Some(stdout(&output))
}

#[test]
fn paho_publishes_and_every_acknowledgement_means_durable() {
    let mut city = City::start();
    let variables =
        [("CA", city.ca().to_owned()), ("TOKEN", city.token("device")), ("PORT", city.mqtt_port())];
    let Some(printed) = python(PAHO, &variables) else { return };
    // The very first came before its entity was there, and was refused.
    assert_eq!(printed.trim(), "201 200");
    city.kill();
    city.launch();
    let path = "/ngsi-ld/v1/entities/urn:ngsi-ld:FloodMonitoring:demo-p?options=keyValues";
    assert_eq!(city.get(path, "").json()["currentLevel"], 199);
}

#[test]
fn ngsildclient_does_its_everyday_work() {
    let city = City::start();
    let port = city.url().rsplit(':').next().unwrap().to_owned();
    let variables = [("CA", city.ca().to_owned()), ("TOKEN", city.token("app")), ("PORT", port)];
    let Some(printed) = python(NGSILDCLIENT, &variables) else { return };
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines.last(), Some(&"True"), "{printed}");
    assert!(lines.contains(&"5") && lines.contains(&"1"), "{printed}");
}

#[test]
fn curl_sees_a_healthy_hub() {
    let city = City::start();
    let fetch = |path: &str| {
        let output = Command::new("curl")
            .args(["-sf", "--cacert", city.ca(), &format!("{}{path}", city.url())])
            .output()
            .unwrap();
        assert!(output.status.success(), "{path}");
        stdout(&output)
    };
    assert_eq!(fetch("/healthz"), "ok\n");
    assert_eq!(fetch("/readyz"), "ready\n");
    assert!(fetch("/metrics").contains("tanggul_log_records"));
    let page = fetch("/public/");
    assert!(
        page.contains("The data shown here is simulated.") && !page.contains("<script"),
        "{page}"
    );
}

#[test]
fn a_posted_query_may_have_several_selectors() {
    let city = City::start();
    let list: Vec<Value> = ["A", "B", "C"]
        .iter()
        .flat_map(|of| {
            (0..3).map(move |n| json!({"id": format!("urn:x:{of}:{n}"), "type": of, "level": n}))
        })
        .collect();
    assert_eq!(city.post("/ngsi-ld/v1/entityOperations/create", "app", &json!(list)).status, 201);
    // Selectors, what is asked of all, and the ids that come.
    let table = [
        (json!([{"type": "A", "id": "urn:x:A:1"}, {"type": "C"}]), "level>0", "A:1 C:1 C:2"),
        (
            json!([{"type": "B", "idPattern": ".*2$"}, {"type": "A", "id": ["urn:x:A:0"]}]),
            "level>=0",
            "A:0 B:2",
        ),
        (json!([{"type": "A"}]), "level==2", "A:2"),
    ];
    for (selectors, q, expected) in table {
        let body = json!({"type": "Query", "entities": selectors, "q": q});
        let answer = city.post("/ngsi-ld/v1/entityOperations/query?count=true", "app", &body);
        assert_eq!(answer.status, 200, "{}", answer.text);
        let found = answer.json();
        let ids: Vec<&str> =
            found.as_array().unwrap().iter().map(|e| &e["id"].as_str().unwrap()[6..]).collect();
        assert_eq!(ids.join(" "), expected);
        assert_eq!(answer.header("ngsild-results-count"), ids.len().to_string());
    }
}

#[test]
fn an_answer_has_the_members_that_were_asked_for() {
    let city = City::start();
    let entity = json!({"id": "urn:x:m", "type": "M", "a": 1, "b": {"type": "LanguageProperty", "languageMap": {"id": "kali"}},
        "c": [{"type": "Property", "value": 5}, {"type": "Property", "value": 6, "datasetId": "urn:d:1"}]});
    assert_eq!(city.post("/ngsi-ld/v1/entities", "app", &entity).status, 201);
    let path = "/ngsi-ld/v1/entities/urn:x:m";
    // What is asked, and the keys that come.
    for (asked, keys) in [
        ("pick=id,a", "a id"),
        ("pick=a", "a"),
        ("omit=type,c", "a b id"),
        ("attrs=a", "a id type"),
        ("pick=id", "id"),
        ("datasetId=urn:d:1", "c id type"),
        ("datasetId=@none&pick=c", "c"),
    ] {
        let answer = city.get(&format!("{path}?{asked}"), "app");
        assert_eq!(answer.status, 200, "{asked}: {}", answer.text);
        let shown = answer.json();
        let mut found: Vec<&str> = shown.as_object().unwrap().keys().map(String::as_str).collect();
        found.sort_unstable();
        assert_eq!(found.join(" "), keys, "{asked}");
    }
    for (asked, status) in [
        ("pick=a&omit=a", 400),
        ("attrs=a&pick=a", 400),
        ("pick=a;b", 400),
        ("pick=nothing", 404),
        ("omit=id,type,a,b,c", 404),
        ("options=unknown", 400),
    ] {
        assert_eq!(city.get(&format!("{path}?{asked}"), "app").status, status, "{asked}");
    }
    // Attributes that are not there are added; a language map that says nothing goes.
    let patch = json!({"d": {"type": "Property", "value": 7},
        "b": {"type": "LanguageProperty", "languageMap": {"@none": "urn:ngsi-ld:null"}}});
    let patched = city.call("PATCH", &format!("{path}/attrs"), "app", Some(&patch));
    assert_eq!(patched.status, 204, "{}", patched.text);
    let now = city.get(&format!("{path}?options=keyValues"), "app").json();
    assert_eq!((&now["d"], now.get("b")), (&json!(7), None), "{now}");
    let feature = Command::new("curl")
        .args(["-s", "--cacert", city.ca(), "-H", "Accept: application/geo+json", "-H"])
        .arg(format!("Authorization: Bearer {}", city.token("app")))
        .arg(format!("{}{path}", city.url()))
        .output()
        .unwrap();
    let feature: Value = serde_json::from_str(&stdout(&feature)).unwrap();
    assert_eq!(feature["type"], "Feature");
    assert!(feature["@context"].is_string(), "{feature}");
}

#[test]
fn a_history_moves_the_state_and_can_be_begun_anew() {
    let city = City::start();
    let path = "/ngsi-ld/v1/temporal/entities";
    let at = |minute: u32, value: u32| json!({"type": "Property", "value": value, "observedAt": format!("2026-02-01T10:{minute:02}:00Z")});
    let history =
        json!({"id": "urn:x:h", "type": "H", "a": [at(1, 1), at(3, 3), at(2, 2)], "b": [at(1, 9)]});
    assert_eq!(city.post(path, "app", &history).status, 201);
    let state = || city.get("/ngsi-ld/v1/entities/urn:x:h?options=keyValues", "app").json();
    assert_eq!((&state()["a"], &state()["b"]), (&json!(3), &json!(9)));
    let more = json!({"a": [at(9, 90), at(5, 50)]});
    assert_eq!(city.post(&format!("{path}/urn:x:h/attrs"), "app", &more).status, 204);
    assert_eq!(state()["a"], json!(90), "the newest");
    assert_eq!(city.call("DELETE", &format!("{path}/urn:x:h"), "app", None).status, 204);
    assert_eq!(city.get(&format!("{path}/urn:x:h"), "app").status, 404);
    assert_eq!(city.post(path, "app", &history).status, 201, "it begins anew");
    assert_eq!(city.get(&format!("{path}/urn:x:h"), "app").status, 200);
}

#[test]
fn what_the_standard_has_and_is_left_out_is_said_in_plain_words() {
    let city = City::start();
    let entity = json!({"id": "urn:x:o", "type": "O", "a": [{"value": 1}, {"value": 2, "datasetId": "urn:d:1"}]});
    assert_eq!(city.post("/ngsi-ld/v1/entities", "app", &entity).status, 201);
    let subscription = |more: Value, of_notification: Value| {
        let mut body = json!({"type": "Subscription", "entities": [{"type": "O"}],
            "notification": {"endpoint": {"uri": "mqtt://127.0.0.1/t"}}});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let notification = body["notification"].as_object_mut().unwrap();
        notification.extend(of_notification.as_object().unwrap().clone());
        body
    };
    let subscriptions = "/ngsi-ld/v1/subscriptions";
    let http = json!({"endpoint": {"uri": "http://127.0.0.1:1/"}});
    let table = [
        ("DELETE", "/ngsi-ld/v1/entities?type=O", Value::Null),
        (
            "POST",
            "/ngsi-ld/v1/entityOperations/query",
            json!({"type": "Query", "entities": [{"type": "O"}], "ordering": {}}),
        ),
        ("GET", "/ngsi-ld/v1/temporal/entities?type=O&lastN=1&orderBy=id", Value::Null),
        ("POST", subscriptions, subscription(json!({}), json!({}))),
        ("POST", subscriptions, subscription(json!({"scopeQ": "/a"}), http.clone())),
    ];
    for (method, path, body) in table {
        let answer = city.call(method, path, "app", (!body.is_null()).then_some(&body));
        assert_eq!(answer.status, 501, "{method} {path} {body}: {}", answer.text);
        assert!(answer.text.contains("not offered"), "{}", answer.text);
    }
    // Only what was named is taken away: one instance's history, and no instance that is not there.
    let history = "/ngsi-ld/v1/temporal/entities/urn:x:o";
    let forget =
        |asked: &str| city.call("DELETE", &format!("{history}/attrs/{asked}"), "app", None).status;
    let left = || city.get(history, "app").json()["a"].as_array().map_or(0, Vec::len);
    assert_eq!((forget("a?datasetId=urn:d:2"), forget("b"), left()), (404, 404, 2));
    assert_eq!((forget("a?datasetId=urn:d:1"), left()), (204, 1));
    assert_eq!((forget("a?deleteAll=true"), city.get(history, "app").status), (204, 404));
    let patch = json!({"value": 5, "datasetId": "urn:d:9"});
    let attribute = "/ngsi-ld/v1/entities/urn:x:o/attrs/a";
    assert_eq!(city.call("PATCH", attribute, "app", Some(&patch)).status, 404);
}

/// A list as JSON-LD has its context in each of its elements.
#[test]
fn details_of_types_and_attributes_come_as_json_ld() {
    let city = City::start();
    for path in ["types", "attributes"] {
        let url = format!("{}/ngsi-ld/v1/{path}?details=true", city.url());
        let output = Command::new("curl")
            .args(["-sS", "--cacert", city.ca(), "-H", "Accept: application/ld+json", &url])
            .output()
            .unwrap();
        let body: Value = serde_json::from_slice(&output.stdout).unwrap();
        let list = body.as_array().unwrap();
        assert!(!list.is_empty() && list.iter().all(|one| one["@context"].is_string()), "{body}");
    }
}

/// A value alone keeps its `datasetId` in a history, like those in lists.
#[test]
fn one_value_of_a_history_goes_where_it_says() {
    let city = City::start_with(&["--devices", "0"]);
    let at = |minute: u32| format!("2026-02-01T10:{minute:02}:00Z");
    let entity = json!({"id": "urn:x:h", "type": "T",
        "a": [{"value": 1, "observedAt": at(0)}, {"value": 2, "observedAt": at(1), "datasetId": "urn:d:1"}]});
    assert_eq!(city.post("/ngsi-ld/v1/temporal/entities", "app", &entity).status, 201);
    let one = json!({"a": {"value": 3, "observedAt": at(2), "datasetId": "urn:d:1"}});
    let path = "/ngsi-ld/v1/temporal/entities/urn:x:h";
    assert_eq!(city.post(&format!("{path}/attrs"), "app", &one).status, 204);
    let history =
        city.get(&format!("{path}?timerel=after&timeAt=2026-01-01T00:00:00Z"), "app").json();
    let of: Vec<(i64, &str)> = history["a"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["value"].as_i64().unwrap(), one["datasetId"].as_str().unwrap_or_default()))
        .collect();
    assert_eq!(of, [(1, ""), (2, "urn:d:1"), (3, "urn:d:1")], "{history}");
    let state = city.get("/ngsi-ld/v1/entities/urn:x:h?options=keyValues", "app").json();
    assert!(state["a"] == json!(1) || state["a"]["dataset"]["@none"] == json!(1), "{state}");
}
