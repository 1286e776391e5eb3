//! The table of routes: what the router serves, the API document describes and the tests drive.

use crate::app::App;
use crate::{api, console, desk, log, ngsi, ops, public};
use axum::routing::{MethodRouter, delete, get, post};
use std::sync::Arc;

/// One path with its methods.
pub struct Route {
    pub path: &'static str,
    /// Method, whether anybody may call it (for what is open to all), and what it does in a sentence.
    pub methods: &'static [(&'static str, bool, &'static str)],
    pub handler: fn() -> MethodRouter<Arc<App>>,
}

macro_rules! route {
    ($path:literal, [$(($method:literal, $open:literal, $what:literal)),* $(,)?], $handler:expr) => {
        Route { path: $path, methods: &[$(($method, $open, $what)),*], handler: || $handler }
    };
}

/// All routes.
pub const ROUTES: &[Route] = &[
    // NGSI-LD: context information provision and consumption.
    route!(
        "/ngsi-ld/v1/entities",
        [
            ("GET", true, "Query entities"),
            ("POST", false, "Create an entity"),
            ("DELETE", true, "Not offered")
        ],
        get(ngsi::entities::query).post(ngsi::entities::create).delete(ops::not_offered)
    ),
    route!(
        "/ngsi-ld/v1/entities/{id}",
        [
            ("GET", true, "Retrieve an entity"),
            ("PATCH", false, "Merge an entity"),
            ("PUT", false, "Replace an entity"),
            ("DELETE", false, "Delete an entity")
        ],
        get(ngsi::entities::retrieve)
            .patch(ngsi::entities::merge)
            .put(ngsi::entities::replace)
            .delete(ngsi::entities::delete)
    ),
    route!(
        "/ngsi-ld/v1/entities/{id}/attrs",
        [("POST", false, "Append attributes"), ("PATCH", false, "Update attributes")],
        post(ngsi::entities::append).patch(ngsi::entities::update)
    ),
    route!(
        "/ngsi-ld/v1/entities/{id}/attrs/{attribute}",
        [
            ("PATCH", false, "Partially update an attribute"),
            ("PUT", false, "Replace an attribute"),
            ("DELETE", false, "Delete an attribute")
        ],
        axum::routing::patch(ngsi::entities::patch_attribute)
            .put(ngsi::entities::put_attribute)
            .delete(ngsi::entities::delete_attribute)
    ),
    route!(
        "/ngsi-ld/v1/entityOperations/create",
        [("POST", false, "Create many entities")],
        post(ngsi::batch::create)
    ),
    route!(
        "/ngsi-ld/v1/entityOperations/upsert",
        [("POST", false, "Create or change many entities")],
        post(ngsi::batch::upsert)
    ),
    route!(
        "/ngsi-ld/v1/entityOperations/update",
        [("POST", false, "Change many entities")],
        post(ngsi::batch::update)
    ),
    route!(
        "/ngsi-ld/v1/entityOperations/merge",
        [("POST", false, "Merge many entities")],
        post(ngsi::batch::merge)
    ),
    route!(
        "/ngsi-ld/v1/entityOperations/delete",
        [("POST", false, "Delete many entities")],
        post(ngsi::batch::delete)
    ),
    route!(
        "/ngsi-ld/v1/entityOperations/query",
        [("POST", true, "Query entities")],
        post(ngsi::entities::post_query)
    ),
    route!(
        "/ngsi-ld/v1/temporal/entities",
        [("GET", true, "Query histories"), ("POST", false, "Add to a history")],
        get(ngsi::temporal::query).post(ngsi::temporal::create)
    ),
    route!(
        "/ngsi-ld/v1/temporal/entities/{id}",
        [("GET", true, "Retrieve a history"), ("DELETE", false, "Delete a history")],
        get(ngsi::temporal::retrieve).delete(ngsi::temporal::delete)
    ),
    route!(
        "/ngsi-ld/v1/temporal/entities/{id}/attrs",
        [("POST", false, "Add attributes to a history")],
        post(ngsi::temporal::append)
    ),
    route!(
        "/ngsi-ld/v1/temporal/entities/{id}/attrs/{attribute}",
        [("DELETE", false, "Delete an attribute's history")],
        delete(ngsi::temporal::delete_attribute)
    ),
    route!(
        "/ngsi-ld/v1/temporal/entities/{id}/attrs/{attribute}/{instance}",
        [("PATCH", true, "Not offered"), ("DELETE", true, "Not offered")],
        axum::routing::patch(ops::not_offered).delete(ops::not_offered)
    ),
    route!(
        "/ngsi-ld/v1/temporal/entityOperations/query",
        [("POST", true, "Query histories")],
        post(ngsi::temporal::post_query)
    ),
    route!("/ngsi-ld/v1/types", [("GET", true, "Types of entities")], get(ngsi::types::types)),
    route!(
        "/ngsi-ld/v1/types/{type}",
        [("GET", true, "A type of entities")],
        get(ngsi::types::one_type)
    ),
    route!(
        "/ngsi-ld/v1/attributes",
        [("GET", true, "Attributes of entities")],
        get(ngsi::types::attributes)
    ),
    route!(
        "/ngsi-ld/v1/attributes/{attribute}",
        [("GET", true, "An attribute of entities")],
        get(ngsi::types::one_attribute)
    ),
    route!(
        "/ngsi-ld/v1/subscriptions",
        [("GET", true, "Own subscriptions"), ("POST", false, "Subscribe")],
        get(ngsi::subscriptions::list).post(ngsi::subscriptions::create)
    ),
    route!(
        "/ngsi-ld/v1/subscriptions/{id}",
        [
            ("GET", false, "A subscription"),
            ("PATCH", false, "Change a subscription"),
            ("DELETE", false, "Unsubscribe")
        ],
        get(ngsi::subscriptions::retrieve)
            .patch(ngsi::subscriptions::update)
            .delete(ngsi::subscriptions::delete)
    ),
    route!(
        "/ngsi-ld/v1/jsonldContexts",
        [("GET", true, "Contexts hosted here"), ("POST", false, "Host a context")],
        get(ngsi::contexts::list).post(ngsi::contexts::create)
    ),
    route!(
        "/ngsi-ld/v1/jsonldContexts/{id}",
        [("GET", true, "A context"), ("DELETE", false, "Delete a context")],
        get(ngsi::contexts::retrieve).delete(ngsi::contexts::delete)
    ),
    // What the standard has and this hub does not.
    route!(
        "/ngsi-ld/v1/csourceRegistrations",
        [("GET", true, "Not offered"), ("POST", true, "Not offered")],
        get(ops::not_offered).post(ops::not_offered)
    ),
    route!(
        "/ngsi-ld/v1/csourceRegistrations/{id}",
        [
            ("GET", true, "Not offered"),
            ("PATCH", true, "Not offered"),
            ("DELETE", true, "Not offered")
        ],
        get(ops::not_offered).patch(ops::not_offered).delete(ops::not_offered)
    ),
    route!(
        "/ngsi-ld/v1/csourceSubscriptions",
        [("GET", true, "Not offered"), ("POST", true, "Not offered")],
        get(ops::not_offered).post(ops::not_offered)
    ),
    route!(
        "/ngsi-ld/v1/csourceSubscriptions/{id}",
        [
            ("GET", true, "Not offered"),
            ("PATCH", true, "Not offered"),
            ("DELETE", true, "Not offered")
        ],
        get(ops::not_offered).patch(ops::not_offered).delete(ops::not_offered)
    ),
    // The hub's own API.
    route!("/api/v1/openapi.json", [("GET", true, "This document")], get(api::openapi)),
    route!(
        "/api/v1/session",
        [("GET", true, "Who I am"), ("POST", true, "Sign in"), ("DELETE", true, "Sign out")],
        get(api::session).post(api::sign_in).delete(api::sign_out)
    ),
    route!(
        "/api/v1/session/purpose",
        [("POST", false, "Say why one acts for another purpose")],
        post(desk::declare)
    ),
    route!("/api/v1/purposes", [("GET", true, "What data is kept for")], get(desk::purposes)),
    route!("/api/v1/chart", [("GET", false, "A history to be drawn")], get(desk::chart)),
    route!("/api/v1/state", [("GET", false, "How the hub is")], get(desk::state)),
    route!("/api/v1/checks", [("POST", false, "Look at the whole log again")], post(desk::check)),
    route!("/api/v1/redeem", [("POST", true, "Redeem a one-time code")], post(api::redeem)),
    route!(
        "/api/v1/acts",
        [("POST", false, "Do an act"), ("GET", false, "Acts that wait for a second person")],
        post(api::act).get(api::pending)
    ),
    route!(
        "/api/v1/acts/{id}",
        [("DELETE", false, "Take an act back that waits")],
        delete(api::withdraw)
    ),
    route!("/api/v1/acts/{id}/approve", [("POST", false, "Agree to an act")], post(api::approve)),
    route!("/api/v1/datasets", [("GET", true, "Datasets")], get(api::datasets)),
    route!("/api/v1/datasets/{id}", [("GET", true, "A dataset")], get(api::dataset)),
    route!(
        "/api/v1/datasets/{id}/who",
        [("GET", false, "Who can see a dataset, for what")],
        get(api::who)
    ),
    route!(
        "/api/v1/datasets/{id}/health",
        [("GET", false, "How fresh and complete a dataset is")],
        get(desk::health)
    ),
    route!(
        "/api/v1/datasets/{id}/versions",
        [("GET", true, "A dataset as it was")],
        get(desk::versions)
    ),
    route!(
        "/api/v1/datasets/{id}/quarantine",
        [("GET", false, "Quarantined readings")],
        get(api::quarantine)
    ),
    route!("/api/v1/why", [("GET", true, "May I, and why (not)")], get(api::why)),
    route!("/api/v1/policies", [("GET", true, "The policies")], get(api::policies)),
    route!("/api/v1/principals", [("GET", false, "Whom the hub knows")], get(api::principals)),
    route!("/api/v1/records", [("GET", false, "Records, newest first")], get(api::records)),
    route!(
        "/api/v1/records/{index}",
        [("GET", true, "A public record with its salt")],
        get(api::public_record)
    ),
    route!("/api/v1/receipts/{index}", [("GET", true, "A record's proof")], get(api::receipt)),
    route!("/api/v1/limits", [("GET", true, "Every limit by name")], get(api::limits)),
    route!(
        "/api/v1/watch",
        [("GET", false, "Changes as they happen (server-sent events)")],
        get(api::watch)
    ),
    // The log.
    route!("/log/vkey", [("GET", true, "The log's public key")], get(log::vkey)),
    route!("/log/checkpoint", [("GET", true, "The last signed checkpoint")], get(log::checkpoint)),
    route!("/log/tile/{*path}", [("GET", true, "A tile")], get(log::tile)),
    // Everyone.
    route!("/", [("GET", true, "The console")], get(console::page)),
    route!("/console/{*path}", [("GET", true, "A file of the console")], get(console::file)),
    route!(
        "/map.pmtiles",
        [("GET", true, "The operator's map, if there is one")],
        get(console::map)
    ),
    route!("/public/", [("GET", true, "What is sensed in the city, and why")], get(public::home)),
    route!("/public/datasets/{id}", [("GET", true, "An open dataset")], get(public::dataset)),
    route!("/public/log", [("GET", true, "The log, and how to check it")], get(public::log)),
    route!(
        "/public/receipt",
        [("GET", true, "Where to check a receipt"), ("POST", true, "Check a receipt")],
        get(public::receipt).post(public::check_receipt)
    ),
    route!("/public/style.css", [("GET", true, "How public pages look")], get(public::style)),
    route!("/healthz", [("GET", true, "Whether the process lives")], get(ops::healthz)),
    route!("/readyz", [("GET", true, "Whether the hub can do its work")], get(ops::readyz)),
    route!("/metrics", [("GET", true, "Counts for Prometheus")], get(ops::metrics)),
];
