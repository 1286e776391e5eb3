//! Clients that cost little beside the server: HTTP/1.1 and MQTT over TLS, by hand, with requests
//! made beforehand.

use anyhow::{Context, bail, ensure};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// One connection.
pub struct Connection {
    stream: Box<dyn Stream>,
    buffer: Vec<u8>,
}

/// A TLS client that trusts one CA.
pub fn tls(ca: &Path) -> anyhow::Result<TlsConnector> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca)?)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// A request, ready to be sent again and again.
pub fn request(method: &str, path: &str, token: &str, body: &[u8]) -> Vec<u8> {
    request_for("", method, path, token, body)
}

/// The same, for a purpose that is named.
pub fn request_for(purpose: &str, method: &str, path: &str, token: &str, body: &[u8]) -> Vec<u8> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n");
    if !token.is_empty() {
        head += &format!("Authorization: Bearer {token}\r\n");
    }
    if !purpose.is_empty() {
        head += &format!("Tanggul-Purpose: {purpose}\r\n");
    }
    if !body.is_empty() {
        head += &format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
    }
    [head.as_bytes(), b"\r\n", body].concat()
}

impl Connection {
    /// Connects, with TLS if given.
    pub async fn open(
        address: SocketAddr,
        tls: Option<&TlsConnector>,
    ) -> anyhow::Result<Connection> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let stream: Box<dyn Stream> = match tls {
            Some(tls) => Box::new(tls.connect(ServerName::try_from("localhost")?, stream).await?),
            None => Box::new(stream),
        };
        Ok(Connection { stream, buffer: Vec::with_capacity(64 << 10) })
    }

    async fn fill(&mut self) -> anyhow::Result<()> {
        ensure!(self.stream.read_buf(&mut self.buffer).await? > 0, "the connection was closed");
        Ok(())
    }

    /// Sends a request, whose answer is read line by line.
    pub async fn send(&mut self, request: &[u8]) -> anyhow::Result<()> {
        self.stream.write_all(request).await?;
        Ok(self.stream.flush().await?)
    }

    /// The next line of what comes.
    pub async fn line(&mut self) -> anyhow::Result<String> {
        loop {
            if let Some(at) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=at).collect();
                return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            self.fill().await?;
        }
    }

    /// Sends a request and reads the answer to its end: status, head and body.
    pub async fn call(&mut self, request: &[u8]) -> anyhow::Result<(u16, Vec<u8>)> {
        self.stream.write_all(request).await?;
        self.stream.flush().await?;
        self.answer().await
    }

    async fn answer(&mut self) -> anyhow::Result<(u16, Vec<u8>)> {
        let end = loop {
            if let Some(at) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            self.fill().await?;
        };
        let head = std::str::from_utf8(&self.buffer[..end])?;
        let status: u16 = head.get(9..12).context("no status")?.parse()?;
        let field = |name: &str| {
            let of = |line: &str| {
                let (key, value) = line.split_once(':')?;
                key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
            };
            head.lines().find_map(of)
        };
        ensure!(field("transfer-encoding").is_none(), "an answer in chunks");
        let length: usize = field("content-length").map_or(Ok(0), |length| length.parse())?;
        while self.buffer.len() < end + length {
            self.fill().await?;
        }
        let answer = self.buffer.drain(..end + length).collect();
        Ok((status, answer))
    }

    /// The same; anything but success is an error.
    pub async fn done(&mut self, request: &[u8]) -> anyhow::Result<Vec<u8>> {
        let (status, answer) = self.call(request).await?;
        if status >= 300 || status == 207 {
            bail!("{}", String::from_utf8_lossy(&answer));
        }
        Ok(answer)
    }

    /// Signs in to an MQTT door (version 3.1.1).
    pub async fn mqtt(&mut self, login: &str, token: &str) -> anyhow::Result<()> {
        let mut body = text("MQTT");
        let flags = if login.is_empty() { 0x02 } else { 0xC2 };
        body.extend([4, flags, 0, 0]);
        body.extend(text(&format!("bench-{login}-{:p}", self.buffer.as_ptr())));
        if !login.is_empty() {
            body.extend(text(login));
            body.extend(text(token));
        }
        self.stream.write_all(&packet(0x10, &body)).await?;
        let mut answer = [0; 4];
        self.stream.read_exact(&mut answer).await?;
        ensure!(answer == [0x20, 2, 0, 0], "CONNACK {answer:?}");
        Ok(())
    }

    /// Sends bytes made of so many PUBLISH packets and waits for as many PUBACKs (of version 3.1.1: they
    /// do not say whether what came was taken; whoever measures counts it afterwards).
    pub async fn publish(&mut self, packets: &[u8], count: usize) -> anyhow::Result<()> {
        self.stream.write_all(packets).await?;
        self.stream.flush().await?;
        let mut left = count * 4;
        while left > 0 {
            self.buffer.clear();
            self.fill().await?;
            ensure!(self.buffer.len() <= left, "more than PUBACKs came");
            left -= self.buffer.len();
        }
        self.buffer.clear();
        Ok(())
    }
}

fn text(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).unwrap_or(0).to_be_bytes();
    [length.as_slice(), text.as_bytes()].concat()
}

fn packet(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![kind];
    let mut length = body.len();
    loop {
        let low = u8::try_from(length & 127).unwrap_or(0);
        length >>= 7;
        packet.push(if length > 0 { low | 128 } else { low });
        if length == 0 {
            break;
        }
    }
    packet.extend_from_slice(body);
    packet
}

/// A PUBLISH at QoS 1.
pub fn publish(topic: &str, id: u16, payload: &[u8]) -> Vec<u8> {
    packet(0x32, &[text(topic).as_slice(), &id.to_be_bytes(), payload].concat())
}
