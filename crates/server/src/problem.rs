//! Errors as problem details (RFC 9457), mapped from the hub's in this one place.

use crate::words::{self, Language};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hub::HubError;
use hub::store::StoreError;
use model::Refusal;
use ngsild::Invalid;
use serde_json::{Value, json};

/// A problem on its way out.
#[derive(Clone, Debug)]
pub struct Problem {
    pub status: StatusCode,
    kind: String,
    title: &'static str,
    detail: String,
    more: Vec<(&'static str, Value)>,
    headers: Vec<(HeaderName, String)>,
}

/// Where the standard's own error types live (ETSI GS CIM 009 clause 6.3.2).
const STANDARD: &str = "https://uri.etsi.org/ngsi-ld/errors/";

impl Problem {
    fn new(
        status: StatusCode,
        kind: &str,
        title: &'static str,
        detail: impl Into<String>,
    ) -> Problem {
        let kind = if kind.starts_with(char::is_uppercase) {
            format!("{STANDARD}{kind}")
        } else {
            format!("urn:tanggul:problem:{kind}")
        };
        let detail = detail.into();
        Problem { status, kind, title, detail, more: Vec::new(), headers: Vec::new() }
    }

    pub fn not_found(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::NOT_FOUND, "ResourceNotFound", "Not found", detail)
    }

    pub fn no_tenant(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::NOT_FOUND, "NonexistentTenant", "No such tenant", detail)
    }

    pub fn not_offered(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::NOT_IMPLEMENTED, "OperationNotSupported", "Not offered", detail)
    }

    pub fn not_allowed(detail: impl Into<String>) -> Problem {
        Problem::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method-not-allowed",
            "Method not allowed",
            detail,
        )
    }

    pub fn unsupported_type(detail: impl Into<String>) -> Problem {
        Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported-media-type",
            "Unsupported media type",
            detail,
        )
    }

    pub fn not_acceptable(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::NOT_ACCEPTABLE, "not-acceptable", "Not acceptable", detail)
    }

    /// A handler that did not come to its end.
    pub fn broken(error: &tokio::task::JoinError) -> Problem {
        tracing::error!(%error, "a request was not done to its end");
        let what = "whether it was done is not known; look before it is sent again";
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "broken", "The hub failed", what.to_owned())
    }

    pub fn too_large(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLarge", "Too large", detail)
    }

    pub fn head_too_large(detail: impl Into<String>) -> Problem {
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        Problem::new(status, "head-too-large", "Too large", detail)
    }

    pub fn slow(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::REQUEST_TIMEOUT, "timeout", "Too slow", detail)
    }

    fn with(mut self, key: &'static str, value: impl Into<Value>) -> Problem {
        self.more.push((key, value.into()));
        self
    }

    /// The problem as an object, in English.
    pub fn json(&self) -> Value {
        self.json_in(Language::English)
    }

    /// The problem as an object: title, detail and what to do next in a language.
    fn json_in(&self, language: Language) -> Value {
        let word = self.kind.rsplit(['/', ':']).next().unwrap_or_default();
        let (title, remedy) =
            words::of_problem(word, self.status.as_u16(), language).unwrap_or((self.title, ""));
        let mut object = json!({
            "type": self.kind,
            "title": if language == Language::English { self.title } else { title },
            "status": self.status.as_u16(),
            "detail": words::say(&self.detail, language),
        });
        if !remedy.is_empty() {
            object["remedy"] = json!(remedy);
        }
        for (key, value) in &self.more {
            object[*key] = value.clone();
        }
        object
    }
}

impl Problem {
    /// The answer in the reader's language.
    pub fn answer(self, language: Language) -> Response {
        let body = self.json_in(language).to_string();
        let mut response = (self.status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CONTENT_LANGUAGE, HeaderValue::from_static(language.tag()));
        for (name, value) in self.headers {
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(name, value);
            }
        }
        response
    }
}

impl IntoResponse for Problem {
    /// The door writes it, for it knows the reader's language.
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<Invalid> for Problem {
    fn from(invalid: Invalid) -> Problem {
        let (kind, title) = if invalid.request {
            ("InvalidRequest", "Malformed request")
        } else {
            ("BadRequestData", "Data that does not fit")
        };
        let problem = Problem::new(StatusCode::BAD_REQUEST, kind, title, invalid.to_string());
        if invalid.place.is_empty() { problem } else { problem.with("place", invalid.place) }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Problem {
        let detail = refusal.to_string();
        match refusal {
            Refusal::Exists(_) => {
                Problem::new(StatusCode::CONFLICT, "AlreadyExists", "Already exists", detail)
            }
            Refusal::NotFound(_) | Refusal::NoAttribute(..) => Problem::not_found(detail),
            Refusal::Leaving(_) => Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "storage",
                "The store cannot do this now",
                detail,
            ),
            _ => Problem::from(Invalid::data("", detail)),
        }
    }
}

impl From<HubError> for Problem {
    fn from(error: HubError) -> Problem {
        let detail = error.to_string();
        match error {
            HubError::Unauthenticated(_) => {
                let mut problem = Problem::new(
                    StatusCode::UNAUTHORIZED,
                    "unauthenticated",
                    "A credential is needed",
                    detail,
                );
                problem.headers.push((header::WWW_AUTHENTICATE, "Bearer realm=\"tanggul\"".into()));
                problem
            }
            HubError::Forbidden(why) => {
                let policies: Vec<_> = why.reasons.iter().map(|r| r.policy.clone()).collect();
                Problem::new(StatusCode::FORBIDDEN, "forbidden", "Not permitted", detail)
                    .with("why", json!({
                        "action": why.action, "dataset": why.dataset, "purpose": why.purpose,
                        "policies": policies, "purposes_that_would_do": why.purposes, "grantor": why.grantor,
                    }))
            }
            HubError::NotFound(_) => Problem::not_found(detail),
            HubError::Invalid(invalid) => invalid.into(),
            HubError::Refusal(refusal) => refusal.into(),
            HubError::NoDataset(..) => Problem::from(Invalid::data("/type", detail)),
            HubError::Exists(..) => {
                Problem::new(StatusCode::CONFLICT, "AlreadyExists", "Already exists", detail)
            }
            HubError::Conflict(_) => {
                Problem::new(StatusCode::CONFLICT, "conflict", "Conflict", detail)
            }
            HubError::Limit { name, limit, .. } => {
                let status = match name {
                    "answer" | "batch" | "periods" => StatusCode::PAYLOAD_TOO_LARGE,
                    "contexts"
                    | "contexts_each"
                    | "inbox"
                    | "quarantine"
                    | "quarantine_bytes"
                    | "subscriptions"
                    | "subscriptions_each"
                    | "subscription_positions" => StatusCode::INSUFFICIENT_STORAGE,
                    _ => StatusCode::TOO_MANY_REQUESTS,
                };
                let mut problem = Problem::new(status, "limit", "A limit was reached", detail)
                    .with("limit", limit)
                    .with("name", name);
                if name.starts_with("long_looks") {
                    problem.headers.push((header::RETRY_AFTER, "5".to_owned()));
                }
                problem
            }
            HubError::Throttled(wait) => {
                let mut problem = Problem::new(
                    StatusCode::TOO_MANY_REQUESTS,
                    "throttled",
                    "Too many tries",
                    detail,
                );
                problem.headers.push((header::RETRY_AFTER, wait.seconds.to_string()));
                problem
            }
            HubError::Password(_) => Problem::from(Invalid::data("/password", detail)),
            HubError::Policy(_) => Problem::from(Invalid::data("/text", detail)),
            HubError::NotOffered(_) => Problem::not_offered(detail),
            HubError::NoContext(_) => Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "LdContextNotAvailable",
                "A context is not known here",
                detail,
            ),
            HubError::PartialSight(_) => {
                Problem::new(StatusCode::FORBIDDEN, "partial-sight", "Not permitted", detail)
            }
            HubError::Sealed(_) => {
                Problem::new(StatusCode::SERVICE_UNAVAILABLE, "sealed", "Sealed", detail)
            }
            HubError::Storage(StoreError::Full(_)) => Problem::new(
                StatusCode::INSUFFICIENT_STORAGE,
                "disk-full",
                "The disk is full",
                detail,
            ),
            HubError::Storage(error) => {
                tracing::error!(%error, "the store failed");
                Problem::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "storage",
                    "The store cannot do this now",
                    detail,
                )
            }
            HubError::Stopping => Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "stopping",
                "The hub is stopping",
                detail,
            ),
        }
    }
}
