//! The API document: the table of routes, with what each is asked and answers.

use crate::routes::ROUTES;
use serde_json::{Map, Value, json};

/// What answers look like: schemas, and which answer has which.
const SCHEMAS: &str = include_str!("schemas.json");
/// What is asked: parameters, which operation has which (`!`: it must be given), and bodies.
const REQUESTS: &str = include_str!("requests.json");

/// The schema of an answer, where it has one: a name, a list of one, or one of several.
fn answer(described: &Value) -> Option<Value> {
    let named =
        |name: &Value| Some(json!({"$ref": format!("#/components/schemas/{}", name.as_str()?)}));
    match described {
        Value::String(_) => named(described),
        Value::Array(of) => Some(json!({"type": "array", "items": named(of.first()?)?})),
        Value::Object(of) => {
            let all = of.get("anyOf")?.as_array()?;
            Some(json!({"anyOf": all.iter().filter_map(named).collect::<Vec<_>>()}))
        }
        _ => None,
    }
}

/// A parameter in the query, as the operation names it.
fn in_query(requests: &Value, named: &str) -> Value {
    let name = named.trim_end_matches('!');
    let mut parameter = json!({"name": name, "in": "query", "required": named != name});
    let described = &requests["parameters"][name];
    parameter["description"] = described["description"].clone();
    parameter["schema"] = described["schema"].clone();
    let examples = described["examples"].as_array().into_iter().flatten().enumerate();
    let examples: Map<_, _> =
        examples.map(|(at, value)| (format!("{name}-{at}"), json!({"value": value}))).collect();
    if !examples.is_empty() {
        parameter["examples"] = Value::Object(examples);
    }
    parameter
}

/// Why one asks: what some data is shown for.
fn purpose() -> Value {
    json!({
        "name": "Tanggul-Purpose", "in": "header", "required": false, "schema": {"type": "string"},
        "description": "The purpose one acts for; `GET /api/v1/purposes` lists them",
        "examples": {"none": {"value": "service"}, "flood": {"value": "flood-response"}},
    })
}

/// OpenAPI 3.1 of every route.
pub fn document() -> Value {
    let mut paths = Map::new();
    let described: Value = serde_json::from_str(SCHEMAS).unwrap_or_default();
    let requests: Value = serde_json::from_str(REQUESTS).unwrap_or_default();
    for route in ROUTES {
        let path = route.path.replace("{*path}", "{path}");
        let parameters: Vec<Value> = path
            .split('/')
            .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
            .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
            .collect();
        let mut operations = Map::new();
        for (method, open, what) in route.methods {
            let name = format!("{method} {path}");
            let asked = requests["asked"][&name].as_array().into_iter().flatten();
            let asked = asked.filter_map(Value::as_str).map(|named| in_query(&requests, named));
            let purposeful = *what != "Not offered"
                && (path.starts_with("/ngsi-ld/") || path.starts_with("/api/v1/"));
            let parameters = parameters.iter().cloned().chain(asked);
            let parameters: Vec<Value> = parameters.chain(purposeful.then(purpose)).collect();
            let mut operation = json!({
                "summary": what,
                "parameters": parameters,
                "responses": {
                    "default": {
                        "description": "Problem details (RFC 9457) when it could not be done",
                        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
                    },
                    "2XX": {"description": "Done"},
                },
            });
            if let Some(body) = requests["bodies"].get(&name) {
                operation["requestBody"] =
                    json!({"required": true, "content": {"application/json": {"schema": body}}});
            }
            if let Some(schema) = answer(&described["answers"][&name]) {
                operation["responses"]["2XX"]["content"] =
                    json!({"application/json": {"schema": schema}});
            }
            operation["security"] =
                if *open { json!([{}, {"bearer": []}]) } else { json!([{"bearer": []}]) };
            operations.insert(method.to_lowercase(), operation);
        }
        paths.insert(path, Value::Object(operations));
    }
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Tanggul",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The secure data hub of a city. NGSI-LD is ETSI GS CIM 009; the rest is the hub's own.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
            "schemas": {"Problem": {
                "type": "object",
                "required": ["type", "title", "status", "detail"],
                "properties": {
                    "type": {"type": "string"},
                    "title": {"type": "string"},
                    "status": {"type": "integer"},
                    "detail": {"type": "string", "description": "What is wrong, and the remedy"},
                    "remedy": {"type": "string", "description": "What to do next"},
                    "place": {"type": "string", "description": "A JSON pointer, or a parameter such as `?q`"},
                },
            }},
        },
    });
    for described in [&described, &requests] {
        if let (Some(all), Some(schemas)) =
            (document["components"]["schemas"].as_object_mut(), described["schemas"].as_object())
        {
            all.extend(schemas.clone());
        }
    }
    document
}
