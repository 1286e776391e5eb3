//! A hub with its doors open.

use crate::certificates;
use crate::config::Config;
use anyhow::Context;
use courier::Courier;
use hub::{Hub, HubOptions};
use model::Time;
use server::{App, Doors, Listening, TlsFiles};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};
use store::{Files, SealPlan};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The clock of the machine.
pub fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// File handles that connections leave to the store, to deliveries and to everything else.
const HANDLES_KEPT: usize = 512;

/// Asks for as many file handles as the system gives, and lets the doors take no more connections
/// than those are enough for.
fn fit_to_handles(limits: &mut server::Limits) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let asked = getrlimit(Resource::Nofile);
    let most = Rlimit { current: asked.maximum, maximum: asked.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, most) {
        tracing::warn!(%error, "no more file handles can be had");
    }
    let handles = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let free = usize::try_from(handles).unwrap_or(usize::MAX).saturating_sub(HANDLES_KEPT).max(16);
    let wanted = limits.http_connections + limits.mqtt_connections;
    if wanted > free {
        let share = |of: usize| (of as f64 / wanted as f64 * free as f64).max(1.0) as usize;
        limits.http_connections = share(limits.http_connections);
        limits.mqtt_connections = share(limits.mqtt_connections);
        let (https, mqtt) = (limits.http_connections, limits.mqtt_connections);
        tracing::warn!(
            handles,
            https,
            mqtt,
            "fewer connections than configured; raise LimitNOFILE"
        );
    }
}

/// A hub with its doors open.
pub struct Running {
    pub hub: Arc<Hub>,
    pub app: Arc<App>,
    pub https: SocketAddr,
    pub mqtts: SocketAddr,
    pub ca: PathBuf,
    listening: Listening,
}

/// The options of the hub that the configuration stands for.
///
/// # Errors
/// When a context file cannot be used.
pub fn hub_options(config: &Config, notice: Option<&'static str>) -> anyhow::Result<HubOptions> {
    Ok(HubOptions {
        origin: config.log.origin.clone(),
        now,
        contexts: config.context_documents()?,
        store: store::Options {
            min_free_bytes: config.store.min_free_mib << 20,
            ..store::Options::default()
        },
        seal: SealPlan {
            min_points: config.store.seal_points / 2,
            max_blobs: config.store.seal_commits,
            ..SealPlan::default()
        },
        tidying: hub::Tidying {
            seal_ms: config.store.seal_every_ms,
            retain_ms: config.store.retain_every_ms,
        },
        limits: config.limits()?.1,
        patience: std::time::Duration::from_millis(config.store.gather_ms),
        notice,
    })
}

/// The files of the data directory; it is made when it is new.
///
/// # Errors
/// When it cannot be made.
pub fn files(data: &Path, keys: Option<&Path>) -> anyhow::Result<Files> {
    let files = Files::new(data, keys);
    if !files.exist() {
        files.create()?;
    }
    Ok(files)
}

/// Starts the hub and opens its doors.
///
/// # Errors
/// When the data directory, a certificate or an address cannot be used.
pub async fn start(
    data: &Path,
    config: &Config,
    notice: Option<&'static str>,
) -> anyhow::Result<Running> {
    let files = files(data, config.keys.as_deref())?;
    let options = hub_options(config, notice)?;
    let opened = files.clone();
    let hub = tokio::task::spawn_blocking(move || Hub::start(opened, options)).await??;
    let made = certificates::make(&files, &config.tls.names)?;
    let bind = |address: SocketAddr| async move {
        TcpListener::bind(address)
            .await
            .with_context(|| format!("the address {address} cannot be listened on"))
    };
    let https = bind(config.listen.https).await?;
    let mqtts = bind(config.listen.mqtt).await?;
    let (https_at, mqtts_at) = (https.local_addr()?, mqtts.local_addr()?);
    let courier = Arc::new(Courier::new(config.egress.allow.clone())?);
    let mut limits = config.limits()?.0;
    fit_to_handles(&mut limits);
    let tls = TlsFiles {
        certificates: config.tls.certificate.as_deref().unwrap_or(&made.certificate),
        key: config.tls.key.as_deref().unwrap_or(&made.key),
    };
    let mut app = App::new(hub.clone(), courier.clone(), limits, base_url("https", https_at));
    app.map = config.console.map.clone();
    app.certificate_until = certificates::until(tls.certificates);
    let app = Arc::new(app);
    let doors = Doors { app: app.clone(), https, mqtts };
    let listening = doors.open(&tls, config.tls.allow_tls12)?;
    tokio::spawn(hub.clone().deliver(courier));
    app.ready.store(true, Ordering::Release);
    Ok(Running { hub, app, https: https_at, mqtts: mqtts_at, ca: made.ca, listening })
}

/// A URL for an address; loopback is called `localhost`, as its certificate says.
pub fn base_url(scheme: &str, address: SocketAddr) -> String {
    if address.ip().is_loopback() || address.ip().is_unspecified() {
        format!("{scheme}://localhost:{}", address.port())
    } else {
        format!("{scheme}://{address}")
    }
}

impl Running {
    /// Closes the doors, commits what was accepted, closes the files.
    pub async fn stop(self) {
        self.app.ready.store(false, Ordering::Release);
        self.listening.close().await;
        self.hub.stop().await;
    }
}

/// Listens for the process being told to end.
pub struct Ending {
    interrupt: Signal,
    terminate: Signal,
}

impl Ending {
    /// From now on it ends in order: to be called before anybody hears that it runs.
    ///
    /// # Errors
    /// When signals cannot be listened for.
    pub fn listen() -> std::io::Result<Ending> {
        let interrupt = signal(SignalKind::interrupt())?;
        Ok(Ending { interrupt, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits until it is told.
    pub async fn told(mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
