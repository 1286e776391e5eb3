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

/// What a dataset declares by an IRI of the default vocabulary is what is sent by the term.
#[test]
fn a_declaration_holds_however_it_is_written() {
    let city = City::start();
    let iri = |term: &str| format!("https://uri.etsi.org/ngsi-ld/default-context/{term}");
    let hidden = |name: &str| json!({"name": name, "kind": "text", "sensitivity": "confidential"});
    let shelters = json!({"id": "shelters", "title": "Shelters", "department": "water", "steward": "steward",
        "claims": [{"type": iri("Shelter")}], "undeclared": "open", "purposes": ["flood-response"], "legal_basis": "a test",
        "publication": "open", "attributes": [hidden(&iri("guests")), hidden("by/name")]});
    let put = city.act("admin", "dataset.put", json!({"dataset": shelters}));
    assert_eq!(put.status, 200, "{}", put.text);
    let water = city.enrol_official("water.1", "water", &["department"]);
    let water = format!("{water}:flood-response");
    let shelter = json!({"id": "urn:x:Shelter:1", "type": "Shelter", "beds": {"value": 40},
        "guests": {"value": "Siti"}, iri("by/name"): {"value": "Budi"}});
    let sent = city.post("/ngsi-ld/v1/entities", &water, &shelter);
    assert_eq!(sent.status, 201, "{}", sent.text);
    let seen = city.get("/ngsi-ld/v1/entities/urn:x:Shelter:1", "");
    assert!(seen.text.contains("beds"), "{}", seen.text);
    assert!(!seen.text.contains("Siti") && !seen.text.contains("Budi"), "{}", seen.text);
    let all = city.get("/ngsi-ld/v1/entities/urn:x:Shelter:1", &water);
    assert!(all.text.contains("Siti") && all.text.contains("Budi"), "{}", all.text);
}

/// Who may have sums only is shown no person's.
#[test]
fn sums_are_of_things_and_of_no_person() {
    let city = City::start();
    let policies = city.get("/api/v1/policies", "admin").json();
    let text = policies["text"].as_str().unwrap().to_owned()
        + r#"
        @id("sums") @title("Apps sum everything.")
        permit (principal, action == Tanggul::Action::"aggregate", resource) when { principal.kind == "app" };
        @id("no-values") @title("Apps read nothing.")
        forbid (principal, action in [Tanggul::Action::"read", Tanggul::Action::"glimpse"], resource)
        when { principal.kind == "app" };"#;
    let put = city.act("admin", "policies.put", json!({"text": text}));
    assert_eq!(put.status, 200, "{}", put.text);
    let people = json!({"id": "people", "title": "People", "department": "water", "steward": "steward",
        "claims": [{"type": "Patient"}], "purposes": ["flood-response"], "legal_basis": "x", "about_people": true,
        "attributes": [{"name": "age", "kind": "number", "sensitivity": "personal"}], "undeclared": "special"});
    let put = city.act("admin", "dataset.put", json!({"dataset": people}));
    assert!(put.text.contains("crisis for flood-response: `age`"), "{}", put.text);
    assert!(!put.text.contains("app for flood-response"), "no sums of people: {}", put.text);
    for (what, value) in [("FloodMonitoring", "currentLevel"), ("Patient", "age")] {
        let points: Vec<Value> = (10..22)
            .map(|minute| {
                let at = format!("2026-01-01T00:{minute}:00Z");
                json!({"id": format!("urn:ngsi-ld:{what}:sums"), "type": what,
                    value: {"value": minute, "observedAt": at}})
            })
            .collect();
        let (dataset, stream) = if value == "age" {
            ("people", "urn:ngsi-ld:Patient:*")
        } else {
            ("rivers", "urn:ngsi-ld:FloodMonitoring:*")
        };
        let writer = city.enrol_device(&format!("device-of-{dataset}"), dataset, stream);
        for point in points {
            let path = "/ngsi-ld/v1/entityOperations/upsert?options=update";
            let sent = city.post(path, &writer, &json!([point]));
            assert!(sent.status < 300, "{}", sent.text);
        }
        let path = format!(
            "/ngsi-ld/v1/temporal/entities?type={what}&timerel=after&timeAt=2025-12-31T00:00:00Z&options=aggregatedValues&aggrMethods=avg,totalCount"
        );
        let answer = city.get(&path, "app:flood-response");
        if value == "age" {
            assert_eq!(answer.status, 403, "{}", answer.text);
        } else {
            assert_eq!(answer.status, 200, "{}", answer.text);
            assert!(answer.text.contains("avg"), "{}", answer.text);
        }
        let by_id = format!(
            "/ngsi-ld/v1/temporal/entities/urn:ngsi-ld:{what}:sums?options=aggregatedValues&aggrMethods=avg"
        );
        assert_ne!(city.get(&by_id, "app:flood-response").status, 200);
    }
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

/// Pages, their counts and links, histories asked by value or place, other forms and other tenants tell
/// no more than a query does.
#[test]
fn no_page_history_form_or_tenant_tells_more() {
    let city = City::start();
    let token = outsider(&city);
    let who = format!("{token}:flood-response");
    for n in 0..3 {
        let note = json!({"id": format!("urn:x:EvacuationAssistance:{n}"), "type": "Note", "need": "boat"});
        assert_eq!(city.post("/ngsi-ld/v1/entities", "app", &note).status, 201);
    }
    // Who sees three notes and no person walks three pages, told each time of three.
    let both = "/ngsi-ld/v1/entities?type=EvacuationAssistance,Note&limit=1&count=true";
    for offset in 0..5 {
        let page = city.get(&format!("{both}&offset={offset}"), "app");
        let types: Vec<Value> =
            page.json().as_array().unwrap().iter().map(|e| e["type"].clone()).collect();
        assert!(types.iter().all(|of_type| of_type == "Note"), "{offset}: {types:?}");
        assert_eq!(types.len(), usize::from(offset < 3), "{offset}");
        assert_eq!(page.header("ngsild-results-count"), "3", "{offset}");
        let links: Vec<&str> =
            page.headers.get_all("link").iter().map(|link| link.to_str().unwrap()).collect();
        let leads_on = links.iter().any(|link| link.contains("rel=\"next\""));
        assert_eq!(leads_on, offset < 2, "{offset}: {links:?}");
    }
    // Histories, by what is hidden, masked or coarse.
    let coarse = json!({"coarsen": {"step": 0.05}});
    let roster = json!({"id": "roster", "title": "Roster", "department": "social", "steward": "steward.social",
        "claims": [{"type": "Roster"}], "attributes": [
            {"name": "need", "kind": "text", "sensitivity": "special", "withheld": "hide"},
            {"name": "name", "kind": "text", "sensitivity": "personal", "withheld": "mask"},
            {"name": "location", "kind": "place", "sensitivity": "personal", "withheld": coarse}],
        "undeclared": "special", "purposes": ["flood-response"], "legal_basis": "a test", "publication": "withheld"});
    let put = city.act("admin", "dataset.put", json!({"dataset": roster}));
    assert_eq!(put.status, 200, "{}", put.text);
    let at = "2026-01-01T00:00:00Z";
    let person = json!([{"id": "urn:x:Roster:1", "type": "Roster",
        "name": {"value": "Siti", "observedAt": at}, "need": {"value": "wheelchair", "observedAt": at},
        "location": {"type": "GeoProperty", "observedAt": at,
            "value": {"type": "Point", "coordinates": [107.583, -6.948]}}}]);
    let upsert = "/ngsi-ld/v1/entityOperations/upsert?options=update";
    let social = city.enrol_official("social.1", "social", &["department"]);
    let sent = city.post(upsert, &format!("{social}:flood-response"), &person);
    assert_eq!(sent.status, 201, "{}", sent.text);
    let histories =
        "/ngsi-ld/v1/temporal/entities?type=Roster&timerel=after&timeAt=2025-01-01T00:00:00Z";
    let found = |more: &str, who: &str| {
        let answer = city.get(&format!("{histories}{more}"), who);
        assert_eq!(answer.status, 200, "{more}: {}", answer.text);
        ids(&answer.json())
    };
    let near = "&georel=near;maxDistance==50&geometry=Point&coordinates=[107.583,-6.948]";
    for (more, clear) in [
        ("&q=need==%22wheelchair%22", true),
        ("&q=name~=%22Siti%22", true),
        ("&attrs=need", true),
        (near, true),
        ("&q=name==%22***%22", false),
    ] {
        assert_eq!(found(more, "crisis:flood-response") > 0, clear, "{more} to one who sees all");
        assert_eq!(found(more, &who) > 0, !clear, "{more}");
    }
    // As features, and of only what is asked for.
    let features = "/ngsi-ld/v1/entities?type=EvacuationAssistance&limit=100";
    let accept = [("Accept", "application/geo+json")];
    for more in ["", "&pick=id,need,location", "&attrs=address,name", "&options=keyValues"] {
        let shown = city.send_with("GET", &format!("{features}{more}"), &who, None, &accept);
        assert_eq!(shown.status, 200, "{more}: {}", shown.text);
        assert!(!shown.text.contains("wheelchair") && !shown.text.contains("Jalan"), "{more}");
        for feature in shown.json()["features"].as_array().unwrap() {
            let lon = feature["geometry"]["coordinates"][0].as_f64();
            let coarse = lon.is_none_or(|lon| (lon / 0.05 - (lon / 0.05).round()).abs() < 1e-6);
            assert!(coarse, "{more}: {lon:?}");
        }
    }
    // There is one tenant, and no other is looked into.
    for (path, who) in
        [(features, "crisis:flood-response"), ("/ngsi-ld/v1/types", "admin"), (both, "app")]
    {
        for tenant in ["other", "default", "../test", "0"] {
            let answer = city.send_with("GET", path, who, None, &[("NGSILD-Tenant", tenant)]);
            assert_eq!(answer.status, 404, "{tenant}: {}", answer.text);
            assert!(answer.text.contains("NonexistentTenant"), "{}", answer.text);
        }
    }
}

/// How long answers take tells no more than they say: an id that is not there, and one of a person whom
/// the caller may not know of, are both "not found", as fast; and a question that is refused takes as
/// long whether what it asks for is there or not.
#[test]
fn time_tells_nothing_of_who_is_on_a_list() {
    let city = City::start();
    let path = |id: &str| format!("/ngsi-ld/v1/entities/urn:ngsi-ld:EvacuationAssistance:{id}");
    let (there, missing) = (path("001"), path("999"));
    let where_is = |name: &str| {
        format!("/ngsi-ld/v1/entities?type=EvacuationAssistance&q=name==%22{name}%22&count=true")
    };
    let crisis = city.get(&format!("{there}?options=keyValues"), "crisis:flood-response").json();
    let known = crisis["name"].as_str().unwrap().replace(' ', "%20");
    let body = json!({"need": {"value": "boat"}});
    for (method, body, status, first, second) in [
        ("GET", None, 404, there.clone(), missing.clone()),
        ("PATCH", Some(&body), 404, format!("{there}/attrs"), format!("{missing}/attrs")),
        ("GET", None, 403, where_is(&known), where_is("Nobody")),
    ] {
        let ask = |path: &str| {
            let since = std::time::Instant::now();
            assert_eq!(city.call(method, path, "app", body).status, status, "{path}");
            since.elapsed()
        };
        let (mut of_first, mut of_second) = (Vec::new(), Vec::new());
        for round in 0..1_000 {
            // Taken in turns, so that whatever else runs slows both.
            if round % 2 == 0 {
                of_first.push(ask(&first));
                of_second.push(ask(&second));
            } else {
                of_second.push(ask(&second));
                of_first.push(ask(&first));
            }
        }
        let median = |times: &mut Vec<std::time::Duration>| {
            times.sort();
            times[times.len() / 2].as_secs_f64() * 1e6
        };
        let (there, missing) = (median(&mut of_first), median(&mut of_second));
        println!("{method} {status}: there {there:.0} us, missing {missing:.0} us");
        let differ = (there - missing).abs() / missing;
        assert!(differ < 0.25, "{method} {status}: there {there} us, missing {missing} us");
    }
}

/// The log's length is known to everybody: it grows alike for whoever is on a list and whoever is not.
#[test]
fn the_log_tells_nothing_of_who_is_on_a_list() {
    let city = City::start();
    let size = || {
        let checkpoint = city.get("/log/checkpoint", "").text;
        checkpoint.lines().nth(1).unwrap().parse::<u64>().unwrap()
    };
    // Until nothing is written any more: checkpoints come each second.
    let settled = || {
        let mut last = size();
        loop {
            std::thread::sleep(std::time::Duration::from_millis(2_500));
            let now = size();
            if now == last {
                return now;
            }
            last = now;
        }
    };
    let refusals = || {
        let counts = city.get("/metrics", "admin").text;
        let line = counts.lines().find_map(|l| l.strip_prefix("tanggul_refusals_total "));
        line.unwrap().parse::<u64>().unwrap()
    };
    let need = json!({"need": {"value": "boat"}});
    let grown = |id: &str| {
        let entity = format!("/ngsi-ld/v1/entities/urn:ngsi-ld:EvacuationAssistance:{id}");
        let history = entity.replace("/v1/", "/v1/temporal/");
        let chart =
            format!("/api/v1/chart?entity=urn:ngsi-ld:EvacuationAssistance:{id}&attribute=need");
        let (before, counted) = (settled(), refusals());
        for (method, path, body) in [
            ("GET", entity.clone(), None),
            ("GET", history.clone(), None),
            ("GET", chart, None),
            ("PATCH", format!("{entity}/attrs"), Some(&need)),
            ("DELETE", entity, None),
            ("DELETE", history, None),
        ] {
            let answer = city.call(method, &path, "app", body);
            assert_eq!(answer.status, 404, "{method} {path}: {}", answer.text);
        }
        (settled() - before, refusals() - counted)
    };
    let (there, missing) = (grown("001"), grown("999"));
    assert_eq!(there, missing);
    assert_eq!(there, (6, 6), "each is recorded and counted");
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
