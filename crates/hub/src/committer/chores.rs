//! What the committer does between groups, in nobody's way: keys encrypted anew or deleted, and
//! checkpoints published.

use crate::Hub;
use crate::job::{Job, Shred};
use model::Record;
use store::Batch;

/// What is to be done once a group is committed.
pub struct Chores {
    pub rewraps: Vec<(u32, String, Record)>,
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
        for (dataset, id, made) in std::mem::take(&mut self.rewraps) {
            let job = match hub.store.rewrap(dataset, 1_000) {
                Ok(Some(older)) if older.is_empty() => continue,
                Ok(Some(older)) => match hub.store.drop_keys(&older) {
                    Ok(()) => Job::Records { records: vec![made], reply: None },
                    Err(error) => {
                        tracing::error!(%error, dataset = id, "old keys cannot be deleted");
                        continue;
                    }
                },
                Ok(None) => Job::Rewrap { dataset, id, record: made },
                Err(error) => {
                    tracing::error!(%error, dataset = id, "a dataset cannot be encrypted anew");
                    continue;
                }
            };
            // The queue may be full of writers; the upkeep thread tries again then.
            drop(hub.jobs.try_send(job));
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
