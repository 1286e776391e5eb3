//! Clients: one connection a device, MQTT 5 or HTTPS, with its own token.

use crate::city::{Device, Door};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_util::rt::TokioIo;
use model::Time;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Where the doors are.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    pub https: SocketAddr,
    pub mqtts: SocketAddr,
}

/// Why a client could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("the connection failed")]
    Connection(#[from] std::io::Error),
    #[error("the CA certificate cannot be used: {0}")]
    Certificate(String),
    #[error("the hub answered {0}")]
    Refused(u16),
    #[error("the request failed")]
    Request(#[from] hyper::Error),
}

/// Connections begun in a second, so that the handshakes do not crowd everything else out.
const STARTS_PER_S: u64 = 250;

fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// Runs every device until told to stop.
///
/// # Errors
/// When the CA certificate cannot be read.
pub async fn run(
    devices: Vec<(Device, String)>,
    addresses: Addresses,
    ca: &Path,
    stop: watch::Receiver<bool>,
) -> Result<(), ClientError> {
    let certificate = |error: String| ClientError::Certificate(error);
    let mut roots = rustls::RootCertStore::empty();
    let ca = CertificateDer::from_pem_file(ca).map_err(|error| certificate(error.to_string()))?;
    roots.add(ca).map_err(|error| certificate(error.to_string()))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| certificate(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tls = TlsConnector::from(Arc::new(config));
    let mut tasks = tokio::task::JoinSet::new();
    for (number, (device, token)) in (0u64..).zip(devices) {
        let (tls, mut stop) = (tls.clone(), stop.clone());
        tasks.spawn(async move {
            tokio::time::sleep(Duration::from_millis(number * 1_000 / STARTS_PER_S)).await;
            tokio::select! {
                () = live(device, token, addresses, tls) => {}
                _ = stop.changed() => {}
            }
        });
    }
    while tasks.join_next().await.is_some() {}
    Ok(())
}

/// Connects, sends, and connects again when something breaks.
async fn live(mut device: Device, token: String, addresses: Addresses, tls: TlsConnector) {
    let mut pause_s = 1;
    // A reading that was not acknowledged is sent again.
    let mut waiting = None;
    loop {
        let ended = match device.door {
            Door::Mqtt => mqtt(&mut device, &token, addresses.mqtts, &tls, &mut waiting).await,
            Door::Https => https(&mut device, &token, addresses.https, &tls, &mut waiting).await,
        };
        match ended {
            Ok(()) => return,
            Err(error) => tracing::debug!(%error, device = device.login, "a device connects again"),
        }
        tokio::time::sleep(Duration::from_secs(pause_s)).await;
        pause_s = (pause_s * 2).min(30);
    }
}

async fn connect(
    address: SocketAddr,
    tls: &TlsConnector,
) -> Result<TlsStream<TcpStream>, ClientError> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::try_from("localhost")
        .map_err(|error| ClientError::Certificate(error.to_string()))?;
    Ok(tls.connect(name, stream).await?)
}

type Waiting = Option<(Vec<u8>, Duration)>;

fn reading(device: &mut Device, waiting: &mut Waiting) -> bool {
    if waiting.is_none() {
        let next = device.feed.next(&device.entity, now());
        *waiting = next.map(|(reading, pause)| (reading.to_string().into_bytes(), pause));
    }
    waiting.is_some()
}

async fn mqtt(
    device: &mut Device,
    token: &str,
    address: SocketAddr,
    tls: &TlsConnector,
    waiting: &mut Waiting,
) -> Result<(), ClientError> {
    let mut stream = connect(address, tls).await?;
    let mut body = b"\0\x04MQTT\x05\xC2\0\x78\0".to_vec();
    for text in [&device.login, &device.login, &token.to_owned()] {
        body.extend(u16::try_from(text.len()).unwrap_or(0).to_be_bytes());
        body.extend_from_slice(text.as_bytes());
    }
    stream.write_all(&frame(0x10, &body)).await?;
    stream.flush().await?;
    let answer = packet(&mut stream).await?;
    if answer.first() != Some(&0x20) || answer.get(2) != Some(&0) {
        return Err(ClientError::Refused(u16::from(answer.get(2).copied().unwrap_or(0xff))));
    }
    let topic = format!("in/{}", device.dataset);
    let mut packet_id = 0u16;
    while reading(device, waiting) {
        let Some((payload, pause)) = waiting.clone() else { return Ok(()) };
        packet_id = packet_id.checked_add(1).unwrap_or(1);
        let mut body = u16::try_from(topic.len()).unwrap_or(0).to_be_bytes().to_vec();
        body.extend_from_slice(topic.as_bytes());
        body.extend(packet_id.to_be_bytes());
        body.push(0);
        body.extend_from_slice(&payload);
        stream.write_all(&frame(0x32, &body)).await?;
        stream.flush().await?;
        // PUBACK: durable.
        if packet(&mut stream).await?.first() != Some(&0x40) {
            return Err(ClientError::Refused(0));
        }
        *waiting = None;
        tokio::time::sleep(pause).await;
    }
    Ok(())
}

fn frame(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    let mut length = body.len();
    loop {
        let low = u8::try_from(length & 0x7f).unwrap_or(0);
        length >>= 7;
        out.push(if length > 0 { low | 0x80 } else { low });
        if length == 0 {
            break;
        }
    }
    out.extend_from_slice(body);
    out
}

/// The next packet: its first byte, then its body.
async fn packet(stream: &mut TlsStream<TcpStream>) -> Result<Vec<u8>, ClientError> {
    let mut out = vec![stream.read_u8().await?];
    let (mut length, mut shift) = (0usize, 0);
    loop {
        let byte = stream.read_u8().await?;
        length |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 || shift > 21 {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    out.extend(body);
    Ok(out)
}

async fn https(
    device: &mut Device,
    token: &str,
    address: SocketAddr,
    tls: &TlsConnector,
    waiting: &mut Waiting,
) -> Result<(), ClientError> {
    let stream = connect(address, tls).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    while reading(device, waiting) {
        let Some((payload, pause)) = waiting.clone() else { break };
        let request = Request::post("/ngsi-ld/v1/entityOperations/upsert?options=update")
            .header("host", format!("localhost:{}", address.port()))
            .header("content-type", "application/json")
            .header("authorization", format!("Bearer {token}"))
            .body(Full::new(Bytes::from([b"[", payload.as_slice(), b"]"].concat())));
        let Ok(request) = request else { break };
        let response = sender.send_request(request).await?;
        let status = response.status();
        response.into_body().collect().await?;
        // What was quarantined is answered with 207 and need not be sent again.
        if !status.is_success() {
            return Err(ClientError::Refused(status.as_u16()));
        }
        *waiting = None;
        tokio::time::sleep(pause).await;
    }
    driver.abort();
    Ok(())
}
