//! A city of ten million people: 20,000 observations a second with bursts of 60,000, an hour's backlog
//! drained meanwhile, 200 live readers. How long an acknowledgement takes, and whether all is there.

use crate::Figures;
use crate::client::request;
use crate::load::quantile_ms;
use crate::process::Hub;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Series, and the connections that share them.
const SERIES: usize = 20_000;
const SENDERS: usize = 100;
/// Series of one sender: one observation each a second.
const SHARE: usize = SERIES / SENDERS;
const READERS: usize = 200;
/// Every so many seconds comes a burst, of so many seconds at three times the rate.
const BURST_EVERY_S: u64 = 60;
const BURST_S: u64 = 5;
/// Connections that drain the backlog, in requests of so many observations.
const DRAINERS: usize = 4;
const BATCH: usize = 1_000;

fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(otherwise)
}

/// One observation each of `count` series from `first`, at a second of a day and a part of it.
fn batch(token: &str, first: usize, count: usize, day: u32, second: u64, part: u64) -> Vec<u8> {
    let mut body = String::with_capacity(count * 140);
    for series in first..first + count {
        let value = 1_500 + (series * 13) % 700 + (second as usize * 11) / 7 % 300;
        body.push(if series == first { '[' } else { ',' });
        let _ = write!(
            body,
            r#"{{"id":"urn:ngsi-ld:Gauge:{series}","type":"Gauge","level":{{"type":"Property","value":{}.{},"observedAt":"2026-02-{day:02}T{:02}:{:02}:{:02}.{part}Z"}}}}"#,
            value / 10,
            value % 10,
            second / 3_600,
            second / 60 % 60,
            second % 60
        );
    }
    body.push(']');
    request("POST", "/ngsi-ld/v1/entityOperations/upsert?options=update", token, body.as_bytes())
}

pub async fn measure(hub: Hub, figures: &mut Figures) -> anyhow::Result<()> {
    let seconds = setting("TANGGUL_BENCH_CITY_S", 120);
    let backlog = setting("TANGGUL_BENCH_BACKLOG", 7_200_000) / SERIES as u64;
    let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let token = hub.token("app").to_owned();
    let mut first = hub.connect().await?;
    for start in (0..SERIES).step_by(BATCH) {
        first.done(&batch(&token, start, BATCH, 1, 0, 0)).await?;
    }
    sent.fetch_add(SERIES as u64, Ordering::Relaxed);
    let (cpu, begin) = (hub.process.cpu_s(), Instant::now() + Duration::from_secs(1));
    let mut senders = tokio::task::JoinSet::new();
    for sender in 0..SENDERS {
        let (mut connection, token, sent) = (hub.connect().await?, token.clone(), sent.clone());
        senders.spawn(async move {
            let mut times = Vec::new();
            for second in 0..seconds {
                let burst = second % BURST_EVERY_S >= BURST_EVERY_S - BURST_S;
                for part in 0..if burst { 3 } else { 1 } {
                    let at = Duration::from_secs(second)
                        + Duration::from_millis(part * 330 + sender as u64 * 3);
                    let request = batch(&token, sender * SHARE, SHARE, 2, second, part);
                    let due = begin + at;
                    tokio::time::sleep_until(due.into()).await;
                    connection.done(&request).await?;
                    times.push((due, due.elapsed(), burst));
                    sent.fetch_add(SHARE as u64, Ordering::Relaxed);
                }
            }
            anyhow::Ok(times)
        });
    }
    let mut readers = tokio::task::JoinSet::new();
    for reader in 0..READERS {
        let (mut connection, stop) = (hub.connect().await?, stop.clone());
        let path = format!("/ngsi-ld/v1/entities?type=Gauge&limit=20&offset={}", reader * 90);
        let get = request("GET", &path, &token, b"");
        readers.spawn(async move {
            let mut times = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let since = Instant::now();
                connection.done(&get).await?;
                times.push(since.elapsed());
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            anyhow::Ok(times)
        });
    }
    let draining = Instant::now();
    let drained = drain(&hub, &token, backlog, &sent).await?;
    let draining = draining..draining + drained;
    let mut acknowledged = Vec::new();
    while let Some(ended) = senders.join_next().await {
        acknowledged.extend(ended??);
    }
    let taken = begin.elapsed().as_secs_f64() / seconds as f64;
    stop.store(true, Ordering::Relaxed);
    let mut reads = Vec::new();
    while let Some(ended) = readers.join_next().await {
        reads.extend(ended??);
    }
    let cpu = hub.process.cpu_s() - cpu;
    let name = format!("city, {seconds} s of 20,000/s with bursts of 60,000/s");
    let mut add = |what: &str, p: f64, of: &dyn Fn(Instant, bool) -> bool| {
        let those = acknowledged.iter().filter(|(due, _, burst)| of(*due, *burst));
        let mut times: Vec<Duration> = those.map(|(_, took, _)| *took).collect();
        figures.add(format!("{name}: {what}"), quantile_ms(&mut times, p), "ms");
    };
    add("p50 of an acknowledgement", 0.5, &|_, _| true);
    add("p99 of an acknowledgement", 0.99, &|_, _| true);
    add("p99 of one due in a burst", 0.99, &|_, burst| burst);
    add("p99 of one due while the backlog is drained", 0.99, &|due, _| draining.contains(&due));
    add("longest acknowledgement", 1.0, &|_, _| true);
    figures.add(format!("{name}: time taken of time given"), taken, "ratio");
    figures.add(
        format!("{name}: p99 of a live reader's query"),
        quantile_ms(&mut reads, 0.99),
        "ms",
    );
    let name =
        format!("city, backlog of {} M drained while live", backlog * SERIES as u64 / 1_000_000);
    figures.add(name, drained.as_secs_f64(), "s");
    let sent = sent.load(Ordering::Relaxed);
    figures.add("city, CPU of the server for an observation", cpu / sent as f64 * 1e6, "us");
    figures.add("city, memory after that", hub.process.memory_mib(), "MiB");
    let there = hub.observations(SERIES).await?;
    figures.add("city, observations acknowledged and not there", sent as f64 - there, "");
    anyhow::Ok(())
}

/// Sends an hour that was missed, as fast as it is taken.
async fn drain(
    hub: &Hub,
    token: &str,
    points: u64,
    sent: &Arc<AtomicU64>,
) -> anyhow::Result<Duration> {
    let (next, since) = (Arc::new(AtomicU64::new(0)), Instant::now());
    let batches = points * (SERIES / BATCH) as u64;
    let mut drainers = tokio::task::JoinSet::new();
    for _ in 0..DRAINERS {
        let (mut connection, token) = (hub.connect().await?, token.to_owned());
        let (next, sent) = (next.clone(), sent.clone());
        drainers.spawn(async move {
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= batches {
                    return anyhow::Ok(());
                }
                let (point, part) = (n / (SERIES / BATCH) as u64, n as usize % (SERIES / BATCH));
                connection.done(&batch(&token, part * BATCH, BATCH, 1, point + 1, 0)).await?;
                sent.fetch_add(BATCH as u64, Ordering::Relaxed);
            }
        });
    }
    while let Some(ended) = drainers.join_next().await {
        ended??;
    }
    Ok(since.elapsed())
}
