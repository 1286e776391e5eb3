//! How cost grows with the work: ingest by observations, queries and opening by entities, and what
//! governing costs by devices.

use crate::process::Hub;
use crate::{Figures, entities, history, share};
use serde_json::json;
use std::time::Instant;

/// Entities at which queries and opening are measured, and points of each of 10,000 series.
const ENTITIES: [u64; 4] = [10_000, 100_000, 1_000_000, 3_000_000];
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
    let of_entities = ENTITIES.map(|all| (all as f64, all.to_string()));
    let of_points = POINTS.map(|points| {
        let all = (points * history::SERIES) as f64;
        (all, format!("{} M", all / 1e6))
    });
    further(figures, &of_points[1], &of_points[2]);
    steps(figures, "creating entities", &of_entities, true, |of| {
        (format!("creating {of} entities"), ": CPU each".to_owned())
    });
    steps(figures, "a query by q, place and order", &of_entities, false, |of| {
        ("q, place (polygon) and order".to_owned(), format!("of {of}, CPU"))
    });
    steps(figures, "opening with entities", &of_entities, false, |of| {
        (format!("ready after start, {of} entities"), String::new())
    });
    steps(figures, "batch ingest", &of_points, true, |of| {
        (format!("batch ingest, HTTPS, 1,000 a request, durable, {of}"), ": CPU each".to_owned())
    });
    steps(figures, "hourly means", &of_points, false, |of| {
        (format!("hourly mean of 10,000 series, {of}, after"), "median of 5, CPU".to_owned())
    });
    steps(figures, "opening with observations", &of_points, false, |of| {
        (format!("ready after start, {of} observations"), String::new())
    });
    devices(program, figures).await
}

/// What each further observation takes, in all files: the engine's journal is as long for few as for many.
fn further(figures: &mut Figures, few: &(f64, String), many: &(f64, String)) {
    let bytes = |(all, of): &(f64, String)| {
        Some(figures.value(&format!("storage of {of} observations"), ", all files")? * all)
    };
    if let (Some(less), Some(more)) = (bytes(few), bytes(many)) {
        let each = (more - less) / (many.0 - few.0);
        let name = format!("storage of each observation from {} to {}, all files", few.1, many.1);
        figures.add(name, each, "bytes");
    }
}

/// How much steeper than n log n a cost grows from each size to the next: at most 1 when no faster.
/// `each`: what was measured is the cost of one, not of all.
fn steps(
    figures: &mut Figures,
    what: &str,
    sizes: &[(f64, String)],
    each: bool,
    name: impl Fn(&str) -> (String, String),
) {
    let cost = |figures: &Figures, (all, of): &(f64, String)| {
        let (begin, end) = name(of);
        let cost = figures.value(&begin, &end)? * if each { *all } else { 1.0 };
        Some(cost / (all * all.ln()))
    };
    for step in sizes.windows(2) {
        if let (Some(less), Some(more)) = (cost(figures, &step[0]), cost(figures, &step[1])) {
            let name =
                format!("growth of {what}, to that of n log n, {} to {}", step[0].1, step[1].1);
            figures.add(name, more / less, "ratio");
        }
    }
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
