//! The figures of the hub: load through the doors of the release binary, with TLS, decisions,
//! records and encryption on. Prints CPU time of the server for each operation, which a busy
//! machine leaves alone, and the rate on the wall, which it does not.

use anyhow::Context;
use serde_json::{Value, json};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Seconds that each load runs.
const RUN_S: u64 = 4;
/// Observations in a batch.
const BATCH: usize = 1_000;
/// Clock ticks in a second, as `/proc` counts them.
const TICKS_PER_S: f64 = 100.0;

struct Figure {
    name: String,
    value: f64,
    unit: &'static str,
}

struct Hub {
    child: Child,
    ready: Value,
    client: reqwest::Client,
    directory: std::path::PathBuf,
}

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let program = arguments.next().context("usage: bench PROGRAM [json]")?;
    let as_json = arguments.next().as_deref() == Some("json");
    let runtime = tokio::runtime::Runtime::new()?;
    let figures = runtime.block_on(measure(&program))?;
    if as_json {
        let list: Vec<_> = figures
            .iter()
            .map(|f| json!({"name": f.name, "value": f.value, "unit": f.unit}))
            .collect();
        println!("{}", json!(list));
    } else {
        for figure in &figures {
            println!("{:<48} {:>14.2} {}", figure.name, figure.value, figure.unit);
        }
    }
    Ok(())
}

impl Hub {
    fn start(program: &str) -> anyhow::Result<(Hub, Duration)> {
        let directory = std::env::temp_dir().join(format!("tanggul-bench-{}", std::process::id()));
        std::fs::create_dir_all(&directory)?;
        let ready_file = directory.join("ready.json");
        let since = Instant::now();
        let child = Command::new(program)
            .args([
                "demo",
                "--listen",
                "127.0.0.1:0",
                "--mqtt",
                "127.0.0.1:0",
                "--devices",
                "0",
                "--data",
            ])
            .arg(directory.join("data"))
            .arg("--ready-file")
            .arg(&ready_file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        while !ready_file.exists() {
            anyhow::ensure!(
                since.elapsed() < Duration::from_secs(30),
                "the hub does not get ready"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        let took = since.elapsed();
        let ready: Value = serde_json::from_str(&std::fs::read_to_string(&ready_file)?)?;
        let ca = std::fs::read(ready["ca"].as_str().unwrap_or_default())?;
        let client = reqwest::Client::builder()
            .tls_certs_only([reqwest::Certificate::from_pem(&ca)?])
            .no_proxy()
            .build()?;
        Ok((Hub { child, ready, client, directory }, took))
    }

    fn url(&self) -> &str {
        self.ready["https"].as_str().unwrap_or_default()
    }

    fn token(&self) -> &str {
        self.ready["tokens"]["app"].as_str().unwrap_or_default()
    }

    /// CPU seconds the server has used.
    fn cpu_s(&self) -> anyhow::Result<f64> {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let after = text.rsplit(") ").next().unwrap_or_default();
        let field =
            |at: usize| after.split(' ').nth(at).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
        Ok((field(11) + field(12)) / TICKS_PER_S)
    }

    fn memory_mib(&self) -> anyhow::Result<f64> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = text.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
        let kib: f64 = line.split_whitespace().nth(1).and_then(|f| f.parse().ok()).unwrap_or(0.0);
        Ok(kib / 1_024.0)
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        drop(std::fs::remove_dir_all(&self.directory));
    }
}

async fn measure(program: &str) -> anyhow::Result<Vec<Figure>> {
    let (hub, took) = Hub::start(program)?;
    let hub = Arc::new(hub);
    let mut figures = vec![
        figure("ready after start", took.as_secs_f64(), "s"),
        figure("memory, idle", hub.memory_mib()?, "MiB"),
        figure("binary", std::fs::metadata(program)?.len() as f64 / f64::from(1 << 20), "MiB"),
    ];
    let entity = |n: u64| {
        json!({"id": format!("urn:ngsi-ld:Vehicle:{n}"), "type": "Vehicle",
            "brand": {"type": "Property", "value": "Mercedes"},
            "speed": {"type": "Property", "value": n % 120, "observedAt": "2026-08-20T10:00:00Z"},
            "location": {"type": "GeoProperty", "value": {"type": "Point", "coordinates": [107.61, -6.91]}},
            "isParked": {"type": "Relationship", "object": format!("urn:ngsi-ld:OffStreetParking:{n}")},
            "description": {"type": "Property", "value": "-".repeat(200)}})
    };
    let create: Vec<Value> = (0..1_000).map(entity).collect();
    post(&hub, "/ngsi-ld/v1/entityOperations/create", &json!(create)).await?;
    for clients in [1, 8, 64] {
        figures.extend(
            load(&hub, &format!("GET entity, {clients} clients"), clients, 1, |hub, n| {
                hub.client.get(format!(
                    "{}/ngsi-ld/v1/entities/urn:ngsi-ld:Vehicle:{}",
                    hub.url(),
                    n % 1_000
                ))
            })
            .await?,
        );
    }
    figures.extend(
        load(&hub, "query limit=20, 64 clients", 64, 1, |hub, _| {
            hub.client.get(format!("{}/ngsi-ld/v1/entities?type=Vehicle&limit=20", hub.url()))
        })
        .await?,
    );
    for clients in [1, 8, 64] {
        figures.extend(
            load(&hub, &format!("durable PATCH, {clients} clients"), clients, 1, |hub, n| {
                hub.client
                    .patch(format!(
                        "{}/ngsi-ld/v1/entities/urn:ngsi-ld:Vehicle:{}/attrs",
                        hub.url(),
                        n % 1_000
                    ))
                    .json(&json!({"speed": {"type": "Property", "value": n % 120}}))
            })
            .await?,
        );
    }
    figures.extend(load(&hub, "durable single write, 64 clients", 64, 1, |hub, n| {
        hub.client
            .post(format!("{}/ngsi-ld/v1/entities", hub.url()))
            .json(&json!({"id": format!("urn:ngsi-ld:New:{n}"), "type": "New", "a": {"type": "Property", "value": n}}))
    }).await?);
    ingest(&hub, &mut figures).await?;
    Ok(figures)
}

fn figure(name: &str, value: f64, unit: &'static str) -> Figure {
    Figure { name: name.to_owned(), value, unit }
}

async fn post(hub: &Hub, path: &str, body: &Value) -> anyhow::Result<()> {
    let request =
        hub.client.post(format!("{}{path}", hub.url())).bearer_auth(hub.token()).json(body);
    request.send().await?.error_for_status()?;
    Ok(())
}

/// Sends requests from so many clients for a while.
async fn load(
    hub: &Arc<Hub>,
    name: &str,
    clients: usize,
    each: u64,
    make: fn(&Hub, u64) -> reqwest::RequestBuilder,
) -> anyhow::Result<Vec<Figure>> {
    let next = Arc::new(AtomicU64::new(0));
    let (cpu, since) = (hub.cpu_s()?, Instant::now());
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..clients {
        let (hub, next) = (hub.clone(), next.clone());
        tasks.spawn(async move {
            while since.elapsed() < Duration::from_secs(RUN_S) {
                let n = next.fetch_add(1, Ordering::Relaxed);
                let response =
                    make(&hub, n).bearer_auth(hub.token()).send().await?.error_for_status()?;
                response.bytes().await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    let done = (next.load(Ordering::Relaxed) * each) as f64;
    let cpu = hub.cpu_s()? - cpu;
    Ok(vec![
        figure(&format!("{name}: rate"), done / since.elapsed().as_secs_f64(), "1/s"),
        figure(&format!("{name}: server CPU"), cpu / done * 1e3, "ms"),
        figure(&format!("{name}: rate per CPU-second"), done / cpu, "1/s"),
    ])
}

/// Durable batches over HTTPS, then what they take on disk and how fast they are summed.
async fn ingest(hub: &Arc<Hub>, figures: &mut Vec<Figure>) -> anyhow::Result<()> {
    const SERIES: usize = 1_000;
    const ROUNDS: usize = 300;
    let reading = |series: usize, round: usize| {
        let minute = round % 1_440;
        json!({"id": format!("urn:ngsi-ld:Gauge:{series}"), "type": "Gauge", "level": {"type": "Property",
            "value": ((round * 7 + series * 13) % 1_000) as f64 / 10.0,
            "observedAt": format!("2026-02-{:02}T{:02}:{:02}:00Z", 1 + round / 1_440, minute / 60, minute % 60)}})
    };
    let bodies: Vec<Arc<Vec<u8>>> = (0..ROUNDS)
        .map(|round| {
            Arc::new(
                serde_json::to_vec(
                    &(0..SERIES.min(BATCH)).map(|s| reading(s, round)).collect::<Vec<_>>(),
                )
                .unwrap_or_default(),
            )
        })
        .collect();
    let (cpu, since) = (hub.cpu_s()?, Instant::now());
    let mut tasks = tokio::task::JoinSet::new();
    let next = Arc::new(AtomicU64::new(0));
    let bodies = Arc::new(bodies);
    for _ in 0..8 {
        let (hub, next, bodies) = (hub.clone(), next.clone(), bodies.clone());
        tasks.spawn(async move {
            while let Some(body) = bodies.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                hub.client
                    .post(format!(
                        "{}/ngsi-ld/v1/entityOperations/upsert?options=update",
                        hub.url()
                    ))
                    .bearer_auth(hub.token())
                    .header("content-type", "application/json")
                    .body(body.as_ref().clone())
                    .send()
                    .await?
                    .error_for_status()?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    let done = (SERIES * ROUNDS) as f64;
    let cpu = hub.cpu_s()? - cpu;
    figures.push(figure(
        "batch ingest, HTTPS, durable: rate",
        done / since.elapsed().as_secs_f64(),
        "observations/s",
    ));
    figures.push(figure(
        "batch ingest, HTTPS, durable: rate per CPU-second",
        done / cpu,
        "observations/s",
    ));
    let (cpu, since) = (hub.cpu_s()?, Instant::now());
    let path = "/ngsi-ld/v1/temporal/entities?type=Gauge&timerel=after&timeAt=2026-01-31T23:59:59Z&limit=1000&options=aggregatedValues&aggrMethods=avg&aggrPeriodDuration=PT1H";
    let sums = hub
        .client
        .get(format!("{}{path}", hub.url()))
        .bearer_auth(hub.token())
        .send()
        .await?
        .error_for_status()?;
    sums.bytes().await?;
    figures.push(figure(
        "hourly mean, 1,000 series, 300,000 points",
        since.elapsed().as_secs_f64(),
        "s",
    ));
    figures.push(figure("hourly mean: server CPU", hub.cpu_s()? - cpu, "s"));
    figures.push(figure("memory, after the load", hub.memory_mib()?, "MiB"));
    Ok(())
}
