//! Observations in batches over HTTPS, what they take on disk, and how fast they are summed.

use crate::Figures;
use crate::client::request;
use crate::process::{Hub, body_of};
use anyhow::Context;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Series, in batches of a thousand.
const SERIES: usize = 10_000;
const BATCH: usize = 1_000;

/// Sealing is looked at every two seconds.
const SEALED_WITHIN: Duration = Duration::from_secs(8);

/// Points of each series over a day: as many as `TANGGUL_BENCH_POINTS` says.
fn points() -> usize {
    std::env::var("TANGGUL_BENCH_POINTS").ok().and_then(|n| n.parse().ok()).unwrap_or(144)
}

/// A reading of a day, with the noise of a gauge that has one decimal.
pub fn reading(series: usize, point: usize, of: usize) -> Value {
    let second = point * 86_400 / of;
    let noise = (series * 7_919 + point * 104_729) % 17;
    let level = 1_500 + (series * 13) % 700 + (point * 11) / 7 % 300 + noise;
    json!({"id": format!("urn:ngsi-ld:Gauge:{series}"), "type": "Gauge", "level": {"type": "Property",
        "value": level as f64 / 10.0, "observedAt": format!("2026-02-01T{:02}:{:02}:{:02}Z",
        second / 3_600, second / 60 % 60, second % 60)}})
}

pub async fn measure(hub: Hub, figures: &mut Figures) -> anyhow::Result<()> {
    measure_many(hub, figures, points()).await
}

/// With so many points of each series.
pub async fn measure_many(
    mut hub: Hub,
    figures: &mut Figures,
    points: usize,
) -> anyhow::Result<()> {
    let millions = (points * SERIES) as f64 / 1e6;
    let token = hub.token("app").to_owned();
    let batch = move |n: usize| {
        let (point, part) = (n * BATCH / SERIES, n % (SERIES / BATCH));
        let readings: Vec<Value> =
            (0..BATCH).map(|series| reading(part * BATCH + series, point, points)).collect();
        let path = "/ngsi-ld/v1/entityOperations/upsert?options=update";
        request("POST", path, &token, json!(readings).to_string().as_bytes())
    };
    // Made beforehand, a part at a time, so that making them does not take the server's processor.
    let (mut done, mut wall, mut cpu) = (0usize, 0.0, 0.0);
    let all = SERIES / BATCH * points;
    const PART: usize = 200;
    for start in (0..all).step_by(PART) {
        let requests: Arc<Vec<Vec<u8>>> =
            Arc::new((start..all.min(start + PART)).map(&batch).collect());
        let next = Arc::new(AtomicUsize::new(0));
        let (before, since) = (hub.process.cpu_s(), Instant::now());
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let (requests, next) = (requests.clone(), next.clone());
            let mut connection = hub.connect().await?;
            tasks.spawn(async move {
                while let Some(request) = requests.get(next.fetch_add(1, Ordering::Relaxed)) {
                    connection.done(request).await?;
                }
                anyhow::Ok(())
            });
        }
        while let Some(ended) = tasks.join_next().await {
            ended??;
        }
        wall += since.elapsed().as_secs_f64();
        cpu += hub.process.cpu_s() - before;
        done += requests.len() * BATCH;
    }
    let name = format!("batch ingest, HTTPS, 1,000 a request, durable, {millions} M");
    figures.rate(&name, "observations/s", done as f64, wall, cpu);
    figures.add("memory, after that", hub.process.memory_mib(), "MiB");
    sums(&hub, figures, "hourly mean of 10,000 series, before sealing").await?;
    let open = Instant::now();
    hub.restart()?;
    let open = open.elapsed().min(hub.ready_in);
    figures.add("ready after start, with that", open.as_secs_f64(), "s");
    figures.add("points of short runs, not sealed yet", open_points(&hub).await?, "points");
    hub.restart()?;
    // The journal is let go as it is flushed.
    let (all, journal) = (hub.data_bytes(""), hub.data_bytes(".jnl"));
    figures.add("storage, all files", all / done as f64, "bytes/observation");
    figures.add(
        "of it the engine's journal, at most 128 MiB",
        journal / done as f64,
        "bytes/observation",
    );
    sums(&hub, figures, "hourly mean of 10,000 series, after a restart").await
}

/// Waits until no more points are sealed; gives how many are not.
async fn open_points(hub: &Hub) -> anyhow::Result<f64> {
    let mut connection = hub.connect().await?;
    let ask = hub.request_as("admin", "GET", "/api/v1/datasets/test/health", &Value::Null);
    let (mut before, mut since) = (None, Instant::now());
    while since.elapsed() < SEALED_WITHIN {
        let open = body_of(&connection.done(&ask).await?)?["open_points"].as_f64();
        if open != before {
            (before, since) = (open, Instant::now());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    before.context("the dataset's health tells no `open_points`")
}

async fn sums(hub: &Hub, figures: &mut Figures, name: &str) -> anyhow::Result<()> {
    let mut connection = hub.connect().await?;
    let (mut wall, mut cpu) = (0.0, 0.0);
    for page in 0..SERIES / BATCH {
        let path = format!(
            "/ngsi-ld/v1/temporal/entities?type=Gauge&timerel=after&timeAt=2026-01-31T23:59:59Z&limit={BATCH}&offset={}\
             &options=aggregatedValues&aggrMethods=avg&aggrPeriodDuration=PT1H",
            page * BATCH
        );
        let get = hub.request("GET", &path, &Value::Null);
        let (before, since) = (hub.process.cpu_s(), Instant::now());
        connection.done(&get).await?;
        wall += since.elapsed().as_secs_f64();
        cpu += hub.process.cpu_s() - before;
    }
    figures.add(name, wall, "s");
    figures.add(format!("{name}: CPU"), cpu, "s");
    Ok(())
}
