//! Types and attributes (clauses 5.7.5 to 5.7.10), as far as the session sees them.

use super::answer::Reply;
use crate::call::Call;
use crate::problem::Problem;
use axum::response::Response;
use hub::TypeSeen;
use model::Name;
use ngsild::Context;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

type Handled = Result<Response, Problem>;

fn respond(call: &Call, reply: &Reply, mut body: Value) -> Response {
    if reply.shape == super::Shape::LinkedJson {
        let (_, source) = call.context(None).unwrap_or((Context::core(), model::Value::Null));
        let source = serde_json::to_value(&source).unwrap_or_default();
        let source = if source.is_null() { json!(ngsild::CORE_CONTEXT) } else { source };
        match &mut body {
            Value::Array(items) => {
                items.iter_mut().for_each(|item| item["@context"] = source.clone());
            }
            one => one["@context"] = source,
        }
    }
    reply.respond(body.to_string().into_bytes(), None)
}

fn words<'a>(names: impl Iterator<Item = &'a Name>, context: &Context) -> Vec<String> {
    names.map(|name| context.compact(name).into_owned()).collect()
}

pub async fn types(call: Call) -> Handled {
    call.params.only(&["details", "local"])?;
    let (context, _) = call.context(None)?;
    let reply = Reply::of(&call, context.clone())?;
    let types = call.app.hub.types(&call.session).await?;
    let body = if call.params.flag("details")? {
        let one = |(name, seen): (&Name, &TypeSeen)| {
            let attributes = seen.attributes.iter().map(|(name, _)| name);
            json!({
                "id": name.iri(), "type": "EntityType", "typeName": context.compact(name),
                "attributeNames": words(attributes, &context),
            })
        };
        Value::Array(types.iter().map(one).collect())
    } else {
        let list = words(types.keys(), &context);
        json!({"id": "urn:ngsi-ld:EntityTypeList:all", "type": "EntityTypeList", "typeList": list})
    };
    Ok(respond(&call, &reply, body))
}

pub async fn one_type(call: Call) -> Handled {
    call.params.only(&["local"])?;
    let (context, _) = call.context(None)?;
    let reply = Reply::of(&call, context.clone())?;
    let wanted = call.name("type", &context);
    let types = call.app.hub.types(&call.session).await?;
    let seen = types.get(&wanted).ok_or_else(|| {
        Problem::not_found(format!("there are no entities of the type `{wanted}`"))
    })?;
    let detail = |(name, kinds): &(Name, Vec<&str>)| {
        json!({
            "id": name.iri(), "type": "Attribute", "attributeName": context.compact(name),
            "attributeTypes": kinds,
        })
    };
    let body = json!({
        "id": wanted.iri(), "type": "EntityTypeInfo", "typeName": context.compact(&wanted),
        "entityCount": seen.entities,
        "attributeDetails": seen.attributes.iter().map(detail).collect::<Vec<_>>(),
    });
    Ok(respond(&call, &reply, body))
}

/// An attribute: how often it occurs, on which types, of which kinds.
#[derive(Default)]
struct Occurrence {
    count: usize,
    types: Vec<Name>,
    kinds: BTreeSet<&'static str>,
}

async fn by_attribute(call: &Call) -> Result<BTreeMap<Name, Occurrence>, hub::HubError> {
    let mut found: BTreeMap<Name, Occurrence> = BTreeMap::new();
    for (of_type, seen) in call.app.hub.types(&call.session).await? {
        for (attribute, kinds) in seen.attributes {
            let occurrence = found.entry(attribute).or_default();
            occurrence.count += seen.entities;
            occurrence.types.push(of_type.clone());
            occurrence.kinds.extend(kinds);
        }
    }
    Ok(found)
}

pub async fn attributes(call: Call) -> Handled {
    call.params.only(&["details", "local"])?;
    let (context, _) = call.context(None)?;
    let reply = Reply::of(&call, context.clone())?;
    let found = by_attribute(&call).await?;
    let body = if call.params.flag("details")? {
        let one = |(name, found): (&Name, &Occurrence)| {
            json!({
                "id": name.iri(), "type": "Attribute", "attributeName": context.compact(name),
                "typeNames": words(found.types.iter(), &context),
            })
        };
        Value::Array(found.iter().map(one).collect())
    } else {
        let list = words(found.keys(), &context);
        json!({"id": "urn:ngsi-ld:AttributeList:all", "type": "AttributeList", "attributeList": list})
    };
    Ok(respond(&call, &reply, body))
}

pub async fn one_attribute(call: Call) -> Handled {
    call.params.only(&["local"])?;
    let (context, _) = call.context(None)?;
    let reply = Reply::of(&call, context.clone())?;
    let wanted = call.name("attribute", &context);
    let found = by_attribute(&call).await?;
    let missing = || Problem::not_found(format!("no entity has the attribute `{wanted}`"));
    let found = found.get(&wanted).ok_or_else(missing)?;
    let body = json!({
        "id": wanted.iri(), "type": "Attribute", "attributeName": context.compact(&wanted),
        "attributeCount": found.count, "attributeTypes": found.kinds,
        "typeNames": words(found.types.iter(), &context),
    });
    Ok(respond(&call, &reply, body))
}
