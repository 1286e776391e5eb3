//! Reading: decide, look through the lens, fetch, record as sensitivity demands.
//!
//! The lens comes before everything: filter, order, count and page see only what it shows.

use crate::lenses::Lenses;
use crate::processors::TURN;
use crate::recorder::map;
use crate::search::{Found, Query, Search, numbers_of};
use crate::{Hub, HubError, Seen, limits};
use model::{Action, Principal, Sensitivity, Session, Value, Verb};
use ngsild::Filter;
use std::collections::HashMap;
use std::sync::Arc;
use store::Held;

/// What a session sees.
#[derive(Debug, Default)]
pub struct Answer {
    pub entities: Vec<Arc<Seen>>,
    /// All that match, when asked for.
    pub count: Option<usize>,
    /// There are more after this page.
    pub more: bool,
    /// Index of the record, when one was written before the answer.
    pub record: Option<u64>,
}

impl Hub {
    /// One entity by id, as the session sees it.
    ///
    /// # Errors
    /// When it does not exist for the session, or its dataset may not be read.
    pub async fn retrieve(&self, session: &Session, id: &str) -> Result<Answer, HubError> {
        let missing = || HubError::NotFound(format!("there is no entity with the id `{id}`"));
        let snapshot = self.state.snapshot();
        if let Some(number) = self.store.closed_owner(id) {
            let dataset = snapshot.by_number(number).ok_or_else(missing)?;
            self.check_open(session, number, dataset)?;
            return Err(missing());
        }
        let Some(held) = self.store.entity(id).filter(|held| held.deleted.is_none()) else {
            self.record_absence(session, Verb::Read, Action::Read).await;
            return Err(missing());
        };
        let dataset = snapshot.by_number(held.dataset).ok_or_else(missing)?.clone();
        let verdict = self.state.verdict(session, Action::Read, held.dataset, &dataset);
        if !verdict.allowed || verdict.lens.aggregate_only {
            self.record_refusal(session, Verb::Read, Action::Read, &dataset.id).await;
            // Who is on a list about people is not even told to those who may not know.
            return Err(if dataset.about_people {
                missing()
            } else {
                self.forbidden(session, Action::Read, &dataset)
            });
        }
        let seen = Seen::kept(&held, &verdict);
        let level = seen.level;
        let subjects =
            self.subjects_of(level, &[(held.number, held.dataset, seen.clone())], &dataset);
        let detail = if level >= Sensitivity::Confidential {
            map([("entities", Value::Integer(1))])
        } else {
            Value::Null
        };
        let record = self.record_read(session, &dataset.id, level, subjects, detail).await?;
        Ok(Answer { entities: vec![seen], count: None, more: false, record })
    }

    fn subjects_of(
        &self,
        level: Sensitivity,
        seen: &[(u64, u32, Arc<Seen>)],
        dataset: &model::Dataset,
    ) -> Vec<String> {
        if level < Sensitivity::Personal {
            return Vec::new();
        }
        let reference = |(number, of, entity): &(u64, u32, Arc<Seen>)| {
            self.subject(*of, dataset, &entity.id, Some(*number))
        };
        seen.iter().map(reference).collect()
    }

    /// The entities that match, as the session sees them, one page.
    ///
    /// # Errors
    /// When the page is too large, or the types asked for lie only in datasets that may not be read.
    pub async fn read(&self, session: &Session, query: &Query) -> Result<Answer, HubError> {
        let limit = query.limit.unwrap_or(limits::DEFAULT_PAGE);
        if limit > self.options.limits.page {
            let what = format!(
                "a page has at most {} entities; take the next page with `offset`",
                self.options.limits.page
            );
            return Err(HubError::Invalid(ngsild::Invalid::data("?limit", what)));
        }
        self.check_types_open(session, &query.filter).await?;
        let mut search = Search::new(self, session, query, limit);
        search.run().await?;
        let Search { mut lenses, found, waited, .. } = search;
        let Found { page, matched, more, levels, refused } = found;
        if waited {
            self.still(session)?;
        }
        if matched == 0 {
            self.refuse_if_all(session, &query.filter, refused).await?;
        }
        let ids = &query.filter.ids;
        let record = self.record_page(session, &mut lenses, &levels, &page, ids).await?;
        let asked = self.record_question(session, &mut lenses, &levels, &query.filter).await?;
        let record = asked.or(record);
        Ok(Answer {
            entities: page.into_iter().map(|(_, _, entity)| entity).collect(),
            count: query.count.then_some(matched),
            more,
            record,
        })
    }

    /// Calls `each` with entities that may match, in a stable order, as long as it says so. Others come
    /// in between.
    ///
    /// # Errors
    /// When the principal has too many long looks under way.
    pub(crate) async fn candidates(
        &self,
        filter: &Filter,
        principal: &Principal,
        each: &mut (dyn FnMut(&Arc<Held>) -> bool + Send),
    ) -> Result<(), HubError> {
        let mut turns = self.long_looks.turns(principal);
        let mut from = 0;
        while let Some(next) = self.turn(filter, from, each) {
            from = next;
            turns.next().await?;
        }
        Ok(())
    }

    /// One turn of it; gives where the next begins, if there is one.
    fn turn(
        &self,
        filter: &Filter,
        from: u64,
        each: &mut (dyn FnMut(&Arc<Held>) -> bool + Send),
    ) -> Option<u64> {
        let now = self.store.now();
        let mut numbers = numbers_of(&now, filter, from);
        for number in numbers.by_ref().take(TURN) {
            if now.peek(number).is_some_and(|held| !each(&held)) {
                return None;
            }
        }
        numbers.next()
    }

    /// A query for types that are closed is refused: an empty answer would be untrue.
    pub(crate) async fn check_types_open(
        &self,
        session: &Session,
        filter: &Filter,
    ) -> Result<(), HubError> {
        if !self.store.is_sealed() {
            return Ok(());
        }
        let snapshot = self.state.snapshot();
        for group in filter.types.iter().flat_map(|types| &types.0) {
            if let Some((number, dataset)) = snapshot.claimant(group, &[])
                && self.is_closed(*number, dataset)
            {
                self.check_open(session, *number, dataset)?;
                self.refuse_if_all(session, filter, Some(*number)).await?;
            }
        }
        Ok(())
    }

    /// A query that names types which lie only in datasets the session may not read is refused, with
    /// why, instead of answered with nothing: datasets are never secret.
    pub(crate) async fn refuse_if_all(
        &self,
        session: &Session,
        filter: &Filter,
        refused: Option<u32>,
    ) -> Result<(), HubError> {
        let snapshot = self.state.snapshot();
        // Whether there is anything in a dataset is not told either.
        let first = filter.types.as_ref().and_then(|types| types.0.first());
        let claimed = || first.and_then(|group| snapshot.claimant(group, &[])).map(|(n, _)| *n);
        let Some(number) = refused.or_else(claimed) else { return Ok(()) };
        let Some(dataset) = snapshot.by_number(number) else { return Ok(()) };
        if self.state.verdict(session, Action::Read, number, dataset).allowed && refused.is_none() {
            return Ok(());
        }
        let named = filter.types.as_ref().is_some_and(|types| {
            types.0.iter().all(|group| {
                snapshot.claimant(group, &[]).is_none_or(|(claimant, dataset)| {
                    *claimant == number
                        || !self.state.verdict(session, Action::Read, *claimant, dataset).allowed
                })
            })
        });
        if !named || !filter.ids.is_empty() {
            return Ok(());
        }
        self.record_refusal(session, Verb::Read, Action::Read, &dataset.id).await;
        Err(self.forbidden(session, Action::Read, dataset))
    }

    /// References of those of these ids that lie in a dataset, or in none.
    fn asked_for(&self, ids: &[String], number: u32, dataset: &model::Dataset) -> Vec<String> {
        let lies = |id: &String| {
            let held = self.store.entity(id);
            let here = held.as_ref().is_none_or(|held| held.dataset == number);
            here.then(|| self.subject(number, dataset, id, held.map(|held| held.number)))
        };
        ids.iter().filter_map(lies).collect()
    }

    /// Records a question about people that nothing answers to: that is an answer as well. Gives the
    /// last record written before it.
    pub(crate) async fn record_question(
        &self,
        session: &Session,
        lenses: &mut Lenses<'_>,
        levels: &HashMap<u32, (Sensitivity, i64)>,
        filter: &Filter,
    ) -> Result<Option<u64>, HubError> {
        let snapshot = self.state.snapshot();
        let claimed = |group: &Vec<model::Name>| snapshot.claimant(group, &[]).map(|(n, _)| *n);
        let types = filter.types.as_ref();
        let types: Option<Vec<_>> = types.map(|all| all.0.iter().filter_map(claimed).collect());
        let mut record = None;
        for (number, dataset) in snapshot.datasets.values() {
            let about = types.as_ref().is_none_or(|types| types.contains(number));
            let personal = dataset.about_people || dataset.ceiling() >= Sensitivity::Personal;
            if !about || !personal || levels.contains_key(number) {
                continue;
            }
            let Some(verdict) = lenses.of(*number).filter(|one| !one.lens.aggregate_only) else {
                continue;
            };
            let seen = dataset.each_sensitivity();
            let seen = seen.filter(|s| verdict.lens.sight_of(*s) != model::Sight::Hidden);
            let level = seen.max().unwrap_or(Sensitivity::Open);
            let subjects = self.asked_for(&filter.ids, *number, dataset);
            let elsewhere = !filter.ids.is_empty() && subjects.is_empty();
            if level < Sensitivity::Personal && !dataset.about_people || elsewhere {
                continue;
            }
            let level = level.max(Sensitivity::Personal);
            let detail = map([("counted", Value::Integer(0))]);
            let made = self.record_read(session, &dataset.id, level, subjects, detail).await?;
            record = made.or(record);
        }
        Ok(record)
    }

    /// Records what an answer told, one record a dataset: what was counted, and whom the page
    /// showed. Gives the last one written before the answer.
    pub(crate) async fn record_page(
        &self,
        session: &Session,
        lenses: &mut Lenses<'_>,
        levels: &HashMap<u32, (Sensitivity, i64)>,
        shown: &[(u64, u32, Arc<Seen>)],
        asked: &[String],
    ) -> Result<Option<u64>, HubError> {
        let mut record = None;
        for (number, (level, count)) in levels {
            let Some(verdict) = lenses.of(*number) else { continue };
            let dataset = verdict.lens.dataset.clone();
            let of_it: Vec<_> = shown.iter().filter(|(_, of, _)| of == number).cloned().collect();
            let mut subjects = self.subjects_of(*level, &of_it, &dataset);
            if of_it.is_empty() && *level >= Sensitivity::Personal {
                // Counted is looked at, too.
                subjects = self.asked_for(asked, *number, &dataset);
            }
            let detail = map([
                ("entities", Value::Integer(of_it.len() as i64)),
                ("counted", Value::Integer(*count)),
            ]);
            let made = self.record_read(session, &dataset.id, *level, subjects, detail).await?;
            record = made.or(record);
        }
        Ok(record)
    }
}
