//! The sensitive root closed: what lies under it is not read, what comes for it is kept encrypted
//! to it, everything else goes on; opened again, nothing is missing and nothing is mixed up.

use crate::harness::{City, stdout, tanggul};
use serde_json::{Value, json};

const PERSON: &str = "urn:ngsi-ld:EvacuationAssistance:sealed-1";
const METER: &str = "urn:ngsi-ld:SmartMeteringObservation:sealed-1";

fn enrol(city: &City, act: &str, body: Value, redeem: Value) -> String {
    let enrolled = city.act("admin", act, body);
    assert_eq!(enrolled.status, 200, "{}", enrolled.text);
    let mut body = redeem;
    body["code"] = enrolled.json()["answer"]["code"].clone();
    let redeemed = city.post("/api/v1/redeem", "", &body);
    assert_eq!(redeemed.status, 201, "{}", redeemed.text);
    redeemed.json()["token"].as_str().unwrap().to_owned()
}

fn read_back(city: &City, id: &str) -> Value {
    city.get(&format!("/ngsi-ld/v1/entities/{id}?options=keyValues"), "app").json()
}

#[test]
fn what_comes_while_the_sensitive_root_is_closed_waits_for_it() {
    let mut city = City::start();
    let device = |login: &str, dataset: &str, stream: &str| json!({"kind": "device", "login": login, "datasets": [dataset], "streams": [stream]});
    let of_people =
        enrol(&city, "principal.enrol", device("kiosk", "evacuation", PERSON), json!({}));
    let meter = enrol(&city, "principal.enrol", device("meter-1", "meters", METER), json!({}));
    let official = json!({"kind": "official", "login": "energy.1", "department": "energy", "roles": ["department"]});
    let password = json!({"password": "kuda meja awan tujuh belas"});
    enrol(&city, "principal.enrol", official, password.clone());
    let known = "urn:ngsi-ld:EvacuationAssistance:001";
    let register = "/ngsi-ld/v1/entities?type=EvacuationAssistance&count=true&limit=0";
    let count = |city: &City| {
        let answer = city.get(register, "crisis:flood-response");
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.header("ngsild-results-count").parse::<u32>().unwrap()
    };
    let (before, id) = (count(&city), |n: u32| format!("urn:ngsi-ld:Note:{n}"));
    let note = |n: u32| json!({"id": id(n), "type": "Note", "level": n});
    assert_eq!(city.post("/ngsi-ld/v1/entities", "app", &note(1)).status, 201);
    city.stop();
    let key = city.directory.path().join("data.keys/sensitive.key");
    let away = city.directory.path().join("sensitive.key");
    std::fs::rename(&key, &away).unwrap();
    city.launch();

    // Nothing of it can be read, which is said to those who might, and to nobody else.
    let closed = city.get(register, "crisis:flood-response");
    assert_eq!(closed.status, 503, "{}", closed.text);
    assert!(closed.text.contains("custodians"), "{}", closed.text);
    let by_id = |who| city.get(&format!("/ngsi-ld/v1/entities/{known}"), who).status;
    assert_eq!((by_id("crisis:flood-response"), by_id("app"), by_id("")), (503, 404, 404));
    let history = format!("/ngsi-ld/v1/temporal/entities/{known}");
    assert_eq!(city.get(&history, "crisis:flood-response").status, 503);
    assert_eq!(city.get(register, "auditor").status, 403);

    // What comes is kept, several times over, and by MQTT's rules of the same door.
    let person = json!({"id": PERSON, "type": "EvacuationAssistance", "name": "Sealed Wayan", "need": "sealedwheelchair"});
    let kept = city.post("/ngsi-ld/v1/entities", &of_people, &person);
    assert_eq!(kept.status, 202, "{}", kept.text);
    assert!(kept.receipt() > 0);
    let newer = json!([{"id": PERSON, "type": "EvacuationAssistance", "name": "Sealed Wayan", "telephone": "555-sealed"}]);
    let upsert = "/ngsi-ld/v1/entityOperations/upsert?options=update";
    let kept = city.post(upsert, &of_people, &newer);
    assert_eq!((kept.status, &kept.json()["sealed"][0]), (202, &json!(PERSON)), "{}", kept.text);
    let reading = |value: f64, minute: u32| {
        json!([{"id": METER, "type": "SmartMeteringObservation", "totalConsumption":
        {"value": value, "unitCode": "KWH", "observedAt": format!("2026-08-20T10:{minute:02}:00Z")}}])
    };
    for minute in 0..10 {
        let kept = city.post(upsert, &meter, &reading(f64::from(minute), minute));
        assert_eq!(kept.status, 202, "{}", kept.text);
    }
    // A device's misfit is found when what is there can be looked at; another's stream is refused now.
    assert_eq!(city.post(upsert, &meter, &reading(-7.0, 30)).status, 202);
    let mut foreign = reading(1.0, 1);
    foreign[0]["id"] = json!("urn:ngsi-ld:SmartMeteringObservation:other");
    assert_eq!(city.post(upsert, &meter, &foreign).status, 403);
    let mut taken = note(9);
    taken["id"] = json!(known);
    assert_eq!(city.post("/ngsi-ld/v1/entities", "app", &taken).status, 409, "an id that is taken");
    let shred = city.act("admin", "dataset.shred", json!({"dataset": "meters"}));
    assert_eq!(shred.status, 503, "{}", shred.text);
    // What a quarantined device sends is for the steward, also when it had to wait.
    let apart = json!({"login": "meter-1", "dataset": "meters"});
    assert_eq!(city.act("admin", "device.quarantine", apart).status, 200);
    assert_eq!(city.post(upsert, &meter, &reading(99.0, 45)).status, 202);
    // Everything else goes on, and takes no number that is taken.
    for n in 2..6 {
        assert_eq!(city.post("/ngsi-ld/v1/entities", "app", &note(n)).status, 201);
    }
    city.kill();
    let data = city.data();
    let verify = tanggul(&["verify", "--data", data.to_str().unwrap()]);
    assert!(verify.status.success(), "{}", stdout(&verify));
    for file in crate::skeleton::files(&data) {
        let bytes = std::fs::read(&file).unwrap();
        for word in ["Sealed Wayan", "sealedwheelchair", "555-sealed", "sealed-1"] {
            let found = bytes.windows(word.len()).any(|window| window == word.as_bytes());
            assert!(!found, "`{word}` lies in clear in {}", file.display());
        }
    }

    std::fs::rename(&away, &key).unwrap();
    city.launch();
    assert_eq!(count(&city), before + 1);
    let sign_in = json!({"login": "energy.1", "password": password["password"]});
    let energy =
        city.post("/api/v1/session", "", &sign_in).json()["token"].as_str().unwrap().to_owned();
    let person = city
        .get(&format!("/ngsi-ld/v1/entities/{PERSON}?options=keyValues"), "crisis:flood-response");
    let person = person.json();
    assert_eq!(
        (&person["name"], &person["telephone"], &person["need"]),
        (&json!("Sealed Wayan"), &json!("555-sealed"), &json!("sealedwheelchair"))
    );
    let history = format!("/ngsi-ld/v1/temporal/entities/{METER}?options=temporalValues");
    let history = city.get(&history, &format!("{energy}:energy-saving")).json();
    let values = history["totalConsumption"]["values"].as_array().unwrap();
    assert_eq!(values.len(), 10, "ten fit, two were set apart: {history}");
    assert_eq!(values[9][0], json!(9));
    for n in 1..6 {
        assert_eq!(read_back(&city, &id(n))["level"], json!(n));
    }
    let again = city.get(&format!("/ngsi-ld/v1/entities/{known}"), "crisis:flood-response");
    assert_eq!(again.status, 200, "{}", again.text);
    city.verify_clean();
}
