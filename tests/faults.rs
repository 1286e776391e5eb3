//! The disk under the store fails: what was acknowledged stays, nothing is tried again on the same
//! file, reads go on, life-safety data goes through the ring, and a restart recovers.

use crate::harness::City;
use serde_json::{Value, json};

const PASSWORD: &str = "kuda meja awan tujuh belas";
const STREAM: &str = "urn:ngsi-ld:FloodMonitoring:fault";

/// A city whose engine's journal fails at the `nth` call from its start, and ever after.
fn failing(call: &str, error: &str, nth: u32) -> (City, String, String) {
    let mut city = City::start();
    let device = city.enrol_device("fault", "rivers", STREAM);
    let official = json!({"kind": "official", "login": "social.1", "department": "social", "roles": ["department"]});
    let code = city.act("admin", "principal.enrol", official).json()["answer"]["code"].clone();
    let redeem = json!({"code": code, "password": PASSWORD});
    assert_eq!(city.post("/api/v1/redeem", "", &redeem).status, 201);
    city.stop();
    let journal = city.data().join("store/0.jnl");
    let inject = format!("inject={call}:error={error}:when={nth}+");
    let trace = format!("trace={call}");
    city.launch_under(&[
        "strace",
        "-D",
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-P",
        journal.to_str().unwrap(),
        "-e",
        &trace,
        "-e",
        &inject,
    ]);
    let sign_in = json!({"login": "social.1", "password": PASSWORD});
    let social = city.post("/api/v1/session", "", &sign_in).json()["token"].clone();
    (city, device, social.as_str().unwrap().to_owned())
}

fn note(n: u32) -> Value {
    json!({"id": format!("urn:ngsi-ld:Note:{n}"), "type": "Note", "level": n})
}

fn fails_safely(call: &str, error: &str) {
    let (mut city, device, social) = failing(call, error, 40);
    let mut acknowledged = 0;
    let refused = loop {
        let answer = city.post("/ngsi-ld/v1/entities", "app", &note(acknowledged));
        if answer.status != 201 {
            break answer;
        }
        acknowledged += 1;
        assert!(acknowledged < 500, "the fault does not come");
    };
    assert!(acknowledged > 0, "the fault comes too early");
    assert_eq!(refused.status, 503, "{}", refused.text);
    // Never tried again on the same file, and said so.
    for n in 0..3 {
        let again = city.post("/ngsi-ld/v1/entities", "app", &note(10_000 + n));
        assert_eq!(again.status, 503, "{}", again.text);
    }
    let ready = city.get("/readyz", "");
    assert_eq!((ready.status, ready.text.contains("restart")), (503, true), "{}", ready.text);
    for n in 0..acknowledged {
        let path = format!("/ngsi-ld/v1/entities/urn:ngsi-ld:Note:{n}?options=keyValues");
        assert_eq!(city.get(&path, "app").json()["level"], json!(n));
    }
    // Reads that must be recorded before the answer are not answered, but for an emergency: then
    // the record goes to the ring too.
    let register = "/ngsi-ld/v1/entities?type=EvacuationAssistance&limit=1";
    assert_eq!(city.get(register, &format!("{social}:social-care")).status, 503);
    let shown = city.get(register, "crisis:flood-response");
    assert_eq!(shown.status, 200, "{}", shown.text);
    let reading = json!([{"id": STREAM, "type": "FloodMonitoring",
        "currentLevel": {"value": 321, "unitCode": "CMT", "observedAt": "2026-02-01T10:00:00Z"}}]);
    let kept = city.post("/ngsi-ld/v1/entityOperations/upsert?options=update", &device, &reading);
    assert!(kept.status < 300, "life-safety goes on: {}", kept.text);
    city.kill();
    city.launch();
    for n in 0..acknowledged {
        let path = format!("/ngsi-ld/v1/entities/urn:ngsi-ld:Note:{n}?options=keyValues");
        assert_eq!(city.get(&path, "app").json()["level"], json!(n));
    }
    for n in 0..3 {
        let path = format!("/ngsi-ld/v1/entities/urn:ngsi-ld:Note:{}", 10_000 + n);
        assert_eq!(city.get(&path, "app").status, 404, "refused is not done");
    }
    let level = city.get(&format!("/ngsi-ld/v1/entities/{STREAM}?options=keyValues"), "").json();
    assert_eq!(level["currentLevel"], json!(321), "{level}");
    let looked =
        city.get("/api/v1/records?dataset=evacuation&purpose=flood-response&limit=5", "auditor");
    assert!(
        looked.text.contains("\"counted\""),
        "the emergency read has its record: {}",
        looked.text
    );
    assert_eq!(city.post("/ngsi-ld/v1/entities", "app", &note(20_000)).status, 201);
    city.verify_clean();
}

#[test]
fn a_failed_fsync_is_never_tried_again() {
    fails_safely("fdatasync", "EIO");
}

#[test]
fn a_failed_write_is_never_tried_again() {
    fails_safely("write", "ENOSPC");
}
