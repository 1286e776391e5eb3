//! Listening: TLS, connection limits, time limits.

use crate::app::App;
use crate::call::Peer;
use crate::limits::seconds;
use crate::mqtt;
use crate::places::Places;
use crate::problem::Problem;
use crate::rest;
use crate::router::{harden, router};
use crate::words::Language;
use axum::response::IntoResponse;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

/// Certificate chain and key, as PEM files.
#[derive(Clone, Debug)]
pub struct TlsFiles<'a> {
    pub certificates: &'a Path,
    pub key: &'a Path,
}

/// The doors, before they open.
pub struct Doors {
    pub app: Arc<App>,
    pub https: TcpListener,
    pub mqtts: TcpListener,
}

/// Open doors; [`Listening::close`] closes them.
pub struct Listening {
    stop: watch::Sender<bool>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

/// TLS 1.3 (and 1.2 where configured) for a door.
fn tls(
    files: &TlsFiles<'_>,
    protocols: &[&[u8]],
    allow_tls12: bool,
) -> std::io::Result<TlsAcceptor> {
    let other = |error: String| std::io::Error::new(std::io::ErrorKind::InvalidData, error);
    let certificates = CertificateDer::pem_file_iter(files.certificates)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| other(format!("{}: {error}", files.certificates.display())))?;
    let key = PrivateKeyDer::from_pem_file(files.key)
        .map_err(|error| other(format!("{}: {error}", files.key.display())))?;
    let versions: &[&rustls::SupportedProtocolVersion] =
        if allow_tls12 { rustls::ALL_VERSIONS } else { &[&rustls::version::TLS13] };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(|error| other(error.to_string()))?
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .map_err(|error| other(error.to_string()))?;
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(TlsAcceptor::from(Arc::new(config)))
}

impl Doors {
    /// Opens both doors.
    ///
    /// # Errors
    /// When the certificate or key cannot be used.
    pub fn open(self, files: &TlsFiles<'_>, allow_tls12: bool) -> std::io::Result<Listening> {
        let (stop, stopped) = watch::channel(false);
        let https = tls(files, &[b"h2", b"http/1.1"], allow_tls12)?;
        let mqtts = tls(files, &[b"mqtt"], allow_tls12)?;
        // MQTT clients that know no ALPN must get in, those that say `mqtt` too.
        let service = router(self.app.clone());
        let app = self.app.clone();
        let handshake = seconds(app.limits.tls_handshake_timeout);
        let http =
            accept((self.https, https), (app.doors[0].clone(), handshake), stopped.clone(), {
                let app = app.clone();
                move |stream, peer, stopped| {
                    let (service, app) = (service.clone(), app.clone());
                    async move { serve_http(stream, peer, service, app, stopped).await }
                }
            });
        let mqtt = accept(
            (self.mqtts, mqtts),
            (app.doors[1].clone(), handshake),
            stopped,
            move |stream, peer, stopped| {
                let app = app.clone();
                async move { mqtt::serve(stream, peer, app, stopped).await }
            },
        );
        Ok(Listening { stop, tasks: vec![tokio::spawn(http), tokio::spawn(mqtt)] })
    }
}

impl Listening {
    /// Stops taking connections, lets requests under way end, and closes.
    pub async fn close(self) {
        // Fails only when every task has ended already.
        let _ = self.stop.send(true);
        for task in self.tasks {
            drop(tokio::time::timeout(Duration::from_secs(5), task).await);
        }
    }
}

type Stream = tokio_rustls::server::TlsStream<TcpStream>;

async fn accept<F, Fut>(
    (listener, tls): (TcpListener, TlsAcceptor),
    (places, handshake): (Arc<Places>, Duration),
    mut stopped: watch::Receiver<bool>,
    serve: F,
) where
    F: Fn(Stream, Peer, watch::Receiver<bool>) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    // Every connection holds a share.
    let connections = Arc::new(());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.changed() => break,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file handles, mostly: others must end first.
                tracing::warn!(%error, "a connection cannot be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (place, leave) = tokio::select! {
            taken = places.take() => taken,
            _ = stopped.changed() => break,
        };
        let (tls, serve, stopped, held) =
            (tls.clone(), serve.clone(), stopped.clone(), connections.clone());
        tokio::spawn(async move {
            let _held = held;
            let served = async move {
                drop(stream.set_nodelay(true));
                if let Ok(Ok(stream)) = tokio::time::timeout(handshake, tls.accept(stream)).await {
                    serve(stream, Peer { address, place }, stopped).await;
                }
            };
            tokio::select! {
                () = served => {}
                () = leave.asked() => tracing::debug!("a stranger made room for a newcomer"),
            }
        });
    }
    drop(listener);
    // Wait until every connection has let go of its share.
    while Arc::strong_count(&connections) > 1 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Between two looks at whether a connection still shows a credential.
const LOOK: Duration = Duration::from_secs(60);

/// A head this many times the limit is still read, so that the client hears what is wrong instead
/// of a connection that breaks.
const HEAD_SLACK: usize = 4;

/// What the head of a request takes, as HTTP/1.1 would write it.
fn head_bytes<T>(request: &hyper::Request<T>) -> usize {
    let of_field = |(name, value): (&hyper::header::HeaderName, &hyper::header::HeaderValue)| {
        name.as_str().len() + value.len() + 4
    };
    let line = request.uri().path_and_query().map_or(0, |path| path.as_str().len());
    line + request.headers().iter().map(of_field).sum::<usize>()
}

/// Whether a request is done to its end even when whoever sent it goes away: acts, sign-ins and
/// subscriptions do more than one thing after another. Writes of entities are one commit.
fn is_act<T>(request: &hyper::Request<T>) -> bool {
    let path = request.uri().path();
    let reads = matches!(*request.method(), hyper::Method::GET | hyper::Method::HEAD);
    let of_entities = ["/ngsi-ld/v1/entit", "/ngsi-ld/v1/temporal/"];
    !reads && !of_entities.iter().any(|start| path.starts_with(start))
}

/// Some clients end collections with a slash, which the standard does not write.
fn trim_slash(uri: &mut hyper::Uri) {
    let path = uri.path();
    if !path.starts_with("/ngsi-ld/") || !path.ends_with('/') {
        return;
    }
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let trimmed = format!("{}{query}", path.trim_end_matches('/'));
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = trimmed.parse().ok();
    if let Ok(changed) = hyper::Uri::from_parts(parts) {
        *uri = changed;
    }
}

async fn serve_http(
    stream: Stream,
    peer: Peer,
    service: axum::Router,
    app: Arc<App>,
    mut stopped: watch::Receiver<bool>,
) {
    let limits = app.limits.clone();
    let most = limits.http_head;
    let place = peer.place.clone();
    let unread = app.unread.of_connection();
    let shelf = unread.clone();
    let service = tower::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let (mut request, rest) = rest::lend(request);
        request.extensions_mut().insert(peer.clone());
        trim_slash(request.uri_mut());
        let (service, app, shelf) = (service.clone(), app.clone(), shelf.clone());
        let language = Language::of(request.headers());
        let begun = std::time::Instant::now();
        let many = request.version() == hyper::Version::HTTP_2;
        async move {
            let mut response = if head_bytes(&request) > most {
                drop(request);
                let what = format!("the head of a request has at most {most} bytes");
                Problem::head_too_large(what).into_response()
            } else if is_act(&request) {
                let done = tokio::spawn(tower::ServiceExt::oneshot(service, request));
                match done.await {
                    Ok(answer) => answer?,
                    Err(error) => Problem::broken(&error).into_response(),
                }
            } else {
                tower::ServiceExt::oneshot(service, request).await?
            };
            // A little more than anybody may send, in the time that all of it has.
            let until = begun + seconds(app.limits.http_body_timeout);
            rest.throw_away(2 * app.limits.http_body, until).await;
            if let Some(problem) = response.extensions_mut().remove::<Problem>() {
                response = problem.answer(language);
            }
            app.requests.add(begun.elapsed());
            let class = usize::from(response.status().as_u16() / 100).min(app.statuses.len() - 1);
            app.statuses[class].fetch_add(1, Ordering::Relaxed);
            harden(response.headers_mut());
            Ok::<_, std::convert::Infallible>(shelf.put(response, many))
        }
    });
    let mut builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(seconds(limits.http_head_timeout))
        .max_buf_size((HEAD_SLACK * most).max(8_192))
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(HEAD_SLACK * most).unwrap_or(u32::MAX))
        .max_concurrent_streams(200)
        .keep_alive_interval(Some(Duration::from_secs(30)));
    let connection =
        builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    tokio::pin!(connection);
    let mut looks = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection ended early");
                }
                return;
            }
            _ = looks.tick() => place.look(),
            () = unread.too_much() => {
                tracing::debug!("a connection is closed that leaves its answers unread");
                return;
            }
            _ = stopped.changed() => {
                connection.as_mut().graceful_shutdown();
                drop(tokio::time::timeout(Duration::from_secs(3), connection).await);
                return;
            }
        }
    }
}
