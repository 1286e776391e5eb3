//! Receipts: the record's index at once, proof and checkpoint when they exist.

use crate::job::Committed;
use crate::recorder::hex;
use crate::{Hub, HubError};
use journal::{Receipt, Tree, inclusion_proof};
use model::{Action, Record, Session, Verb};

/// What a writer gets at once: the record's index, and its leaf in the record's small tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiptRef {
    pub index: u64,
    pub position: u32,
    pub group: u32,
    /// The leaf and its path, in hex, leaf first.
    pub path: Vec<String>,
}

impl ReceiptRef {
    pub(crate) fn of(committed: &Committed) -> Option<ReceiptRef> {
        let index = if committed.in_ring { u64::MAX } else { committed.record? };
        let path = if committed.group == 0 {
            Vec::new()
        } else {
            std::iter::once(&committed.leaf).chain(&committed.path).map(|hash| hex(hash)).collect()
        };
        Some(ReceiptRef { index, position: committed.position, group: committed.group, path })
    }
}

impl std::fmt::Display for ReceiptRef {
    /// `INDEX` or `INDEX;leaf=POSITION/GROUP`: what the `Tanggul-Receipt` header carries.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.index == u64::MAX {
            return f.write_str("pending");
        }
        write!(f, "{}", self.index)?;
        if self.group > 1 { write!(f, ";leaf={}/{}", self.position, self.group) } else { Ok(()) }
    }
}

/// Records looked at before others come.
const RECORDS_A_TURN: usize = 1_000;

impl Hub {
    /// The proof of a record under the latest checkpoint. None when that does not cover it yet:
    /// within 1.5 s it does.
    ///
    /// # Errors
    /// When there is no such record.
    pub fn receipt(&self, index: u64) -> Result<Option<Receipt>, HubError> {
        let missing = || HubError::NotFound(format!("there is no record {index}"));
        if index >= self.store.log_size() {
            return Err(missing());
        }
        let checkpoint = self.store.checkpoint();
        let Ok(opened) = journal::open_checkpoint(&checkpoint, &self.signing.verifying_key())
        else {
            return Ok(None);
        };
        if index >= opened.size {
            return Ok(None);
        }
        let log = self.store.log();
        let proof = inclusion_proof(&log, index, opened.size).ok_or_else(missing)?;
        let commitment = log.leaf(index).ok_or_else(missing)?;
        Ok(Some(Receipt { commitment, index, proof, checkpoint }))
    }

    /// The log's public key.
    pub fn vkey(&self) -> String {
        self.signing.verifying_key().to_string()
    }

    /// The last signed checkpoint.
    pub fn checkpoint(&self) -> String {
        self.store.checkpoint()
    }

    /// The bytes of a tile under the last checkpoint.
    pub fn tile(&self, path: journal::TilePath) -> Option<Vec<u8>> {
        let key = self.signing.verifying_key();
        let size = journal::open_checkpoint(&self.store.checkpoint(), &key).ok()?.size;
        self.store.log().tile(path, size)
    }

    /// Records for an auditor, newest first: index, salt, record, and its text as its leaf commits to it.
    ///
    /// # Errors
    /// When the session may not read records.
    pub async fn records(
        &self,
        session: &Session,
        before: Option<u64>,
        limit: usize,
        wanted: &(dyn Fn(&Record) -> bool + Sync),
    ) -> Result<Vec<(u64, String, Record, String)>, HubError> {
        let snapshot = self.state.snapshot();
        if !snapshot.decide_hub(session, Action::Audit).allowed {
            self.record_refusal(session, Verb::Read, Action::Audit, "*").await;
            return Err(self.forbidden(session, Action::Audit, &guard::hub_dataset()));
        }
        let mut found = Vec::new();
        let end = before.unwrap_or(u64::MAX).min(self.store.log_size());
        // What is rare is looked for in turns: others come in between.
        let mut turns = self.long_looks.turns(&session.principal);
        for (seen, index) in (0..end).rev().enumerate() {
            if seen > 0 && seen % RECORDS_A_TURN == 0 {
                turns.next().await?;
            }
            let Some((salt, body)) = self.store.record(index)? else { continue };
            let record: Record = crate::kept::from_json(&body)?;
            if wanted(&record) {
                let text = String::from_utf8(body).unwrap_or_default();
                found.push((index, hex(&salt), record, text));
                if found.len() >= limit {
                    break;
                }
            }
        }
        Ok(found)
    }

    /// A public record with its salt, for anybody; none when it is not public.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn public_record(&self, index: u64) -> Result<Option<(String, String)>, HubError> {
        let Some((salt, body)) = self.store.record(index)? else { return Ok(None) };
        let record: Record = crate::kept::from_json(&body)?;
        let text = String::from_utf8(body).unwrap_or_default();
        Ok(record.public.then(|| (hex(&salt), text)))
    }
}

/// Rebuilds a tree from leaves, for whoever checks a log on disk.
pub(crate) fn tree_of(leaves: impl Iterator<Item = [u8; 32]>) -> Tree {
    let mut tree = Tree::default();
    for leaf in leaves {
        tree.push(&leaf);
    }
    tree
}
