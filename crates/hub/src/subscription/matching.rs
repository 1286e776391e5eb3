//! What changes give rise to: which subscriptions they concern, and the notifications that belong
//! to their commit.

use super::{Compiled, Queued, Waiting};
use crate::kept::{document, to_json};
use crate::lenses::Lenses;
use crate::recorder::{map, record};
use crate::seen::level_of;
use crate::{Counter, Hub, Query, kinds};
use model::{
    Action, Attribute, Content, Entity, Instance, Name, Record, Sensitivity, Session, Sight, Time,
    Value, Verb,
};
use ngsild::{Filter, Linked, Notes, Options};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use store::{Document, Under};

/// What stands for something that is gone (clause 4.5.0).
const NULL: &str = "urn:ngsi-ld:null";

/// A changed entity as the committer hands it over.
pub struct Changed<'a> {
    pub dataset: u32,
    pub before: Option<Arc<Entity>>,
    /// None: it was deleted.
    pub after: Option<Arc<Entity>>,
    /// Attributes that were set.
    pub set: &'a [Name],
}

/// What changes give rise to: belongs to their commit, all but the queue, which comes after it.
#[derive(Default)]
pub struct Matched {
    pub documents: Vec<Document>,
    pub records: Vec<Record>,
    /// Subscription and name of each notification.
    pub(super) queued: Vec<(String, Queued)>,
    /// Of each subscription, how many of those and how many bytes.
    share: HashMap<String, (usize, usize)>,
    bytes: usize,
    /// Subscriptions that are told of, and when they were before.
    told: Vec<(Arc<Compiled>, Option<Time>)>,
    /// Notifications that waited for too long a time, and those for whom: taken out of the queue.
    dropped: Vec<(Arc<Compiled>, Queued)>,
    /// Those who are not told of something, for there is no room.
    lost: Vec<Arc<Compiled>>,
}

/// A change as an owner sees it.
struct View {
    dataset: u32,
    before: Option<Arc<Entity>>,
    after: Option<Arc<Entity>>,
    level: Sensitivity,
}

fn instance_of<'a>(entity: &'a Entity, name: &Name, id: Option<&str>) -> Option<&'a Instance> {
    let attribute = entity.attribute(name.as_str())?;
    attribute.instances.iter().find(|instance| instance.instance_id.as_deref() == id)
}

/// The same kind of content, gone.
fn null_of(content: &Content) -> Content {
    let null = || Value::from(NULL);
    match content {
        Content::Property(_) | Content::Null => Content::Property(null()),
        Content::GeoProperty(_) => Content::GeoProperty(null()),
        Content::JsonProperty(_) => Content::JsonProperty(null()),
        Content::LanguageProperty(_) => {
            Content::LanguageProperty(vec![("@none".to_owned(), null())])
        }
        Content::VocabProperty { .. } => {
            Content::VocabProperty { words: vec![Name::new(NULL)], many: false }
        }
        Content::Relationship { .. } => Content::Relationship {
            objects: vec![NULL.to_owned()],
            many: false,
            object_types: Vec::new(),
        },
        Content::ListProperty(_) => Content::ListProperty(vec![null()]),
        Content::ListRelationship(_) => Content::ListRelationship(vec![NULL.to_owned()]),
    }
}

impl View {
    /// Instances that were there and are gone, by attribute; one for all where none is left.
    fn gone(&self) -> Vec<Attribute> {
        let Some(before) = &self.before else { return Vec::new() };
        let mut gone = Vec::new();
        for attribute in &before.attributes {
            let there = self.after.as_ref().and_then(|e| e.attribute(attribute.name.as_str()));
            let left = |instance: &&Instance| {
                there.is_none_or(|there| {
                    there.instances.iter().all(|one| one.instance_id != instance.instance_id)
                })
            };
            let mut instances: Vec<Instance> =
                attribute.instances.iter().filter(left).cloned().collect();
            if there.is_none() && instances.len() > 1 {
                instances.truncate(1);
                instances.iter_mut().for_each(|one| one.instance_id = None);
            }
            if !instances.is_empty() {
                gone.push(Attribute { name: attribute.name.clone(), instances });
            }
        }
        gone
    }

    fn entity(&self) -> Option<&Arc<Entity>> {
        self.after.as_ref().or(self.before.as_ref())
    }
}

impl Hub {
    /// Notifications that the changes of a group give rise to.
    pub(crate) fn match_subscriptions<'a>(
        &self,
        changed: impl Iterator<Item = Changed<'a>>,
        now: Time,
    ) -> Matched {
        let mut matched = Matched::default();
        if self.subscriptions.all.read().by_id.is_empty() {
            return matched;
        }
        let snapshot = self.state.snapshot();
        for change in changed {
            let entity = change.after.as_ref().or(change.before.as_ref());
            let (Some(entity), Some(dataset)) = (entity, snapshot.by_number(change.dataset)) else {
                continue;
            };
            let concerned = self.subscriptions.all.read().concerned(entity);
            for subscription in &concerned {
                let Some((owner, view)) =
                    self.match_one(subscription, dataset, &change, entity, now)
                else {
                    continue;
                };
                let Some(shown) = self.shown(subscription, &view, now) else { continue };
                let before = subscription.outcome.lock().last_matched;
                if !subscription.is_due(now) {
                    continue;
                }
                matched.told.push((subscription.clone(), before));
                let look = (view.dataset, view.level, 1);
                self.notify(subscription, &owner, &[shown], &[look], now, &mut matched);
            }
        }
        matched
    }

    /// Whether a changed entity concerns a subscription: as whom and how it is seen.
    fn match_one(
        &self,
        subscription: &Compiled,
        dataset: &Arc<model::Dataset>,
        change: &Changed<'_>,
        entity: &Arc<Entity>,
        now: Time,
    ) -> Option<(Session, View)> {
        let typed = |f: &ngsild::Filter| f.types.as_ref().is_none_or(|t| t.matches(&entity.types));
        let ended = subscription.expires.is_some_and(|expires| expires <= now);
        let timed = subscription.interval_s.is_some();
        if ended || timed || !subscription.active || !subscription.filters.iter().any(typed) {
            return None;
        }
        let owner = self.owner_session(subscription)?;
        let verdict = self.state.verdict(&owner, Action::Read, change.dataset, dataset);
        if !verdict.allowed || verdict.lens.aggregate_only {
            return None;
        }
        let (watched, wanted) = (&subscription.watched, &subscription.triggers);
        // A hidden attribute does not exist: its changes tell nothing.
        let tells = |name: &Name| {
            (watched.is_empty() || watched.contains(name))
                && verdict.lens.sight(name).0 != Sight::Hidden
        };
        let there = |name: &&Name| {
            change.before.as_ref().is_some_and(|before| before.attribute(name.as_str()).is_some())
        };
        let set = || change.set.iter().filter(|name| tells(name));
        let (is_new, is_gone) = (change.before.is_none(), change.after.is_none());
        let mut view = View {
            dataset: change.dataset,
            before: None,
            after: change.after.as_ref().map(|entity| verdict.see(entity)),
            level: Sensitivity::Open,
        };
        if wanted.looks_back() || subscription.show_changes || is_gone {
            view.before = change.before.as_ref().map(|entity| verdict.see(entity));
        }
        let lost = wanted.looks_back() && view.gone().iter().any(|one| tells(&one.name));
        let fires = (wanted.attribute_created && set().any(|name| !there(&name)) && !is_gone)
            || (wanted.attribute_updated && set().any(|name| there(&name)) && !is_gone)
            || (wanted.attribute_deleted && lost)
            || (wanted.entity_created && is_new && (watched.is_empty() || set().next().is_some()))
            || (wanted.entity_deleted && is_gone)
            || (wanted.entity_updated && !is_new && !is_gone && (lost || set().next().is_some()));
        let seen = view.entity()?;
        if !fires || !subscription.filters.iter().any(|filter| filter.matches(seen)) {
            return None;
        }
        // What is told of as gone is looked at, too.
        let gone = view.gone();
        let names = seen.attributes.iter().map(|a| &a.name).chain(gone.iter().map(|a| &a.name));
        view.level = level_of(&verdict.lens, names);
        Some((owner, view))
    }

    /// What of a change is written, and how.
    fn shown(
        &self,
        subscription: &Compiled,
        view: &View,
        now: Time,
    ) -> Option<(Arc<Entity>, Options)> {
        let mut options = subscription.options.clone();
        let mut notes = Notes::default();
        if subscription.show_changes
            && let (Some(before), Some(after)) = (&view.before, &view.after)
        {
            for attribute in &after.attributes {
                for instance in &attribute.instances {
                    let id = instance.instance_id.as_deref();
                    let old = instance_of(before, &attribute.name, id);
                    if let Some(old) = old.filter(|old| old.content != instance.content) {
                        let previous = Some(old.content.clone());
                        notes.add(&attribute.name, instance, None, previous);
                    }
                }
            }
        }
        let (deletes, entity) = (&subscription.triggers, view.entity()?);
        let told = |name: &Name| match &view.after {
            Some(_) => deletes.attribute_deleted || deletes.entity_updated,
            // Of an entity that is gone, what was watched, or all if changes are to be shown.
            None if deletes.attribute_deleted => {
                subscription.watched.is_empty() || subscription.watched.contains(name)
            }
            None => subscription.show_changes,
        };
        let mut gone = view.gone();
        gone.retain(|attribute| told(&attribute.name));
        if view.after.is_some() && gone.is_empty() {
            options.notes = notes;
            return Some((entity.clone(), options));
        }
        let mut state = entity.as_ref().clone();
        if view.after.is_none() {
            state.attributes.clear();
            state.scopes.clear();
            notes.deleted_at = Some(now);
        }
        for attribute in gone {
            for old in attribute.instances {
                let instance = Instance {
                    instance_id: old.instance_id.clone(),
                    created: old.created,
                    modified: old.modified,
                    ..Instance::of(null_of(&old.content))
                };
                let previous = subscription.show_changes.then_some(old.content);
                notes.add(&attribute.name, &instance, Some(now), previous);
                match state.attribute_mut(attribute.name.as_str()) {
                    Some(there) => there.instances.push(instance),
                    None => state.attributes.push(Attribute {
                        name: attribute.name.clone(),
                        instances: vec![instance],
                    }),
                }
            }
        }
        options.notes = notes;
        Some((Arc::new(state), options))
    }

    /// Makes one notification of entities, with those they lead to if these are asked for, and the
    /// records of what is told. `looks` says how much of each dataset the entities tell.
    pub(super) fn notify(
        &self,
        subscription: &Arc<Compiled>,
        owner: &Session,
        entities: &[(Arc<Entity>, Options)],
        looks: &[(u32, Sensitivity, i64)],
        now: Time,
        matched: &mut Matched,
    ) {
        let mut looks = looks.to_vec();
        let mut written = entities.to_vec();
        if let Some(join) = &subscription.join {
            let mut lenses = Lenses::new(self, owner);
            let from = entities.iter().map(|(entity, options)| (&**entity, &options.members));
            // More than a page are left out: the ids are still there.
            let found = self.follow(&mut lenses, from, join).unwrap_or_default();
            looks.extend(found.iter().map(|one| (one.dataset, one.seen.level, 1)));
            if join.inline {
                let linked: Linked = join
                    .inside(found.iter().map(|one| &one.seen), self.options.limits.notification);
                written.iter_mut().for_each(|(_, options)| options.linked = linked.clone());
            } else {
                written.extend(found.into_iter().map(|one| {
                    let options = Options { members: one.members, ..subscription.options.clone() };
                    (one.seen.entity().clone(), options)
                }));
            }
        }
        let snapshot = self.state.snapshot();
        let mut told: HashMap<u32, (Sensitivity, i64)> = HashMap::new();
        for (dataset, level, count) in looks {
            let told = told.entry(dataset).or_insert((level, 0));
            *told = (told.0.max(level), told.1 + count);
        }
        let mut under = Under::Hub;
        let mut lenses = Vec::new();
        let mut highest = Sensitivity::Open;
        for (number, (level, count)) in told {
            let Some(dataset) = snapshot.by_number(number) else { continue };
            lenses.push((number, self.mark_of(owner, number, dataset)));
            if under == Under::Hub || level > highest {
                (under, highest) = (Under::Dataset(number), level);
            }
            if level >= Sensitivity::Confidential {
                let detail = map([("delivered", Value::Integer(count))]);
                let mut made = record(owner, Verb::Watch, &dataset.id, now, detail);
                made.policy_version = snapshot.version;
                if level >= Sensitivity::Personal {
                    let told = entities.iter().map(|(entity, _)| entity.id.as_str());
                    made.subjects = told
                        .filter_map(|id| {
                            let held = self.store.entity(id);
                            let here = held.as_ref().is_none_or(|held| held.dataset == number);
                            let own = held.map(|held| held.number);
                            here.then(|| self.subject(number, dataset, id, own))
                        })
                        .collect();
                }
                matched.records.push(made);
            }
        }
        self.queue_notification(subscription, &written, (under, lenses), now, matched);
    }

    fn queue_notification(
        &self,
        subscription: &Arc<Compiled>,
        entities: &[(Arc<Entity>, Options)],
        (under, lenses): (Under, Vec<(u32, String)>),
        now: Time,
        matched: &mut Matched,
    ) {
        let id = &subscription.kept.id;
        let sequence = self.subscriptions.sequence.fetch_add(1, Ordering::Relaxed);
        let notification_id = format!("urn:ngsi-ld:Notification:{}-{sequence}", now.0);
        let mut body = format!(
            r#"{{"id":"{notification_id}","type":"Notification","subscriptionId":{},"notifiedAt":"{now}","data":["#,
            String::from_utf8_lossy(&to_json(&Value::from(id.as_str())))
        )
        .into_bytes();
        let context = (subscription.accept == "application/ld+json").then(|| {
            let source = subscription.context.source();
            let value = if *source == Value::Null {
                Value::from(ngsild::CORE_CONTEXT)
            } else {
                source.clone()
            };
            [b",\"@context\":".as_slice(), &to_json(&value)].concat()
        });
        for (index, (entity, options)) in entities.iter().enumerate() {
            if index > 0 && body.len() > self.options.limits.notification {
                // The rest is there to be asked for.
                break;
            }
            if index > 0 {
                body.push(b',');
            }
            ngsild::render_entity(&mut body, entity, &subscription.context, options);
            if let Some(context) = &context {
                body.pop();
                // There may be nothing before it.
                let context = if body.ends_with(b"{") { &context[1..] } else { context };
                body.extend_from_slice(context);
                body.push(b'}');
            }
        }
        body.push(b']');
        body.extend(context.unwrap_or_default());
        body.push(b'}');
        let waiting = Waiting {
            subscription: id.clone(),
            time: now,
            id: notification_id,
            body: String::from_utf8_lossy(&body).into_owned(),
            owner: subscription.kept.owner,
            lenses,
        };
        let name = format!("{id}/{sequence:020}");
        let body = to_json(&waiting);
        if !self.make_room(subscription, body.len(), matched) {
            matched.lost.push(subscription.clone());
            return;
        }
        let queued = Queued { name: name.clone(), tries: 0, bytes: body.len() };
        matched.documents.push(Document { kind: kinds::OUTBOX, name, under, body: Some(body) });
        let share = matched.share.entry(id.clone()).or_default();
        *share = (share.0 + 1, share.1 + queued.bytes);
        matched.bytes += queued.bytes;
        matched.queued.push((id.clone(), queued));
    }

    /// Takes the oldest that wait for a subscription away until one more fits; false when there is no room
    /// all the same.
    fn make_room(&self, subscription: &Arc<Compiled>, bytes: usize, matched: &mut Matched) -> bool {
        let (limits, id) = (&self.options.limits, &subscription.kept.id);
        let (ahead, bytes_ahead) = matched.share.get(id).copied().unwrap_or_default();
        let mut queues = self.subscriptions.waiting.lock();
        loop {
            let (count, waiting) = queues.of(id);
            let fits = count + ahead < limits.outbox
                && waiting + bytes_ahead + bytes <= limits.outbox_bytes
                && queues.bytes() + matched.bytes + bytes <= limits.outbox_all;
            if fits {
                return true;
            }
            let Some(oldest) = queues.pop_front(id) else { return false };
            matched.documents.push(document(kinds::OUTBOX, &oldest.name, None));
            matched.dropped.push((subscription.clone(), oldest));
        }
    }

    /// What a lens shows, in a word: two that are alike have the same.
    fn mark_of(&self, owner: &Session, number: u32, dataset: &Arc<model::Dataset>) -> String {
        let verdict = self.state.verdict(owner, Action::Read, number, dataset);
        if let Some(mark) = self.subscriptions.marks.lock().get(&verdict.id) {
            return mark.clone();
        }
        let (lens, dataset) = (&verdict.lens, &verdict.lens.dataset);
        let shown = (verdict.allowed, lens.sights, lens.aggregate_only);
        let of = (&dataset.attributes, dataset.undeclared, dataset.about_people);
        let mark = crate::recorder::hex(&vault::digest(&to_json(&(shown, of)))[..16]);
        let mut marks = self.subscriptions.marks.lock();
        if marks.len() >= self.options.limits.decisions_cached {
            marks.clear();
        }
        marks.insert(verdict.id, mark.clone());
        mark
    }

    /// Whether what waits was seen as its owner would see it now.
    pub(super) fn is_seen_so(&self, owner: &Session, waiting: &Waiting) -> bool {
        let snapshot = self.state.snapshot();
        waiting.lenses.iter().all(|(number, mark)| {
            let dataset = snapshot.by_number(*number);
            dataset.is_some_and(|dataset| self.mark_of(owner, *number, dataset) == *mark)
        })
    }

    /// What changes gave rise to is committed: it goes on its way.
    pub(crate) fn told(&self, matched: Matched) {
        self.note_dropped(&matched);
        self.enqueue(matched.queued);
    }

    /// Counts what was dropped for something newer.
    pub(super) fn note_dropped(&self, matched: &Matched) {
        let dropped = matched.dropped.iter().map(|(subscription, _)| subscription);
        for subscription in dropped.chain(&matched.lost) {
            subscription.outcome.lock().lost += 1;
            self.counters.add(Counter::NotificationsLost, 1);
        }
    }

    /// What was to be told of changes that could not be committed: as if it had not been.
    pub(crate) fn take_back(&self, matched: Matched) {
        for (subscription, before) in matched.told.into_iter().rev() {
            subscription.outcome.lock().last_matched = before;
        }
        let mut queues = self.subscriptions.waiting.lock();
        for (subscription, oldest) in matched.dropped.into_iter().rev() {
            queues.push_front(&subscription.kept.id, oldest);
        }
    }

    /// What a subscription with an interval tells now: all that matches, up to a page. None while what
    /// its owner may see, or it itself, is being changed: to be asked again.
    pub(super) async fn match_interval(
        &self,
        subscription: &Arc<Compiled>,
        now: Time,
    ) -> Option<Matched> {
        let mut matched = Matched::default();
        let Some(owner) = self.owner_session(subscription) else { return Some(matched) };
        let (mut numbers, mut looks) = (Vec::new(), Vec::new());
        let limit = self.options.limits.page;
        let query = |filter: &Filter| Query { filter: filter.clone(), ..Query::default() };
        let queries: Vec<Query> = subscription.filters.iter().map(query).collect();
        let mut lenses = Vec::new();
        for query in &queries {
            let mut search = crate::search::Search::new(self, &owner, query, limit);
            // These come one after the other anyhow.
            search.placed = true;
            search.run().await.ok()?;
            let found = search.found;
            numbers.extend(found.page.iter().map(|(number, ..)| *number));
            looks.extend(found.levels.into_iter().map(|(of, (level, count))| (of, level, count)));
            lenses.push(search.lenses);
        }
        // Others came between the searches.
        if !lenses.iter().all(Lenses::hold) || !self.is_as_it_was(subscription) {
            return None;
        }
        let entities = self.as_they_are(subscription, &mut lenses, numbers, &mut looks);
        if !entities.is_empty() {
            self.notify(subscription, &owner, &entities, &looks, now, &mut matched);
        }
        Some(matched)
    }

    /// Those of the entities that are there and match now, each once.
    fn as_they_are(
        &self,
        subscription: &Compiled,
        lenses: &mut [Lenses<'_>],
        numbers: Vec<u64>,
        looks: &mut Vec<(u32, Sensitivity, i64)>,
    ) -> Vec<(Arc<Entity>, Options)> {
        let mut known = HashSet::new();
        let mut entities = Vec::new();
        let Some(lenses) = lenses.first_mut() else { return entities };
        let now = self.store.now();
        for number in numbers.into_iter().filter(|number| known.insert(*number)) {
            let seen =
                now.by_number(number).and_then(|held| Some((held.dataset, lenses.see(&held)?)));
            let Some((dataset, seen)) = seen else { continue };
            if subscription.filters.iter().any(|filter| filter.matches(&seen)) {
                looks.push((dataset, seen.level, 0));
                entities.push((seen.entity().clone(), subscription.options.clone()));
            }
        }
        entities
    }

    /// When something was last told of to a subscription.
    #[cfg(test)]
    pub(crate) fn last_told(&self, id: &str) -> Option<Time> {
        self.subscriptions.all.read().by_id.get(id)?.outcome.lock().last_matched
    }

    /// The bodies that a subscription tells at its interval.
    #[cfg(test)]
    pub(crate) async fn told_at_interval(&self, id: &str) -> Option<Vec<String>> {
        let subscription = self.subscriptions.all.read().by_id.get(id).cloned()?;
        let matched = self.match_interval(&subscription, self.now()).await?;
        let bodies = matched.documents.into_iter().filter_map(|one| one.body);
        Some(bodies.map(|body| String::from_utf8_lossy(&body).into_owned()).collect())
    }

    /// Whether it was neither ended nor changed.
    fn is_as_it_was(&self, subscription: &Compiled) -> bool {
        let all = self.subscriptions.all.read();
        let now = all.by_id.get(&subscription.kept.id);
        now.is_some_and(|now| std::ptr::eq(Arc::as_ptr(now), subscription))
    }
}
