//! Bad input of every kind: a clear answer with place and remedy, never a 5xx, nothing lost.

use crate::harness::City;
use serde_json::json;

#[test]
fn bad_requests_are_answered_with_their_place() {
    let city = City::start();
    let good = json!({"id": "urn:ngsi-ld:T:1", "type": "T", "level": {"value": 5}});
    assert_eq!(city.post("/ngsi-ld/v1/entities", "app", &good).status, 201);
    let entities = "/ngsi-ld/v1/entities";
    let deep = format!("{}1{}", "[".repeat(2_000), "]".repeat(2_000));
    // Method, path, media type, body, status, what the answer must name.
    let table: &[(&str, &str, &str, &str, u16, &str)] = &[
        ("POST", entities, "application/json", "{", 400, "JSON"),
        ("POST", entities, "application/json", "", 400, "JSON"),
        ("POST", entities, "application/json", "[]", 400, "object"),
        ("POST", entities, "application/json", "null", 400, "object"),
        ("POST", entities, "application/json", &deep, 400, "deep"),
        ("POST", entities, "text/plain", "{}", 415, "application/json"),
        ("POST", entities, "application/json", r#"{"type":"T"}"#, 400, "/id"),
        ("POST", entities, "application/json", r#"{"id":"urn:x:1"}"#, 400, "/type"),
        ("POST", entities, "application/json", r#"{"id":"no uri","type":"T"}"#, 400, "URI"),
        (
            "POST",
            entities,
            "application/json",
            r#"{"id":"urn:x:1","type":"T","a":{"type":"Property"}}"#,
            400,
            "/a/value",
        ),
        (
            "POST",
            entities,
            "application/json",
            r#"{"id":"urn:x:1","type":"T","a":{"type":"Proprty","value":1}}"#,
            400,
            "Proprty",
        ),
        (
            "POST",
            entities,
            "application/json",
            r#"{"id":"urn:x:1","type":"T","a":null}"#,
            400,
            "/a",
        ),
        (
            "POST",
            entities,
            "application/json",
            r#"{"id":"urn:x:1","type":"T","a":{"value":1,"observedAt":"today"}}"#,
            400,
            "/a/observedAt",
        ),
        (
            "POST",
            entities,
            "application/json",
            r#"{"id":"urn:x:1","type":"T","a<b":{"value":1}}"#,
            400,
            "name",
        ),
        (
            "POST",
            entities,
            "application/json",
            r#"{"id":"urn:x:1","type":"T","a":1,"a":2}"#,
            400,
            "twice",
        ),
        (
            "POST",
            entities,
            "application/json",
            r#"{"id":"urn:x:1","type":"T","p":{"type":"GeoProperty","value":{"type":"Point","coordinates":[200,0]}}}"#,
            400,
            "longitude first",
        ),
        (
            "POST",
            entities,
            "application/json",
            r#"{"id":"urn:x:1","type":"T","a":{"value":1e999}}"#,
            400,
            "JSON",
        ),
        (
            "POST",
            entities,
            "application/ld+json",
            r#"{"id":"urn:x:1","type":"T"}"#,
            400,
            "@context",
        ),
        (
            "POST",
            entities,
            "application/ld+json",
            r#"{"id":"urn:x:1","type":"T","@context":"https://evil.example/c"}"#,
            503,
            "never fetched",
        ),
        (
            "POST",
            entities,
            "application/json",
            r#"{"id":"urn:x:1","type":"T","@context":[]}"#,
            400,
            "application/ld+json",
        ),
        (
            "POST",
            entities,
            "application/json",
            r#"{"id":"urn:ngsi-ld:T:1","type":"T"}"#,
            409,
            "exists",
        ),
        // Written under the core context they would be the entity's own id, type, time.
        (
            "POST",
            entities,
            "application/json",
            r#"{"id":"urn:x:1","type":"T","https://uri.etsi.org/ngsi-ld/default-context/id":"urn:x:2"}"#,
            400,
            "no name",
        ),
        (
            "POST",
            entities,
            "application/ld+json",
            r#"{"id":"urn:x:1","type":"T","nama":"U","@context":{"nama":"https://uri.etsi.org/ngsi-ld/type"}}"#,
            400,
            "no name",
        ),
        (
            "POST",
            entities,
            "application/json",
            r#"{"id":"urn:x:1","type":"T","a":{"value":1,"https://uri.etsi.org/ngsi-ld/observedAt":"2026-01-01T00:00:00Z"}}"#,
            400,
            "no name",
        ),
        ("GET", "/ngsi-ld/v1/entities", "", "", 400, "too broad"),
        ("GET", "/ngsi-ld/v1/entities?type=", "", "", 400, "?type"),
        ("GET", "/ngsi-ld/v1/entities?type=T&q=level>", "", "", 400, "column"),
        ("GET", "/ngsi-ld/v1/entities?type=T&q=a~=%22(a*)*(%22", "", "", 400, "pattern"),
        ("GET", "/ngsi-ld/v1/entities?type=T&limit=x", "", "", 400, "?limit"),
        ("GET", "/ngsi-ld/v1/entities?type=T&limit=100000", "", "", 400, "offset"),
        ("GET", "/ngsi-ld/v1/entities?type=T&georel=near", "", "", 400, "geometry"),
        (
            "GET",
            "/ngsi-ld/v1/entities?type=T&georel=near;maxDistance==x&geometry=Point&coordinates=[0,0]",
            "",
            "",
            400,
            "?georel",
        ),
        ("GET", "/ngsi-ld/v1/entities?type=T&colour=red", "", "", 400, "colour"),
        ("GET", "/ngsi-ld/v1/entities?type=T&type=U", "", "", 400, "twice"),
        ("GET", "/ngsi-ld/v1/entities?type=T&options=pretty", "", "", 400, "pretty"),
        ("GET", "/ngsi-ld/v1/entities?type=T&idPattern=(", "", "", 400, "?idPattern"),
        ("GET", "/ngsi-ld/v1/entities?type=T&scopeQ=%2F%2F", "", "", 400, "?scopeQ"),
        (
            "GET",
            "/ngsi-ld/v1/temporal/entities?type=T&timerel=during&timeAt=2026-01-01",
            "",
            "",
            400,
            "?timerel",
        ),
        (
            "GET",
            "/ngsi-ld/v1/temporal/entities?type=T&timerel=after&timeAt=now",
            "",
            "",
            400,
            "?timeAt",
        ),
        ("GET", "/ngsi-ld/v1/temporal/entities?type=T&lastN=0", "", "", 400, "?lastN"),
        (
            "GET",
            "/ngsi-ld/v1/temporal/entities?type=T&lastN=1&options=aggregatedValues&aggrMethods=mode",
            "",
            "",
            400,
            "?aggrMethods",
        ),
        ("GET", "/ngsi-ld/v1/entities/urn:ngsi-ld:T:9", "", "", 404, "no entity"),
        (
            "PATCH",
            "/ngsi-ld/v1/entities/urn:ngsi-ld:T:1/attrs/missing",
            "application/json",
            r#"{"value":1}"#,
            404,
            "no attribute",
        ),
        (
            "PATCH",
            "/ngsi-ld/v1/entities/urn:ngsi-ld:T:1",
            "application/json",
            r#"{"id":"urn:ngsi-ld:T:2"}"#,
            400,
            "path",
        ),
        ("PUT", "/ngsi-ld/v1/entities", "application/json", "{}", 405, "method"),
        ("GET", "/nowhere", "", "", 404, "openapi"),
        ("POST", "/ngsi-ld/v1/entityOperations/create", "application/json", "{}", 400, "list"),
        ("POST", "/ngsi-ld/v1/entityOperations/create", "application/json", "[]", 400, "empty"),
        (
            "POST",
            "/ngsi-ld/v1/subscriptions",
            "application/json",
            r#"{"type":"Subscription"}"#,
            400,
            "notification",
        ),
        (
            "POST",
            "/ngsi-ld/v1/subscriptions",
            "application/json",
            r#"{"type":"Subscription","entities":[{"type":"T"}],"notification":{"endpoint":{"uri":"http://192.0.2.1/"}}}"#,
            400,
            "[egress] allow",
        ),
        ("POST", "/ngsi-ld/v1/csourceRegistrations", "application/json", "{}", 501, "not offered"),
        ("POST", "/api/v1/acts", "application/json", r#"{"act":"no.such"}"#, 404, "no.such"),
        ("GET", "/api/v1/receipts/x", "", "", 400, "index"),
        ("GET", "/api/v1/why?dataset=nothing", "", "", 404, "nothing"),
        ("GET", "/log/tile/8/000", "", "", 404, "tile"),
        ("GET", "/log/tile/0/../../etc", "", "", 404, ""),
    ];
    for (method, path, kind, body, status, names) in table {
        let body = (!kind.is_empty()).then(|| (*kind, body.as_bytes().to_vec()));
        let answer = city.send(method, path, "app", body);
        let shown = format!("{method} {path}: {} {}", answer.status, answer.text);
        assert_eq!(answer.status, *status, "{shown}");
        assert!(answer.text.contains(names), "{shown} does not name `{names}`");
        assert_eq!(answer.header("content-type"), "application/problem+json", "{shown}");
        assert_eq!(answer.json()["status"], json!(status), "{shown}");
    }
    // A body over the limit is refused before it is read; the connection lives on.
    let huge = vec![b' '; (16 << 20) + 1];
    let refused = city.send("POST", entities, "app", Some(("application/json", huge)));
    assert_eq!(refused.status, 413, "{}", refused.text);
    let too_many: Vec<_> =
        (0..10_001).map(|n| json!({"id": format!("urn:x:{n}"), "type": "T"})).collect();
    let refused = city.post("/ngsi-ld/v1/entityOperations/create", "app", &json!(too_many));
    assert_eq!(refused.status, 413, "{}", refused.text);
    assert_eq!(city.get("/ngsi-ld/v1/entities/urn:ngsi-ld:T:1", "app").status, 200);
}

#[test]
fn a_batch_answers_for_each() {
    let city = City::start();
    let batch = json!([
        {"id": "urn:ngsi-ld:T:1", "type": "T", "a": {"value": 1}},
        {"id": "not a uri", "type": "T"},
        {"id": "urn:ngsi-ld:FloodMonitoring:x", "type": "FloodMonitoring", "currentLevel": {"value": 1}},
        {"id": "urn:ngsi-ld:T:2", "type": "T", "a": {"value": 2}},
    ]);
    let answer = city.post("/ngsi-ld/v1/entityOperations/create", "app", &batch);
    assert_eq!(answer.status, 207, "{}", answer.text);
    let body = answer.json();
    assert_eq!(body["success"], json!(["urn:ngsi-ld:T:1", "urn:ngsi-ld:T:2"]));
    let statuses: Vec<_> = body["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["error"]["status"].as_u64().unwrap())
        .collect();
    assert_eq!(statuses, [400, 403]);
}
