//! Telling: what was committed goes to everyone who watches, through their lens.

use crate::{Hub, HubError, Seen};
use guard::Verdict;
use model::{Action, Entity, Name, Sensitivity, Session};
use ngsild::Filter;
use parking_lot::Mutex;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast;
use tokio::time::Instant;

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
    /// How many each principal has open.
    open: Open,
}

type Open = Arc<Mutex<HashMap<u64, usize>>>;

impl Watches {
    /// None yet; each may be so many groups of changes behind before it misses some.
    pub fn new(behind: usize) -> Watches {
        Watches { sender: broadcast::channel(behind.max(1)).0, open: Arc::default() }
    }

    pub fn tell(&self, events: Vec<ChangeEvent>) {
        if !events.is_empty() && self.sender.receiver_count() > 0 {
            // Fails only when the last watcher has just left.
            drop(self.sender.send(Arc::new(events)));
        }
    }

    /// How many watch.
    pub fn count(&self) -> usize {
        self.open.lock().values().sum()
    }

    /// Whether anybody watches.
    pub fn are_there(&self) -> bool {
        self.sender.receiver_count() > 0
    }

    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Vec<ChangeEvent>>> {
        self.sender.subscribe()
    }
}

type Events = Arc<Vec<ChangeEvent>>;

/// A live stream of changed entities, as the session may see them.
pub struct Watch {
    hub: Arc<Hub>,
    session: Session,
    filter: Filter,
    receiver: broadcast::Receiver<Arc<Vec<ChangeEvent>>>,
    open: Open,
    /// Nothing is told before.
    next_at: Instant,
    /// What moved since the last delivery, and whether something was left out.
    moved: BTreeMap<u64, Moved>,
    missed: bool,
}

/// What changed since the last look, as the session sees it now.
#[derive(Debug, Default)]
pub struct Changes {
    pub entities: Vec<Arc<Seen>>,
    /// Ids of entities that were deleted.
    pub gone: Vec<String>,
    /// Some changes are not among these: look again at what is shown.
    pub missed: bool,
}

/// Between two deliveries of one stream: what changes meanwhile is told once, as it is then.
const PAUSE: Duration = Duration::from_millis(400);

/// What is known of one entity that changed.
struct Moved {
    dataset: u32,
    deleted: bool,
    /// Empty: the whole entity.
    attributes: Vec<Name>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut open = self.open.lock();
        if let Some(own) = open.get_mut(&self.session.principal.number) {
            *own -= 1;
            if *own == 0 {
                open.remove(&self.session.principal.number);
            }
        }
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
        if session.principal.kind == model::Kind::Device {
            // It reads nothing.
            return Err(self.forbidden(session, model::Action::Read, &guard::hub_dataset()));
        }
        let limits = &self.options.limits;
        let full = |name: &'static str, limit: usize| {
            let remedy = "close a console that is not needed".into();
            Err(HubError::Limit { name, limit: limit as u64, remedy })
        };
        let open = self.watches.open.clone();
        {
            let mut open = open.lock();
            if open.values().sum::<usize>() >= limits.watches {
                return full("watches", limits.watches);
            }
            let own = open.entry(session.principal.number).or_default();
            if *own >= limits.watches_each {
                return full("watches_each", limits.watches_each);
            }
            *own += 1;
        }
        let receiver = self.watches.subscribe();
        let (hub, session, next_at) = (self.clone(), session.clone(), Instant::now());
        let moved = BTreeMap::new();
        Ok(Watch { hub, session, filter, receiver, open, next_at, moved, missed: false })
    }
}

impl Watch {
    /// Whose it is.
    pub fn principal(&self) -> u64 {
        self.session.principal.number
    }

    /// Tells whether the stream's session still stands, also while nothing changes.
    pub fn liveness(&self) -> impl Fn() -> bool + Send + 'static + use<> {
        let (hub, session) = (self.hub.clone(), self.session.clone());
        move || hub.is_live(&session)
    }

    /// The next changes the session may see. None when the session or the hub ended.
    ///
    /// # Errors
    /// When what is seen cannot be recorded.
    pub async fn next(&mut self) -> Result<Option<Changes>, HubError> {
        loop {
            if !self.gather().await {
                return Ok(None);
            }
            let moved = std::mem::take(&mut self.moved);
            let missed = std::mem::take(&mut self.missed);
            if !self.hub.is_live(&self.session) {
                return Ok(None);
            }
            let (mut changes, levels) = self.look(moved);
            changes.missed = missed;
            for (dataset, Told { level, count, subjects }) in levels {
                let detail = crate::recorder::map([("delivered", model::Value::Integer(count))]);
                self.hub.record_read(&self.session, &dataset, level, subjects, detail).await?;
            }
            if missed || !changes.entities.is_empty() || !changes.gone.is_empty() {
                self.next_at = Instant::now() + PAUSE;
                return Ok(Some(changes));
            }
        }
    }

    /// Takes what moves until there is something and its delivery is due; false when the hub ended and
    /// nothing is left to tell.
    async fn gather(&mut self) -> bool {
        loop {
            let waits = self.moved.is_empty() && !self.missed;
            let received = if waits {
                self.receiver.recv().await
            } else {
                match tokio::time::timeout_at(self.next_at, self.receiver.recv()).await {
                    Ok(received) => received,
                    Err(_) => return true,
                }
            };
            if !self.take(received) {
                return !self.moved.is_empty();
            }
        }
    }

    /// Takes what moves, for as long as nothing can be delivered: events that nobody takes stay in memory.
    /// Ends when the hub does.
    pub async fn drain(&mut self) {
        loop {
            let received = self.receiver.recv().await;
            if !self.take(received) {
                return;
            }
        }
    }

    fn take(&mut self, received: Result<Events, broadcast::error::RecvError>) -> bool {
        let events = match received {
            Ok(events) => events,
            Err(broadcast::error::RecvError::Lagged(_)) => {
                self.missed = true;
                return true;
            }
            Err(broadcast::error::RecvError::Closed) => return false,
        };
        let most = self.hub.options.limits.watch_changes;
        for event in events.iter().filter(|event| self.filter.concerns(&event.entity)) {
            if self.moved.len() >= most && !self.moved.contains_key(&event.number) {
                // Of what he does not see, he does not hear that there was much of it either.
                self.missed |= self.shown(event.dataset, &event.attributes).is_some();
                continue;
            }
            match self.moved.entry(event.number) {
                Entry::Vacant(entry) => {
                    entry.insert(Moved {
                        dataset: event.dataset,
                        deleted: event.deleted,
                        attributes: event.attributes.clone(),
                    });
                }
                Entry::Occupied(mut entry) => entry.get_mut().add(event),
            }
        }
        true
    }

    /// How a dataset is seen, when a change of these attributes (none: of the whole entity) is.
    fn shown(&self, number: u32, attributes: &[Name]) -> Option<Arc<Verdict>> {
        let snapshot = self.hub.state.snapshot();
        let dataset = snapshot.by_number(number)?;
        let verdict = self.hub.state.verdict(&self.session, Action::Read, number, dataset);
        let shown = |name: &Name| verdict.lens.sight(name).0 != model::Sight::Hidden;
        let seen = attributes.is_empty() || attributes.iter().any(shown);
        (verdict.allowed && !verdict.lens.aggregate_only && seen).then_some(verdict)
    }

    fn look(&self, moved: BTreeMap<u64, Moved>) -> (Changes, BTreeMap<String, Told>) {
        let mut changes = Changes::default();
        let mut levels: BTreeMap<String, Told> = BTreeMap::new();
        let snapshot = self.hub.state.snapshot();
        for (number, moved) in moved {
            let Some(dataset) = snapshot.by_number(moved.dataset) else { continue };
            let Some(held) = self.hub.store.entity_by_number(number) else { continue };
            let Some(verdict) = self.shown(moved.dataset, &moved.attributes) else { continue };
            let seen = Seen::kept(&held, &verdict);
            if !self.filter.matches(&seen) {
                continue;
            }
            let told = levels.entry(dataset.id.clone()).or_default();
            (told.level, told.count) = (told.level.max(seen.level), told.count + 1);
            if seen.level >= Sensitivity::Personal {
                let who = self.hub.subject(moved.dataset, dataset, &seen.id, Some(number));
                told.subjects.push(who);
            }
            if held.deleted.is_some() {
                changes.gone.push(seen.id.clone());
            } else if !moved.deleted {
                changes.entities.push(seen);
            }
        }
        (changes, levels)
    }
}

/// What one delivery tells of a dataset: how sensitive that is, of how many, and of whom.
struct Told {
    level: Sensitivity,
    count: i64,
    subjects: Vec<String>,
}

impl Default for Told {
    fn default() -> Told {
        Told { level: Sensitivity::Open, count: 0, subjects: Vec::new() }
    }
}

impl Moved {
    fn add(&mut self, event: &ChangeEvent) {
        self.deleted = event.deleted;
        if event.attributes.is_empty() {
            self.attributes.clear();
        } else if !self.attributes.is_empty() {
            self.attributes.extend(event.attributes.iter().cloned());
        }
    }
}
