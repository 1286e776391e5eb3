//! How cost grows with the work: ingest by observations, queries and opening by entities, and what
//! governing costs by devices.

use crate::process::Hub;
use crate::{Figures, entities, history, share};
use serde_json::json;
use std::time::Instant;

/// Entities at which queries and opening are measured, and points of each of 10,000 series.
const ENTITIES: [u64; 3] = [10_000, 100_000, 1_000_000];
const POINTS: [usize; 3] = [100, 1_000, 10_000];
/// Devices at which enrolling, and redeeming a code, are measured; and codes that are redeemed.
const DEVICES: [usize; 3] = [1_000, 10_000, 100_000];
const REDEEMED: usize = 200;

pub async fn measure(program: &str, figures: &mut Figures) -> anyhow::Result<()> {
    for all in ENTITIES {
        entities::measure_many(Hub::start(program)?, figures, all, 1).await?;
    }
    for points in POINTS {
        history::measure_many(Hub::start(program)?, figures, points).await?;
    }
    devices(program, figures).await
}

pub async fn devices(program: &str, figures: &mut Figures) -> anyhow::Result<()> {
    for devices in DEVICES {
        enrol(Hub::start(program)?, figures, devices).await?;
    }
    Ok(())
}

async fn enrol(mut hub: Hub, figures: &mut Figures, devices: usize) -> anyhow::Result<()> {
    let mut codes = Vec::new();
    let mut cpu = 0.0;
    for first in (0..devices).step_by(share::ENROLLED) {
        cpu = hub.process.cpu_s();
        codes = share::enrol(&hub, first).await?;
        cpu = hub.process.cpu_s() - cpu;
    }
    figures.add(
        format!("enrolling the last {} of {devices} devices, CPU", share::ENROLLED),
        cpu,
        "s",
    );
    let mut connection = hub.connect().await?;
    let (wall, cpu) = (Instant::now(), hub.process.cpu_s());
    for (_, code) in codes.iter().take(REDEEMED) {
        let request = hub.request_as("", "POST", "/api/v1/redeem", &json!({"code": code}));
        connection.done(&request).await?;
    }
    let name = format!("redeeming a code among {devices} devices");
    figures.rate(
        &name,
        "1/s",
        REDEEMED as f64,
        wall.elapsed().as_secs_f64(),
        hub.process.cpu_s() - cpu,
    );
    drop(connection);
    hub.restart()?;
    figures.add(format!("ready after start, {devices} devices"), hub.ready_in.as_secs_f64(), "s");
    Ok(())
}
