//! Observations in batches over HTTPS, what they take on disk, and how fast they are summed.

use crate::client::request;
use crate::process::{Hub, body_of};
use crate::{Figures, load};
use anyhow::{Context, ensure};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Series, in batches of a thousand.
pub const SERIES: usize = 10_000;
const BATCH: usize = 1_000;
/// Connections that send them.
pub const CONNECTIONS: usize = 8;

/// Sealing is looked at every two seconds.
const SEALED_WITHIN: Duration = Duration::from_secs(8);
/// Times that the means are asked for.
const ASKED: usize = 5;
const DAY_S: usize = 86_400;
const HOURS: usize = 24;

/// Points of each series over a day: as many as `TANGGUL_BENCH_POINTS` says.
pub fn points() -> usize {
    std::env::var("TANGGUL_BENCH_POINTS").ok().and_then(|n| n.parse().ok()).unwrap_or(144)
}

/// What a gauge with one decimal reads, in tenths: a level that moves, and noise that no rule foretells
/// (the finalizer of SplitMix64).
pub fn level(series: usize, point: usize) -> usize {
    let mut noise = ((series as u64) << 32 | point as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    noise = (noise ^ noise >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    noise = (noise ^ noise >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    let noise = (noise ^ noise >> 31) % 17;
    1_500 + (series * 13) % 700 + (point * 11) / 7 % 300 + noise as usize
}

/// The second of the day of a point of so many.
pub fn second(point: usize, of: usize) -> usize {
    point * DAY_S / of
}

/// A reading of a day.
pub fn reading(series: usize, point: usize, of: usize) -> Value {
    let second = second(point, of);
    json!({"id": format!("urn:ngsi-ld:Gauge:{series}"), "type": "Gauge", "level": {"type": "Property",
        "value": level(series, point) as f64 / 10.0, "observedAt": format!("2026-02-01T{:02}:{:02}:{:02}Z",
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
    // Made beforehand, at most 2 GB of them, so that making them does not take the server's processor.
    let (mut done, mut wall) = (0usize, 0.0);
    let cpu = hub.process.cpu_s();
    let all = SERIES / BATCH * points;
    const PART: usize = 15_000;
    for start in (0..all).step_by(PART) {
        let requests: Vec<Vec<u8>> = (start..all.min(start + PART)).map(&batch).collect();
        let mut connections = Vec::new();
        for _ in 0..CONNECTIONS {
            connections.push(hub.connect().await?);
        }
        done += requests.len() * BATCH;
        wall += load::send_all(connections, requests).await?;
    }
    let name = format!("hourly mean of 10,000 series, {millions} M, before sealing");
    let sent = hub.process.cpu_s() - cpu;
    let means = sums(&hub, points).await?;
    let asked = hub.process.cpu_s() - cpu - sent;
    // With all that is done later: sealing, flushing, merging.
    let cpu = hub.process.settled_cpu_s().await - cpu - asked;
    let batches = format!("batch ingest, HTTPS, 1,000 a request, durable, {millions} M");
    figures.rate(&batches, "observations/s", done as f64, wall, cpu);
    figures.add(format!("{batches}: of it until the last answer"), sent / cpu * 100.0, "%");
    means.print(figures, &name);
    figures.add(format!("memory, {millions} M observations"), hub.process.memory_mib(), "MiB");
    hub.restart()?;
    figures.add(
        format!("ready after start, {millions} M observations"),
        hub.ready_in.as_secs_f64(),
        "s",
    );
    let open = open_points(&hub).await?;
    figures.add(format!("points of short runs, not sealed yet, {millions} M"), open, "points");
    hub.restart()?;
    // The journal is let go as it is flushed.
    let (all, journal) = (hub.data_bytes(""), hub.data_bytes(".jnl"));
    let name = format!("storage of {millions} M observations");
    figures.add(format!("{name}, all files"), all / done as f64, "bytes/observation");
    figures.add(
        format!("{name}, of it the engine's journal"),
        journal / done as f64,
        "bytes/observation",
    );
    let there = hub.observations(SERIES).await?;
    ensure!(there == done as f64, "{done} observations were acknowledged, {there} are there");
    hub.restart()?;
    let name = format!("hourly mean of 10,000 series, {millions} M, after a restart");
    sums(&hub, points).await?.print(figures, &name);
    Ok(())
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

/// How long the means of all series took, each time they were asked for.
struct Means {
    wall_s: Vec<f64>,
    cpu_s: Vec<f64>,
}

impl Means {
    fn print(mut self, figures: &mut Figures, name: &str) {
        figures.add(format!("{name}: the first time"), self.wall_s[0], "s");
        figures.add(format!("{name}: the first time, CPU"), self.cpu_s[0], "s");
        self.wall_s.sort_by(f64::total_cmp);
        self.cpu_s.sort_by(f64::total_cmp);
        figures.add(format!("{name}: median of {ASKED}"), self.wall_s[ASKED / 2], "s");
        figures.add(format!("{name}: median of {ASKED}, CPU"), self.cpu_s[ASKED / 2], "s");
    }
}

async fn sums(hub: &Hub, points: usize) -> anyhow::Result<Means> {
    let mut connection = hub.connect().await?;
    let mut means = Means { wall_s: Vec::new(), cpu_s: Vec::new() };
    for _ in 0..ASKED {
        let (mut wall, mut cpu, mut pages) = (0.0, 0.0, Vec::new());
        for page in 0..SERIES / BATCH {
            let path = format!(
                "/ngsi-ld/v1/temporal/entities?type=Gauge&timerel=after&timeAt=2026-01-31T23:59:59Z&limit={BATCH}&offset={}\
                 &options=aggregatedValues&aggrMethods=avg&aggrPeriodDuration=PT1H",
                page * BATCH
            );
            let get = hub.request("GET", &path, &Value::Null);
            let (before, since) = (hub.process.cpu_s(), Instant::now());
            pages.push(connection.done(&get).await?);
            wall += since.elapsed().as_secs_f64();
            cpu += hub.process.cpu_s() - before;
        }
        for page in pages {
            check(&body_of(&page)?, points)?;
        }
        means.wall_s.push(wall);
        means.cpu_s.push(cpu);
    }
    Ok(means)
}

/// A page of means says of each of its series what was sent.
fn check(page: &Value, points: usize) -> anyhow::Result<()> {
    let series = page.as_array().map(Vec::as_slice).unwrap_or_default();
    ensure!(series.len() == BATCH, "{} series came, not {BATCH}", series.len());
    for one in series {
        let id = one["id"].as_str().context("no id")?;
        let number: usize = id.rsplit(':').next().unwrap_or_default().parse()?;
        let means = one["level"]["avg"].as_array().context("no means")?;
        let mut hours = [(0, 0); HOURS];
        for point in 0..points {
            let (sum, count) = &mut hours[second(point, points) / 3_600];
            *sum += level(number, point);
            *count += 1;
        }
        let hours: Vec<_> = hours.into_iter().filter(|(_, count)| *count > 0).collect();
        ensure!(means.len() == hours.len(), "{id} has {} means", means.len());
        for (mean, (sum, count)) in means.iter().zip(hours) {
            let (mean, right) = (mean[0].as_f64(), sum as f64 / 10.0 / f64::from(count));
            ensure!(mean.is_some_and(|m| (m - right).abs() < 1e-6), "{id}: {mean:?}, not {right}");
        }
    }
    Ok(())
}
