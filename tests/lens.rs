//! The lens as an oracle test: what is hidden or coarsened cannot be found by any question.

use crate::harness::City;
use serde_json::{Value, json};

/// An official of another department, who glimpses: names masked, places coarse, needs hidden.
fn outsider(city: &City) -> String {
    city.enrol_official("tester", "public-works", &["department"])
}

fn ids(answer: &Value) -> usize {
    answer.as_array().unwrap_or_else(|| panic!("{answer}")).len()
}

#[test]
fn no_question_finds_what_is_withheld() {
    let city = City::start();
    let token = outsider(&city);
    let who = format!("{token}:flood-response");
    let base = "/ngsi-ld/v1/entities?type=EvacuationAssistance";
    let seen = city.get(&format!("{base}&limit=100&options=keyValues"), &who).json();
    assert_eq!(ids(&seen), 40);
    for person in seen.as_array().unwrap() {
        assert_eq!(person["name"], "***");
        assert_eq!(person["telephone"], "***");
        for hidden in ["address", "need"] {
            assert_eq!(person.get(hidden), None, "{person}");
        }
        let lon = person["location"]["coordinates"][0].as_f64().unwrap();
        assert!((lon / 0.05 - (lon / 0.05).round()).abs() < 1e-6, "{lon} is not coarse");
    }
    // By value: nothing hidden matches, nothing masked matches its true value.
    for (q, found) in [
        ("need==%22wheelchair%22", 0),
        ("need", 0),
        ("need!=%22wheelchair%22", 0),
        ("address", 0),
        ("name~=%22Siti%22", 0),
        ("name==%22***%22", 40),
        ("telephone~=%22000-10%22", 0),
        ("district==%22Coblong%22", 0),
    ] {
        let answer = city.get(&format!("{base}&limit=100&q={q}"), &who);
        assert_eq!(ids(&answer.json()), found, "{q}");
        let counted = city.get(&format!("{base}&limit=0&count=true&q={q}"), &who);
        assert_eq!(counted.header("ngsild-results-count"), found.to_string(), "{q}");
    }
    // By attribute, by order, by place.
    assert_eq!(ids(&city.get(&format!("{base}&limit=100&attrs=need"), &who).json()), 0);
    let order = |by: &str| {
        let page = city.get(&format!("{base}&limit=100&orderBy={by}"), &who).json();
        page.as_array()
            .unwrap()
            .iter()
            .map(|e| e["id"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(order("need"), order("need;desc"), "a hidden attribute orders nothing");
    assert_eq!(order("name"), order("id"), "masked names are all the same");
    let near = |who: &str, lon: f64, lat: f64, metres: u32| {
        let geo =
            format!("&georel=near;maxDistance=={metres}&geometry=Point&coordinates=[{lon},{lat}]");
        ids(&city.get(&format!("{base}&limit=100{geo}"), who).json())
    };
    assert!(near("crisis:flood-response", 107.58, -6.95, 50) >= 1);
    assert_eq!(near(&who, 107.583, -6.948, 50), 0, "only the corner of the cell is there");
    assert_eq!(
        near(&who, 107.55, -6.95, 50)
            + near(&who, 107.6, -6.95, 50)
            + near(&who, 107.55, -6.9, 50)
            + near(&who, 107.6, -6.9, 50)
            + near(&who, 107.65, -6.95, 50)
            + near(&who, 107.65, -6.9, 50),
        40
    );
    // Types and attributes do not tell either.
    let described = city.get("/ngsi-ld/v1/types/EvacuationAssistance", &who);
    assert!(
        !described.text.contains("need") && described.text.contains("telephone"),
        "{}",
        described.text
    );
    // Who may not see at all does not learn that somebody is on the list.
    let path = "/ngsi-ld/v1/entities/urn:ngsi-ld:EvacuationAssistance";
    let there = city.get(&format!("{path}:001"), "app");
    let missing = city.get(&format!("{path}:999"), "app");
    assert_eq!((there.status, missing.status), (404, 404));
    assert_eq!(there.text.replace(":001", ":999"), missing.text);
    // An id taken there answers as taken, and a replace by half-blind eyes is refused.
    let taken = json!({"id": "urn:ngsi-ld:EvacuationAssistance:001", "type": "Anything", "a": {"value": 1}});
    assert_eq!(city.post("/ngsi-ld/v1/entities", "app", &taken).status, 409);
}

#[test]
fn histories_and_sums_go_through_the_lens() {
    let city = City::start();
    let token = outsider(&city);
    let enrolled = city.act("admin", "principal.enrol", json!({
        "login": "meter-x", "kind": "device", "datasets": ["meters"], "streams": ["urn:ngsi-ld:SmartMeteringObservation:x"],
    }));
    let code = enrolled.json()["answer"]["code"].clone();
    let device = city.post("/api/v1/redeem", "", &json!({"code": code})).json()["token"]
        .as_str()
        .unwrap()
        .to_owned();
    for (hour, value) in [(1, 1_234.0), (2, 2_345.0), (3, 3_456.0)] {
        let reading = json!([{"id": "urn:ngsi-ld:SmartMeteringObservation:x", "type": "SmartMeteringObservation",
            "totalConsumption": {"value": value, "unitCode": "KWH", "observedAt": format!("2026-01-01T0{hour}:00:00Z")}}]);
        let sent =
            city.post("/ngsi-ld/v1/entityOperations/upsert?options=update", &device, &reading);
        assert!(sent.status < 300, "{}", sent.text);
    }
    let path = "/ngsi-ld/v1/temporal/entities/urn:ngsi-ld:SmartMeteringObservation:x";
    let who = format!("{token}:energy-saving");
    let glimpsed = city.get(&format!("{path}?options=temporalValues"), &who).json();
    let values: Vec<f64> = glimpsed["totalConsumption"]["values"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v[0].as_f64().unwrap())
        .collect();
    assert_eq!(values, [1_000.0, 2_000.0, 3_000.0], "coarse, to a thousand");
    let sums =
        city.get(&format!("{path}?options=aggregatedValues&aggrMethods=max,sum"), &who).json();
    assert_eq!(
        sums.get("totalConsumption"),
        None,
        "sums of what is not clear are not given: {sums}"
    );
    let refused = city.get(&format!("{path}?options=temporalValues"), &token);
    assert_eq!(refused.status, 403, "{}", refused.text);
}

/// A relationship leads only to what may be seen.
#[test]
fn linked_entities_are_seen_through_their_own_lens() {
    let city = City::start();
    let person =
        city.get("/ngsi-ld/v1/entities?type=EvacuationAssistance&limit=1", "crisis:flood-response");
    let person = person.json()[0]["id"].as_str().unwrap().to_owned();
    let entity = json!({"id": "urn:x:shelter", "type": "Shelter", "for": {"object": person},
        "of": {"object": "urn:x:city"}});
    assert_eq!(city.post("/ngsi-ld/v1/entities", "app", &entity).status, 201);
    let of = json!({"id": "urn:x:city", "type": "Town", "in": {"object": "urn:x:shelter"}, "a": 1});
    assert_eq!(city.post("/ngsi-ld/v1/entities", "app", &of).status, 201);
    let read = |who: &str, asked: &str| {
        let answer = city.get(&format!("/ngsi-ld/v1/entities/urn:x:shelter?{asked}"), who);
        assert_eq!(answer.status, 200, "{asked}: {}", answer.text);
        answer
    };
    let inline = read("app", "join=inline&joinLevel=2");
    assert_eq!(inline.json()["for"].get("entity"), None, "{}", inline.text);
    assert_eq!(inline.json()["of"]["entity"]["a"]["value"], 1, "{}", inline.text);
    let back = &inline.json()["of"]["entity"]["in"]["entity"]["id"];
    assert_eq!(back, "urn:x:shelter", "{}", inline.text);
    let flat = read("app", "join=flat&joinLevel=4&pick=id,of{id}");
    let first =
        json!({"id": "urn:x:shelter", "of": {"type": "Relationship", "object": "urn:x:city"}});
    assert_eq!(flat.json(), json!([first, {"id": "urn:x:city"}]), "{}", flat.text);
    let without = read("app", "join=flat&containedBy=urn:x:city");
    assert_eq!(without.json()["id"], "urn:x:shelter", "{}", without.text);

    for (asked, status) in [("joinLevel=0", 400), ("joinLevel=5", 400), ("joinLevel=x", 400)] {
        let answer =
            city.get(&format!("/ngsi-ld/v1/entities/urn:x:shelter?join=flat&{asked}"), "app");
        assert_eq!(answer.status, status, "{asked}: {}", answer.text);
    }
    let answer = city.get("/ngsi-ld/v1/entities?type=Shelter&join=sideways", "app");
    assert_eq!(answer.status, 400, "{}", answer.text);

    // A look at a person along the way is on record like any other.
    let gauge = "urn:ngsi-ld:FloodMonitoring:demo-7";
    let near = json!([{"id": gauge, "type": "FloodMonitoring", "currentLevel": {"value": 1, "unitCode": "CMT"},
        "nearest": {"type": "Relationship", "object": person}}]);
    let upsert = "/ngsi-ld/v1/entityOperations/upsert?options=update";
    let sent = city.post(upsert, "steward:water-management", &near);
    assert!(sent.status < 300 && sent.status != 207, "{}", sent.text);
    let looks = || {
        let records = city.get("/api/v1/records?dataset=evacuation&verb=read&limit=100", "auditor");
        assert_eq!(records.status, 200, "{}", records.text);
        records.text.matches("\"evacuation\"").count()
    };
    let path = format!("/ngsi-ld/v1/entities/{gauge}?join=flat");
    let before = looks();
    let seen = city.get(&path, "crisis:flood-response");
    assert!(seen.text.contains("EvacuationAssistance"), "{} {}", seen.status, seen.text);
    assert!(seen.header("tanggul-receipt").parse::<u64>().is_ok(), "{}", seen.text);
    assert_eq!(looks(), before + 1, "{}", seen.text);
}

/// How long answers take tells no more than they say: an id that is not there, and one of a person whom
/// the caller may not know of, are both "not found", as fast.
#[test]
fn time_tells_nothing_of_who_is_on_a_list() {
    let city = City::start();
    let path = |id: &str| format!("/ngsi-ld/v1/entities/urn:ngsi-ld:EvacuationAssistance:{id}");
    let (there, missing) = (path("001"), path("999"));
    let ask = |path: &str| {
        let since = std::time::Instant::now();
        assert_eq!(city.get(path, "app").status, 404);
        since.elapsed()
    };
    let (mut of_there, mut of_missing) = (Vec::new(), Vec::new());
    for round in 0..1_500 {
        // Taken in turns, so that whatever else runs slows both.
        let [first, second] = if round % 2 == 0 { [&there, &missing] } else { [&missing, &there] };
        for path in [first, second] {
            let took = ask(path);
            if path == &there { of_there.push(took) } else { of_missing.push(took) }
        }
    }
    let median = |times: &mut Vec<std::time::Duration>| {
        times.sort();
        times[times.len() / 2].as_secs_f64() * 1e6
    };
    let (there, missing) = (median(&mut of_there), median(&mut of_missing));
    println!("there {there:.0} us, missing {missing:.0} us");
    assert!((there - missing).abs() < 0.25 * missing, "there {there} us, missing {missing} us");
}

/// When something that is hidden was changed is hidden, too.
#[test]
fn a_change_of_what_is_hidden_moves_nothing_that_is_shown() {
    let city = City::start_with(&["--devices", "0"]);
    let id = "urn:ngsi-ld:FloodMonitoring:demo-m";
    let write = |maintainer: &str| {
        let entity =
            json!([{"id": id, "type": "FloodMonitoring", "maintainer": {"value": maintainer}}]);
        let upsert = "/ngsi-ld/v1/entityOperations/upsert?options=update";
        assert!(city.post(upsert, "device", &entity).status < 300);
    };
    let level = json!([{"id": id, "type": "FloodMonitoring", "currentLevel": {"value": 3}}]);
    assert!(city.post("/ngsi-ld/v1/entityOperations/upsert", "device", &level).status < 300);
    write("Dinas Air");
    let modified = |who: &str| {
        let path = format!("/ngsi-ld/v1/entities/{id}?options=sysAttrs");
        city.get(&path, who).json()["modifiedAt"].as_str().unwrap().to_owned()
    };
    let (public, steward) = (modified(""), modified("steward:water-management"));
    std::thread::sleep(std::time::Duration::from_millis(5));
    write("Dinas Baru");
    assert_eq!(modified(""), public);
    assert_ne!(modified("steward:water-management"), steward);
    let path = format!("/ngsi-ld/v1/entities?type=FloodMonitoring&q=modifiedAt>{public}");
    assert_eq!(city.get(&path.replace('>', "%3E"), "").json(), json!([]));
}
