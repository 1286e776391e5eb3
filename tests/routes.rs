//! Every route and method as nobody, as a stranger to the dataset, as a powerless user and as a
//! revoked one. The table comes from the program's own API document, so a new route is driven too.

use crate::harness::{City, tanggul};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Routes that answer anybody with what is open to all, and nobody unknown with anything else.
const OPEN_IN_PART: &[&str] = &[
    "GET /ngsi-ld/v1/entities",
    "GET /ngsi-ld/v1/entities/{id}",
    "GET /ngsi-ld/v1/temporal/entities",
    "GET /ngsi-ld/v1/temporal/entities/{id}",
    "POST /ngsi-ld/v1/entityOperations/query",
    "POST /ngsi-ld/v1/temporal/entityOperations/query",
];

/// Routes that anybody may call, by method.
const OPEN: &[&str] = &[
    "DELETE /api/v1/session",
    "GET /",
    "GET /api/v1/datasets",
    "GET /api/v1/datasets/{id}",
    "GET /api/v1/datasets/{id}/versions",
    "GET /api/v1/limits",
    "GET /api/v1/openapi.json",
    "GET /api/v1/policies",
    "GET /api/v1/purposes",
    "GET /api/v1/receipts/{index}",
    "GET /api/v1/records/{index}",
    "GET /api/v1/session",
    "GET /api/v1/why",
    "GET /console/{path}",
    "GET /healthz",
    "GET /log/checkpoint",
    "GET /log/tile/{path}",
    "GET /log/vkey",
    "GET /map.pmtiles",
    "GET /metrics",
    "GET /ngsi-ld/v1/attributes",
    "GET /ngsi-ld/v1/attributes/{attribute}",
    "GET /ngsi-ld/v1/jsonldContexts",
    "GET /ngsi-ld/v1/jsonldContexts/{id}",
    "GET /ngsi-ld/v1/subscriptions",
    "GET /ngsi-ld/v1/types",
    "GET /ngsi-ld/v1/types/{type}",
    "GET /public/",
    "GET /public/datasets/{id}",
    "GET /public/log",
    "GET /public/receipt",
    "GET /public/style.css",
    "GET /readyz",
    "POST /api/v1/redeem",
    "POST /api/v1/session",
    "POST /public/receipt",
];

fn operations() -> Vec<(String, String, bool)> {
    let output = tanggul(&["openapi"]);
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut all = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            // A credential is one of the ways, or none is.
            let open = operation["security"].as_array().unwrap().contains(&json!({}));
            all.push((method.to_uppercase(), path.clone(), open));
        }
    }
    all
}

/// A path and body that concern an entity in a dataset the caller has nothing to do with.
fn concrete(path: &str, method: &str) -> (String, Option<Value>) {
    let id = if path.contains("/api/v1/datasets/") {
        "evacuation"
    } else {
        "urn:ngsi-ld:SmartMeteringObservation:secret"
    };
    let path = path
        .replace("{id}", id)
        .replace("{attribute}", "totalConsumption")
        .replace("{instance}", "urn:x:1")
        .replace("{type}", "SmartMeteringObservation")
        .replace("{index}", "999999")
        .replace("{path}", "0/000");
    let path = if path == "/api/v1/chart" {
        format!("{path}?entity={id}&attribute=totalConsumption")
    } else {
        path
    };
    let entity = json!({"id": "urn:ngsi-ld:SmartMeteringObservation:secret", "type": "SmartMeteringObservation", "totalConsumption": {"value": 7}});
    let body = match (method, path.as_str()) {
        ("GET" | "DELETE", _) => None,
        (_, p) if p.ends_with("/entityOperations/query") => {
            Some(json!({"type": "Query", "entities": [{"type": "SmartMeteringObservation"}]}))
        }
        (_, p) if p.ends_with("/entityOperations/delete") => {
            Some(json!(["urn:ngsi-ld:SmartMeteringObservation:secret"]))
        }
        (_, p) if p.contains("entityOperations") => Some(json!([entity])),
        (_, p) if p.contains("/temporal/") => Some(
            json!({"id": entity["id"], "type": entity["type"], "totalConsumption": [{"value": 7, "observedAt": "2026-01-01T00:00:00Z"}]}),
        ),
        (_, p) if p.contains("/attrs/") => Some(json!({"value": 8})),
        (_, p) if p.ends_with("/attrs") => Some(json!({"totalConsumption": {"value": 8}})),
        (_, p) if p.contains("/entities") => Some(entity),
        (_, p) if p.contains("subscriptions") => Some(
            json!({"type": "Subscription", "entities": [{"type": "SmartMeteringObservation"}], "notification": {"endpoint": {"uri": "http://127.0.0.1:1/"}}}),
        ),
        (_, p) if p.contains("jsonldContexts") => {
            Some(json!({"@context": {"a": "https://a.example/a"}}))
        }
        (_, p) if p.ends_with("/acts") => {
            Some(json!({"act": "dataset.rotate_key", "body": {"dataset": "meters"}}))
        }
        (_, p) if p.ends_with("/session") => {
            Some(json!({"login": "admin", "password": "not the password at all"}))
        }
        (_, p) if p.ends_with("/redeem") => Some(json!({"code": "AAAA-AAAA-AAAA-AAAA-AAAA"})),
        _ => Some(json!({})),
    };
    let query = match path.as_str() {
        "/ngsi-ld/v1/entities" if method == "GET" => {
            "?type=SmartMeteringObservation&attrs=totalConsumption"
        }
        "/ngsi-ld/v1/temporal/entities" if method == "GET" => {
            "?type=SmartMeteringObservation&lastN=3"
        }
        "/api/v1/why" => "?dataset=evacuation",
        "/api/v1/watch" => "?type=SmartMeteringObservation",
        _ => "",
    };
    (format!("{path}{query}"), body)
}

#[test]
fn every_route_is_closed_to_those_who_may_not() {
    let city = City::start();
    // Something to be kept from: a meter, written by its own device.
    let meter = json!({"id": "urn:ngsi-ld:SmartMeteringObservation:secret", "type": "SmartMeteringObservation", "totalConsumption": {"value": 7}});
    let body = json!({"login": "secret-meter", "kind": "device", "datasets": ["meters"], "streams": ["urn:ngsi-ld:SmartMeteringObservation:secret"]});
    // The administrator alone may enrol here; a second person has to agree where there is one.
    let enrolled = city.act("admin", "principal.enrol", body);
    assert_eq!(enrolled.status, 200, "{}", enrolled.text);
    let code = enrolled.json()["answer"]["code"].clone();
    let device = city.post("/api/v1/redeem", "", &json!({"code": code})).json()["token"]
        .as_str()
        .unwrap()
        .to_owned();
    let written =
        city.post("/ngsi-ld/v1/entityOperations/upsert?options=update", &device, &json!([meter]));
    assert_eq!(written.status, 201, "{}", written.text);

    let revoked = city.enrol_device("to-be-revoked", "rivers", "urn:ngsi-ld:FloodMonitoring:r");
    let gone = city.act(
        "steward",
        "device.revoke",
        json!({"login": "to-be-revoked", "dataset": "rivers"}),
    );
    assert_eq!(gone.status, 200, "{}", gone.text);

    let mut driven = 0;
    for (method, path, open) in operations() {
        let name = format!("{method} {path}");
        let not_offered = path.contains("csource")
            || path.contains("{instance}")
            || name == "DELETE /ngsi-ld/v1/entities";
        let in_part = OPEN_IN_PART.contains(&name.as_str());
        assert_eq!(open, OPEN.contains(&name.as_str()) || in_part || not_offered, "{name}");
        let (url, body) = concrete(&path, &method);
        for (who, wanted) in [
            ("", [401, 401]),
            ("app", [403, 404]),
            ("device", [403, 404]),
            (revoked.as_str(), [401, 401]),
        ] {
            if name == "GET /api/v1/watch" && who == "app" {
                // A stream opens for whoever may read something, and stays silent: see the lens tests.
                continue;
            }
            let answer = city.call(&method, &url, who, body.as_ref());
            driven += 1;
            let shown = format!("{name} as `{who}`: {} {}", answer.status, answer.text);
            assert!(answer.status < 500 || (answer.status == 501 && not_offered), "{shown}");
            assert!(!answer.text.contains("\"value\":7"), "{shown}");
            if who == revoked
                && name != "GET /healthz"
                && !path.starts_with("/log")
                && path != "/"
                && !path.starts_with("/public")
                && !path.starts_with("/console")
                && path != "/readyz"
                && path != "/api/v1/openapi.json"
                && !not_offered
            {
                assert_eq!(answer.status, 401, "{shown}");
            }
            if open && !in_part || not_offered {
                continue;
            }
            let harmless = matches!(
                name.as_str(),
                // These answer with what the caller's own lens shows, which is nothing here.
                "POST /ngsi-ld/v1/subscriptions"
                    | "POST /ngsi-ld/v1/jsonldContexts"
                    | "DELETE /ngsi-ld/v1/jsonldContexts/{id}"
                    | "GET /ngsi-ld/v1/subscriptions/{id}"
                    | "PATCH /ngsi-ld/v1/subscriptions/{id}"
                    | "DELETE /ngsi-ld/v1/subscriptions/{id}"
                    | "GET /api/v1/datasets/{id}/who"
                    | "GET /api/v1/watch"
                    // Whoever is known may say what he acts for.
                    | "POST /api/v1/session/purpose"
            );
            // An id that is taken answers as taken, whoever asks.
            let creates = matches!(
                name.as_str(),
                "POST /ngsi-ld/v1/entities" | "POST /ngsi-ld/v1/entityOperations/create"
            );
            let taken = creates && !who.is_empty() && answer.text.contains("AlreadyExists");
            if !harmless && !taken {
                assert!(wanted.contains(&answer.status), "{shown}");
            }
        }
    }
    assert!(driven > 150, "{driven}");
    // An administrator sees nothing confidential either; the device still writes what it has to.
    let path = "/ngsi-ld/v1/entities/urn:ngsi-ld:SmartMeteringObservation:secret?options=keyValues";
    assert_eq!(city.get(path, "admin").status, 403);
    let again =
        city.post("/ngsi-ld/v1/entityOperations/upsert?options=update", &device, &json!([meter]));
    assert_eq!(again.status, 204, "{}", again.text);
}

/// The document names the parameters that a route takes, and each operation that takes a body has one.
#[test]
fn the_document_says_what_is_asked() {
    let city = City::start();
    let document: Value = serde_json::from_slice(&tanggul(&["openapi"]).stdout).unwrap();
    // The acts are those of the table in docs/acts.md, and the hub knows them.
    let named = &document["components"]["schemas"]["ActSent"]["properties"]["act"]["enum"];
    let named: Vec<&str> = named.as_array().unwrap().iter().map(|n| n.as_str().unwrap()).collect();
    let table = include_str!("../docs/acts.md").lines();
    let table = table.filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    assert_eq!(table.collect::<BTreeSet<_>>(), named.iter().copied().collect());
    for act in named {
        let body = json!({"act": act, "body": {}});
        let answer = city.post("/api/v1/acts?dryRun=true", "admin", &body);
        assert!(!answer.text.contains("there is no act"), "{act}: {}", answer.text);
    }
    let (mut compared, mut parameters) = (0, 0);
    for (method, path, _) in operations() {
        let operation = &document["paths"][&path][method.to_lowercase()];
        if operation["summary"] == "Not offered" {
            continue;
        }
        let takes = ["POST", "PUT", "PATCH"].contains(&method.as_str());
        // These take none, or a page's form.
        let bare = ["/api/v1/checks", "/api/v1/acts/{id}/approve", "/public/receipt"];
        assert_eq!(
            operation.get("requestBody").is_some(),
            takes && !bare.contains(&path.as_str()),
            "{method} {path}"
        );
        let named = operation["parameters"].as_array().unwrap().iter();
        let named = named.filter(|parameter| parameter["in"] == "query");
        let named: Vec<&str> = named.map(|p| p["name"].as_str().unwrap()).collect();
        // Whoever asks for another is told which there are.
        let (url, body) = concrete(&path, &method);
        let url = format!("{}{}nonsense=1", url, if url.contains('?') { '&' } else { '?' });
        let answer = city.call(&method, &url, "steward", body.as_ref());
        let told = answer.text.split("at `?nonsense`: is none of: ").nth(1);
        let Some(told) = told.and_then(|rest| rest.split('"').next()) else { continue };
        let known: Vec<&str> = told.split(", ").filter(|name| !name.is_empty()).collect();
        for name in &named {
            assert!(known.contains(name), "{method} {path}: `{name}` is none of {known:?}");
        }
        // A context's details are known and not offered.
        assert!(
            !named.is_empty() || known.is_empty() || known == ["details"],
            "{method} {path}: {known:?}"
        );
        compared += 1;
        parameters += named.len();
    }
    assert!(compared > 30 && parameters > 120, "{compared} routes, {parameters} parameters");
}
