//! The API document, from the table of routes.

use crate::routes::ROUTES;
use serde_json::{Map, Value, json};

/// OpenAPI 3.1 of every route.
pub fn document() -> Value {
    let mut paths = Map::new();
    for route in ROUTES {
        let path = route.path.replace("{*path}", "{path}");
        let parameters: Vec<Value> = path
            .split('/')
            .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
            .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
            .collect();
        let mut operations = Map::new();
        for (method, open, what) in route.methods {
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
            operation["security"] =
                if *open { json!([{}, {"bearer": []}]) } else { json!([{"bearer": []}]) };
            operations.insert(method.to_lowercase(), operation);
        }
        paths.insert(path, Value::Object(operations));
    }
    json!({
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
                    "place": {"type": "string", "description": "A JSON pointer, or a parameter such as `?q`"},
                },
            }},
        },
    })
}
