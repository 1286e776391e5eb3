//! Reading histories: whole, the latest, or aggregated by period without keeping all points.

use crate::lenses::Lenses;
use crate::processors::{SUMMED, TURN, side_by_side};
use crate::search::{ROUNDS, changing};
use crate::seen::{Seen, level_of};
use crate::{Hub, HubError, limits};
use guard::Verdict;
use model::{
    Action, Content, Entity, Instance, Lens, Name, Sensitivity, Session, Sight, Time, Value, Verb,
};
use ngsild::{Aggregate, Aggregation, Filter, TemporalQuery};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use store::{Held, Point, Series};

/// What an answer has taken so far of what it may, whoever of its processors did.
#[derive(Default)]
struct Taken {
    points: AtomicUsize,
    periods: AtomicUsize,
}

/// Which histories.
#[derive(Clone, Debug, Default)]
pub struct HistoryQuery {
    pub filter: Filter,
    pub time: TemporalQuery,
    /// Only these attributes; empty: all.
    pub attributes: Vec<Name>,
    pub aggregation: Option<Aggregation>,
    pub offset: usize,
    pub limit: Option<usize>,
    pub count: bool,
}

/// The history of one attribute.
#[derive(Debug)]
pub enum SeriesAnswer {
    /// Instances in order of time.
    Instances(Vec<Instance>),
    /// Method, then value, start and end of each period.
    Aggregated(Vec<(Aggregate, Vec<(Value, Time, Time)>)>),
}

/// The histories of one entity, by attribute.
pub type Histories = Vec<(Name, SeriesAnswer)>;

/// A look at histories, and what it told of each dataset and entity.
struct Looked {
    answer: HistoryAnswer,
    levels: HashMap<u32, (Sensitivity, i64)>,
    found: Vec<(u64, u32, Arc<Seen>)>,
}

/// Histories to sum that are worth starting a thread for.
const WORTH_A_THREAD: usize = 32;

/// Entities with their histories.
#[derive(Debug, Default)]
pub struct HistoryAnswer {
    /// The entity's frame (its attributes are not to be looked at), and each attribute's history.
    pub entities: Vec<(Entity, Histories)>,
    pub count: Option<usize>,
    /// Where the next page begins, when there is one.
    pub next: Option<usize>,
    /// Some points were left out, for the answer would have been too long: narrow the time.
    pub partial: bool,
    pub record: Option<u64>,
}

impl Hub {
    /// Histories of the entities that match, as the session sees them.
    ///
    /// # Errors
    /// When nothing may be seen, a chunk is damaged, or there would be too many periods.
    pub async fn read_history(
        &self,
        session: &Session,
        query: &HistoryQuery,
        by_id: bool,
    ) -> Result<HistoryAnswer, HubError> {
        self.check_types_open(session, &query.filter).await?;
        if let [id] = query.filter.ids.as_slice()
            && let Some(number) = self.store.closed_owner(id)
            && let Some(dataset) = self.state.snapshot().by_number(number)
        {
            self.check_open(session, number, dataset)?;
        }
        for _ in 0..ROUNDS {
            let mut lenses = Lenses::new(self, session);
            let mut looked = self.look_back(session, &mut lenses, query, by_id).await?;
            // What was decided in between is decided anew.
            if lenses.hold() {
                self.still(session)?;
                let Looked { levels, found, .. } = &looked;
                let ids = &query.filter.ids;
                let record = self.record_page(session, &mut lenses, levels, found, ids).await?;
                let asked =
                    self.record_question(session, &mut lenses, levels, &query.filter).await?;
                looked.answer.record = asked.or(record);
                return Ok(looked.answer);
            }
        }
        Err(changing())
    }

    async fn look_back(
        &self,
        session: &Session,
        lenses: &mut Lenses<'_>,
        query: &HistoryQuery,
        by_id: bool,
    ) -> Result<Looked, HubError> {
        let limit = query.limit.unwrap_or(limits::DEFAULT_PAGE).min(self.options.limits.page);
        let mut page: Vec<Arc<Held>> = Vec::new();
        let (mut matched, mut more, mut refused) = (0usize, false, None);
        let mut levels: HashMap<u32, (Sensitivity, i64)> = HashMap::new();
        self.candidates(&query.filter, &session.principal, &mut |held| {
            let Some(verdict) = lenses.of(held.dataset) else {
                refused.get_or_insert(held.dataset);
                return true;
            };
            let shows = |one: &store::Series| verdict.lens.sight(&one.name).0 != Sight::Hidden;
            if !held.series.iter().any(shows) {
                // It has no history, or none any more; one that is hidden is none.
                return true;
            }
            // Of what is for sums only, no value is looked at, and nobody singled out: a history is one
            // person's.
            let only_sums = verdict.lens.aggregate_only;
            let singled_out = by_id || verdict.lens.dataset.about_people;
            if only_sums && (singled_out || query.aggregation.is_none()) {
                refused.get_or_insert(held.dataset);
                return true;
            }
            let seen = asked_of(&verdict, &held.entity);
            if !query.filter.matches(&seen) {
                return true;
            }
            matched += 1;
            // Histories are there of what the entity has no more.
            let asked =
                |name: &&Name| query.attributes.is_empty() || query.attributes.contains(name);
            let histories = held.series.iter().map(|series| &series.name).filter(asked);
            let shown =
                level_of(&verdict.lens, seen.attributes.iter().map(|a| &a.name).chain(histories));
            let level = levels.entry(held.dataset).or_insert((Sensitivity::Open, 0));
            *level = (level.0.max(shown), level.1 + 1);
            if matched > query.offset && page.len() < limit {
                page.push(held.clone());
            } else if matched > query.offset {
                more = true;
            }
            query.count || !more
        })
        .await?;
        if by_id && page.is_empty() {
            return Err(self.no_history(session, &query.filter, refused).await);
        }
        if matched == 0 {
            self.refuse_if_all(session, &query.filter, refused).await?;
        }
        let mut answer = HistoryAnswer {
            count: query.count.then_some(matched),
            next: more.then(|| query.offset + page.len()),
            ..HistoryAnswer::default()
        };
        let taken = Taken::default();
        let mut found = Vec::new();
        let shown: Vec<(&Arc<Held>, Arc<Verdict>)> =
            page.iter().filter_map(|held| Some((held, lenses.of(held.dataset)?))).collect();
        let mut summed = match query.aggregation {
            Some(_) => self.summed(session, &shown, query, &taken).await?.into_iter(),
            None => Vec::new().into_iter(),
        };
        for (at, (held, verdict)) in shown.iter().enumerate() {
            let mut attributes = match summed.next() {
                Some(attributes) => attributes,
                None => self.histories_of(held, &verdict.lens, query, &taken)?,
            };
            let Some(now) = self.still_there(held, verdict, query, &mut attributes) else {
                continue;
            };
            if by_id || !attributes.is_empty() {
                let seen = Seen::kept(&now, verdict);
                answer.entities.push((frame(seen.entity()), attributes));
                found.push((held.number, held.dataset, seen));
            }
            if taken.points.load(Ordering::Relaxed) > self.options.limits.points {
                answer.partial = true;
                // Those that did not fit any more are the next page's.
                if at + 1 < shown.len() {
                    answer.next = Some(query.offset + at + 1);
                }
                break;
            }
        }
        Ok(Looked { answer, levels, found })
    }

    /// The sums of each; of many, by all processors side by side, and others come in between.
    async fn summed(
        &self,
        session: &Session,
        shown: &[(&Arc<Held>, Arc<Verdict>)],
        query: &HistoryQuery,
        taken: &Taken,
    ) -> Result<Vec<Histories>, HubError> {
        let _place = if shown.len() > SUMMED {
            Some(self.long_looks.begin(&session.principal).await?)
        } else {
            None
        };
        let mut summed = Vec::with_capacity(shown.len());
        for shown in shown.chunks(2 * TURN) {
            if !summed.is_empty() {
                tokio::task::yield_now().await;
            }
            let shares = side_by_side(shown.len(), WORTH_A_THREAD, |share| {
                let each = shown[share].iter();
                each.map(|(held, verdict)| self.histories_of(held, &verdict.lens, query, taken))
                    .collect::<Result<Vec<Histories>, HubError>>()
            });
            for share in shares {
                summed.append(&mut share?);
            }
        }
        Ok(summed)
    }

    /// The entity that a history is of, if it still matches: it may have been erased or changed since it
    /// was found, and a history of it taken away.
    fn still_there(
        &self,
        held: &Arc<Held>,
        verdict: &Verdict,
        query: &HistoryQuery,
        histories: &mut Histories,
    ) -> Option<Arc<Held>> {
        if self.store.is_as_found(held) {
            return Some(held.clone());
        }
        let now = self.store.peek(held.number)?;
        histories.retain(|(name, _)| now.series.iter().any(|series| series.name == *name));
        query.filter.matches(&asked_of(verdict, &now.entity)).then_some(now)
    }

    async fn no_history(
        &self,
        session: &Session,
        filter: &Filter,
        refused: Option<u32>,
    ) -> HubError {
        let id = filter.ids.first().cloned().unwrap_or_default();
        let snapshot = self.state.snapshot();
        match refused.and_then(|number| snapshot.by_number(number)) {
            Some(dataset) => {
                self.record_refusal(session, Verb::Read, Action::Read, &dataset.id).await;
                if dataset.about_people {
                    HubError::NotFound(format!("there is no entity with the id `{id}`"))
                } else {
                    self.forbidden(session, Action::Read, dataset)
                }
            }
            None => {
                self.record_absence(session, Verb::Read, Action::Read).await;
                HubError::NotFound(format!("there is no entity with the id `{id}`"))
            }
        }
    }

    fn histories_of(
        &self,
        held: &Held,
        lens: &Lens,
        query: &HistoryQuery,
        taken: &Taken,
    ) -> Result<Histories, HubError> {
        let wanted = |name: &Name| query.attributes.is_empty() || query.attributes.contains(name);
        let mut names: Vec<Name> = Vec::new();
        for series in held.series.iter().filter(|series| wanted(&series.name)) {
            if !names.contains(&series.name) && lens.sight(&series.name).0 != Sight::Hidden {
                names.push(series.name.clone());
            }
        }
        let mut answers = Vec::new();
        for name in names {
            let series: Vec<&Series> =
                held.series.iter().filter(|series| series.name == name).collect();
            let answer = match &query.aggregation {
                Some(_) if lens.sight(&name).0 != Sight::Clear => continue,
                Some(aggregation) => {
                    self.aggregate(&series, &query.time, aggregation, lens.aggregate_only, taken)?
                }
                None if lens.aggregate_only => continue,
                None => self.instances(held, lens, &name, &series, query, taken)?,
            };
            let empty = matches!(&answer, SeriesAnswer::Instances(list) if list.is_empty());
            if !empty {
                answers.push((name, answer));
            }
        }
        Ok(answers)
    }

    fn instances(
        &self,
        held: &Held,
        lens: &Lens,
        name: &Name,
        series: &[&Series],
        query: &HistoryQuery,
        taken: &Taken,
    ) -> Result<SeriesAnswer, HubError> {
        // What is said about a number beside its value follows the current instance.
        let so_far = taken.points.load(Ordering::Relaxed);
        let most = self.options.limits.points.saturating_add(1).saturating_sub(so_far).max(1);
        let last = query.time.last.unwrap_or(most).min(most);
        let mut instances: Vec<(Time, Instance)> = Vec::new();
        for one in series {
            for point in self.store.points(one, query.time.from, query.time.until, Some(last))? {
                let at = point.at();
                let instance = match point {
                    Point::Rich(_, instance) => *instance,
                    Point::Number(_, value) => Instance {
                        instance_id: one.instance_id.clone(),
                        unit: one.unit.clone(),
                        observed_at: one.observed.then_some(at),
                        created: at,
                        modified: at,
                        ..Instance::of(Content::Property(Value::from_number(value)))
                    },
                };
                instances.extend(lens.apply_instance(name, &instance).map(|seen| (at, seen)));
            }
        }
        instances.sort_by_key(|(at, _)| *at);
        let surplus = instances.len().saturating_sub(last);
        instances.drain(..surplus);
        taken.points.fetch_add(instances.len(), Ordering::Relaxed);
        debug_assert!(!held.entity.id.is_empty());
        Ok(SeriesAnswer::Instances(instances.into_iter().map(|(_, instance)| instance).collect()))
    }

    fn aggregate(
        &self,
        series: &[&Series],
        time: &TemporalQuery,
        aggregation: &Aggregation,
        only_sums: bool,
        taken: &Taken,
    ) -> Result<SeriesAnswer, HubError> {
        let mut periods: BTreeMap<Time, (Time, Sums)> = BTreeMap::new();
        let mut too_many = false;
        // Unless a beginning was given, periods are counted from the first number there is.
        let mut origin = time.origin;
        for one in series.iter().filter(|series| !series.rich) {
            self.store.each_run(one.number, time.from, time.until, &mut |mut at, mut value| {
                while let Some(first) = at.first() {
                    let first = Time(*first);
                    let origin = *origin.get_or_insert(first);
                    let (start, end) = period_of(aggregation, time, origin, first);
                    let inside = at.partition_point(|at| *at < end.0).max(1);
                    let sums = match periods.entry(start) {
                        Entry::Occupied(known) => known.into_mut(),
                        Entry::Vacant(new) => {
                            let before = taken.periods.fetch_add(1, Ordering::Relaxed);
                            if before >= self.options.limits.periods {
                                too_many = true;
                                return;
                            }
                            new.insert((end, Sums::new(aggregation)))
                        }
                    };
                    sums.1.add(&at[..inside], &value[..inside]);
                    (at, value) = (&at[inside..], &value[inside..]);
                }
            })?;
        }
        if too_many {
            return Err(HubError::Limit {
                name: "periods",
                limit: self.options.limits.periods as u64,
                remedy: "take longer periods or a shorter time".into(),
            });
        }
        let mut periods: Vec<(Time, Time, Sums)> =
            periods.into_iter().map(|(start, (end, sums))| (start, end, sums)).collect();
        if only_sums {
            periods.retain(|(_, _, sums)| sums.count >= limits::MIN_AGGREGATED);
        }
        let surplus = periods.len().saturating_sub(time.last.unwrap_or(usize::MAX));
        periods.drain(..surplus);
        if aggregation.period.is_none() {
            // One period over everything ends where the values do.
            for (start, end, sums) in &mut periods {
                (*start, *end) = (sums.first_at, sums.last_at);
            }
        }
        let of = |method: &Aggregate| {
            let values =
                periods.iter().map(|(start, end, sums)| (sums.value(*method), *start, *end));
            (*method, values.collect())
        };
        Ok(SeriesAnswer::Aggregated(aggregation.methods.iter().map(of).collect()))
    }
}

/// What of an entity the filter is asked of: where only sums may be seen, no value.
fn asked_of(verdict: &Verdict, entity: &Arc<Entity>) -> Arc<Entity> {
    if verdict.lens.aggregate_only { Arc::new(frame(entity)) } else { verdict.see(entity) }
}

/// An entity without its attributes.
fn frame(entity: &Entity) -> Entity {
    Entity {
        id: entity.id.clone(),
        types: entity.types.clone(),
        scopes: entity.scopes.clone(),
        created: entity.created,
        modified: entity.modified,
        attributes: Vec::new(),
    }
}

/// The period that holds `at`, counted from `origin` on.
fn period_of(
    aggregation: &Aggregation,
    time: &TemporalQuery,
    origin: Time,
    at: Time,
) -> (Time, Time) {
    match aggregation.period {
        None => (time.from.max(Time::MIN), time.until),
        Some(period) => period.holding(origin, time.offset, at),
    }
}

/// Distinct values that are counted in a period; more are taken for as many.
const MAX_DISTINCT: usize = 10_000;

/// Running sums over a period (Welford's method for the deviation).
#[derive(Clone, Debug, Default)]
struct Sums {
    count: u64,
    sum: f64,
    squares: f64,
    mean: f64,
    deviation: f64,
    minimum: f64,
    maximum: f64,
    first: f64,
    last: f64,
    first_at: Time,
    last_at: Time,
    /// Squares and deviations are asked for: a division a value.
    spread: bool,
    /// Only where distinct values are counted.
    distinct: Option<std::collections::HashSet<u64>>,
}

impl Sums {
    fn new(aggregation: &Aggregation) -> Sums {
        let counted = aggregation.methods.contains(&Aggregate::DistinctCount);
        let spreads = [Aggregate::StandardDeviation, Aggregate::SumOfSquares];
        Sums {
            distinct: counted.then(std::collections::HashSet::new),
            spread: aggregation.methods.iter().any(|method| spreads.contains(method)),
            ..Sums::default()
        }
    }

    /// Adds values in order of time.
    fn add(&mut self, at: &[i64], values: &[f64]) {
        let (Some(first_at), Some(last_at)) = (at.first(), at.last()) else { return };
        let (Some(first), Some(last)) = (values.first(), values.last()) else { return };
        if self.count == 0 {
            (self.minimum, self.maximum) = (*first, *first);
        }
        // Series of one attribute come one after the other.
        if self.count == 0 || Time(*first_at) < self.first_at {
            (self.first_at, self.first) = (Time(*first_at), *first);
        }
        if self.count == 0 || Time(*last_at) >= self.last_at {
            (self.last_at, self.last) = (Time(*last_at), *last);
        }
        for value in values {
            self.sum += value;
            self.minimum = self.minimum.min(*value);
            self.maximum = self.maximum.max(*value);
        }
        if self.spread {
            for (value, count) in values.iter().zip(self.count + 1..) {
                self.squares += value * value;
                let delta = value - self.mean;
                self.mean += delta / count as f64;
                self.deviation += delta * (value - self.mean);
            }
        }
        self.count += values.len() as u64;
        if let Some(distinct) = &mut self.distinct {
            for value in values {
                if distinct.len() >= MAX_DISTINCT {
                    break;
                }
                distinct.insert(value.to_bits());
            }
        }
    }

    fn value(&self, method: Aggregate) -> Value {
        let count = self.count as f64;
        let number = match method {
            Aggregate::TotalCount => return Value::Integer(self.count.cast_signed()),
            Aggregate::DistinctCount => {
                return Value::Integer(
                    self.distinct.as_ref().map_or(0, std::collections::HashSet::len) as i64,
                );
            }
            Aggregate::Sum => self.sum,
            Aggregate::Average => self.sum / count,
            Aggregate::Minimum => self.minimum,
            Aggregate::Maximum => self.maximum,
            Aggregate::StandardDeviation => (self.deviation / count).sqrt(),
            Aggregate::SumOfSquares => self.squares,
            Aggregate::First => self.first,
            Aggregate::Last => self.last,
        };
        Value::from_number(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Series of one attribute are added one after the other, in whatever order they are.
    #[test]
    fn first_and_last_are_those_of_time() {
        let aggregation = Aggregation { methods: vec![Aggregate::Average], period: None };
        let series: [(&[i64], &[f64]); 2] = [(&[20, 30], &[2.0, 3.0]), (&[10, 40], &[1.0, 4.0])];
        for order in [[0, 1], [1, 0]] {
            let mut sums = Sums::new(&aggregation);
            for (at, values) in order.map(|one| series[one]) {
                sums.add(at, values);
            }
            assert_eq!((sums.first, sums.first_at), (1.0, Time(10)));
            assert_eq!((sums.last, sums.last_at), (4.0, Time(40)));
            assert_eq!((sums.minimum, sums.maximum, sums.count), (1.0, 4.0, 4));
        }
    }
}
