//! Delivering notifications: at least once, and in order for each subscription.

use super::{Compiled, Matched, Waiting};
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
    pub(super) fn enqueue(&self, queued: Vec<(String, String)>) {
        if queued.is_empty() {
            return;
        }
        let mut queues = self.subscriptions.waiting.lock();
        for (id, name) in queued {
            queues.entry(id).or_default().push_back((name, 0));
        }
        drop(queues);
        self.subscriptions.wake.notify_one();
    }

    /// The same for a subscription that may have been ended meanwhile: whoever takes its id next gets
    /// nothing of it.
    async fn enqueue_for(
        &self,
        subscription: &Compiled,
        queued: Vec<(String, String)>,
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
        let gone = |(_, name): &(String, String)| document(kinds::OUTBOX, name, None);
        let documents = queued.iter().map(gone).collect();
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
            let queued: Vec<String> = {
                let queues = self.subscriptions.waiting.lock();
                queues
                    .iter()
                    .filter(|(_, queue)| !queue.is_empty())
                    .map(|(id, _)| id.clone())
                    .collect()
            };
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
        loop {
            let next =
                self.subscriptions.waiting.lock().get(id).and_then(|queue| queue.front().cloned());
            let Some((name, tries)) = next else { return };
            let subscription = self.subscriptions.all.read().by_id.get(id).cloned();
            let Some(subscription) = subscription else { return };
            if self.owner_session(&subscription).is_none() {
                // Paused: whoever asked for it may not have it now.
                return;
            }
            let Some(body) = self.store.document(kinds::OUTBOX, &name) else {
                self.drop_waiting(id, &name);
                continue;
            };
            let Ok(waiting) = from_json::<Waiting>(&body) else { return };
            let mut headers = subscription.receiver_info.clone();
            if subscription.accept != "application/ld+json" {
                headers.extend(link_of(&subscription).map(|link| ("Link".to_owned(), link)));
            }
            headers.push(("Content-Type".into(), subscription.accept.clone()));
            headers.push(("Idempotency-Key".into(), waiting.id.clone()));
            let now = self.now();
            let sent = courier.post(&subscription.uri, &headers, waiting.body.into_bytes()).await;
            let mut outcome = subscription.outcome.lock().clone();
            outcome.last_notification = Some(now);
            let expired =
                now.0 - waiting.time.0 > self.options.limits.outbox_keep as i64 * 1_000_000;
            match sent {
                Ok(()) => {
                    outcome.sent += 1;
                    outcome.last_success = Some(now);
                    self.counters.add(Counter::Notifications, 1);
                }
                Err(_) => {
                    outcome.failed += 1;
                    outcome.last_failure = Some(now);
                    if expired {
                        outcome.lost += 1;
                        self.counters.add(Counter::NotificationsLost, 1);
                    }
                }
            }
            let failed = sent.is_err();
            {
                let mut held = subscription.outcome.lock();
                outcome.last_matched = held.last_matched;
                *held = outcome;
            }
            if failed && !expired {
                self.count_try(id, &name);
                let wait_ms = 250u64 << tries.min(7);
                tokio::time::sleep(Duration::from_millis(wait_ms)).await;
                if self.stopping.load(Ordering::Acquire) {
                    return;
                }
                continue;
            }
            self.drop_waiting(id, &name);
            let documents = vec![document(kinds::OUTBOX, &name, None)];
            let job =
                self.submit(|reply| Job::Write(WriteJob { documents, ..WriteJob::new(1, reply) }));
            drop(job.await);
        }
    }

    fn count_try(&self, id: &str, name: &str) {
        if let Some((front, tries)) =
            self.subscriptions.waiting.lock().get_mut(id).and_then(|q| q.front_mut())
            && front == name
        {
            *tries += 1;
        }
    }

    fn drop_waiting(&self, id: &str, name: &str) {
        let mut queues = self.subscriptions.waiting.lock();
        if let Some(queue) = queues.get_mut(id) {
            queue.retain(|(found, _)| found != name);
            if queue.is_empty() {
                queues.remove(id);
            }
        }
    }
}
