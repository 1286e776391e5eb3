//! Slowing guesses down without locking anybody out.
//!
//! All unknown sources of one account share one refilling bucket; a browser that once signed in has
//! its own, so that strangers who guess at an account never keep its owner out. Nothing is ever
//! locked: a bucket refills by itself.

use model::Time;
use std::collections::HashMap;

/// Tries that may come at once.
pub const BURST: f64 = 10.0;
/// Seconds until an unknown source has one more try at an account.
pub const UNKNOWN_REFILL_S: f64 = 60.0;
/// Seconds until a known browser has one more try.
pub const KNOWN_REFILL_S: f64 = 10.0;
/// Most buckets that are kept; the fullest go first, those that are nearly empty last.
pub const MAX_BUCKETS: usize = 100_000;

/// Tries that a bucket which is kept has less than, one after the other.
const LEVELS: [f64; 9] = [9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0];

/// Come back in so many seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    pub seconds: u64,
}

fn refill_s(browser: Option<u64>) -> f64 {
    if browser.is_some() { KNOWN_REFILL_S } else { UNKNOWN_REFILL_S }
}

/// What a bucket holds now.
fn tries_at((tries, since): &(f64, Time), refill_s: f64, now: Time) -> f64 {
    let elapsed_s = (now.0 - since.0).max(0) as f64 / 1e6;
    (tries + elapsed_s / refill_s).min(BURST)
}

/// The buckets.
#[derive(Clone, Debug, Default)]
pub struct Throttle {
    buckets: HashMap<(String, Option<u64>), (f64, Time)>,
}

impl Throttle {
    /// Takes one try of an account from its bucket: the shared one, or that of a known browser.
    ///
    /// # Errors
    /// How long to wait when the bucket is empty; nothing is taken then.
    pub fn take(&mut self, login: &str, browser: Option<u64>, now: Time) -> Result<(), Wait> {
        self.make_room(now);
        let refill_s = refill_s(browser);
        let bucket = self.buckets.entry((login.to_owned(), browser)).or_insert((BURST, now));
        let tries = tries_at(bucket, refill_s, now);
        *bucket = (tries, now);
        if tries < 1.0 {
            let seconds = ((1.0 - tries) * refill_s).ceil() as u64;
            return Err(Wait { seconds: seconds.max(1) });
        }
        bucket.0 -= 1.0;
        Ok(())
    }

    /// Forgets buckets when there are too many, those first that are full or nearly: so many that it is
    /// a while until all are looked at again.
    fn make_room(&mut self, now: Time) {
        if self.buckets.len() < MAX_BUCKETS {
            return;
        }
        for level in LEVELS {
            self.buckets
                .retain(|(_, browser), bucket| tries_at(bucket, refill_s(*browser), now) < level);
            if self.buckets.len() <= MAX_BUCKETS / 2 {
                return;
            }
        }
        // Those that are empty, only when there is nothing else to forget.
        if self.buckets.len() >= MAX_BUCKETS {
            self.buckets.clear();
        }
    }

    /// Gives a try back after it was right.
    pub fn give_back(&mut self, login: &str, browser: Option<u64>) {
        self.buckets.remove(&(login.to_owned(), browser));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_that_are_nearly_full_are_forgotten_first() {
        let mut throttle = Throttle::default();
        let at = Time::from_seconds(0);
        (0..9).for_each(|_| throttle.take("guessed", None, at).unwrap());
        for one in 1..MAX_BUCKETS {
            throttle.take(&format!("official {one}"), None, at).unwrap();
        }
        assert_eq!(throttle.buckets.len(), MAX_BUCKETS);
        throttle.take("one more", None, at).unwrap();
        assert_eq!(throttle.buckets.len(), 2, "the one that is guessed stays");
        throttle.take("guessed", None, at).unwrap();
        assert!(throttle.take("guessed", None, at).is_err());
    }

    #[test]
    fn the_fullest_half_goes_and_the_empty_only_when_all_are() {
        let at = Time::from_seconds(0);
        let kept = |groups: [(usize, f64); 2]| {
            let mut throttle = Throttle::default();
            for (count, tries) in groups {
                let bucket = |n| ((format!("{tries} {n}"), None), (tries, at));
                throttle.buckets.extend((0..count).map(bucket));
            }
            throttle.make_room(at);
            groups.map(|(_, tries)| throttle.buckets.values().filter(|b| b.0 == tries).count())
        };
        const HALF: usize = MAX_BUCKETS / 2;
        assert_eq!(kept([(HALF - 1, 10.0), (HALF, 8.0)]), [HALF - 1, HALF], "there is room");
        assert_eq!(kept([(HALF, 9.0), (HALF, 8.0)]), [0, HALF]);
        assert_eq!(kept([(HALF - 1, 9.0), (HALF + 1, 8.0)]), [0, 0]);
        assert_eq!(kept([(MAX_BUCKETS - 1, 1.0), (1, 0.0)]), [0, 1]);
        assert_eq!(kept([(1, 5.0), (MAX_BUCKETS - 1, 0.5)]), [0, MAX_BUCKETS - 1]);
        assert_eq!(kept([(1, 0.5), (MAX_BUCKETS - 1, 0.0)]), [0, 0], "all are empty");
    }

    #[test]
    fn there_are_never_more_buckets_than_there_may_be() {
        let mut throttle = Throttle::default();
        let at = Time::from_seconds(0);
        let (tried_twice, tried_often) = (MAX_BUCKETS * 3 / 4, MAX_BUCKETS / 4);
        for one in 0..tried_twice {
            (0..2).for_each(|_| throttle.take(&format!("official {one}"), None, at).unwrap());
        }
        for one in 0..tried_often {
            (0..9).for_each(|_| throttle.take(&format!("guessed {one}"), None, at).unwrap());
        }
        assert_eq!(
            throttle.buckets.len(),
            tried_often,
            "the fullest went when there were too many"
        );
        // Two minutes later those of before are two tries fuller.
        let later = Time::from_seconds(120);
        for one in 0..MAX_BUCKETS - tried_often {
            (0..10).for_each(|_| throttle.take(&format!("other {one}"), None, later).unwrap());
            assert!(throttle.buckets.len() <= MAX_BUCKETS);
        }
        throttle.take("one more", None, later).unwrap();
        assert!(throttle.buckets.len() <= MAX_BUCKETS);
        assert!(throttle.take("other 0", None, later).is_err(), "the emptiest stays");
    }

    #[test]
    fn guessing_is_slow_and_locks_nobody_out() {
        let mut throttle = Throttle::default();
        let at = Time::from_seconds;
        let guesses = (0..1000).filter(|_| throttle.take("siti", None, at(0)).is_ok()).count();
        assert_eq!(guesses, 10);
        assert_eq!(throttle.take("siti", None, at(0)), Err(Wait { seconds: 60 }));
        assert_eq!(throttle.take("siti", Some(4), at(0)), Ok(()), "her own browser");
        assert_eq!(throttle.take("budi", None, at(0)), Ok(()), "somebody else");
        assert_eq!(throttle.take("siti", None, at(45)), Err(Wait { seconds: 15 }));
        assert_eq!(throttle.take("siti", None, at(61)), Ok(()), "refilled");
        assert!(throttle.take("siti", None, at(61)).is_err());
        let in_an_hour =
            (0..1000).filter(|_| throttle.take("siti", None, at(3661)).is_ok()).count();
        assert_eq!(in_an_hour, 10, "never more than a burst");
    }

    #[test]
    fn what_is_right_is_given_back_and_time_counts_from_the_last_try() {
        let mut throttle = Throttle::default();
        let at = Time::from_seconds;
        let tries = |throttle: &mut Throttle, second| {
            (0..100).filter(|_| throttle.take("siti", Some(4), at(second)).is_ok()).count()
        };
        assert_eq!(tries(&mut throttle, 5_000), 10);
        assert_eq!(tries(&mut throttle, 5_001), 0);
        throttle.give_back("siti", Some(4));
        assert_eq!(tries(&mut throttle, 5_001), 10);
    }
}
