//! Histories to be drawn: as few points as a screen shows, and every peak among them.

use crate::recorder::map;
use crate::seen::level_of;
use crate::{Hub, HubError};
use model::{Action, Name, Sensitivity, Session, Sight, Time, Value, Verb};
use ngsild::Invalid;
use std::sync::Arc;

/// Most columns that a chart is thinned to.
pub const MAX_COLUMNS: usize = 4_000;

/// What is to be drawn.
#[derive(Clone, Debug)]
pub struct ChartQuery {
    pub entity: String,
    pub attribute: Name,
    /// From here on; [`Time::MIN`]: from the first point.
    pub from: Time,
    /// Before this; [`Time::MAX`]: to the last point.
    pub until: Time,
    /// Columns of the screen; each gives at most four points.
    pub columns: usize,
}

/// Points to draw a line through.
#[derive(Debug, Default)]
pub struct Chart {
    pub unit: Option<String>,
    /// In order of time.
    pub points: Vec<(Time, f64)>,
    /// Points these stand for.
    pub counted: u64,
    pub record: Option<u64>,
}

/// First, last, lowest and highest point of a column: a line through these covers the pixels that a
/// line through all covers (M4; Jugel et al., VLDB 2014).
#[derive(Clone, Copy)]
struct Column {
    first: (Time, f64),
    last: (Time, f64),
    lowest: (Time, f64),
    highest: (Time, f64),
}

impl Column {
    fn add(&mut self, at: Time, value: f64) {
        if at < self.first.0 {
            self.first = (at, value);
        }
        if at >= self.last.0 {
            self.last = (at, value);
        }
        if value < self.lowest.1 {
            self.lowest = (at, value);
        }
        if value > self.highest.1 {
            self.highest = (at, value);
        }
    }

    fn points(self) -> Vec<(Time, f64)> {
        let mut all = vec![self.first, self.lowest, self.highest, self.last];
        all.sort_by_key(|(at, _)| *at);
        all.dedup();
        all
    }
}

impl Hub {
    /// The history of a number, thinned to what a screen can show.
    ///
    /// # Errors
    /// When it does not exist for the session, is not seen as it is, or a chunk is damaged.
    pub async fn chart(&self, session: &Session, query: &ChartQuery) -> Result<Chart, HubError> {
        if !(1..=MAX_COLUMNS).contains(&query.columns) {
            let what = format!("is not from 1 to {MAX_COLUMNS}");
            return Err(Invalid::data("?columns", what).into());
        }
        if session.principal.kind == model::Kind::Public {
            // It may look at millions of points.
            let what = "a chart is drawn for somebody known; send a token";
            return Err(HubError::Unauthenticated(what.into()));
        }
        // Decides, refuses and records like any look at the entity.
        let answer = self.retrieve(session, &query.entity).await?;
        let missing = || {
            let what = format!("`{}` has no history of `{}`", query.entity, query.attribute);
            HubError::NotFound(what)
        };
        let held = self.store.entity(&query.entity).ok_or_else(missing)?;
        let snapshot = self.state.snapshot();
        let dataset = snapshot.by_number(held.dataset).ok_or_else(missing)?.clone();
        let verdict = self.state.verdict(session, Action::Read, held.dataset, &dataset);
        match verdict.lens.sight(&query.attribute).0 {
            Sight::Clear => {}
            Sight::Glimpse => {
                self.record_refusal(session, Verb::Read, Action::Read, &dataset.id).await;
                return Err(self.forbidden(session, Action::Read, &dataset));
            }
            Sight::Hidden => return Err(missing()),
        }
        let plain = |series: &&store::Series| {
            series.name == query.attribute && !series.rich && series.instance_id.is_none()
        };
        let series: Vec<_> = held.series.iter().filter(plain).cloned().collect();
        if series.is_empty() {
            return Err(missing());
        }
        let level = level_of(&verdict.lens, std::iter::once(&query.attribute));
        let detail = map([("history", Value::from(query.attribute.as_str()))]);
        let noted = if level >= Sensitivity::Confidential {
            self.record_read(session, &dataset.id, level, Vec::new(), detail).await?
        } else {
            None
        };
        let (store, query) = (self.store.clone(), query.clone());
        let unit = series.last().and_then(|series| series.unit.clone());
        let drawn = tokio::task::spawn_blocking(move || thin(&store, &series, &query));
        let (points, counted) = drawn.await.map_err(|_| HubError::Stopping)??;
        Ok(Chart { unit, points, counted, record: noted.or(answer.record) })
    }
}

type Thinned = (Vec<(Time, f64)>, u64);

fn thin(
    store: &Arc<store::Store>,
    series: &[store::Series],
    query: &ChartQuery,
) -> Result<Thinned, store::StoreError> {
    let (mut first, mut last, mut counted) = (Time::MAX, Time::MIN, 0u64);
    for one in series {
        store.each_run(one.number, query.from, query.until, &mut |at, _| {
            if let (Some(start), Some(end)) = (at.first(), at.last()) {
                (first, last) = (first.min(Time(*start)), last.max(Time(*end)));
                counted += at.len() as u64;
            }
        })?;
    }
    if counted == 0 {
        return Ok((Vec::new(), 0));
    }
    // Where a beginning or an end is given, columns are of the screen, not of the data.
    let from = if query.from == Time::MIN { first } else { query.from };
    let until = if query.until == Time::MAX { Time(last.0 + 1) } else { query.until };
    let span = (i128::from(until.0) - i128::from(from.0)).max(1);
    let mut columns: Vec<Option<Column>> = vec![None; query.columns];
    for one in series {
        store.each_run(one.number, query.from, query.until, &mut |at, value| {
            for (at, value) in at.iter().zip(value) {
                let along = (i128::from(*at) - i128::from(from.0)) * query.columns as i128 / span;
                let place = usize::try_from(along).unwrap_or(0).min(query.columns - 1);
                let point = (Time(*at), *value);
                let fresh = Column { first: point, last: point, lowest: point, highest: point };
                columns[place].get_or_insert(fresh).add(point.0, point.1);
            }
        })?;
    }
    Ok((columns.into_iter().flatten().flat_map(Column::points).collect(), counted))
}
