//! How cost grows with the work: ingest by observations, queries and opening by entities.

use crate::process::Hub;
use crate::{Figures, entities, history};

/// Entities at which queries and opening are measured, and points of each of 10,000 series.
const ENTITIES: [u64; 3] = [10_000, 100_000, 1_000_000];
const POINTS: [usize; 3] = [100, 1_000, 10_000];

pub async fn measure(program: &str, figures: &mut Figures) -> anyhow::Result<()> {
    for all in ENTITIES {
        entities::measure_many(Hub::start(program)?, figures, all, 1).await?;
    }
    for points in POINTS {
        history::measure_many(Hub::start(program)?, figures, points).await?;
    }
    Ok(())
}
