//! Governing: four eyes, effects shown first, guessing without lock-out, keys rotated and shredded.

use crate::harness::{City, stdout, tanggul};
use serde_json::{Value, json};

fn official(city: &City, login: &str, roles: &[&str]) -> String {
    city.enrol_official(login, "it", roles)
}

#[test]
fn a_second_person_agrees_to_what_changes_who_sees_what() {
    let city = City::start();
    let second = official(&city, "second.admin", &["administrator"]);
    // From now on there are two, and one alone cannot.
    let mut dataset = city.get("/api/v1/datasets/traffic", "admin").json();
    dataset["publication"] = json!("open");
    dataset["attributes"][0]["sensitivity"] = json!("open");
    let asked = city.act("admin", "dataset.put", json!({"dataset": dataset}));
    assert_eq!(asked.status, 202, "{}", asked.text);
    let gains = asked.json()["answer"]["gain"].to_string();
    assert!(gains.contains("public for no purpose: `intensity`"), "{gains}");
    let pending = asked.json()["pending"].as_str().unwrap().to_owned();
    let approve = format!("/api/v1/acts/{pending}/approve");
    assert_eq!(city.post(&approve, "admin", &json!({})).status, 409, "not by oneself");
    assert_eq!(city.post(&approve, "app", &json!({})).status, 403);
    assert_eq!(city.get("/api/v1/datasets/traffic", "").json()["publication"], "withheld");
    let agreed = city.post(&approve, &second, &json!({}));
    assert_eq!(agreed.status, 200, "{}", agreed.text);
    assert_eq!(city.get("/api/v1/datasets/traffic", "").json()["publication"], "open");
    assert_eq!(city.post(&approve, &second, &json!({})).status, 404, "once");
    // The act is public, with its salt.
    let index = agreed.json()["receipt"].as_u64().unwrap();
    let record = city.get(&format!("/api/v1/records/{index}"), "").json();
    let text: Value = serde_json::from_str(record["record"].as_str().unwrap()).unwrap();
    assert_eq!(text["detail"]["act"], "dataset.put");
    assert_eq!(
        city.get("/api/v1/records/1", "").status,
        200,
        "datasets of the start are public acts"
    );
}

#[test]
fn overlapping_claims_and_bad_policies_are_refused() {
    let city = City::start();
    let mut dataset = city.get("/api/v1/datasets/traffic", "admin").json();
    dataset["id"] = json!("traffic-too");
    let refused = city.act("admin", "dataset.put", json!({"dataset": dataset}));
    assert_eq!(refused.status, 409, "{}", refused.text);
    assert!(refused.text.contains("claims type `TrafficFlowObserved`"), "{}", refused.text);
    let refused =
        city.act("admin", "policies.put", json!({"text": "permit(principal, action, resource);"}));
    assert_eq!(refused.status, 400, "{}", refused.text);
    assert_eq!(city.act("steward", "policies.put", json!({"text": "x"})).status, 403);
    // Not even an administrator opens a register of people to everybody, to read or to write.
    let old = city.get("/api/v1/policies", "").json()["text"].as_str().unwrap().to_owned();
    for action in ["read", "glimpse", "write"] {
        let text = format!(
            "{old}\n@id(\"all\") permit(principal, action == Tanggul::Action::\"{action}\", resource);"
        );
        let refused = city.act("admin", "policies.put", json!({"text": text}));
        assert_eq!(refused.status, 409, "{action}: {}", refused.text);
    }
    // Nor locks he everybody out for good.
    let start = old.find("@id(\"administrator-govern\")").unwrap();
    let end = start + 1 + old[start + 1..].find("@id(").unwrap();
    let without = format!("{}{}", &old[..start], &old[end..]);
    let forbidden = format!(
        "{old}\n@id(\"never\") forbid (principal, action == Tanggul::Action::\"govern\", resource);"
    );
    for text in [without, forbidden] {
        let refused = city.act("admin", "policies.put", json!({"text": text}));
        assert_eq!(refused.status, 409, "{}", refused.text);
        assert!(refused.text.contains("govern the hub any more"), "{}", refused.text);
    }
    // Nor does the last one go who governs, whatever the policy calls him.
    let mayor = official(&city, "mayor", &["department"]);
    let by_name = old[start..end]
        .replace("principal.roles.contains(\"administrator\")", "principal.login == \"mayor\"");
    let text = format!("{}{by_name}{}", &old[..start], &old[end..]);
    assert_ne!(text, old);
    assert_eq!(city.act("admin", "policies.put", json!({"text": text})).status, 200);
    let gone = city.act(&mayor, "principal.revoke", json!({"login": "mayor"}));
    assert_eq!(gone.status, 409, "{}", gone.text);
    assert!(gone.text.contains("govern the hub any more"), "{}", gone.text);
    assert_eq!(city.act(&mayor, "policies.put", json!({"text": old})).status, 200);
    assert_eq!(city.act("admin", "principal.revoke", json!({"login": "mayor"})).status, 200);
    // Nor does he become the only one.
    official(&city, "second.admin", &["administrator"]);
    let alone = city.act("admin", "principal.revoke", json!({"login": "second.admin"}));
    assert_eq!(alone.status, 409, "{}", alone.text);
    let asked = city.act("admin", "administrator.revoke", json!({"login": "second.admin"}));
    assert_eq!(asked.status, 202, "{}", asked.text);
}

#[test]
fn guessing_is_slowed_and_locks_nobody_out() {
    let city = City::start();
    official(&city, "siti", &["department"]);
    let try_one = |password: &str| {
        city.post("/api/v1/session", "", &json!({"login": "siti", "password": password})).status
    };
    let statuses: Vec<u16> =
        (0..14).map(|n| try_one(&format!("guess number {n} of many"))).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 401).count(), 10, "{statuses:?}");
    assert_eq!(statuses.last(), Some(&429));
    // Somebody else signs in as ever; so would she, from a browser that did so before.
    official(&city, "budi", &["department"]);
    let budi = json!({"login": "budi", "password": "kuda meja awan tujuh belas"});
    let signed_in = city.post("/api/v1/session", "", &budi);
    assert_eq!(signed_in.status, 200, "{}", signed_in.text);
    assert!(signed_in.header("set-cookie").contains("HttpOnly; SameSite=Strict"));
    let unknown = city.post(
        "/api/v1/session",
        "",
        &json!({"login": "nobody", "password": "kuda meja awan tujuh belas"}),
    );
    assert_eq!(unknown.status, 401);
    let weak = city.act(
        "admin",
        "principal.enrol",
        json!({"kind": "official", "login": "weak", "roles": ["department"]}),
    );
    let code = weak.json()["answer"]["code"].clone();
    let refused = city.post("/api/v1/redeem", "", &json!({"code": code, "password": "password"}));
    assert_eq!(refused.status, 400, "{}", refused.text);
}

#[test]
fn keys_are_rotated_while_writing_and_erased_for_good() {
    let mut city = City::start();
    let write = |n: i64| {
        let entity = json!([{"id": format!("urn:ngsi-ld:T:{}", n % 7), "type": "T", "n": {"value": n, "observedAt": format!("2026-01-01T00:00:{:02}Z", n % 60)}}]);
        assert!(
            city.post("/ngsi-ld/v1/entityOperations/upsert?options=update", "app", &entity).status
                < 300
        );
    };
    (0..30).for_each(write);
    let keyring = city.data().with_extension("keys").join("keyring");
    let before = std::fs::metadata(&keyring).unwrap().len();
    assert_eq!(city.act("admin", "dataset.rotate_key", json!({"dataset": "test"})).status, 200);
    (30..59).for_each(write);
    city.wait_for(|| {
        let records = city.get("/api/v1/records?limit=50", "auditor").text;
        records.contains("old_keys_deleted").then_some(())
    });
    let more = std::fs::metadata(&keyring).unwrap().len() - before;
    assert!((1..32).contains(&more), "one key came; of the one that went its number stays: {more}");
    // A person is erased: nobody finds her again, and the rest stays.
    let second = official(&city, "second.admin", &["administrator"]);
    let erase = json!({"dataset": "evacuation", "entity": "urn:ngsi-ld:EvacuationAssistance:002"});
    let asked = city.act("admin", "subject.erase", erase);
    assert_eq!(asked.status, 202, "{}", asked.text);
    let id = asked.json()["pending"].as_str().unwrap().to_owned();
    assert_eq!(city.post(&format!("/api/v1/acts/{id}/approve"), &second, &json!({})).status, 200);
    let register = |city: &City| {
        let all = "/ngsi-ld/v1/entities?type=EvacuationAssistance&count=true&limit=0";
        city.get(all, "crisis:flood-response").header("ngsild-results-count").to_owned()
    };
    assert_eq!(register(&city), "39");
    city.stop();
    let output = tanggul(&["verify", "--data", city.data().to_str().unwrap()]);
    assert!(output.status.success(), "{}", stdout(&output));
    city.launch();
    let path = "/ngsi-ld/v1/entities/urn:ngsi-ld:EvacuationAssistance:002";
    assert_eq!(city.get(path, "crisis:flood-response").status, 404);
    for n in 0..7 {
        assert_eq!(city.get(&format!("/ngsi-ld/v1/entities/urn:ngsi-ld:T:{n}"), "app").status, 200);
    }
}
