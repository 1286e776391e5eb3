//! Long looks are shared among the processors, and with everybody else.

use crate::{HubError, Limits};
use model::{Kind, Principal};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::OnceLock;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Entities looked at in one turn: a millisecond or so.
pub const TURN: usize = if cfg!(test) { 3 } else { 512 };
/// Entities whose histories are summed without a place.
pub const SUMMED: usize = if cfg!(test) { 3 } else { 128 };
/// Entities of a look that is not long yet.
pub const LONG: usize = if cfg!(test) { 6 } else { 8_192 };

/// Long looks of strangers that go on at once: they keep none of those who are known waiting.
const STRANGERS: usize = 1;

/// Who looks at many does so in turns, between which commits come; and when it takes long, what others
/// ask for. Of those only few go on at once; the others wait, and of each principal only few wait, so that
/// nobody takes more than a part of the hub by asking often.
pub struct LongLooks {
    at_once: Semaphore,
    strangers: Semaphore,
    /// Of one principal, under way or waiting; of all strangers.
    most: usize,
    most_strangers: usize,
    principals: Mutex<HashMap<u64, usize>>,
}

impl LongLooks {
    pub fn new(limits: &Limits) -> LongLooks {
        LongLooks {
            at_once: Semaphore::new(limits.long_looks.max(1)),
            strangers: Semaphore::new(STRANGERS),
            most: limits.long_looks_waiting,
            most_strangers: limits.long_looks_strangers,
            principals: Mutex::default(),
        }
    }

    /// Waits for a place among them.
    ///
    /// # Errors
    /// When too many of the principal's do already.
    pub async fn begin(&self, principal: &Principal) -> Result<LongLook<'_>, HubError> {
        let (places, most, name) = match principal.kind {
            Kind::Public => (&self.strangers, self.most_strangers, "long_looks_strangers"),
            _ => (&self.at_once, self.most, "long_looks_waiting"),
        };
        let waiting = self.wait(principal.number, most, name)?;
        let place = places.acquire().await.map_err(|_| HubError::Stopping)?;
        Ok(LongLook { _waiting: waiting, _place: place })
    }

    fn wait(
        &self,
        principal: u64,
        most: usize,
        name: &'static str,
    ) -> Result<Waiting<'_>, HubError> {
        let mut principals = self.principals.lock();
        let own = principals.entry(principal).or_default();
        if *own >= most {
            return Err(HubError::Limit {
                name,
                limit: most as u64,
                remedy: "wait for what you have asked; or ask for less: a type, a place, numbers"
                    .into(),
            });
        }
        *own += 1;
        Ok(Waiting { looks: self, principal })
    }

    pub fn turns<'a>(&'a self, principal: &'a Principal) -> Turns<'a> {
        Turns { looks: self, principal, looked: 0, place: None }
    }
}

struct Waiting<'a> {
    looks: &'a LongLooks,
    principal: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut principals = self.looks.principals.lock();
        if let Some(own) = principals.get_mut(&self.principal) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                principals.remove(&self.principal);
            }
        }
    }
}

/// A place among the long looks, until it is dropped.
pub struct LongLook<'a> {
    _waiting: Waiting<'a>,
    _place: SemaphorePermit<'a>,
}

/// The turns of one look.
pub struct Turns<'a> {
    looks: &'a LongLooks,
    principal: &'a Principal,
    looked: usize,
    place: Option<LongLook<'a>>,
}

impl Turns<'_> {
    /// Before the next turn: once the look is long it waits for a place, and lets requests of others
    /// come too. (Before, that costs more than it gives: both processors are awake for whoever shares
    /// the work that follows.)
    ///
    /// # Errors
    /// As [`LongLooks::begin`].
    pub async fn next(&mut self) -> Result<(), HubError> {
        self.looked += TURN;
        if self.looked < LONG {
            return Ok(());
        }
        if self.place.is_none() {
            self.place = Some(self.looks.begin(self.principal).await?);
        }
        tokio::task::yield_now().await;
        Ok(())
    }
}

/// Asked for once: the system reads files to tell.
fn processors() -> usize {
    static PROCESSORS: OnceLock<usize> = OnceLock::new();
    *PROCESSORS.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from))
}

/// Does `work` on `0..count` in shares of at least `worth`, one on each processor, and gives what
/// came of them in order. A share that is not worth a thread is done here.
pub fn side_by_side<T: Send>(
    count: usize,
    worth: usize,
    work: impl Fn(Range<usize>) -> T + Sync,
) -> Vec<T> {
    let share = count.div_ceil(processors()).max(worth).max(1);
    if share >= count {
        return vec![work(0..count)];
    }
    let work = &work;
    std::thread::scope(|scope| {
        let shares = (share..count).step_by(share).map(|from| from..count.min(from + share));
        let others: Vec<_> = shares.map(|range| scope.spawn(move || work(range))).collect();
        let mut done = vec![work(0..share)];
        // What ended a thread ends this one too.
        let join = |other: std::thread::ScopedJoinHandle<'_, T>| {
            other.join().unwrap_or_else(|cause| std::panic::resume_unwind(cause))
        };
        done.extend(others.into_iter().map(join));
        done
    })
}

#[cfg(test)]
mod tests {
    use super::side_by_side;

    #[test]
    fn every_one_is_done_once_and_in_order() {
        for count in [0, 1, 2, 7, 100, 1_001] {
            for worth in [0, 1, 50, 5_000] {
                let shares = side_by_side(count, worth, |range| range.collect::<Vec<_>>());
                let all: Vec<usize> = shares.into_iter().flatten().collect();
                assert_eq!(all, (0..count).collect::<Vec<_>>(), "{count} in shares of {worth}");
            }
        }
    }
}
