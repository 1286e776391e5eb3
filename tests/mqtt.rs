//! The MQTT door, with a client nobody here wrote: acknowledged when durable, refused with a reason,
//! set apart when it does not fit, and closed to the revoked within a second.

use crate::harness::{City, Mqtt};
use serde_json::json;
use std::process::{Command, Output};

fn publish(
    city: &City,
    user: &str,
    token: &str,
    topic: &str,
    message: &str,
    more: &[&str],
) -> Output {
    Command::new("mosquitto_pub")
        .args(["-h", "localhost", "-p", &city.mqtt_port(), "--cafile", city.ca(), "-q", "1", "-d"])
        .args(["-u", user, "-P", token, "-t", topic, "-m", message])
        .args(more)
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[test]
fn both_versions_and_all_forms() {
    let city = City::start();
    let device = city.token("device");
    let id = "urn:ngsi-ld:FloodMonitoring:demo-2";
    let forms = [
        (
            r#"{"id":"ID","type":"FloodMonitoring","currentLevel":{"type":"Property","value":1,"unitCode":"CMT"}}"#,
            "mqttv5",
        ),
        (
            r#"[{"id":"ID","type":"FloodMonitoring","currentLevel":{"value":2,"unitCode":"CMT"}}]"#,
            "mqttv311",
        ),
        (r#"{"id":"ID","type":"FloodMonitoring","currentLevel":3}"#, "mqttv5"),
    ];
    for (n, (message, version)) in (1..).zip(forms) {
        let sent = publish(
            &city,
            "device",
            &device,
            "in/rivers",
            &message.replace("ID", id),
            &["-V", version],
        );
        assert!(
            sent.status.success() && said(&sent).contains("received PUBACK"),
            "{}",
            said(&sent)
        );
        let seen = city.get(&format!("/ngsi-ld/v1/entities/{id}?options=keyValues"), "").json();
        assert_eq!(seen["currentLevel"], json!(n));
    }
    let bare = publish(
        &city,
        "device",
        &device,
        &format!("in/rivers/{id}/currentLevel"),
        "4.5",
        &["-V", "mqttv5"],
    );
    assert!(bare.status.success(), "{}", said(&bare));
    let seen = city.get(&format!("/ngsi-ld/v1/entities/{id}?options=keyValues"), "").json();
    assert_eq!(seen["currentLevel"], json!(4.5));
}

/// Clause 3.1.4 lets a client send on before its CONNACK; nothing more comes that would wake the hub.
#[test]
fn what_came_with_the_connect_is_answered() {
    let city = City::start();
    let id = "urn:ngsi-ld:FloodMonitoring:demo-2";
    let level = |level: u32| {
        json!({ "id": id, "type": "FloodMonitoring", "currentLevel": level }).to_string()
    };
    let sent = Mqtt::all_at_once(&city, "device", &city.token("device"), "in/rivers", &level(7));
    assert_eq!(sent, Some([[0x20, 2, 0, 0], [0x40, 2, 0, 1]]));
    let refused = Mqtt::all_at_once(&city, "device", "not-a-token", "in/rivers", &level(8));
    assert_eq!(refused, None, "a CONNACK, then the end");
    let seen = city.get(&format!("/ngsi-ld/v1/entities/{id}?options=keyValues"), "").json();
    assert_eq!(seen["currentLevel"], json!(7));
}

#[test]
fn what_may_not_is_refused_and_what_does_not_fit_is_set_apart() {
    let city = City::start();
    let device = city.token("device");
    let reading = |id: &str, level: f64| {
        json!({"id": id, "type": "FloodMonitoring", "currentLevel": {"value": level, "unitCode": "CMT"}}).to_string()
    };
    let own = "urn:ngsi-ld:FloodMonitoring:demo-3";
    let v5 = ["-V", "mqttv5"];
    for (user, token) in [("device", "tgd_wrong"), ("device", ""), ("somebody", device.as_str())] {
        let refused = publish(&city, user, token, "in/rivers", &reading(own, 1.0), &v5);
        assert!(!refused.status.success(), "{user}: {}", said(&refused));
    }
    // As another: refused, with an alarm in the log.
    let other = publish(
        &city,
        "device",
        &device,
        "in/rivers",
        &reading("urn:ngsi-ld:FloodMonitoring:other", 1.0),
        &v5,
    );
    assert!(said(&other).contains("RC:135"), "{}", said(&other));
    let alarm = city.wait_for(|| {
        let records =
            city.get("/api/v1/records?dataset=rivers&decision=refused&limit=5", "auditor").json();
        records.as_array()?.iter().find(|r| r["detail"]["alarm"].is_string()).cloned()
    });
    assert_eq!(alarm["detail"]["alarm"], "posts as another");
    // Into another dataset, on another topic, or no JSON.
    for (topic, message) in [
        ("in/evacuation", reading(own, 1.0)),
        ("elsewhere", reading(own, 1.0)),
        ("in/rivers", "{".to_owned()),
    ] {
        let refused = publish(&city, "device", &device, topic, &message, &v5);
        assert!(
            said(&refused).contains("RC:1") && !said(&refused).contains("RC:0)"),
            "{topic}: {}",
            said(&refused)
        );
    }
    // Outside the model: kept for the steward, with the reason; the state stays as it was.
    assert!(
        publish(&city, "device", &device, "in/rivers", &reading(own, 50.0), &v5).status.success()
    );
    let apart = publish(&city, "device", &device, "in/rivers", &reading(own, 99_999.0), &v5);
    assert!(apart.status.success(), "{}", said(&apart));
    let kept = city.get("/api/v1/datasets/rivers/quarantine", "steward").json();
    assert_eq!(kept.as_array().unwrap().len(), 1, "{kept}");
    assert!(kept[0]["reason"].as_str().unwrap().contains("outside -50 to 1500"), "{kept}");
    assert_eq!(kept[0]["entity"]["currentLevel"]["value"], json!(99_999.0));
    let seen = city.get(&format!("/ngsi-ld/v1/entities/{own}?options=keyValues"), "").json();
    assert_eq!(seen["currentLevel"].as_f64(), Some(50.0));
    // Subscribing is refused for now.
    let subscribed = Command::new("mosquitto_sub")
        .args(["-h", "localhost", "-p", &city.mqtt_port(), "--cafile", city.ca(), "-V", "mqttv5"])
        .args(["-u", "device", "-P", &device, "-t", "#", "-E"])
        .output()
        .unwrap();
    assert!(
        said(&subscribed).contains("denied") || said(&subscribed).contains("Not authorized"),
        "{}",
        said(&subscribed)
    );
}

#[test]
fn revoked_within_a_second() {
    let city = City::start();
    let token = city.enrol_device("short-lived", "rivers", "urn:ngsi-ld:FloodMonitoring:short");
    let reading =
        r#"{"id":"urn:ngsi-ld:FloodMonitoring:short","type":"FloodMonitoring","currentLevel":1}"#;
    assert!(
        publish(&city, "short-lived", &token, "in/rivers", reading, &["-V", "mqttv5"])
            .status
            .success()
    );
    let mut open = Mqtt::connect(&city, "short-lived", &token).unwrap();
    assert_eq!(open.ping(), Some(0xd0));
    let gone =
        city.act("steward", "device.revoke", json!({"login": "short-lived", "dataset": "rivers"}));
    assert_eq!(gone.status, 200, "{}", gone.text);
    assert_eq!(open.ping(), None, "what is open already is closed, too");
    assert!(
        !publish(&city, "short-lived", &token, "in/rivers", reading, &["-V", "mqttv5"])
            .status
            .success()
    );
    assert_eq!(city.get("/api/v1/session", &token).status, 401);
    // A code is good once.
    let body = json!({"login": "another", "dataset": "rivers", "streams": ["urn:ngsi-ld:FloodMonitoring:a"]});
    let code = city.act("steward", "device.enrol", body).json()["answer"]["code"].clone();
    assert_eq!(city.post("/api/v1/redeem", "", &json!({"code": code})).status, 201);
    assert_eq!(city.post("/api/v1/redeem", "", &json!({"code": code})).status, 401);
}
