//! Types and attributes (clauses 5.7.5 to 5.7.10), as far as the session sees them.

use super::answer::Reply;
use crate::call::Call;
use crate::problem::Problem;
use axum::response::Response;
use model::Name;
use ngsild::Context;
use serde_json::{Value, json};
use std::collections::BTreeMap;

type Handled = Result<Response, Problem>;

fn respond(call: &Call, reply: &Reply, mut body: Value) -> Response {
    if reply.shape == super::Shape::LinkedJson {
        let (_, source) = call.context(None).unwrap_or((Context::core(), model::Value::Null));
        let source = serde_json::to_value(&source).unwrap_or_default();
        body["@context"] = if source.is_null() { json!(ngsild::CORE_CONTEXT) } else { source };
    }
    reply.respond(body.to_string().into_bytes(), None)
}

fn words(names: &[Name], context: &Context) -> Vec<String> {
    names.iter().map(|name| context.compact(name).into_owned()).collect()
}

pub async fn types(call: Call) -> Handled {
    call.params.only(&["details", "local"])?;
    let (context, _) = call.context(None)?;
    let reply = Reply::of(&call, context.clone())?;
    let types = call.app.hub.types(&call.session);
    let body = if call.params.flag("details")? {
        let one = |(name, _, attributes): &(Name, usize, Vec<Name>)| {
            json!({
                "id": name.iri(), "type": "EntityType", "typeName": context.compact(name),
                "attributeNames": words(attributes, &context),
            })
        };
        Value::Array(types.iter().map(one).collect())
    } else {
        let list: Vec<_> =
            types.iter().map(|(name, ..)| context.compact(name).into_owned()).collect();
        json!({"id": "urn:ngsi-ld:EntityTypeList:all", "type": "EntityTypeList", "typeList": list})
    };
    Ok(respond(&call, &reply, body))
}

pub async fn one_type(call: Call) -> Handled {
    call.params.only(&["local"])?;
    let (context, _) = call.context(None)?;
    let reply = Reply::of(&call, context.clone())?;
    let wanted = call.name("type", &context);
    let types = call.app.hub.types(&call.session);
    let found = types.iter().find(|(name, ..)| *name == wanted);
    let (name, count, attributes) = found.ok_or_else(|| {
        Problem::not_found(format!("there are no entities of the type `{wanted}`"))
    })?;
    let details: Vec<_> = attributes
        .iter()
        .map(|a| json!({"id": a.iri(), "type": "Attribute", "attributeName": context.compact(a)}))
        .collect();
    let body = json!({
        "id": name.iri(), "type": "EntityTypeInfo", "typeName": context.compact(name),
        "entityCount": count, "attributeDetails": details,
    });
    Ok(respond(&call, &reply, body))
}

/// Attributes with the types they occur on and how often.
fn by_attribute(call: &Call) -> BTreeMap<Name, (usize, Vec<Name>)> {
    let mut found: BTreeMap<Name, (usize, Vec<Name>)> = BTreeMap::new();
    for (of_type, count, attributes) in call.app.hub.types(&call.session) {
        for attribute in attributes {
            let entry = found.entry(attribute).or_default();
            entry.0 += count;
            entry.1.push(of_type.clone());
        }
    }
    found
}

pub async fn attributes(call: Call) -> Handled {
    call.params.only(&["details", "local"])?;
    let (context, _) = call.context(None)?;
    let reply = Reply::of(&call, context.clone())?;
    let found = by_attribute(&call);
    let body = if call.params.flag("details")? {
        let one = |(name, (_, types)): (&Name, &(usize, Vec<Name>))| {
            json!({
                "id": name.iri(), "type": "Attribute", "attributeName": context.compact(name),
                "typeNames": words(types, &context),
            })
        };
        Value::Array(found.iter().map(one).collect())
    } else {
        let list: Vec<_> = found.keys().map(|name| context.compact(name).into_owned()).collect();
        json!({"id": "urn:ngsi-ld:AttributeList:all", "type": "AttributeList", "attributeList": list})
    };
    Ok(respond(&call, &reply, body))
}

pub async fn one_attribute(call: Call) -> Handled {
    call.params.only(&["local"])?;
    let (context, _) = call.context(None)?;
    let reply = Reply::of(&call, context.clone())?;
    let wanted = call.name("attribute", &context);
    let found = by_attribute(&call);
    let missing = || Problem::not_found(format!("no entity has the attribute `{wanted}`"));
    let (count, types) = found.get(&wanted).ok_or_else(missing)?;
    let body = json!({
        "id": wanted.iri(), "type": "Attribute", "attributeName": context.compact(&wanted),
        "attributeCount": count, "typeNames": words(types, &context),
    });
    Ok(respond(&call, &reply, body))
}
