//! Sending requests from so many clients for a while.

use crate::Figures;
use crate::client::Connection;
use crate::process::Hub;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Seconds that each load runs.
pub const RUN_S: u64 = 4;

/// The `p` quantile of durations in milliseconds, by nearest rank.
pub fn quantile_ms(times: &mut [Duration], p: f64) -> f64 {
    times.sort_unstable();
    let at = (times.len() as f64 * p).ceil() as usize;
    times.get(at.saturating_sub(1)).map_or(0.0, |time| time.as_secs_f64() * 1e3)
}

/// Sends each request once, over so many connections at a time; gives the seconds that it took.
pub async fn send_all(connections: Vec<Connection>, requests: Vec<Vec<u8>>) -> anyhow::Result<f64> {
    let (requests, next) = (Arc::new(requests), Arc::new(AtomicUsize::new(0)));
    let since = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for mut connection in connections {
        let (requests, next) = (requests.clone(), next.clone());
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
    Ok(since.elapsed().as_secs_f64())
}

/// Each client sends requests one after the other, the `n`th overall made by `make`; gives how many
/// were answered.
pub async fn run(
    hub: &Hub,
    figures: &mut Figures,
    name: &str,
    clients: usize,
    make: impl Fn(u64) -> Vec<u8> + Send + Sync + 'static,
) -> anyhow::Result<u64> {
    let (next, make) = (Arc::new(AtomicU64::new(0)), Arc::new(make));
    let mut connections = Vec::new();
    for _ in 0..clients {
        connections.push(hub.connect().await?);
    }
    let (cpu, since) = (hub.process.cpu_s(), Instant::now());
    let mut tasks = tokio::task::JoinSet::new();
    for mut connection in connections {
        let (next, make) = (next.clone(), make.clone());
        tasks.spawn(async move {
            let mut times = Vec::new();
            while since.elapsed() < Duration::from_secs(RUN_S) {
                let begun = Instant::now();
                connection.done(&make(next.fetch_add(1, Ordering::Relaxed))).await?;
                times.push(begun.elapsed());
            }
            anyhow::Ok(times)
        });
    }
    let mut times = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        times.extend(ended??);
    }
    let (wall, cpu) = (since.elapsed().as_secs_f64(), hub.process.cpu_s() - cpu);
    let name = format!("{name}, {clients} clients");
    figures.rate(&name, "1/s", times.len() as f64, wall, cpu);
    figures.add(format!("{name}: p99"), quantile_ms(&mut times, 0.99), "ms");
    Ok(times.len() as u64)
}
