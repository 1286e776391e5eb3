//! Keys that an act has deleted: noted with the act, deleted by the committer after it, and what could
//! not be done then is done later. The note names the keys, so that it never deletes one that came
//! after it.

use crate::job::{Job, Shred};
use crate::kept::{document, to_json};
use crate::{Hub, kinds};
use model::Time;
use serde::{Deserialize, Serialize};
use store::{Document, Store, Under};

/// What is to be deleted, as kept until it is.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Note {
    Keys {
        dataset: String,
        keys: Vec<u32>,
        time: Time,
    },
    /// The dataset's id: all keys that are there. Of hubs before the notes named keys.
    All(String),
}

fn name_of(under: Under) -> String {
    match under {
        Under::Subject(number, entity) => format!("{number}/{entity}"),
        Under::Dataset(number) => number.to_string(),
        Under::Hub | Under::Inbox => String::new(),
    }
}

impl Shred {
    /// Takes the keys as they are when the act is committed, at `now`; gives the note.
    pub fn note(&mut self, store: &Store, now: Time) -> Document {
        (self.keys, self.time) = (store.keys_of(self.under), now);
        let (dataset, keys, time) = (self.dataset.clone(), self.keys.clone(), self.time);
        let note = Note::Keys { dataset, keys, time };
        document(kinds::SHREDDING, &name_of(self.under), Some(to_json(&note)))
    }

    /// The note, taken away, with what was set apart of a dataset before it was deleted.
    pub fn done(&self, store: &Store) -> Vec<Document> {
        let mut documents = vec![document(kinds::SHREDDING, &name_of(self.under), None)];
        if let Under::Dataset(number) = self.under {
            documents.extend(crate::subscription::telling_of(store, number));
            let prefix = format!("{}/", self.dataset);
            // Named by when they came.
            let before = |name: &str| {
                let came = name.strip_prefix(&prefix)?.split('-').next()?.parse().ok()?;
                Some(Time(came) <= self.time)
            };
            let kept = store.documents(kinds::QUARANTINE).into_iter();
            let gone = kept.filter(|(name, _)| before(name) == Some(true));
            documents.extend(gone.map(|(name, _)| document(kinds::QUARANTINE, &name, None)));
        }
        documents
    }
}

/// What the notes ask for that is not done yet, and those of which only the note is left.
pub fn noted(store: &Store) -> Vec<Shred> {
    let read = |(name, body): (String, _)| {
        let body: &[u8] = AsRef::<[u8]>::as_ref(&body);
        let mut numbers = name.split('/').filter_map(|part| part.parse::<u64>().ok());
        let dataset = u32::try_from(numbers.next()?).ok()?;
        let under = match numbers.next() {
            Some(entity) => Under::Subject(dataset, entity),
            None => Under::Dataset(dataset),
        };
        Some(match serde_json::from_slice(body).ok()? {
            Note::Keys { dataset, keys, time } => {
                let keys = store.keys_left(under, &keys);
                Shred { keys, time, ..Shred::of(under, &dataset) }
            }
            Note::All(dataset) => {
                Shred { keys: store.keys_of(under), ..Shred::of(under, &dataset) }
            }
        })
    };
    store.documents(kinds::SHREDDING).into_iter().filter_map(read).collect()
}

impl Hub {
    /// Deletes the keys that were to be deleted before: at the start, and when it could not be done.
    pub(crate) fn finish_shredding(&self, at_start: bool) {
        for shred in noted(&self.store) {
            // Afterwards it is said with the commit of the note.
            if at_start && !shred.keys.is_empty() {
                self.store.leave(shred.under);
            }
            // A full queue: the upkeep tries again.
            drop(self.jobs.try_send(Job::Shred(shred)));
        }
    }
}
