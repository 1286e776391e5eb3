//! Delivering notifications: at least once, and in order for each subscription.

use super::{Compiled, Matched, Queued, Waiting};
use crate::job::{Job, WriteJob};
use crate::kept::{document, from_json};
use crate::{Counter, Hub, HubError, kinds};
use courier::Courier;
use model::Value;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The link to the context that notifications are written in, if it has an address.
fn link_of(subscription: &Compiled) -> Option<String> {
    let url = match subscription.context.source() {
        Value::Null => ngsild::CORE_CONTEXT,
        Value::List(items) => match items.as_slice() {
            [Value::Text(url)] => url,
            _ => return None,
        },
        other => other.as_text()?,
    };
    Some(format!(
        "<{url}>; rel=\"http://www.w3.org/ns/json-ld#context\"; type=\"application/ld+json\""
    ))
}

impl Hub {
    /// Queues notifications that are committed.
    pub(super) fn enqueue(&self, queued: Vec<(String, Queued)>) {
        if queued.is_empty() {
            return;
        }
        let mut queues = self.subscriptions.waiting.lock();
        for (id, one) in queued {
            queues.push_back(&id, one);
        }
        drop(queues);
        self.subscriptions.wake.notify_one();
    }

    /// The same for a subscription that may have been ended meanwhile: whoever takes its id next gets
    /// nothing of it.
    async fn enqueue_for(
        &self,
        subscription: &Compiled,
        queued: Vec<(String, Queued)>,
    ) -> Result<(), HubError> {
        {
            // Who ends it takes it from these first, and finds in the queue what came before.
            let all = self.subscriptions.all.read();
            let now = all.by_id.get(&subscription.kept.id);
            if now.is_some_and(|now| now.kept.owner == subscription.kept.owner) {
                self.enqueue(queued);
                return Ok(());
            }
        }
        self.delete_waiting(queued.into_iter().map(|(_, one)| one).collect()).await
    }

    /// Deletes notifications that are nobody's any more.
    pub(super) async fn delete_waiting(&self, gone: Vec<Queued>) -> Result<(), HubError> {
        if gone.is_empty() {
            return Ok(());
        }
        let documents = gone.iter().map(|one| document(kinds::OUTBOX, &one.name, None)).collect();
        let job =
            self.submit(|reply| Job::Write(WriteJob { documents, ..WriteJob::new(1, reply) }));
        job.await??;
        Ok(())
    }

    /// Delivers waiting notifications until the hub stops: one at a time and in order for each
    /// subscription, many subscriptions at once.
    pub async fn deliver(self: Arc<Hub>, courier: Arc<Courier>) {
        let mut busy: HashMap<String, tokio::task::JoinHandle<()>> = HashMap::new();
        let mut telling: Option<tokio::task::JoinHandle<()>> = None;
        while !self.stopping.load(Ordering::Acquire) {
            let woken = self.subscriptions.wake.notified();
            drop(tokio::time::timeout(Duration::from_millis(500), woken).await);
            busy.retain(|_, task| !task.is_finished());
            if telling.as_ref().is_none_or(tokio::task::JoinHandle::is_finished) {
                let hub = self.clone();
                telling = Some(tokio::spawn(async move { hub.tell_intervals().await }));
            }
            let queued = self.subscriptions.waiting.lock().ids();
            for id in queued {
                if !busy.contains_key(&id) {
                    let (hub, courier) = (self.clone(), courier.clone());
                    let key = id.clone();
                    busy.insert(
                        key,
                        tokio::spawn(async move { hub.deliver_to(&id, &courier).await }),
                    );
                }
            }
        }
    }

    /// Commits what subscriptions with an interval have to tell by now, one after the other.
    async fn tell_intervals(self: &Arc<Hub>) {
        let timed: Vec<Arc<Compiled>> = {
            let all = self.subscriptions.all.read();
            let timed = all.by_id.values().filter(|one| one.interval_s.is_some() && one.active);
            timed.cloned().collect()
        };
        let mut told = tokio::task::JoinSet::new();
        for subscription in timed {
            let now = self.now();
            let ended = subscription.expires.is_some_and(|expires| expires <= now);
            if ended || !subscription.is_due(now) {
                continue;
            }
            let Some(matched) = self.match_interval(&subscription, now).await else {
                subscription.outcome.lock().last_matched = None;
                continue;
            };
            if matched.documents.is_empty() {
                continue;
            }
            // On its way at once, and in one commit with those that come next.
            let hub = self.clone();
            told.spawn(async move {
                if let Err(error) = hub.tell(&subscription, matched).await {
                    tracing::warn!(%error, "notifications at intervals wait");
                }
            });
        }
        while told.join_next().await.is_some() {}
    }

    async fn tell(&self, subscription: &Compiled, mut matched: Matched) -> Result<(), HubError> {
        let documents = std::mem::take(&mut matched.documents);
        let records = std::mem::take(&mut matched.records);
        let job = self
            .submit(|reply| Job::Write(WriteJob { documents, records, ..WriteJob::new(1, reply) }));
        let committed = job.await.and_then(|committed| Ok(committed?));
        if let Err(error) = committed {
            self.take_back(matched);
            return Err(error);
        }
        self.note_dropped(&matched);
        self.enqueue_for(subscription, matched.queued).await
    }

    async fn deliver_to(&self, id: &str, courier: &Courier) {
        let known = || self.subscriptions.all.read().by_id.get(id).cloned();
        loop {
            let next = self.subscriptions.waiting.lock().front(id);
            let Some(Queued { name, tries, .. }) = next else { return };
            let Some(subscription) = known() else {
                // It was ended while this was on its way into the queue.
                let gone = self.subscriptions.waiting.lock().remove(id);
                drop(self.delete_waiting(gone).await);
                return;
            };
            let failing = subscription.outcome.lock().failing;
            let Ok(turn) = courier.turn(&subscription.uri, failing).await else {
                // Allowed when it was made, and not now.
                subscription.outcome.lock().note(self.now(), false);
                self.give_up(&subscription, &name).await;
                continue;
            };
            if !known().is_some_and(|now| Arc::ptr_eq(&now, &subscription)) {
                // Changed or ended while this waited for its turn.
                continue;
            }
            let Some(body) = self.store.document(kinds::OUTBOX, &name) else {
                self.subscriptions.waiting.lock().forget(id, &name);
                continue;
            };
            let Ok(waiting) = from_json::<Waiting>(&body) else { return };
            let now = self.now();
            let expired =
                now.0 - waiting.time.0 > self.options.limits.outbox_keep as i64 * 1_000_000;
            let ended = subscription.expires.is_some_and(|expires| expires <= now);
            let others = waiting.owner != 0 && waiting.owner != subscription.kept.owner;
            let owner = self.owner_session(&subscription).filter(|_| subscription.active);
            let goes = match &owner {
                // Paused: whoever asked for it may not have it now.
                None if !expired && !ended && !others => return,
                None => false,
                // As it is decided now, not as it was when it was written.
                Some(owner) => !ended && !others && self.is_seen_so(owner, &waiting),
            };
            if !goes {
                drop(turn);
                self.give_up(&subscription, &name).await;
                continue;
            }
            let mut headers = subscription.receiver_info.clone();
            if subscription.accept != "application/ld+json" {
                headers.extend(link_of(&subscription).map(|link| ("Link".to_owned(), link)));
            }
            headers.push(("Content-Type".into(), subscription.accept.clone()));
            headers.push(("Idempotency-Key".into(), waiting.id.clone()));
            let sent = turn.post(&headers, waiting.body.into_bytes()).await;
            subscription.outcome.lock().note(now, sent.is_ok());
            match sent {
                Ok(()) => {
                    self.counters.add(Counter::Notifications, 1);
                    self.subscriptions.waiting.lock().forget(id, &name);
                    let gone = Queued { name, tries, bytes: 0 };
                    drop(self.delete_waiting(vec![gone]).await);
                }
                Err(error) if expired || !error.may_pass() => {
                    self.give_up(&subscription, &name).await;
                }
                Err(_) => {
                    self.subscriptions.waiting.lock().count_try(id, &name);
                    let wait_ms = 250u64 << tries.min(7);
                    tokio::time::sleep(Duration::from_millis(wait_ms)).await;
                    if self.stopping.load(Ordering::Acquire) {
                        return;
                    }
                }
            }
        }
    }

    /// What is not sent any more.
    async fn give_up(&self, subscription: &Compiled, name: &str) {
        subscription.outcome.lock().lost += 1;
        self.counters.add(Counter::NotificationsLost, 1);
        self.subscriptions.waiting.lock().forget(&subscription.kept.id, name);
        let gone = Queued { name: name.to_owned(), tries: 0, bytes: 0 };
        drop(self.delete_waiting(vec![gone]).await);
    }
}
