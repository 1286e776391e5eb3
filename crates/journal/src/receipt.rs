//! Receipts: proofs that stand alone (C2SP `tlog-proof`).

use crate::{
    Checkpoint, Hash, NoteError, VerifyingKey, from_base64, hash_from_base64, leaf_hash,
    open_checkpoint, to_base64, verify_inclusion,
};

const HEADER: &str = "c2sp.org/tlog-proof@v1";

/// A record's proof and checkpoint; checkable offline with the log's public key alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The leaf's commitment, carried as the format's `extra` line.
    pub commitment: Hash,
    pub index: u64,
    pub proof: Vec<Hash>,
    /// The signed note.
    pub checkpoint: String,
}

/// Why a receipt does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    #[error("the receipt is malformed: {0}")]
    Malformed(&'static str),
    #[error("the receipt's checkpoint does not hold: {0}")]
    Checkpoint(#[from] NoteError),
    #[error("the proof does not lead from the record to the checkpoint's root")]
    Proof,
}

impl Receipt {
    /// Reads a receipt.
    ///
    /// # Errors
    /// When it has another form.
    pub fn parse(text: &str) -> Result<Receipt, ReceiptError> {
        let malformed = ReceiptError::Malformed;
        if text.len() > crate::note::MAX_NOTE_BYTES {
            return Err(malformed("it is too large"));
        }
        let (head, checkpoint) = text.split_once("\n\n").ok_or(malformed("no empty line"))?;
        let mut lines = head.lines();
        if lines.next() != Some(HEADER) {
            return Err(malformed("its first line is not `c2sp.org/tlog-proof@v1`"));
        }
        let extra = lines.next().and_then(|line| line.strip_prefix("extra "));
        let commitment = extra
            .and_then(from_base64)
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or(malformed("its `extra` line is no commitment of 32 bytes"))?;
        let index = lines.next().and_then(|line| line.strip_prefix("index "));
        let index = index
            .filter(|index| *index == "0" || !index.starts_with(['0', '+']))
            .and_then(|index| index.parse().ok())
            .ok_or(malformed("its `index` line is no number"))?;
        let proof = lines
            .map(hash_from_base64)
            .collect::<Option<Vec<_>>>()
            .ok_or(malformed("a proof line is no hash"))?;
        Ok(Receipt { commitment, index, proof, checkpoint: checkpoint.to_owned() })
    }

    /// Checks the signature and the proof.
    ///
    /// # Errors
    /// What does not hold.
    pub fn verify(&self, key: &VerifyingKey) -> Result<Checkpoint, ReceiptError> {
        let checkpoint = open_checkpoint(&self.checkpoint, key)?;
        let leaf = leaf_hash(&self.commitment);
        if verify_inclusion(&leaf, self.index, checkpoint.size, &self.proof, &checkpoint.root) {
            Ok(checkpoint)
        } else {
            Err(ReceiptError::Proof)
        }
    }
}

impl std::fmt::Display for Receipt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{HEADER}\nextra {}\nindex {}", to_base64(&self.commitment), self.index)?;
        for hash in &self.proof {
            writeln!(f, "{}", to_base64(hash))?;
        }
        write!(f, "\n{}", self.checkpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{SigningKey, node_hash};

    #[test]
    fn every_changed_byte_is_caught() {
        let key = SigningKey::from_seed("city.example/log", &[1; 32]).unwrap();
        let (ours, other) = ([5; 32], leaf_hash(b"other"));
        let root = node_hash(&other, &leaf_hash(&ours));
        let receipt = Receipt {
            commitment: ours,
            index: 1,
            proof: vec![other],
            checkpoint: key.sign(2, &root),
        };
        let text = receipt.to_string();
        let vkey = key.verifying_key();
        assert_eq!(Receipt::parse(&text).unwrap(), receipt);
        assert_eq!(receipt.verify(&vkey).unwrap().size, 2);
        for index in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[index] ^= 1;
            let Ok(changed) = String::from_utf8(bytes) else { continue };
            let holds = Receipt::parse(&changed).and_then(|receipt| receipt.verify(&vkey));
            assert!(holds.is_err(), "byte {index} of {text}");
        }
    }
}
