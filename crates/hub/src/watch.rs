//! Telling: what was committed goes to everyone who watches, through their lens.

use crate::{Hub, HubError};
use model::{Action, Dataset, Entity, Name, Sensitivity, Session};
use ngsild::Filter;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::broadcast;

/// An entity that changed.
#[derive(Clone, Debug)]
pub struct ChangeEvent {
    pub number: u64,
    pub dataset: u32,
    pub entity: Arc<Entity>,
    pub deleted: bool,
    pub created: bool,
    pub attributes: Vec<Name>,
}

pub struct Watches {
    sender: broadcast::Sender<Arc<Vec<ChangeEvent>>>,
    count: Arc<AtomicUsize>,
}

impl Watches {
    /// None yet; each may be so many groups of changes behind before it misses some.
    pub fn new(behind: usize) -> Watches {
        Watches { sender: broadcast::channel(behind.max(1)).0, count: Arc::default() }
    }

    pub fn tell(&self, events: Vec<ChangeEvent>) {
        if !events.is_empty() && self.sender.receiver_count() > 0 {
            // Fails only when the last watcher has just left.
            drop(self.sender.send(Arc::new(events)));
        }
    }

    /// Whether anybody watches.
    pub fn are_there(&self) -> bool {
        self.sender.receiver_count() > 0
    }

    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Vec<ChangeEvent>>> {
        self.sender.subscribe()
    }
}

/// A live stream of changed entities, as the session may see them.
pub struct Watch {
    hub: Arc<Hub>,
    session: Session,
    filter: Filter,
    receiver: broadcast::Receiver<Arc<Vec<ChangeEvent>>>,
    count: Arc<AtomicUsize>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Hub {
    /// The entities that steps moved, as they are now.
    pub(crate) fn events_of(&self, steps: &[store::Step]) -> Vec<ChangeEvent> {
        let now = self.store.now();
        // One for each entity, whatever moved in it.
        let mut events: BTreeMap<u64, ChangeEvent> = BTreeMap::new();
        for step in steps {
            let Some(held) = now.by_number(step.entity) else { continue };
            let event = events.entry(step.entity).or_insert_with(|| ChangeEvent {
                number: held.number,
                dataset: held.dataset,
                entity: held.entity.clone(),
                deleted: false,
                created: false,
                attributes: Vec::new(),
            });
            let series = held.series.iter().find(|series| series.number == step.series);
            event.attributes.extend(series.map(|series| series.name.clone()));
        }
        events.into_values().collect()
    }

    /// Opens a stream of changes. Every delivery is decided anew, so that a changed policy, grant or
    /// purpose holds at once.
    ///
    /// # Errors
    /// When nobody in particular asks, or there are too many already.
    pub fn watch(self: &Arc<Hub>, session: &Session, filter: Filter) -> Result<Watch, HubError> {
        if session.principal.kind == model::Kind::Public {
            let what = "a stream is held open for somebody known; send a token";
            return Err(HubError::Unauthenticated(what.into()));
        }
        let count = self.watches.count.clone();
        if count.fetch_add(1, Ordering::Relaxed) >= self.options.limits.watches {
            count.fetch_sub(1, Ordering::Relaxed);
            return Err(HubError::Limit {
                name: "watches",
                limit: self.options.limits.watches as u64,
                remedy: "close a console that is not needed".into(),
            });
        }
        let receiver = self.watches.subscribe();
        Ok(Watch { hub: self.clone(), session: session.clone(), filter, receiver, count })
    }
}

impl Watch {
    /// The next changes the session may see: entity (none when deleted: its id) and whether some
    /// were missed before it. None when the session or the hub ended.
    ///
    /// # Errors
    /// When what is seen cannot be recorded.
    pub async fn next(&mut self) -> Result<Option<(Vec<Arc<Entity>>, bool)>, HubError> {
        let mut missed = false;
        loop {
            let events = match self.receiver.recv().await {
                Ok(events) => events,
                Err(broadcast::error::RecvError::Lagged(_)) => {
                    missed = true;
                    continue;
                }
                Err(broadcast::error::RecvError::Closed) => return Ok(None),
            };
            if !self.hub.is_live(&self.session) {
                return Ok(None);
            }
            let snapshot = self.hub.state.snapshot();
            let mut seen = Vec::new();
            let mut levels: BTreeMap<String, (Sensitivity, i64)> = BTreeMap::new();
            for event in events.iter().filter(|event| !event.deleted) {
                let Some(dataset) = snapshot.by_number(event.dataset) else { continue };
                let Some((entity, level)) = self.see(event, dataset) else { continue };
                let entry = levels.entry(dataset.id.clone()).or_insert((level, 0));
                *entry = (entry.0.max(level), entry.1 + 1);
                seen.push(entity);
            }
            for (dataset, (level, count)) in levels {
                let detail = crate::recorder::map([("delivered", model::Value::Integer(count))]);
                self.hub.record_read(&self.session, &dataset, level, Vec::new(), detail).await?;
            }
            if !seen.is_empty() {
                return Ok(Some((seen, missed)));
            }
        }
    }

    /// A changed entity as the session may see it; none when its change tells nothing.
    fn see(
        &self,
        event: &ChangeEvent,
        dataset: &Arc<Dataset>,
    ) -> Option<(Arc<Entity>, Sensitivity)> {
        let verdict = self.hub.state.verdict(&self.session, Action::Read, event.dataset, dataset);
        if !verdict.allowed || verdict.lens.aggregate_only {
            return None;
        }
        let shown = |name: &Name| verdict.lens.sight(name).0 != model::Sight::Hidden;
        if !event.attributes.is_empty() && !event.attributes.iter().any(shown) {
            return None;
        }
        let entity = verdict.see(&event.entity);
        let level = crate::seen::level_of(&verdict.lens, entity.attributes.iter().map(|a| &a.name));
        self.filter.matches(&entity).then_some((entity, level))
    }
}
