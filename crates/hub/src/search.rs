//! Finding what a question asks for, through the lens, looking at as little as it can.
//!
//! Entities that are alike are asked by their columns where the lens shows these as they are;
//! whatever columns cannot answer is answered by the entity, seen through the lens.

use crate::lenses::Lenses;
use crate::processors::{LONG, TURN, side_by_side};
use crate::seen::level_of;
use crate::{Hub, HubError, Seen};
use guard::Verdict;
use model::{Entity, Name, Sensitivity, Session, Sight, Value};
use ngsild::{Columns, Filter, Look, OrderKey, Sieve};
use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;
use store::{Held, Now, Table};

/// Entities looked at one by one before all are asked by their columns.
const WALKED: usize = if cfg!(test) { 8 } else { 512 };
/// How often a look is begun again because what may be seen changed meanwhile.
pub const ROUNDS: usize = 3;
/// Rows of a table that are worth starting a thread for.
const WORTH_A_THREAD: usize = if cfg!(test) { 40 } else { 40_000 };

/// Which entities, and which page of them.
#[derive(Clone, Debug, Default)]
pub struct Query {
    pub filter: Filter,
    pub order: Vec<OrderKey>,
    pub offset: usize,
    /// None: [`crate::limits::DEFAULT_PAGE`].
    pub limit: Option<usize>,
    pub count: bool,
}

/// What was found, as the session sees it.
#[derive(Default)]
pub struct Found {
    /// Surrogate, dataset and entity of the page.
    pub page: Vec<(u64, u32, Arc<Seen>)>,
    pub matched: usize,
    pub more: bool,
    /// How much each dataset told, also where only the count is shown.
    pub levels: HashMap<u32, (Sensitivity, i64)>,
    /// A dataset of which something was asked that may not be read.
    pub refused: Option<u32>,
}

/// How one table is asked.
struct Plan<'a> {
    sieve: Sieve<'a>,
    columns: Columns<'a>,
    /// The highest sensitivity of what is seen of each entity.
    level: Sensitivity,
    /// What the answer is ordered by.
    key: Look,
}

impl Plan<'_> {
    /// What matches of these rows, and the numbers of those that columns cannot tell of.
    fn ask(&self, numbers: &[u64], rows: Range<usize>) -> (Vec<Match>, Vec<u64>) {
        let (mut matches, mut unsure) = (Vec::new(), Vec::new());
        for (row, number) in rows.clone().zip(&numbers[rows]) {
            match (self.sieve.test(&self.columns, row), self.key) {
                (Some(false), _) => {}
                (Some(true), Look::Number(column)) => {
                    let key = self.columns.numbers.get(column).and_then(|of| of.get(row));
                    matches.push(Match { key: key.copied(), number: *number });
                }
                (Some(true), Look::Absent) => matches.push(Match { key: None, number: *number }),
                _ => unsure.push(*number),
            }
        }
        (matches, unsure)
    }
}

/// An entity that matches: by what it is ordered, and its surrogate.
#[derive(Clone, Copy)]
struct Match {
    /// None: it has nothing to be ordered by, and comes last.
    key: Option<f64>,
    number: u64,
}

pub struct Search<'a> {
    pub lenses: Lenses<'a>,
    pub found: Found,
    hub: &'a Hub,
    query: &'a Query,
    limit: usize,
    /// It needs no place among the long looks.
    pub placed: bool,
    /// It had to wait for one.
    pub waited: bool,
}

/// An entity that matches: the values it is ordered by, and its surrogate.
type Ordered = (Vec<Option<Value>>, u64);

/// Surrogates of the entities that may match, from one on, in the order they were created.
pub fn numbers_of<'a>(
    now: &'a Now<'_>,
    filter: &Filter,
    from: u64,
) -> Box<dyn Iterator<Item = u64> + 'a> {
    if !filter.ids.is_empty() {
        let numbers = filter.ids.iter().filter_map(|id| now.number_of(id));
        let mut numbers: Vec<u64> = numbers.filter(|number| *number >= from).collect();
        numbers.sort_unstable();
        numbers.dedup();
        return Box::new(numbers.into_iter());
    }
    let first = |group: &Vec<Name>| group.first().cloned();
    let types: Option<Vec<Name>> =
        filter.types.as_ref().map(|types| types.0.iter().filter_map(first).collect());
    now.of_types(types.as_deref(), from)
}

/// How the lens lets the attributes of a table be looked at.
fn look(table: &Table, verdict: &Verdict, name: &Name) -> Look {
    if !table.attributes.contains(name) {
        return Look::Absent;
    }
    match verdict.lens.sight(name).0 {
        Sight::Hidden => Look::Absent,
        Sight::Glimpse => Look::Other,
        Sight::Clear => {
            let is = |field: &store::Field| field.sole && field.name == *name;
            match table.fields.iter().position(is) {
                Some(column) => Look::Number(column),
                None if name.as_str() == "location" && table.places().is_some() => Look::Place,
                None => Look::Other,
            }
        }
    }
}

impl<'a> Search<'a> {
    pub fn new(hub: &'a Hub, session: &'a Session, query: &'a Query, limit: usize) -> Search<'a> {
        let (lenses, found) = (Lenses::new(hub, session), Found::default());
        Search { lenses, found, hub, query, limit, placed: false, waited: false }
    }

    /// Finds the page. What was decided in between is decided anew.
    ///
    /// # Errors
    /// When its principal has too many long looks under way, or what may be seen does not stay the same.
    pub async fn run(&mut self) -> Result<(), HubError> {
        for _ in 0..ROUNDS {
            if !self.walk() {
                self.scan().await?;
            }
            if self.lenses.hold() {
                return Ok(());
            }
            self.lenses = self.lenses.anew();
            self.found = Found::default();
        }
        Err(changing())
    }

    /// Looks at entities in their order until the page is full; gives up when that takes too long.
    fn walk(&mut self) -> bool {
        let filter = &self.query.filter;
        let by_id = !filter.ids.is_empty();
        // Far pages are not walked to: tables count what is before them without decoding it.
        let near = self.query.order.is_empty() && !self.query.count && self.query.offset < WALKED;
        if !by_id && !near {
            return false;
        }
        let hub = self.hub;
        let now = hub.store.now();
        let budget = WALKED.saturating_add(self.limit);
        let mut matches = Vec::new();
        let mut page = Vec::new();
        for (looked, number) in numbers_of(&now, filter, 0).enumerate() {
            if looked >= budget && !by_id {
                self.found = Found::default();
                return false;
            }
            let shown = self.found.matched >= self.query.offset && page.len() < self.limit;
            // What goes on the page is decoded once, and kept.
            let held = if shown { now.by_number(number) } else { now.peek(number) };
            let Some((seen, of)) = self.look_at(held) else { continue };
            self.found.matched += 1;
            self.tell(of, seen.level, 1);
            if !self.query.order.is_empty() {
                matches.push((self.keys_of(&seen), number));
            } else if self.found.matched > self.query.offset && page.len() < self.limit {
                page.push(number);
            } else if self.found.matched > self.query.offset {
                self.found.more = true;
                if !self.query.count {
                    break;
                }
            }
        }
        let page = if self.query.order.is_empty() { page } else { self.in_order(matches) };
        self.show(&now, page);
        true
    }

    /// Asks all there is; for what takes long, with a place among those who do.
    async fn scan(&mut self) -> Result<(), HubError> {
        if self.look(self.placed).await {
            return Ok(());
        }
        // Who waits holds nothing meanwhile, and looks afresh.
        let _place = self.hub.long_looks.begin(self.lenses.principal()).await?;
        self.waited = true;
        (self.lenses, self.found) = (self.lenses.anew(), Found::default());
        self.look(true).await;
        Ok(())
    }

    /// Asks the tables, and every entity that they cannot tell of; gives up when that takes long and has
    /// no place.
    async fn look(&mut self, placed: bool) -> bool {
        let hub = self.hub;
        let (mut matches, unsure) = self.ask_tables(&hub.store.now());
        if !placed && unsure.len() > LONG {
            return false;
        }
        // Of an entity whose key is no number, all have to be put in order by what they are.
        let mut plain = self.query.order.len() <= 1;
        for (turn, numbers) in unsure.chunks(TURN).enumerate() {
            if placed && turn > 0 {
                tokio::task::yield_now().await;
            }
            let now = hub.store.now();
            for number in numbers {
                let Some((seen, of)) = self.look_at(now.peek(*number)) else { continue };
                self.tell(of, seen.level, 1);
                let key = self.query.order.first().and_then(|key| key.value(&seen));
                let exact = key.as_ref().and_then(Value::as_exact_number);
                plain &= key.is_some() == exact.is_some();
                matches.push(Match { key: exact, number: *number });
            }
        }
        self.found.matched = matches.len();
        if plain {
            let page = self.first_of(matches);
            self.show(&hub.store.now(), page);
            return true;
        }
        if !placed && matches.len() > LONG {
            return false;
        }
        let end = self.query.offset.saturating_add(self.limit);
        let mut first: Vec<Ordered> = Vec::new();
        for some in matches.chunks(TURN) {
            if placed {
                tokio::task::yield_now().await;
            }
            let now = hub.store.now();
            for one in some {
                let Some(held) = now.peek(one.number) else { continue };
                first.extend(self.lenses.see(&held).map(|seen| (self.keys_of(&seen), one.number)));
            }
            // No more are kept than there may have to be shown.
            if first.len() > end.saturating_mul(2) {
                first.select_nth_unstable_by(end, |a, b| order(&self.query.order, a, b));
                first.truncate(end);
            }
        }
        let page = self.in_order(first);
        self.show(&hub.store.now(), page);
        true
    }

    /// What matches as tables tell, and the numbers of those that they cannot tell of.
    fn ask_tables(&mut self, now: &Now<'_>) -> (Vec<Match>, Vec<u64>) {
        let mut matches: Vec<Match> = Vec::new();
        let mut unsure: Vec<u64> = now.loose().collect();
        for table in now.tables().iter().filter(|table| !table.is_empty()) {
            let Some(plan) = self.plan(table) else { continue };
            if matches!(plan.sieve, Sieve::Never) {
                continue;
            }
            let numbers = table.numbers();
            let shares =
                side_by_side(numbers.len(), WORTH_A_THREAD, |rows| plan.ask(numbers, rows));
            for (mut certain, mut others) in shares {
                if !certain.is_empty() {
                    self.tell(table.dataset, plan.level, certain.len());
                }
                matches.append(&mut certain);
                unsure.append(&mut others);
            }
        }
        (matches, unsure)
    }

    fn keys_of(&self, seen: &Entity) -> Vec<Option<Value>> {
        self.query.order.iter().map(|key| key.value(seen)).collect()
    }

    /// How a table is asked; none when nothing of it is seen.
    fn plan<'t>(&mut self, table: &'t Table) -> Option<Plan<'t>>
    where
        'a: 't,
    {
        let filter = &self.query.filter;
        let typed = filter.types.as_ref().is_none_or(|types| types.matches(&table.types));
        let verdict = self.lenses.of(table.dataset).filter(|v| !v.lens.aggregate_only);
        let Some(verdict) = verdict else {
            if typed && !table.is_empty() {
                self.found.refused.get_or_insert(table.dataset);
            }
            return None;
        };
        let look = |name: &Name| look(table, &verdict, name);
        let sieve = Sieve::of(filter, &table.types, &look);
        let key = match self.query.order.first() {
            None => Look::Absent,
            // Of these, the entity itself tells.
            Some(key) if key.is_of_entity() => Look::Other,
            Some(key) => look(&key.attribute),
        };
        let columns = Columns {
            numbers: (0..table.fields.len()).map(|field| table.values(field)).collect(),
            places: table.places().unwrap_or_default(),
        };
        let level = level_of(&verdict.lens, table.attributes.iter());
        Some(Plan { sieve, columns, level, key })
    }

    /// An entity that matches, as the session sees it, and its dataset.
    fn look_at(&mut self, held: Option<Arc<Held>>) -> Option<(Arc<Seen>, u32)> {
        let held = held?;
        let Some(seen) = self.lenses.see(&held) else {
            if held.deleted.is_none() {
                self.found.refused.get_or_insert(held.dataset);
            }
            return None;
        };
        self.query.filter.matches(&seen).then_some((seen, held.dataset))
    }

    /// Notes that a dataset told of so many entities.
    fn tell(&mut self, dataset: u32, level: Sensitivity, entities: usize) {
        let told = self.found.levels.entry(dataset).or_insert((Sensitivity::Open, 0));
        *told = (told.0.max(level), told.1 + entities.cast_signed() as i64);
    }

    /// The page of matches that are ordered by numbers, or not at all.
    fn first_of(&mut self, mut matches: Vec<Match>) -> Vec<u64> {
        let descending = self.query.order.first().is_some_and(|key| key.descending);
        let compare = |a: &Match, b: &Match| {
            let by_key = match (a.key, b.key) {
                (Some(a), Some(b)) => {
                    let by_number = a.partial_cmp(&b).unwrap_or(Ordering::Equal);
                    if descending { by_number.reverse() } else { by_number }
                }
                (a, b) => b.is_some().cmp(&a.is_some()),
            };
            by_key.then(a.number.cmp(&b.number))
        };
        let end = self.query.offset.saturating_add(self.limit);
        self.found.more = matches.len() > end;
        if self.found.more {
            matches.select_nth_unstable_by(end, compare);
            matches.truncate(end);
        }
        matches.sort_unstable_by(compare);
        matches.into_iter().skip(self.query.offset).map(|one| one.number).collect()
    }

    /// The page of matches that are ordered by what they are.
    fn in_order(&mut self, mut matches: Vec<Ordered>) -> Vec<u64> {
        matches.sort_unstable_by(|a, b| order(&self.query.order, a, b));
        self.found.more = self.found.matched > self.query.offset.saturating_add(self.limit);
        let page = matches.into_iter().skip(self.query.offset).take(self.limit);
        page.map(|(_, number)| number).collect()
    }

    /// Decodes the page, and keeps what is seen of it beside the entities. What was changed since it was
    /// found is left out when it matches no more, and told of as it is now.
    fn show(&mut self, now: &Now<'_>, numbers: Vec<u64>) {
        for number in numbers {
            let Some(held) = now.by_number(number).filter(|held| held.deleted.is_none()) else {
                continue;
            };
            let Some(verdict) = self.lenses.of(held.dataset) else { continue };
            let seen = Seen::kept(&held, &verdict);
            if self.query.filter.matches(&seen) {
                self.tell(held.dataset, seen.level, 0);
                self.found.page.push((number, held.dataset, seen));
            }
        }
    }
}

/// What may be seen changed again and again while it was looked for.
pub fn changing() -> HubError {
    let what = "what you may see was changed while it was looked for; ask again";
    HubError::Conflict(what.into())
}

/// A type of entities as a session sees it.
#[derive(Clone, Debug, Default)]
pub struct TypeSeen {
    pub entities: usize,
    /// Attributes with the kinds they are of.
    pub attributes: Vec<(Name, Vec<&'static str>)>,
}

impl TypeSeen {
    fn note<'a>(
        &mut self,
        entities: usize,
        attributes: impl Iterator<Item = (&'a Name, &'static str)>,
    ) {
        self.entities += entities;
        for (name, kind) in attributes {
            match self.attributes.iter_mut().find(|(known, _)| known == name) {
                None => self.attributes.push((name.clone(), vec![kind])),
                Some((_, kinds)) if !kinds.contains(&kind) => kinds.push(kind),
                Some(_) => {}
            }
        }
    }
}

impl Hub {
    /// Types of entities the session sees, with how many there are and their attributes.
    ///
    /// # Errors
    /// When its principal has too many long looks under way, or what may be seen does not stay the same.
    pub async fn types(&self, session: &Session) -> Result<BTreeMap<Name, TypeSeen>, HubError> {
        for _ in 0..ROUNDS {
            let mut lenses = Lenses::new(self, session);
            let (mut types, loose) = self.types_of_tables(&mut lenses);
            let mut turns = self.long_looks.turns(&session.principal);
            for numbers in loose.chunks(TURN) {
                turns.next().await?;
                for held in numbers.iter().filter_map(|number| self.store.peek(*number)) {
                    let Some(seen) = lenses.see(&held) else { continue };
                    for of_type in &seen.types {
                        let kind = |one: &model::Attribute| {
                            one.default_instance().map(|i| i.content.kind())
                        };
                        let shown =
                            seen.attributes.iter().filter_map(|one| Some((&one.name, kind(one)?)));
                        types.entry(of_type.clone()).or_default().note(1, shown);
                    }
                }
            }
            if lenses.hold() {
                self.still(session)?;
                return Ok(types);
            }
        }
        Err(changing())
    }

    /// The types of what is in tables, and the numbers of what is in none.
    fn types_of_tables(&self, lenses: &mut Lenses<'_>) -> (BTreeMap<Name, TypeSeen>, Vec<u64>) {
        let mut types: BTreeMap<Name, TypeSeen> = BTreeMap::new();
        let now = self.store.now();
        for table in now.tables().iter().filter(|table| !table.is_empty()) {
            let verdict = lenses.of(table.dataset).filter(|verdict| !verdict.lens.aggregate_only);
            let Some(verdict) = verdict else { continue };
            let seen = |(name, kind): (&'_ Name, &&'static str)| match verdict.lens.sight(name).0 {
                Sight::Hidden => None,
                // What stands in for it is a property, whatever it was.
                Sight::Glimpse if *kind != "GeoProperty" => Some("Property"),
                _ => Some(*kind),
            };
            for of_type in &table.types {
                let pairs = table.attributes.iter().zip(&table.kinds);
                let shown = pairs.filter_map(|pair| Some((pair.0, seen(pair)?)));
                types.entry(of_type.clone()).or_default().note(table.len(), shown);
            }
        }
        let loose = now.loose().collect();
        (types, loose)
    }
}

/// Of two entities that match, which comes first.
fn order(keys: &[OrderKey], a: &Ordered, b: &Ordered) -> Ordering {
    for ((key, a), b) in keys.iter().zip(&a.0).zip(&b.0) {
        let ordering = match (a, b) {
            (Some(a), Some(b)) => a.total_order(b),
            // What has no value comes last, whichever way.
            (Some(_), None) => return Ordering::Less,
            (None, Some(_)) => return Ordering::Greater,
            (None, None) => Ordering::Equal,
        };
        let ordering = if key.descending { ordering.reverse() } else { ordering };
        if ordering != Ordering::Equal {
            return ordering;
        }
    }
    a.1.cmp(&b.1)
}
