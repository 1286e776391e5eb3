//! What the committer does between groups, in nobody's way: keys encrypted anew or deleted, and
//! checkpoints published.

use crate::Hub;
use crate::job::{Job, Rewrapping, Shred};
use store::{Batch, Rewrap};

/// Values that are encrypted anew between two commits.
const REWRAPPED_AT_ONCE: usize = 1_000;

/// What is to be done once a group is committed.
pub struct Chores {
    pub rewraps: Vec<Rewrapping>,
    pub shreds: Vec<Shred>,
    pub checkpoint: bool,
}

impl Chores {
    pub fn run(mut self, hub: &Hub) {
        self.rewrap(hub);
        self.shred(hub);
        if self.checkpoint {
            Self::publish_checkpoint(hub);
        }
    }

    /// Deletes keys, and then the note that they are to be deleted.
    fn shred(&mut self, hub: &Hub) {
        for shred in std::mem::take(&mut self.shreds) {
            if let Err(error) = hub.store.shred(shred.under, &shred.keys) {
                tracing::error!(%error, shred.dataset, "keys cannot be deleted; tried again soon");
                if let Some(reply) = shred.reply {
                    drop(reply.send(Err(error)));
                }
                continue;
            }
            let documents = shred.done(&hub.store);
            let batch = Batch { documents, time: hub.now(), ..Batch::default() };
            if let Err(error) = hub.store.commit(batch) {
                tracing::error!(%error, shred.dataset, "the note of a deleted key stays for now");
            }
            if let Some(reply) = shred.reply {
                drop(reply.send(Ok(())));
            }
        }
    }

    fn rewrap(&mut self, hub: &Hub) {
        for mut one in std::mem::take(&mut self.rewraps) {
            let (dataset, id) = (one.dataset, one.id.as_str());
            let ended = match hub.store.rewrap(dataset, one.from.take(), REWRAPPED_AT_ONCE) {
                Ok(Rewrap::GoesOn(at)) => {
                    one.from = Some(at);
                    // The queue may be full of writers; the upkeep begins again then.
                    hub.jobs.try_send(Job::Rewrap(one)).is_err()
                }
                Ok(Rewrap::Done(older)) => {
                    match hub.store.drop_keys(&older) {
                        Ok(()) if older.is_empty() => {}
                        Ok(()) => hub.keep_record(id, "old_keys_deleted"),
                        Err(error) => {
                            tracing::error!(%error, dataset = id, "old keys cannot be deleted");
                        }
                    }
                    true
                }
                Err(error) => {
                    tracing::error!(%error, dataset = id, "a dataset cannot be encrypted anew");
                    true
                }
            };
            if ended {
                hub.rewrapping.lock().remove(&dataset);
            }
        }
    }

    fn publish_checkpoint(hub: &Hub) {
        let (size, root) = hub.store.log_root();
        let checkpoint = hub.signing.sign(size, &root);
        if checkpoint == hub.store.checkpoint() {
            return;
        }
        let batch = Batch { checkpoint: Some(checkpoint), time: hub.now(), ..Batch::default() };
        if let Err(error) = hub.store.commit(batch) {
            tracing::error!(%error, "the checkpoint cannot be published");
        }
    }
}
