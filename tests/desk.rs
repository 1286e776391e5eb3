//! What the console stands on: charts, trial runs, quarantine, questions for others, versions, how things
//! are, the session's cookie, and languages.

use crate::harness::{City, PASSWORD};
use serde_json::{Value, json};

const UPSERT: &str = "/ngsi-ld/v1/entityOperations/upsert?options=update";
const GAUGE: &str = "urn:ngsi-ld:FloodMonitoring:demo-1";
const METER: &str = "urn:ngsi-ld:SmartMeteringObservation:m";

fn numbers(answer: &Value, key: &str) -> Vec<f64> {
    answer[key].as_array().unwrap().iter().map(|n| n.as_f64().unwrap()).collect()
}

#[test]
fn a_chart_is_thin_and_keeps_every_peak() {
    let city = City::start();
    // A value every second for an hour, a spike and a dip in it.
    let value = |second: u64| match second {
        1_801 => 900.0,
        2_407 => -40.0,
        _ => 100.0 + (second % 7) as f64,
    };
    for start in (0..3_600).step_by(600) {
        let at =
            |s: u64| format!("2026-01-05T{:02}:{:02}:{:02}Z", 7 + s / 3_600, s / 60 % 60, s % 60);
        let points: Vec<_> = (start..start + 600)
            .map(|s| json!({"value": value(s), "unitCode": "CMT", "observedAt": at(s)}))
            .collect();
        let body = json!({"id": GAUGE, "type": "FloodMonitoring", "currentLevel": points});
        let sent = city.post("/ngsi-ld/v1/temporal/entities", "steward:water-management", &body);
        assert!(sent.status < 300, "{}", sent.text);
    }
    let path = format!("/api/v1/chart?entity={GAUGE}&attribute=currentLevel&columns=50");
    let chart = city.get(&path, "crisis").json();
    let (times, values) = (numbers(&chart, "times"), numbers(&chart, "values"));
    assert_eq!(chart["counted"], 3_600);
    assert_eq!(chart["unit"], "CMT");
    assert!((50..=200).contains(&times.len()), "{}", times.len());
    assert!(times.is_sorted());
    assert!(values.contains(&900.0) && values.contains(&-40.0), "peaks stay");
    assert_eq!((values[0], *values.last().unwrap()), (value(0), value(3_599)));
    // A part of it, closer.
    let part =
        city.get(&format!("{path}&from=2026-01-05T07:30:00Z&until=2026-01-05T07:30:10Z"), "crisis");
    assert_eq!(part.json()["counted"], 10);
    assert_eq!(numbers(&part.json(), "values").len(), 10);
    for wrong in ["columns=0", "columns=x", "from=yesterday", "limit=3"] {
        let path = format!("/api/v1/chart?entity={GAUGE}&attribute=currentLevel&{wrong}");
        assert_eq!(city.get(&path, "crisis").status, 400, "{wrong}");
    }
    let none = format!("/api/v1/chart?entity={GAUGE}&attribute=name");
    assert_eq!(city.get(&none, "crisis").status, 404);
    assert_eq!(city.get(&none, "").status, 401);
}

#[test]
fn a_chart_goes_through_the_lens_and_is_recorded() {
    let city = City::start();
    let device = {
        let body =
            json!({"login": "m", "datasets": ["meters"], "streams": [METER], "kind": "device"});
        let enrolled = city.act("admin", "principal.enrol", body);
        let code = enrolled.json()["answer"]["code"].clone();
        city.post("/api/v1/redeem", "", &json!({"code": code})).json()["token"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let reading = |value: f64| json!([{"id": METER, "type": "SmartMeteringObservation", "totalConsumption": {"value": value, "unitCode": "KWH"}}]);
    for value in [1.0, 2.0] {
        let sent = city.post(UPSERT, &device, &reading(value));
        assert!(sent.status < 300, "{}", sent.text);
    }
    let path = format!("/api/v1/chart?entity={METER}&attribute=totalConsumption");
    assert_eq!(city.get(&path, "").status, 401);
    assert_eq!(city.get(&path, "crisis").status, 403);
    assert_eq!(city.get(&path, "app").status, 403);
    let official = city.enrol_official("energy.one", "energy", &["department"]);
    let seen = city.get(&path, &format!("{official}:energy-saving"));
    assert_eq!(seen.status, 200, "{}", seen.text);
    let noted = city.wait_for(|| {
        let found =
            city.get("/api/v1/records?dataset=meters&verb=read&decision=allowed", "auditor").json();
        found
            .as_array()
            .unwrap()
            .iter()
            .find(|r| r["detail"]["history"] == "totalConsumption")
            .cloned()
    });
    assert_eq!(noted["purpose"], "energy-saving");
}

#[test]
fn a_trial_run_tells_all_and_does_nothing() {
    let city = City::start();
    let rehearse = |who: &str, name: &str, body: Value| {
        city.post("/api/v1/acts?dryRun=true", who, &json!({"act": name, "body": body}))
    };
    let records = city.get("/api/v1/records?limit=1", "auditor").json()[0]["index"].clone();
    let enrol = json!({"kind": "official", "login": "maybe", "roles": ["department"]});
    let would = rehearse("admin", "principal.enrol", enrol.clone());
    assert_eq!(would.status, 200, "{}", would.text);
    assert!(!would.text.contains("code"), "{}", would.text);
    assert_eq!(rehearse("crisis", "principal.enrol", enrol.clone()).status, 403);
    let people = city.get("/api/v1/principals", "admin").text;
    assert!(!people.contains("maybe"), "nobody was enrolled");
    let mut dataset = city.get("/api/v1/datasets/rivers", "").json();
    dataset["attributes"][0]["sensitivity"] = json!("special");
    let would = rehearse("steward", "dataset.put", json!({"dataset": dataset})).json();
    assert_eq!(would["four_eyes"], true);
    assert!(would["effect"]["lose"].to_string().contains("public"), "{would}");
    let said = city.send_with(
        "POST",
        "/api/v1/acts?dryRun=true",
        "steward",
        Some((
            "application/json",
            json!({"act": "dataset.put", "body": {"dataset": dataset}}).to_string().into_bytes(),
        )),
        &[("accept-language", "id")],
    );
    assert!(said.text.contains("tanpa tujuan"), "{}", said.text);
    assert_eq!(city.get("/api/v1/datasets/rivers", "").json()["version"], 1);
    assert_eq!(city.get("/api/v1/acts", "admin").json(), json!([]));
    // Only the refusal left a record.
    let after =
        city.get(&format!("/api/v1/records?hub=false&from={}", "2020-01-01T00:00:00Z"), "auditor");
    let newer = after.json();
    let newer = newer.as_array().unwrap().iter().filter(|r| r["index"].as_u64() > records.as_u64());
    assert!(newer.filter(|r| r["verb"] == "act").all(|r| r["decision"] == "refused"));
}

#[test]
fn many_are_enrolled_in_one_act_or_none() {
    let city = City::start();
    let one = |login: &str| json!({"kind": "device", "login": login, "datasets": ["rivers"], "streams": [format!("urn:ngsi-ld:FloodMonitoring:{login}")]});
    let twice = json!({"items": [one("a-1"), one("a-1")]});
    let refused = city.act("admin", "principals.enrol", twice);
    assert_eq!(refused.status, 400, "{}", refused.text);
    assert!(refused.text.contains("/items/1/login"), "{}", refused.text);
    let mut nowhere = one("a-2");
    nowhere["datasets"] = json!(["no-such"]);
    let refused = city.act("admin", "principals.enrol", json!({"items": [one("a-1"), nowhere]}));
    assert!(refused.text.contains("/items/1/datasets"), "{}", refused.text);
    assert!(!city.get("/api/v1/principals", "admin").text.contains("a-1"));
    assert_eq!(city.act("steward", "principals.enrol", json!({"items": [one("a-1")]})).status, 403);
    let done = city.act("admin", "principals.enrol", json!({"items": [one("a-1"), one("a-2")]}));
    assert_eq!(done.status, 200, "{}", done.text);
    let answer = done.json()["answer"]["enrolled"].clone();
    for enrolled in answer.as_array().unwrap() {
        let redeemed = city.post("/api/v1/redeem", "", &json!({"code": enrolled["code"]}));
        let token = redeemed.json()["token"].as_str().unwrap().to_owned();
        let login = enrolled["login"].as_str().unwrap();
        let id = format!("urn:ngsi-ld:FloodMonitoring:{login}");
        let reading = json!([{"id": id, "type": "FloodMonitoring", "currentLevel": {"value": 3}}]);
        assert!(city.post(UPSERT, &token, &reading).status < 300);
    }
    // Each was seen, and is told so.
    let known = city.get("/api/v1/principals", "steward").json();
    let seen = known.as_array().unwrap().iter().find(|p| p["login"] == "a-2").unwrap();
    assert!(seen["seen"].is_string() && seen["kind"] == "device", "{seen}");
    assert!(
        known.as_array().unwrap().iter().all(|p| p["kind"] == "device"),
        "a steward sees devices"
    );
}

#[test]
fn a_quarantined_reading_is_accepted_by_its_steward_only_and_only_if_it_fits() {
    let city = City::start();
    let quarantined = |value: f64, id: &str| {
        let reading =
            json!([{"id": id, "type": "FloodMonitoring", "currentLevel": {"value": value}}]);
        assert!(city.post(UPSERT, "device", &reading).status < 300);
        let all = city.get("/api/v1/datasets/rivers/quarantine", "steward").json();
        let own = all.as_array().unwrap().iter().find(|r| r["entity"]["id"] == id).cloned();
        own.unwrap()["reading"].as_str().unwrap().to_owned()
    };
    let name = quarantined(99_999.5, GAUGE);
    // Why is for the steward, and not for all who read records. (No salt has a point in it.)
    let records = city.get("/api/v1/records?verb=write&limit=100", "auditor");
    assert!(records.text.contains(&name) && !records.text.contains("99999.5"), "{}", records.text);
    let accept = |who: &str, body: Value| city.act(who, "quarantine.accept", body);
    let plain = json!({"dataset": "rivers", "reading": name});
    assert_eq!(accept("crisis", plain.clone()).status, 403);
    assert_eq!(accept("steward.transport", plain.clone()).status, 401);
    assert_eq!(accept("steward", plain.clone()).status, 403, "who may not write may not accept");
    let own = "steward:water-management";
    let refused = accept(own, plain);
    assert_eq!(refused.status, 400, "{}", refused.text);
    assert!(refused.text.contains("99999.5"), "{}", refused.text);
    let with = |entity: Value| json!({"dataset": "rivers", "reading": name, "entity": entity});
    let foreign =
        json!({"id": METER, "type": "SmartMeteringObservation", "totalConsumption": {"value": 1}});
    assert_eq!(accept(own, with(foreign)).status, 409);
    let mended = json!({"id": GAUGE, "type": "FloodMonitoring", "currentLevel": {"value": 99}});
    let done = accept(own, with(mended));
    assert_eq!(done.status, 200, "{}", done.text);
    let entity = city.get(&format!("/ngsi-ld/v1/entities/{GAUGE}?options=keyValues"), "").json();
    assert_eq!(entity["currentLevel"], 99);
    assert_eq!(city.get("/api/v1/datasets/rivers/quarantine", "steward").json(), json!([]));
    let acts = city.get("/api/v1/records?verb=act&limit=1&hub=false", "auditor").json();
    assert_eq!(acts[0]["detail"]["mended"], true, "{acts}");
}

#[test]
fn why_for_somebody_else_is_told_to_those_who_look_after_it() {
    let city = City::start();
    let path = "/api/v1/why?dataset=evacuation&action=read&login=crisis";
    assert_eq!(city.get(path, "").status, 401);
    assert_eq!(city.get(path, "app").status, 403);
    assert_eq!(city.get(path, "steward").status, 403, "steward of another dataset");
    for who in ["admin", "auditor", "crisis"] {
        let answer = city.get(path, who);
        assert_eq!(answer.status, 200, "{who}: {}", answer.text);
        assert_eq!(answer.json()["allowed"], false);
        assert_eq!(answer.json()["purposes_that_would_do"], json!(["flood-response"]));
    }
    let with = city.get(&format!("{path}&purpose=flood-response"), "admin").json();
    assert_eq!(with["allowed"], true);
    assert_eq!(with["clear"], json!(["internal", "personal", "special"]));
    let asked = city.get(
        "/api/v1/why?dataset=pipes&action=write&login=works.official&purpose=water-management",
        "admin",
    );
    assert!(asked.json()["roles_that_would_do"].is_array());
    assert_eq!(city.get("/api/v1/why?dataset=pipes&login=nobody.here", "admin").status, 404);
    assert_eq!(
        city.get("/api/v1/why?dataset=rivers&login=public", "admin").json()["allowed"],
        true
    );
    assert_eq!(city.act("admin", "principal.revoke", json!({"login": "crisis"})).status, 200);
    let revoked =
        city.get("/api/v1/why?dataset=rivers&login=crisis&purpose=flood-response", "admin").json();
    assert_eq!(revoked["allowed"], false);
    assert_eq!(revoked["reasons"][0]["policy"], "revoked");
}

#[test]
fn datasets_keep_their_versions_and_tell_how_they_fare() {
    let city = City::start();
    let mut dataset = city.get("/api/v1/datasets/rivers", "").json();
    dataset["legal_basis"] = json!("A newer regulation");
    let asked = city.act("steward", "dataset.put", json!({"dataset": dataset})).json();
    let approve = format!("/api/v1/acts/{}/approve", asked["pending"].as_str().unwrap());
    assert_eq!(city.post(&approve, "admin", &json!({})).status, 200);
    let versions = city.get("/api/v1/datasets/rivers/versions", "").json();
    assert_eq!(versions.as_array().unwrap().len(), 2);
    assert_eq!(versions[0]["dataset"]["legal_basis"], "A newer regulation");
    assert!(versions[0]["time"].is_string() && versions[1]["dataset"]["version"] == 1);
    assert_eq!(city.get("/api/v1/datasets/no-such/versions", "").status, 404);
    let reading = json!([{"id": GAUGE, "type": "FloodMonitoring", "currentLevel": {"value": 7, "observedAt": "2026-01-01T00:00:00Z"}}]);
    assert!(city.post(UPSERT, "device", &reading).status < 300);
    let health = city.get("/api/v1/datasets/rivers/health", "steward").json();
    assert_eq!(health["entities"], 1);
    assert_eq!(health["ages"]["entities"], json!([0, 0, 0, 1]));
    assert_eq!(health["filled"][0], json!({"attribute": "currentLevel", "entities": 1}));
    // What a reader is not shown does not exist here either: neither its name nor its age.
    assert!(health["open_points"].is_u64() && health["quarantined"].is_u64(), "{health}");
    let shown = city.get("/api/v1/datasets/rivers/health", "crisis").json();
    assert!(shown["open_points"].is_null() && shown["quarantined"].is_null(), "{shown}");
    assert_eq!(shown["ages"]["entities"], json!([0, 0, 0, 1]));
    let mut dataset = city.get("/api/v1/datasets/rivers", "").json();
    let attributes = dataset["attributes"].as_array_mut().unwrap();
    let level = attributes.iter_mut().find(|one| one["name"] == "currentLevel").unwrap();
    level["sensitivity"] = json!("confidential");
    let asked = city.act("steward", "dataset.put", json!({"dataset": dataset})).json();
    let approve = format!("/api/v1/acts/{}/approve", asked["pending"].as_str().unwrap());
    assert_eq!(city.post(&approve, "admin", &json!({})).status, 200);
    let shown = city.get("/api/v1/datasets/rivers/health", "crisis").json();
    assert_eq!((shown["entities"].as_u64(), shown["unobserved"].as_u64()), (Some(1), Some(1)));
    assert!(!shown["filled"].to_string().contains("currentLevel"), "{shown}");
    let all = city.get("/api/v1/datasets/rivers/health", "steward").json();
    assert_eq!(all["filled"], health["filled"]);
    // Of people, not even how many is told to those who may not know.
    assert_eq!(city.get("/api/v1/datasets/evacuation/health", "").status, 401);
    for who in ["app", "steward", "crisis:flood-response"] {
        assert_eq!(city.get("/api/v1/datasets/evacuation/health", who).status, 403, "{who}");
    }
    assert_eq!(city.get("/api/v1/datasets/evacuation/health", "auditor").status, 200);
}

#[test]
fn the_hub_tells_how_it_is_to_those_who_look_after_it() {
    let city = City::start();
    for (who, status) in [("", 401), ("app", 403), ("device", 403), ("crisis", 403)] {
        assert_eq!(city.get("/api/v1/state", who).status, status, "{who}");
        assert_eq!(city.post("/api/v1/checks", who, &json!({})).status, status, "{who}");
    }
    assert_eq!(city.post("/api/v1/checks", "auditor", &json!({})).status, 202);
    let state = city.wait_for(|| {
        let state = city.get("/api/v1/state", "steward").json();
        state["checked"].is_object().then_some(state)
    });
    assert_eq!(state["checked"]["findings"], json!([]));
    assert!(state["checked"]["records"].as_u64().unwrap() > 10);
    assert!(state["doors"]["https"]["connections"].as_u64().unwrap() >= 1);
    assert!(state["certificate_until"].is_string() && state["trouble"].is_null());
    let counted = |key: &str| {
        let buckets = state[key].as_array().unwrap();
        buckets.iter().map(|bucket| bucket["count"].as_u64().unwrap()).sum::<u64>()
    };
    assert!(counted("requests") > 0 && counted("commits") > 0);
}

#[test]
fn a_purpose_is_declared_with_a_reason_that_is_recorded() {
    let city = City::start();
    let declare = |who: &str, purpose: &str, reason: &str| {
        let body = json!({"purpose": purpose, "reason": reason});
        city.post("/api/v1/session/purpose", who, &body)
    };
    assert_eq!(declare("", "flood-response", "an exercise").status, 401);
    assert_eq!(declare("crisis", "no-such", "an exercise").status, 400);
    assert_eq!(declare("crisis", "flood-response", " x ").status, 400);
    assert_eq!(declare("crisis", "flood-response", &"x".repeat(301)).status, 400);
    let done = declare("crisis", "flood-response", "  an exercise of today ");
    assert_eq!(done.status, 200, "{}", done.text);
    let found = city.get("/api/v1/records?verb=open&limit=1", "auditor").json();
    assert_eq!(found[0]["detail"]["reason"], "an exercise of today");
    assert_eq!(found[0]["index"], done.json()["receipt"]);
    let purposes = city.get("/api/v1/purposes", "").json();
    assert!(
        purposes
            .as_array()
            .unwrap()
            .iter()
            .any(|p| p["id"] == "flood-response" && p["emergency"] == true)
    );
}

#[test]
fn the_cookie_is_a_session_for_the_console_alone() {
    let city = City::start();
    city.enrol_official("official.one", "water", &["department"]);
    let sign_in = json!({"login": "official.one", "password": PASSWORD}).to_string().into_bytes();
    let console = [("tanggul-console", "1")];
    let body = || Some(("application/json", sign_in.clone()));
    let answer = city.send_with("POST", "/api/v1/session", "", body(), &console);
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert!(answer.json()["token"].is_null(), "no script gets the token");
    let set = answer.headers.get_all("set-cookie").iter().map(|v| v.to_str().unwrap());
    let set = set.filter(|cookie| cookie.starts_with("__Host-tanggul=")).collect::<Vec<_>>();
    for flag in ["; Secure", "; HttpOnly", "; SameSite=Strict", "; Path=/"] {
        assert!(set[0].contains(flag), "{flag}: {}", set[0]);
    }
    let cookie = set[0].split(';').next().unwrap().to_owned();
    let who =
        |headers: &[(&str, &str)]| city.send_with("GET", "/api/v1/session", "", None, headers);
    assert_eq!(who(&[("cookie", &cookie), console[0]]).json()["login"], "official.one");
    assert_eq!(who(&[("cookie", &cookie)]).json()["login"], "public", "a cookie alone is nobody");
    assert_eq!(who(&[("cookie", "__Host-tanggul=forged"), console[0]]).status, 401);
    // One that has ended keeps nobody from signing in again.
    let again = city.send_with(
        "POST",
        "/api/v1/session",
        "",
        body(),
        &[("cookie", "__Host-tanggul=forged"), console[0]],
    );
    assert_eq!(again.status, 200, "{}", again.text);
    let out =
        city.send_with("DELETE", "/api/v1/session", "", None, &[("cookie", &cookie), console[0]]);
    assert_eq!(out.status, 204);
    assert_eq!(who(&[("cookie", &cookie), console[0]]).status, 401);
}

#[test]
fn problems_are_told_in_the_readers_language() {
    let city = City::start();
    let ask = |language: &str| {
        let path = "/ngsi-ld/v1/entities?type=SmartMeteringObservation";
        city.send_with("GET", path, "crisis", None, &[("accept-language", language)])
    };
    let indonesian = ask("id-ID,id;q=0.9,en;q=0.5");
    assert_eq!(indonesian.status, 403);
    assert_eq!(indonesian.header("content-language"), "id");
    let problem = indonesian.json();
    assert_eq!(problem["title"], "Tidak diizinkan");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.starts_with("tidak diizinkan untuk membaca"), "{detail}");
    assert!(problem["remedy"].as_str().unwrap().contains("tujuan"));
    let english = ask("en").json();
    assert_eq!(english["title"], "Not permitted");
    assert!(english["remedy"].is_string());
    assert_eq!(english["type"], problem["type"]);
}

/// Here and not where limits are, for it is what an official feels.
#[test]
fn devices_wait_for_each_other_and_nobody_waits_for_them() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "[store]\ngather_ms = 1500\n").unwrap();
    let config = file.path().to_str().unwrap();
    let city = City::start_with(&["--devices", "0", "--config", config]);
    let gauge = |value: f64| json!([{"id": GAUGE, "type": "FloodMonitoring", "currentLevel": {"value": value}}]);
    let thing = "urn:ngsi-ld:T:1";
    assert!(city.post(UPSERT, "app", &json!([{"id": thing, "type": "T", "a": 1}])).status < 300);
    assert!(city.post(UPSERT, "device", &gauge(1.0)).status < 300);
    let took = |send: &dyn Fn() -> u16| {
        let since = std::time::Instant::now();
        assert!(send() < 300);
        since.elapsed().as_millis()
    };
    // By the short way, by the long one, and what is no reading at all.
    let patch = json!({"a": {"value": 2}});
    let path = format!("/ngsi-ld/v1/entities/{thing}/attrs");
    let short = took(&|| city.call("PATCH", &path, "app", Some(&patch)).status);
    let long =
        took(&|| city.post(UPSERT, "app", &json!([{"id": thing, "type": "T", "b": "x"}])).status);
    let act = took(&|| {
        city.post(
            "/api/v1/session/purpose",
            "crisis",
            &json!({"purpose": "flood-response", "reason": "a test"}),
        )
        .status
    });
    assert!(short < 1_000 && long < 1_000 && act < 1_000, "{short} {long} {act}");
    // The checkpoint of each second ends it, too: the second one waits from there to the next.
    let device = (0..3).map(|n| took(&|| city.post(UPSERT, "device", &gauge(f64::from(n))).status));
    let longest = device.max().unwrap();
    assert!(longest >= 600, "{longest}");
    // Whoever comes meanwhile ends the waiting, for the device, too.
    let both = std::thread::scope(|scope| {
        let device = scope.spawn(|| {
            let since = std::time::Instant::now();
            let output = std::process::Command::new("curl")
                .args(["-s", "--cacert", city.ca(), "-H", "Content-Type: application/json", "-H"])
                .arg(format!("Authorization: Bearer {}", city.token("device")))
                .args(["-d", &gauge(3.0).to_string(), &format!("{}{UPSERT}", city.url())])
                .output();
            assert!(output.unwrap().status.success());
            since.elapsed().as_millis()
        });
        std::thread::sleep(std::time::Duration::from_millis(300));
        let app = took(&|| city.call("PATCH", &path, "app", Some(&patch)).status);
        (device.join().unwrap(), app)
    });
    assert!(both.0 < 1_200 && both.1 < 500, "{both:?}");
}

#[test]
fn a_stream_tells_what_is_gone() {
    let city = City::start();
    let id = "urn:ngsi-ld:T:gone";
    assert!(city.post(UPSERT, "app", &json!([{"id": id, "type": "T", "a": 1}])).status < 300);
    let stream = std::process::Command::new("curl")
        .args(["-sN", "--max-time", "3", "--cacert", city.ca(), "-H"])
        .arg(format!("Authorization: Bearer {}", city.token("app")))
        .arg(format!("{}/api/v1/watch?type=T", city.url()))
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(std::time::Duration::from_millis(1_000));
    assert_eq!(city.call("DELETE", &format!("/ngsi-ld/v1/entities/{id}"), "app", None).status, 204);
    let seen = crate::harness::stdout(&stream.wait_with_output().unwrap());
    assert!(seen.contains(&format!("event: gone\ndata: [\"{id}\"]")), "{seen}");
}
