//! Long looks are shared among the processors, and with everybody else.

use std::ops::Range;
use std::sync::OnceLock;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Entities looked at in one turn: a millisecond or so.
pub const TURN: usize = if cfg!(test) { 3 } else { 512 };
/// Looks of more than a turn that are under way at once.
const LONG_LOOKS: usize = 2;

/// Who looks at many does so in turns, between which commits come, and what others ask for. Only few do
/// so at once; the others wait, so that nobody takes more than a part of the hub by asking often.
pub struct LongLooks(Semaphore);

impl Default for LongLooks {
    fn default() -> LongLooks {
        LongLooks(Semaphore::new(LONG_LOOKS))
    }
}

impl LongLooks {
    pub fn turns(&self) -> Turns<'_> {
        Turns { looks: self, permit: None }
    }
}

/// The turns of one look.
pub struct Turns<'a> {
    looks: &'a LongLooks,
    permit: Option<SemaphorePermit<'a>>,
}

impl Turns<'_> {
    /// Lets others come before the next turn.
    pub async fn next(&mut self) {
        if self.permit.is_none() {
            self.permit = self.looks.0.acquire().await.ok();
        }
        tokio::task::yield_now().await;
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
