//! One request as a handler gets it: who calls, with which parameters, context and body. Everything
//! that all handlers need is checked here, before them.

use crate::app::App;
use crate::limits::seconds;
use crate::params::{Params, decode};
use crate::places::Place;
use crate::problem::Problem;
use axum::RequestPartsExt;
use axum::body::{Bytes, HttpBody};
use axum::extract::{FromRequest, RawPathParams, Request};
use axum::http::{self, HeaderMap, Uri, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hub::{Block, Hub, Source};
use model::{Credential, Session, Value, Zone};
use ngsild::{Context, Invalid};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The relation of a link to a context (JSON-LD 1.1 clause 6.1).
const CONTEXT_RELATION: &str = "http://www.w3.org/ns/json-ld#context";

/// A body that takes longer is slow: whose it is is asked for again.
const SLOW: Duration = Duration::from_millis(100);

/// One request.
pub struct Call {
    pub app: Arc<App>,
    pub session: Session,
    pub params: Params,
    pub headers: HeaderMap,
    pub source: Source,
    pub body: Bytes,
    pub uri: Uri,
    /// The place of its connection.
    pub place: Option<Arc<Place>>,
    path: Vec<(String, String)>,
}

/// Where a client connects from, and the place it holds; put there by the door.
#[derive(Clone)]
pub struct Peer {
    pub address: SocketAddr,
    pub place: Arc<Place>,
}

/// The zone and the block of an address.
pub fn source_of(address: IpAddr) -> Source {
    let address = address.to_canonical();
    let zone = match address {
        address if address.is_loopback() => Zone::Local,
        IpAddr::V4(v4) if v4.is_private() => Zone::City,
        IpAddr::V6(v6) if v6.is_unique_local() => Zone::City,
        _ => Zone::Outside,
    };
    Source { zone, block: Block::Of(address), browser: None }
}

impl Call {
    /// Who calls, and with which parameters: what the head alone tells.
    fn of_head(
        app: &App,
        headers: &HeaderMap,
        uri: &Uri,
        source: &Source,
        strict: bool,
    ) -> Result<(Session, Params), Problem> {
        let session = session_of(&app.hub, headers, source, strict)?;
        if let Some(tenant) = headers.get("ngsild-tenant") {
            let shown = tenant.to_str().unwrap_or_default();
            return Err(Problem::no_tenant(format!(
                "there is no tenant `{shown}`; leave `NGSILD-Tenant` out"
            )));
        }
        Ok((session, Params::parse(uri.query().unwrap_or_default())?))
    }
}

impl FromRequest<Arc<App>> for Call {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Call, Problem> {
        let (mut parts, body) = request.into_parts();
        let peer = parts.extensions.get::<Peer>();
        let source = source_of(peer.map_or([0, 0, 0, 0].into(), |peer| peer.address.ip()));
        let place = peer.map(|peer| peer.place.clone());
        let path = parts.extract::<RawPathParams>().await.map_or_else(
            |_| Vec::new(),
            |params| params.iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
        );
        let headers = parts.headers;
        let patience = seconds(app.limits.http_body_timeout);
        let uri = parts.uri;
        // Whoever signs in or out is not kept from it by a sign-in that has ended.
        let signing = parts.method != http::Method::GET
            && matches!(uri.path(), "/api/v1/session" | "/api/v1/redeem");
        let (session, params) = Call::of_head(app, &headers, &uri, &source, !signing)?;
        if session.principal.kind != model::Kind::Public {
            place.iter().for_each(|place| place.make_known(session.principal.number));
        }
        let writes = !matches!(parts.method, http::Method::GET | http::Method::HEAD)
            && uri.path().starts_with("/ngsi-ld/")
            && !uri.path().trim_end_matches('/').ends_with("/entityOperations/query");
        let known = || {
            if !writes || session.principal.kind != model::Kind::Public {
                return Ok(());
            }
            // Before anything of the body is understood.
            app.hub.count_unknown("hub", &source.block.to_string());
            let what = "changes need a credential; send `Authorization: Bearer TOKEN`";
            Err(Problem::from(hub::HubError::Unauthenticated(what.into())))
        };
        let length = headers
            .get(header::CONTENT_LENGTH)
            .and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
        let stranger = session.principal.kind == model::Kind::Public;
        let most = if stranger { app.limits.http_body_stranger } else { app.limits.http_body };
        let too_large = || {
            Problem::too_large(if stranger {
                format!("a body has at most {most} bytes without a credential")
            } else {
                format!("a body has at most {most} bytes")
            })
        };
        if length.is_some_and(|length| length > most) {
            return Err(too_large());
        }
        if body.is_end_stream() {
            known()?;
            let body = Bytes::new();
            return Ok(Call {
                app: app.clone(),
                session,
                params,
                headers,
                source,
                body,
                uri,
                place,
                path,
            });
        }
        let begun = Instant::now();
        let body = Limited::new(body, most).collect();
        let body = match tokio::time::timeout(patience, body).await {
            Err(_) => return Err(Problem::slow("the body did not arrive in time")),
            Ok(Err(error)) if error.downcast_ref::<LengthLimitError>().is_some() => {
                return Err(too_large());
            }
            Ok(Err(_)) => return Err(Invalid::request("", "the body broke off").into()),
            Ok(Ok(body)) => body.to_bytes(),
        };
        known()?;
        // Who was revoked while the body came does not finish what was begun.
        let session = if begun.elapsed() > SLOW { app.hub.still(&session)? } else { session };
        Ok(Call { app: app.clone(), session, params, headers, source, body, uri, place, path })
    }
}

/// The header that the console's own requests carry. A page of another site cannot send it without
/// asking first, and is never told yes: what it has the browser send carries no session.
pub const CONSOLE_HEADER: &str = "tanggul-console";
/// The cookie that holds the console's session: for this host only, over TLS only, out of scripts' reach.
pub const SESSION_COOKIE: &str = "__Host-tanggul";

/// A cookie by name.
pub fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let of = |value: &'a header::HeaderValue| value.to_str().ok();
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(of);
    cookies
        .flat_map(|cookies| cookies.split(';'))
        .find_map(|cookie| cookie.trim().strip_prefix(name)?.strip_prefix('='))
}

/// The session that the headers stand for.
fn session_of(
    hub: &Hub,
    headers: &HeaderMap,
    source: &Source,
    by_cookie: bool,
) -> Result<Session, Problem> {
    let text = |name: &str| headers.get(name).map(|value| value.to_str());
    let purpose = match text("tanggul-purpose") {
        None => None,
        Some(Ok(purpose)) if !purpose.is_empty() && purpose.len() <= 100 => Some(purpose),
        Some(_) => {
            return Err(Invalid::request(
                "Tanggul-Purpose",
                "is no purpose such as `flood-response`",
            )
            .into());
        }
    };
    let credential = match text("authorization") {
        None if by_cookie && headers.contains_key(CONSOLE_HEADER) => {
            match cookie(headers, SESSION_COOKIE) {
                Some(token) if token.len() <= 4_096 => Credential::Bearer(token.to_owned()),
                _ => Credential::None,
            }
        }
        None => Credential::None,
        Some(Ok(value)) if value.len() <= 4_096 => match value.split_once(' ') {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => {
                Credential::Bearer(token.trim().to_owned())
            }
            _ => {
                return Err(hub::HubError::Unauthenticated(
                    "send `Authorization: Bearer TOKEN`".into(),
                )
                .into());
            }
        },
        Some(_) => {
            return Err(hub::HubError::Unauthenticated(
                "the Authorization header is no text, or too long".into(),
            )
            .into());
        }
    };
    Ok(hub.open(&credential, source, purpose)?)
}

impl Call {
    /// A part of the path.
    pub fn path(&self, name: &str) -> String {
        self.path
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.clone())
            .unwrap_or_default()
    }

    /// A header's text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Whether the console asks.
    pub fn is_console(&self) -> bool {
        self.headers.contains_key(CONSOLE_HEADER)
    }

    /// The media type of the body, without parameters.
    fn media_type(&self) -> &str {
        let value = self.header("content-type").unwrap_or_default();
        value.split(';').next().unwrap_or_default().trim()
    }

    /// The body as JSON; its media type must say that it is.
    ///
    /// # Errors
    /// When it is of another type or no JSON.
    pub fn json(&self) -> Result<Value, Problem> {
        match self.media_type() {
            "application/json" | "application/ld+json" | "application/merge-patch+json" => {}
            other => {
                let what = format!(
                    "`{other}` is none of: application/json, application/ld+json, application/merge-patch+json"
                );
                return Err(Problem::unsupported_type(what));
            }
        }
        Ok(ngsild::parse_json(&self.body)?)
    }

    /// Whether the body is JSON in the core context, and no media type or header says otherwise.
    pub fn is_plain_json(&self) -> bool {
        self.media_type() == "application/json" && self.header("link").is_none()
    }

    /// The URL of the context in the `Link` header, if there is one.
    fn linked_context(&self) -> Option<String> {
        let link = self.header("link")?;
        link.split(',').find(|part| part.contains(CONTEXT_RELATION)).and_then(|part| {
            let url = part.trim().strip_prefix('<')?.split_once('>')?.0;
            Some(url.to_owned())
        })
    }

    /// The context of the request, and the value it came from: inline for `application/ld+json`,
    /// linked otherwise, the core context if neither (clause 6.3.5).
    ///
    /// # Errors
    /// When both are given, none is where one must be, or it is not known.
    pub fn context(&self, body: Option<&Value>) -> Result<(Arc<Context>, Value), Problem> {
        let linked = self.linked_context();
        let first = match body {
            Some(Value::List(items)) => items.first(),
            other => other,
        };
        let inline = first.and_then(|body| body.get("@context"));
        let source = match (self.media_type() == "application/ld+json", inline, linked) {
            (true, _, Some(_)) => {
                return Err(Invalid::data(
                    "Link",
                    "goes with application/json, not with application/ld+json",
                )
                .into());
            }
            (true, None, None) if body.is_some() => {
                return Err(
                    Invalid::data("/@context", "is missing from application/ld+json").into()
                );
            }
            (true, Some(inline), None) => inline.clone(),
            (true, None, None) => Value::Null,
            (false, Some(_), _) => {
                return Err(Invalid::data(
                    "/@context",
                    "goes with application/ld+json, not with application/json",
                )
                .into());
            }
            (false, None, Some(url)) => Value::Text(url),
            (false, None, None) => Value::Null,
        };
        Ok((self.app.hub.context(&source)?, source))
    }

    /// A part of the path that names an attribute or type, expanded.
    pub fn name(&self, part: &str, context: &Context) -> model::Name {
        context.expand(&decode(&self.path(part).replace('+', "%2B")).unwrap_or_default())
    }
}
