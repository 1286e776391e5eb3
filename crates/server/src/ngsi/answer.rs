//! How answers are written: representation, media type, context, paging, receipts.

use crate::call::Call;
use crate::problem::Problem;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hub::{HubError, ItemResult, Join, Seen, WriteReport};
use model::{Name, Outcome, Value};
use ngsild::{
    CORE_CONTEXT, Context, Filter, GeoQuery, Invalid, Members, Options, OrderKey, Q,
    Representation, TypeSelection,
};
use std::sync::Arc;

/// What media type an answer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Json,
    LinkedJson,
    GeoJson,
}

/// How one answer is written.
pub struct Reply {
    pub shape: Shape,
    pub options: Options,
    pub context: Arc<Context>,
    /// Normalized and whole, in the core context: written once for all who ask.
    plain: bool,
    /// Bytes an answer may have.
    most: usize,
}

/// The link to the core context.
const CORE_LINK: &str = "<https://uri.etsi.org/ngsi-ld/v1/ngsi-ld-core-context-v1.8.jsonld>; \
     rel=\"http://www.w3.org/ns/json-ld#context\"; type=\"application/ld+json\"";

/// Parameters that say which entities.
pub const FILTER_PARAMS: &[&str] = &[
    "id",
    "type",
    "idPattern",
    "attrs",
    "q",
    "georel",
    "geometry",
    "coordinates",
    "geoproperty",
    "scopeQ",
];

/// What queries over entities take beside [`FILTER_PARAMS`].
pub const QUERY_PARAMS: &[&str] = &[
    "pick",
    "omit",
    "limit",
    "offset",
    "count",
    "options",
    "format",
    "lang",
    "orderBy",
    "geometryProperty",
    "local",
    "join",
    "joinLevel",
    "containedBy",
    "csf",
    "deleteAll",
    "datasetId",
];

fn names(items: &[&str], context: &Context) -> Vec<Name> {
    items.iter().map(|term| context.expand(term)).collect()
}

impl Reply {
    /// Reads from the request how the answer shall be.
    ///
    /// # Errors
    /// When the media type or an option is not offered.
    pub fn of(call: &Call, context: Arc<Context>) -> Result<Reply, Problem> {
        let shape = shape_of(call.header("accept"))?;
        let params = &call.params;
        let mut options = Options { system: false, ..Options::default() };
        let formats = params.list("options").into_iter().chain(params.get("format"));
        for word in formats {
            match word {
                "normalized" => options.representation = Representation::Normalized,
                "concise" => options.representation = Representation::Concise,
                "keyValues" | "simplified" => options.representation = Representation::Simplified,
                "sysAttrs" => options.system = true,
                "update" | "replace" | "noOverwrite" | "temporalValues" | "aggregatedValues"
                | "count" => {}
                other => {
                    let what = format!(
                        "`{other}` is none of: normalized, concise, simplified, keyValues, sysAttrs"
                    );
                    return Err(Invalid::request("?options", what).into());
                }
            }
        }
        options.language =
            params.get("lang").map(|l| l.split([',', ';']).next().unwrap_or(l).trim().to_owned());
        let lists = (params.get("attrs"), params.get("pick"), params.get("omit"));
        options.members = Members::parse(lists, &params.list("datasetId"), &context)?;
        options.geometry = params.get("geometryProperty").map(|term| context.expand(term));
        let plain = *context.source() == Value::Null && options == Options::default();
        Ok(Reply { shape, options, context, plain, most: call.app.limits.answer })
    }

    /// Writes only these members of entities.
    pub fn take_members(&mut self, members: Members) {
        self.options.members = members;
        self.plain = false;
    }

    /// Gets the entities that an answer leads to. Those that go inside are kept for when it is
    /// written; gives those that go beside it, and the record of the look.
    ///
    /// # Errors
    /// When there are too many.
    pub async fn join(
        &mut self,
        call: &Call,
        entities: &[Arc<Seen>],
        join: Option<&Join>,
    ) -> Result<(Vec<(Arc<Seen>, Members)>, Option<u64>), Problem> {
        let Some(join) = join else { return Ok((Vec::new(), None)) };
        let members = self.options.members.clone();
        let hub = &call.app.hub;
        let (found, record) = hub.linked(&call.session, entities, &members, join).await?;
        if !join.inline {
            return Ok((found, record));
        }
        self.options.linked = join.inside(found.iter().map(|(seen, _)| seen), self.most + 1);
        self.plain = false;
        Ok((Vec::new(), record))
    }

    fn context_value(&self) -> Value {
        match self.context.source() {
            Value::Null => Value::from(CORE_CONTEXT),
            source => source.clone(),
        }
    }

    fn media_type(&self) -> &'static str {
        match self.shape {
            Shape::Json => "application/json",
            Shape::LinkedJson => "application/ld+json",
            Shape::GeoJson => "application/geo+json",
        }
    }

    /// The end of an object: its context where the media type wants it inside.
    pub fn close(&self, body: &mut Vec<u8>) {
        if self.shape != Shape::Json {
            body.extend_from_slice(b",\"@context\":");
            ngsild::render_value(body, &self.context_value());
        }
        body.push(b'}');
    }

    /// Writes one entity.
    pub fn entity(&self, body: &mut Vec<u8>, entity: &Seen) {
        if !self.plain || self.shape == Shape::GeoJson {
            return self.entity_with(body, entity, &self.options);
        }
        body.extend_from_slice(plain_text(entity));
        self.close_entity(body);
    }

    /// Writes one entity in a way of its own.
    fn entity_with(&self, body: &mut Vec<u8>, entity: &Seen, options: &Options) {
        match self.shape {
            Shape::GeoJson => ngsild::render_feature(body, entity, &self.context, options),
            _ => ngsild::render_entity(body, entity, &self.context, options),
        }
        self.close_entity(body);
    }

    fn close_entity(&self, body: &mut Vec<u8>) {
        if self.shape == Shape::LinkedJson {
            body.pop();
            self.close(body);
        }
    }

    /// Writes a list of entities, or a feature collection; after them those that they lead to, each
    /// with what is wanted of it.
    ///
    /// # Errors
    /// When they are more than an answer may hold.
    pub fn entities(
        &self,
        entities: &[Arc<Seen>],
        linked: &[(Arc<Seen>, Members)],
    ) -> Result<Vec<u8>, Problem> {
        let mut body = Vec::with_capacity(entities.len() * 512 + 64);
        if self.shape == Shape::GeoJson {
            body.extend_from_slice(b"{\"type\":\"FeatureCollection\",\"features\":");
        }
        body.push(b'[');
        let members = &self.options.members;
        let left = entities.iter().filter(|entity| members.leaves(entity));
        for (index, entity) in left.enumerate() {
            if index > 0 {
                body.push(b',');
            }
            self.entity(&mut body, entity);
            self.check(&body)?;
        }
        for (entity, members) in linked {
            if body.last() != Some(&b'[') {
                body.push(b',');
            }
            let options = Options { members: members.clone(), ..self.options.clone() };
            self.entity_with(&mut body, entity, &options);
            self.check(&body)?;
        }
        body.push(b']');
        if self.shape == Shape::GeoJson {
            self.close(&mut body);
        }
        Ok(body)
    }

    /// Whether an answer may be as long as it is.
    ///
    /// # Errors
    /// When it may not.
    pub fn check(&self, body: &[u8]) -> Result<(), Problem> {
        if body.len() <= self.most {
            return Ok(());
        }
        let limit = self.most as u64;
        let remedy = "ask for fewer at once with `limit`, `attrs` or `joinLevel`".into();
        Err(hub::HubError::Limit { name: "answer", limit, remedy }.into())
    }

    /// The same, where there are no features to be had.
    ///
    /// # Errors
    /// When GeoJSON is all that is taken.
    pub fn without_geojson(self) -> Result<Reply, Problem> {
        match self.shape {
            Shape::GeoJson => Err(Problem::not_acceptable(
                "there is no GeoJSON here: application/json or application/ld+json".to_owned(),
            )),
            _ => Ok(self),
        }
    }

    /// A value with its context inside, where the media type wants it so.
    pub fn with_context(&self, value: Value) -> Value {
        match value {
            Value::Map(mut entries) if self.shape == Shape::LinkedJson => {
                entries.push(("@context".to_owned(), self.context_value()));
                Value::Map(entries)
            }
            other => other,
        }
    }

    /// The response around a value.
    pub fn respond_value(&self, value: &Value) -> Response {
        let mut body = Vec::with_capacity(1_024);
        ngsild::render_value(&mut body, value);
        self.respond(body, None)
    }

    /// The response around a body, with its context linked where it is not inside.
    pub fn respond(&self, body: Vec<u8>, record: Option<u64>) -> Response {
        let mut response = (StatusCode::OK, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.media_type()));
        let linked = match self.context.source() {
            Value::Null if self.shape == Shape::Json => {
                headers.insert(header::LINK, HeaderValue::from_static(CORE_LINK));
                None
            }
            Value::Text(url) if self.shape == Shape::Json => Some(url),
            _ => None,
        };
        if let Some(url) = linked {
            let link = format!(
                "<{url}>; rel=\"http://www.w3.org/ns/json-ld#context\"; type=\"application/ld+json\""
            );
            headers.extend(HeaderValue::from_str(&link).ok().map(|link| (header::LINK, link)));
        }
        if let Some(record) = record {
            headers.insert("tanggul-receipt", HeaderValue::from(record));
        }
        response
    }
}

fn shape_of(accept: Option<&str>) -> Result<Shape, Problem> {
    let Some(accept) = accept else { return Ok(Shape::Json) };
    let mut best: Option<(f32, Shape)> = None;
    for part in accept.split(',') {
        let mut pieces = part.split(';').map(str::trim);
        let shape = match pieces.next().unwrap_or_default() {
            "*/*" | "application/*" | "application/json" => Shape::Json,
            "application/ld+json" => Shape::LinkedJson,
            "application/geo+json" => Shape::GeoJson,
            _ => continue,
        };
        let quality = pieces.find_map(|p| p.strip_prefix("q=")?.parse().ok()).unwrap_or(1.0);
        if quality > 0.0 && best.is_none_or(|(found, _)| quality > found) {
            best = Some((quality, shape));
        }
    }
    best.map(|(_, shape)| shape).ok_or_else(|| {
        Problem::not_acceptable(format!(
            "`{accept}` has none of: application/json, application/ld+json, application/geo+json"
        ))
    })
}

/// The filter that the parameters ask for.
///
/// # Errors
/// What does not fit.
pub fn filter_of(call: &Call, context: &Context) -> Result<Filter, Problem> {
    let params = &call.params;
    let mut filter = Filter {
        ids: params.list("id").into_iter().map(str::to_owned).collect(),
        attributes: names(&params.list("attrs"), context),
        ..Filter::default()
    };
    for id in &filter.ids {
        ngsild::check_uri(id, "?id")?;
    }
    filter.id_pattern = params.get("idPattern").map(Filter::parse_id_pattern).transpose()?;
    if let Some(types) = params.get("type") {
        filter.types =
            if types == "*" { None } else { Some(TypeSelection::parse(types, context)?) };
    }
    if let Some(scopes) = params.get("scopeQ") {
        filter.scopes = Some(parse_scopes(scopes)?);
    }
    filter.q = params.get("q").map(|q| ngsild::parse_q(q, context)).transpose()?;
    filter.geo = geo_of(call, context)?;
    Ok(filter)
}

fn parse_scopes(text: &str) -> Result<ngsild::ScopeSelection, Invalid> {
    ngsild::ScopeSelection::parse(text)
}

fn geo_of(call: &Call, context: &Context) -> Result<Option<GeoQuery>, Invalid> {
    let params = &call.params;
    let Some(georel) = params.get("georel") else {
        return match params.get("geometry").or_else(|| params.get("coordinates")) {
            Some(_) => {
                Err(Invalid::data("?georel", "is missing beside `geometry` and `coordinates`"))
            }
            None => Ok(None),
        };
    };
    let missing =
        |key: &'static str| move || Invalid::data(format!("?{key}"), "is missing beside `georel`");
    let geometry = params.get("geometry").ok_or_else(missing("geometry"))?;
    let coordinates = params.get("coordinates").ok_or_else(missing("coordinates"))?;
    let property = context.expand(params.get("geoproperty").unwrap_or("location"));
    GeoQuery::parse(georel, geometry, coordinates, property).map(Some)
}

/// An entity in normalized form, in the core context, written once for all who see the same.
pub fn plain_text(seen: &Seen) -> &[u8] {
    seen.text(|entity| {
        let mut text = Vec::with_capacity(512);
        ngsild::render_entity(&mut text, entity, &Context::core(), &Options::default());
        text
    })
}

/// The order that `orderBy` asks for.
///
/// # Errors
/// When a term is no name.
pub fn order_of(call: &Call, context: &Context) -> Result<Vec<OrderKey>, Invalid> {
    let keys = call.params.list("orderBy");
    if keys.len() > ngsild::MAX_ORDER_KEYS {
        let what = format!("names more than {} keys", ngsild::MAX_ORDER_KEYS);
        return Err(Invalid::data("?orderBy", what));
    }
    keys.into_iter().map(|item| OrderKey::parse(item, context)).collect()
}

/// Reads a query given as a body (clause 5.2.23) into the same filter.
///
/// # Errors
/// What does not fit.
pub fn filter_of_body(body: &Value, context: &Context) -> Result<Filter, Problem> {
    if body.get("type").and_then(Value::as_text) != Some("Query") {
        return Err(Invalid::data("/type", "is not `Query`").into());
    }
    if body.get("ordering").is_some() {
        let what = "`ordering` in a query is part of the standard and is not offered here";
        return Err(Problem::not_offered(what));
    }
    ngsild::check_texts(body, "", &["q", "scopeQ"])?;
    let text = |key: &str| body.get(key).and_then(Value::as_text);
    let q: Option<Q> = text("q").map(|q| ngsild::parse_q(q, context)).transpose()?;
    let geo = match body.get("geoQ") {
        None => None,
        Some(geo) => {
            ngsild::check_texts(geo, "/geoQ", &["georel", "geometry", "geoproperty"])?;
            let text = |key: &str| geo.get(key).and_then(Value::as_text).unwrap_or_default();
            let coordinates = match geo.get("coordinates") {
                Some(Value::Text(text)) => serde_json::from_str(text).unwrap_or(Value::Null),
                other => other.cloned().unwrap_or(Value::Null),
            };
            let value = Value::Map(vec![
                ("type".into(), Value::from(text("geometry"))),
                ("coordinates".into(), coordinates),
            ]);
            let property = geo.get("geoproperty").and_then(Value::as_text).unwrap_or("location");
            Some(GeoQuery::of(text("georel"), &value, context.expand(property))?)
        }
    };
    let items = body.get("attrs").map(Value::items).unwrap_or_default();
    ngsild::check_all_texts(items, "/attrs")?;
    let base = Filter {
        q,
        geo,
        scopes: text("scopeQ").map(parse_scopes).transpose()?,
        attributes: items
            .iter()
            .filter_map(Value::as_text)
            .map(|term| context.expand(term))
            .collect(),
        ..Filter::default()
    };
    let Some(selectors) = body.get("entities") else { return Ok(base) };
    let mut filters = Vec::new();
    if selectors.items().len() > ngsild::MAX_SELECTORS {
        let what = format!("a query has at most {} selectors", ngsild::MAX_SELECTORS);
        return Err(Invalid::data("/entities", what).into());
    }
    let mut ids_left = ngsild::MAX_IDS;
    for selector in selectors.items() {
        let mut filter = Filter::default();
        ngsild::check_texts(selector, "/entities", &["type", "idPattern"])?;
        let text = |key: &str| selector.get(key).and_then(Value::as_text);
        if let Some(types) = text("type").filter(|types| *types != "*") {
            filter.types = Some(TypeSelection::parse(types, context)?);
        }
        let ids = selector.get("id").map(Value::items).unwrap_or_default();
        ids_left = ids_left.checked_sub(ids.len()).ok_or_else(|| {
            let what = format!("a query names at most {} ids", ngsild::MAX_IDS);
            Invalid::data("/entities", what)
        })?;
        ngsild::check_all_texts(ids, "/entities/id")?;
        filter.ids = ids.iter().filter_map(Value::as_text).map(str::to_owned).collect();
        filter.id_pattern = text("idPattern").map(Filter::parse_id_pattern).transpose()?;
        filters.push(filter);
    }
    if filters.is_empty() { Ok(base) } else { Ok(base.with_any_of(filters)) }
}

/// The receipt of a write as a header.
pub fn with_receipt(mut response: Response, report: &WriteReport) -> Response {
    let receipt = report.receipt.as_ref().and_then(|r| HeaderValue::from_str(&r.to_string()).ok());
    response.headers_mut().extend(
        receipt.map(|receipt| (header::HeaderName::from_static("tanggul-receipt"), receipt)),
    );
    response
}

/// The answer to a write of one change.
///
/// # Errors
/// Why it was refused.
pub fn one(mut report: WriteReport, created: Option<String>) -> Result<Response, Problem> {
    let result = report.results.pop();
    let response = match result {
        None => return Err(HubError::Stopping.into()),
        Some(ItemResult::Refused(error)) => return Err(error.into()),
        Some(ItemResult::Quarantined(reason)) => {
            (StatusCode::ACCEPTED, axum::Json(serde_json::json!({"quarantined": reason})))
                .into_response()
        }
        Some(ItemResult::Sealed) => {
            (StatusCode::ACCEPTED, axum::Json(serde_json::json!({"sealed": hub::SEALED})))
                .into_response()
        }
        Some(ItemResult::Done(Outcome::Updated { done, left })) if !left.is_empty() => {
            let left: Vec<_> = left
                .iter()
                .map(|name| serde_json::json!({"attributeName": name.as_str(), "reason": "it was left as it is"}))
                .collect();
            let body = serde_json::json!({"updated": done.iter().map(Name::as_str).collect::<Vec<_>>(), "notUpdated": left});
            (StatusCode::MULTI_STATUS, axum::Json(body)).into_response()
        }
        Some(ItemResult::Done(outcome)) => match (created, outcome) {
            (Some(location), Outcome::Created) => {
                let mut response = StatusCode::CREATED.into_response();
                let location = HeaderValue::from_str(&location).ok();
                response.headers_mut().extend(location.map(|l| (header::LOCATION, l)));
                response
            }
            _ => StatusCode::NO_CONTENT.into_response(),
        },
    };
    Ok(with_receipt(response, &report))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_link_names_the_core_context() {
        assert!(CORE_LINK.starts_with(&format!("<{CORE_CONTEXT}>; rel=")));
    }
}
