//! A server under measurement: what it costs the machine.

use crate::client::{Connection, request, tls};
use anyhow::{Context, ensure};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio_rustls::TlsConnector;

/// Clock ticks in a second, as `/proc` counts them.
const TICKS_PER_S: f64 = 100.0;

/// A process and what it has used.
pub struct Process(pub Child);

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Process {
    /// CPU seconds used so far, by the process and its children.
    pub fn cpu_s(&self) -> f64 {
        cpu_of(self.0.id())
    }

    /// Resident memory.
    pub fn memory_mib(&self) -> f64 {
        self.status_mib("VmRSS:")
    }

    /// The most that was resident so far.
    pub fn most_memory_mib(&self) -> f64 {
        self.status_mib("VmHWM:")
    }

    fn status_mib(&self, field: &str) -> f64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.0.id()));
        let text = text.unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(field)).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0) / 1_024.0
    }

    /// CPU seconds used once nothing is left to do of what it was given: nothing to seal, to flush, to
    /// merge.
    pub async fn settled_cpu_s(&self) -> f64 {
        let (mut used, since) = (self.cpu_s(), Instant::now());
        loop {
            tokio::time::sleep(QUIET).await;
            let now = self.cpu_s();
            if now - used < QUIET_CPU_S || since.elapsed() > SETTLES_WITHIN {
                return now;
            }
            used = now;
        }
    }
}

/// A server that uses less than this of a processor for so long has nothing to do; and until when that
/// is waited for.
const QUIET: Duration = Duration::from_secs(3);
const QUIET_CPU_S: f64 = 0.06;
const SETTLES_WITHIN: Duration = Duration::from_secs(120);

/// Of a process, its children, and those of them that ended.
fn cpu_of(id: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    let after = stat.rsplit(") ").next().unwrap_or_default();
    let field = |at: usize| after.split(' ').nth(at).and_then(|f| f.parse::<f64>().ok());
    let own = (11..15).filter_map(field).sum::<f64>() / TICKS_PER_S;
    let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
    let children = children.unwrap_or_default();
    let children = children.split_whitespace().filter_map(|child| child.parse().ok());
    own + children.map(cpu_of).sum::<f64>()
}

/// Bytes of the files under a directory whose names end as said.
pub fn bytes_under(directory: &Path, ending: &str) -> u64 {
    let Ok(entries) = std::fs::read_dir(directory) else { return 0 };
    let of = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_under(&entry.path(), ending),
        Ok(metadata) if entry.file_name().to_string_lossy().ends_with(ending) => metadata.len(),
        _ => 0,
    };
    entries.flatten().map(of).sum()
}

/// A hub with the demo's people and datasets, and no devices.
pub struct Hub {
    pub process: Process,
    pub ready: Value,
    pub ready_in: Duration,
    pub https: SocketAddr,
    pub mqtts: SocketAddr,
    pub tls: TlsConnector,
    directory: tempfile::TempDir,
    program: PathBuf,
}

fn address(url: &Value) -> anyhow::Result<SocketAddr> {
    let port = url.as_str().and_then(|url| url.rsplit(':').next()).context("no port")?;
    Ok(SocketAddr::from(([127, 0, 0, 1], port.parse()?)))
}

fn launch(program: &Path, directory: &Path) -> anyhow::Result<(Process, Value, Duration)> {
    let ready_file = directory.join("ready.json");
    drop(std::fs::remove_file(&ready_file));
    let since = Instant::now();
    let child = Command::new(program)
        .args(["demo", "--listen", "127.0.0.1:0", "--mqtt", "127.0.0.1:0", "--devices", "0"])
        .arg("--config")
        .arg(directory.join("bench.toml"))
        .arg("--data")
        .arg(directory.join("data"))
        .arg("--ready-file")
        .arg(&ready_file)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let process = Process(child);
    while !ready_file.exists() {
        ensure!(since.elapsed() < Duration::from_secs(60), "the hub does not get ready");
        std::thread::sleep(Duration::from_millis(5));
    }
    let took = since.elapsed();
    Ok((process, serde_json::from_slice(&std::fs::read(&ready_file)?)?, took))
}

impl Hub {
    /// Starts one in a directory of its own.
    pub fn start(program: &str) -> anyhow::Result<Hub> {
        let directory = tempfile::tempdir()?;
        std::fs::write(
            directory.path().join("bench.toml"),
            "[egress]\nallow = [\"127.0.0.1\"]\n[limits]\nsubscriptions = 100000\nsubscriptions_each = 100000\n",
        )?;
        let (process, ready, ready_in) = launch(Path::new(program), directory.path())?;
        let (https, mqtts) = (address(&ready["https"])?, address(&ready["mqtts"])?);
        let tls = tls(Path::new(ready["ca"].as_str().unwrap_or_default()))?;
        let program = program.into();
        Ok(Hub { process, ready, ready_in, https, mqtts, tls, directory, program })
    }

    /// Ends it in order and starts it again on the same data.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        let id = self.process.0.id().to_string();
        ensure!(Command::new("kill").args(["-TERM", &id]).status()?.success(), "kill");
        self.process.0.wait()?;
        let (process, ready, took) = launch(&self.program, self.directory.path())?;
        (self.https, self.mqtts) = (address(&ready["https"])?, address(&ready["mqtts"])?);
        (self.process, self.ready, self.ready_in) = (process, ready, took);
        Ok(())
    }

    pub fn token(&self, who: &str) -> &str {
        self.ready["tokens"][who].as_str().unwrap_or_default()
    }

    /// Bytes on disk of the files that end as said.
    pub fn data_bytes(&self, ending: &str) -> f64 {
        bytes_under(&self.directory.path().join("data/store"), ending) as f64
    }

    pub async fn connect(&self) -> anyhow::Result<Connection> {
        Connection::open(self.https, Some(&self.tls)).await
    }

    /// A request of the app's.
    pub fn request(&self, method: &str, path: &str, body: &Value) -> Vec<u8> {
        self.request_as("app", method, path, body)
    }

    pub fn request_as(&self, who: &str, method: &str, path: &str, body: &Value) -> Vec<u8> {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        request(method, path, self.token(who), &body)
    }

    /// Does an act as the administrator; gives what it answers.
    pub async fn act(&self, name: &str, body: Value) -> anyhow::Result<Value> {
        let act = json!({"act": name, "body": body});
        let request = self.request_as("admin", "POST", "/api/v1/acts", &act);
        body_of(&self.connect().await?.done(&request).await?)
    }

    /// Enrols devices of dataset `test`, as many as one act may, each for one stream; gives the login and
    /// code of each.
    pub async fn enrol(
        &self,
        devices: Vec<(String, String)>,
    ) -> anyhow::Result<Vec<(Value, Value)>> {
        let one = |(login, stream)| json!({"kind": "device", "login": login, "datasets": ["test"], "streams": [stream]});
        let items: Vec<Value> = devices.into_iter().map(one).collect();
        let answer = self.act("principals.enrol", json!({"items": items})).await?;
        let enrolled = answer["answer"]["enrolled"].as_array().into_iter().flatten();
        Ok(enrolled.map(|one| (one["login"].clone(), one["code"].clone())).collect())
    }

    /// Has devices redeem their codes; gives the login and token of each.
    pub async fn redeem(
        &self,
        codes: Vec<(Value, Value)>,
    ) -> anyhow::Result<Vec<(String, String)>> {
        let mut connection = self.connect().await?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut found = Vec::new();
        for (login, code) in codes {
            let request = self.request_as("", "POST", "/api/v1/redeem", &json!({"code": code}));
            let redeemed = body_of(&connection.done(&request).await?)?;
            found.push((text(&login), text(&redeemed["token"])));
        }
        Ok(found)
    }

    /// The newest records, at most so many.
    pub async fn newest_records(&self, limit: usize) -> anyhow::Result<Vec<Value>> {
        let path = format!("/api/v1/records?limit={limit}");
        let request = self.request_as("auditor", "GET", &path, &Value::Null);
        let all = body_of(&self.connect().await?.done(&request).await?)?;
        Ok(all.as_array().cloned().unwrap_or_default())
    }

    /// The number of the newest record.
    pub async fn newest_record(&self) -> anyhow::Result<u64> {
        let newest = self.newest_records(1).await?;
        newest.first().and_then(|record| record["index"].as_u64()).context("there is no record")
    }

    /// How many observations of gauges there are, of the first so many series.
    pub async fn observations(&self, series: usize) -> anyhow::Result<f64> {
        const PAGE: usize = 1_000;
        let mut connection = self.connect().await?;
        let mut all = 0.0;
        for offset in (0..series).step_by(PAGE) {
            let path = format!(
                "/ngsi-ld/v1/temporal/entities?type=Gauge&timerel=after&timeAt=2025-12-31T00:00:00Z&limit={PAGE}\
                 &offset={offset}&options=aggregatedValues&aggrMethods=totalCount"
            );
            let get = self.request("GET", &path, &Value::Null);
            let answer = body_of(&connection.done(&get).await?)?;
            for entity in answer.as_array().into_iter().flatten() {
                all += entity["level"]["totalCount"][0][0].as_f64().unwrap_or(0.0);
            }
        }
        Ok(all)
    }
}

/// The body of an answer, as JSON.
pub fn body_of(answer: &[u8]) -> anyhow::Result<Value> {
    let at = answer.windows(4).position(|four| four == b"\r\n\r\n").context("no body")?;
    Ok(serde_json::from_slice(&answer[at + 4..])?)
}
