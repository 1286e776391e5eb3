//! Turns at hashing passwords, which is slow and takes memory on purpose: so many at once, so many
//! waiting, and few of them of one block of addresses. A browser that once signed in has its own
//! turns, so that a flood of strangers keeps no official waiting.

use crate::{Block, HubError, Limits, Source};
use guard::Wait;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::Semaphore;

#[derive(Debug)]
struct Lane {
    at_once: Arc<Semaphore>,
    /// Those who wait or hash, by block.
    there: Mutex<HashMap<String, usize>>,
}

/// All turns.
#[derive(Debug)]
pub struct Hashes {
    strangers: Arc<Lane>,
    known: Arc<Lane>,
    most: usize,
    most_of_block: usize,
}

/// A turn that was got, perhaps still to be waited for.
#[derive(Debug)]
pub struct Turn {
    lane: Arc<Lane>,
    block: String,
}

impl Hashes {
    pub fn new(limits: &Limits) -> Hashes {
        let lane = || {
            let at_once = Arc::new(Semaphore::new(limits.password_hashes.max(1)));
            Arc::new(Lane { at_once, there: Mutex::default() })
        };
        Hashes {
            strangers: lane(),
            known: lane(),
            most: limits.password_queue,
            most_of_block: limits.password_queue_block,
        }
    }

    /// A turn for a source.
    ///
    /// # Errors
    /// When too many wait, of all or of its block.
    pub fn turn(&self, source: &Source) -> Result<Turn, HubError> {
        let lane = if source.browser.is_some() { &self.known } else { &self.strangers };
        let block = source.block.to_string();
        let mut there = lane.there.lock();
        let of_block = there.get(&block).copied().unwrap_or(0);
        let most = if source.block == Block::Own { self.most } else { self.most_of_block };
        if of_block >= most || there.values().sum::<usize>() >= self.most {
            return Err(HubError::Throttled(Wait { seconds: 1 }));
        }
        there.insert(block.clone(), of_block + 1);
        Ok(Turn { lane: lane.clone(), block })
    }
}

impl Turn {
    /// Waits for the turn and hashes. Whoever asked may go away: what has begun holds its turn until
    /// it is done.
    ///
    /// # Errors
    /// When the hub is stopping.
    pub async fn hash<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, HubError> {
        let permit = self.lane.at_once.clone().acquire_owned().await;
        let permit = permit.map_err(|_| HubError::Stopping)?;
        let done = tokio::task::spawn_blocking(move || {
            let _held = (self, permit);
            work()
        });
        done.await.map_err(|_| HubError::Stopping)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut there = self.lane.there.lock();
        if let Some(count) = there.get_mut(&self.block) {
            *count -= 1;
            if *count == 0 {
                there.remove(&self.block);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn from(last: u8, browser: Option<u64>) -> Source {
        let address = std::net::Ipv4Addr::new(198, 51, last, 1);
        Source { zone: model::Zone::Outside, block: Block::Of(address.into()), browser }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn strangers_wait_for_each_other_and_nobody_for_them() {
        let limits = Limits {
            password_hashes: 2,
            password_queue: 6,
            password_queue_block: 4,
            ..Limits::default()
        };
        let hashes = Hashes::new(&limits);
        // Each hash says that it has begun, and ends when it may.
        let (begun, mut begins) = tokio::sync::mpsc::unbounded_channel();
        let (end, may_end) = std::sync::mpsc::channel::<()>();
        let may_end = Arc::new(Mutex::new(may_end));
        let hash = || {
            let (begun, may_end) = (begun.clone(), may_end.clone());
            move || {
                begun.send(()).unwrap();
                let _ = may_end.lock().recv();
            }
        };
        let mut waiting = Vec::new();
        for _ in 0..4 {
            let turn = hashes.turn(&from(1, None)).unwrap();
            waiting.push(tokio::spawn(turn.hash(hash())));
        }
        assert!(hashes.turn(&from(1, None)).is_err(), "too many of one block");
        for _ in 0..2 {
            begins.recv().await.unwrap();
        }
        // Whoever asks and goes away does not get more done at once.
        waiting.iter().for_each(|one| one.abort());
        for one in waiting {
            drop(one.await);
        }
        let again: Vec<_> = (0..2).map(|_| hashes.turn(&from(1, None)).unwrap()).collect();
        assert!(
            hashes.turn(&from(1, None)).is_err(),
            "two still hash, though nobody waits for them"
        );
        let others: Vec<_> = (2..4).map(|block| hashes.turn(&from(block, None)).unwrap()).collect();
        assert!(hashes.turn(&from(4, None)).is_err(), "too many in all");
        let next: Vec<_> =
            again.into_iter().chain(others).map(|turn| tokio::spawn(turn.hash(hash()))).collect();
        let wait = Duration::from_millis(50);
        assert!(tokio::time::timeout(wait, begins.recv()).await.is_err(), "two at once");
        // A known browser waits for none of them.
        hashes.turn(&from(1, Some(7))).unwrap().hash(|| ()).await.unwrap();
        drop(end);
        for one in next {
            one.await.unwrap().unwrap();
        }
        while !hashes.strangers.there.lock().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(hashes.turn(&from(1, None)).is_ok());
    }
}
