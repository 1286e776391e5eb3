//! The hub as a whole: what it holds, how it starts and stops.

use crate::act::ActKind;
use crate::committer;
use crate::job::Job;
use crate::recorder::Recorder;
use crate::state::{Counters, State};
use crate::watch::Watches;
use crate::{HubError, govern};
use journal::SigningKey;
use model::{Session, Time, Value, Zone};
use parking_lot::{Mutex, RwLock};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use store::{Files, Store};
use tokio::sync::{mpsc, oneshot};

/// What a hub is started with.
#[derive(Clone)]
pub struct HubOptions {
    /// Name of the log, such as `city.example/log`.
    pub origin: String,
    /// The clock.
    pub now: fn() -> Time,
    /// Documents of JSON-LD contexts by URL.
    pub contexts: HashMap<String, Value>,
    pub store: store::Options,
    pub seal: store::SealPlan,
    pub tidying: crate::Tidying,
    pub limits: crate::Limits,
    /// How long a commit of devices' readings waits for more of them.
    pub patience: std::time::Duration,
    /// What every page says of where the data comes from, when it is not the city's own.
    pub notice: Option<&'static str>,
}

/// The hub.
pub struct Hub {
    pub(crate) store: Arc<Store>,
    pub(crate) state: State,
    pub(crate) options: HubOptions,
    pub(crate) jobs: mpsc::Sender<Job>,
    pub(crate) recorder: Recorder,
    pub(crate) watches: Watches,
    pub(crate) acts: RwLock<HashMap<&'static str, Arc<ActKind>>>,
    pub(crate) signing: SigningKey,
    pub(crate) counters: Counters,
    /// How long callers waited for a commit.
    pub(crate) waits: crate::Durations,
    pub(crate) hashes: crate::hashes::Hashes,
    pub(crate) contexts: RwLock<HashMap<String, Arc<ngsild::Context>>>,
    pub(crate) subscriptions: crate::subscription::Subscriptions,
    pub(crate) long_looks: crate::processors::LongLooks,
    /// Held while an act is prepared and committed, so that two never take the same login or code.
    pub(crate) governing: crate::act::Governing,
    pub(crate) stopping: AtomicBool,
    pub(crate) ring: Mutex<crate::ring::Ring>,
    /// Held while a context is hosted, so that there are no more than there may be.
    pub(crate) hosting: tokio::sync::Mutex<()>,
    /// Who may ask now who can see what.
    pub(crate) asking: Arc<tokio::sync::Semaphore>,
    /// Datasets that are encrypted anew, step by step.
    pub(crate) rewrapping: Mutex<HashSet<u32>>,
    pub(crate) inbox_sequence: std::sync::atomic::AtomicU64,
    pub(crate) started: Time,
    /// The last look at the whole log, and whether one is under way.
    pub(crate) checked: Mutex<Option<crate::health::Checked>>,
    pub(crate) checking: AtomicBool,
    threads: Mutex<Vec<std::thread::JoinHandle<()>>>,
}

impl Hub {
    /// Opens the data directory and starts the hub's own threads.
    ///
    /// # Errors
    /// When the store cannot be opened or a document in it is damaged.
    pub fn start(files: Files, options: HubOptions) -> Result<Arc<Hub>, HubError> {
        let (hub, queue) = Hub::assemble(files, options)?;
        let committer = {
            let hub = hub.clone();
            std::thread::Builder::new()
                .name("committer".into())
                .spawn(move || committer::run(&hub, queue))
        };
        let is_there = |thread: std::io::Result<_>| {
            let thread = thread.map_err(|error| HubError::Conflict(error.to_string()))?;
            hub.threads.lock().push(thread);
            Ok::<_, HubError>(())
        };
        is_there(committer)?;
        hub.recompile_subscriptions();
        hub.finish_shredding(true);
        hub.open_inbox();
        hub.reconcile_ring();
        // After that: nothing is brought home by two at once.
        let upkeep = hub.clone();
        let upkeep = move || crate::upkeep::run(&upkeep);
        is_there(std::thread::Builder::new().name("upkeep".into()).spawn(upkeep))?;
        Ok(hub)
    }

    /// Everything but the threads: what is asked of the committer waits in the queue.
    pub(crate) fn assemble(
        files: Files,
        options: HubOptions,
    ) -> Result<(Arc<Hub>, mpsc::Receiver<Job>), HubError> {
        let store = Arc::new(Store::open(files.clone(), options.store.clone())?);
        // Under the store's lock: another hub may be at work on it otherwise.
        let ring = crate::ring::Ring::open(&files)?;
        let state = State::load(&store, options.limits.decisions_cached)?;
        let seed = store.derived_key("log signing key");
        let signing = SigningKey::from_seed(&options.origin, seed.bytes())
            .map_err(|error| HubError::Conflict(error.to_string()))?;
        if store.checkpoint().is_empty() {
            // From the first moment on, a missing checkpoint is a finding.
            let checkpoint = Some(signing.sign(0, &journal::empty_root()));
            store.commit(store::Batch { checkpoint, ..store::Batch::default() })?;
        }
        let (jobs, queue) = mpsc::channel(options.limits.queue.max(1));
        let hashes = crate::hashes::Hashes::new(&options.limits);
        let watches = Watches::new(options.limits.watch_behind);
        let started = (options.now)();
        let hub = Arc::new(Hub {
            subscriptions: crate::subscription::Subscriptions::load(&store)?,
            long_looks: crate::processors::LongLooks::new(&options.limits),
            store,
            state,
            options,
            jobs,
            recorder: Recorder::default(),
            watches,
            acts: RwLock::default(),
            signing,
            counters: Counters::default(),
            waits: crate::Durations::default(),
            hashes,
            contexts: RwLock::default(),
            governing: crate::act::Governing::new(),
            stopping: AtomicBool::new(false),
            ring: Mutex::new(ring),
            hosting: tokio::sync::Mutex::new(()),
            asking: Arc::new(tokio::sync::Semaphore::new(1)),
            rewrapping: Mutex::default(),
            inbox_sequence: std::sync::atomic::AtomicU64::new(0),
            started,
            checked: Mutex::default(),
            checking: AtomicBool::new(false),
            threads: Mutex::default(),
        });
        govern::register_all(&hub);
        Ok((hub, queue))
    }

    /// The clock.
    pub fn now(&self) -> Time {
        (self.options.now)()
    }

    /// The limits it keeps.
    pub fn limits(&self) -> &crate::Limits {
        &self.options.limits
    }

    /// Counts for `/metrics`.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// How long callers waited for what they sent to be durable.
    pub fn waits(&self) -> &crate::Durations {
        &self.waits
    }

    /// What lies in the store.
    pub fn usage(&self) -> store::Usage {
        self.store.usage()
    }

    /// Whether ordinary writes are possible: none, or why not.
    pub fn trouble(&self) -> Option<String> {
        if self.store.is_poisoned() {
            return Some("the store stopped writing after a failed write; restart the hub".into());
        }
        let usage = self.store.usage();
        let least = self.options.store.min_free_bytes;
        (usage.free_bytes < least)
            .then(|| format!("the disk has less than {} MiB left", least >> 20))
    }

    /// What every page says of where the data comes from, when it is not the city's own.
    pub fn notice(&self) -> Option<&'static str> {
        self.options.notice
    }

    /// The hub's own session: for upkeep and for setting a new hub up.
    pub(crate) fn own_session(&self) -> Session {
        Session {
            principal: Arc::new(model::Principal::hub()),
            tenant: crate::TENANT,
            purpose: None,
            assurance: 3,
            zone: Zone::Local,
            expires: Time::MAX,
            credential: 0,
        }
    }

    /// Hands a job to the committer and waits for its answer.
    pub(crate) async fn submit<T>(
        &self,
        make: impl FnOnce(oneshot::Sender<T>) -> Job,
    ) -> Result<T, HubError> {
        let begun = std::time::Instant::now();
        let (reply, answer) = oneshot::channel();
        self.jobs.send(make(reply)).await.map_err(|_| HubError::Stopping)?;
        let answer = answer.await.map_err(|_| HubError::Stopping);
        self.waits.add(begun.elapsed());
        answer
    }

    /// Stops in order: what was accepted is committed, the log is checkpointed, files are closed.
    pub async fn stop(&self) {
        self.stopping.store(true, std::sync::atomic::Ordering::Release);
        let (reply, answer) = oneshot::channel();
        if self.jobs.send(Job::Stop(reply)).await.is_ok() {
            drop(answer.await);
        }
        let threads = std::mem::take(&mut *self.threads.lock());
        let joined = tokio::task::spawn_blocking(move || {
            threads.into_iter().for_each(|thread| drop(thread.join()));
        });
        drop(joined.await);
        self.store.close();
    }

    /// The context that `@context` names: the core one for null.
    ///
    /// # Errors
    /// When a URL in it is not known here.
    pub fn context(&self, source: &Value) -> Result<Arc<ngsild::Context>, HubError> {
        if *source == Value::Null {
            return Ok(ngsild::Context::core());
        }
        let url = match source {
            Value::Text(url) if ngsild::is_core_context(url) => return Ok(ngsild::Context::core()),
            Value::Text(url) => Some(url.as_str()),
            _ => None,
        };
        // Kept once, whatever address it is asked for at.
        let key = url.map(|url| self.context_key(url));
        let under = |context: Arc<ngsild::Context>| match url {
            Some(url) if *context.source() != Value::Null && context.source() != source => {
                context.at(url)
            }
            _ => context,
        };
        if let Some(context) = key.and_then(|key| self.contexts.read().get(key).cloned()) {
            return Ok(under(context));
        }
        let lookup = |url: &str| self.context_document(url);
        let context = ngsild::Context::parse(source, &lookup).map_err(|error| match error {
            ngsild::ContextError::Unknown(_) => HubError::NoContext(error.to_string()),
            other => ngsild::Invalid::data("/@context", other.to_string()).into(),
        })?;
        if let Some(key) = key {
            self.contexts.write().insert(key.to_owned(), context.clone());
        }
        Ok(context)
    }

    /// The context behind a URL, to be answered with under that URL.
    pub(crate) fn context_as_named(&self, url: &str) -> Result<Arc<ngsild::Context>, HubError> {
        let context = self.context(&Value::from(url))?;
        Ok(if *context.source() == Value::Null { ngsild::Context::named(url) } else { context })
    }

    /// The address of a context that the operator gave, or the id of one hosted here.
    fn context_key<'a>(&self, url: &'a str) -> &'a str {
        if self.options.contexts.contains_key(url) {
            return url;
        }
        url.rsplit_once("/jsonldContexts/").map_or(url, |(_, id)| id)
    }

    fn context_document(&self, url: &str) -> Option<Value> {
        if let Some(document) = self.options.contexts.get(url) {
            return Some(document.clone());
        }
        let id = self.context_key(url);
        let body = self.store.document(crate::kinds::CONTEXT, id)?;
        serde_json::from_slice(&body).ok()
    }
}
