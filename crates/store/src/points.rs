//! What histories are made of.

use model::{Instance, Time};
use serde::{Deserialize, Serialize};

/// A numeric point: microseconds and value.
pub type RawPoint = (i64, f64);

/// A point of a series of whole instances.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RichPoint {
    pub series: u32,
    pub at: i64,
    pub instance: Instance,
}

/// A point of either kind.
#[derive(Clone, Debug, PartialEq)]
pub enum Point {
    Number(Time, f64),
    Rich(Time, Box<Instance>),
}

impl Point {
    /// When it was.
    pub fn at(&self) -> Time {
        match self {
            Point::Number(at, _) | Point::Rich(at, _) => *at,
        }
    }
}

/// Numbers of one series: times in order, and the value at each.
#[derive(Default)]
pub struct Run {
    pub at: Vec<i64>,
    pub value: Vec<f64>,
}

impl FromIterator<RawPoint> for Run {
    fn from_iter<T: IntoIterator<Item = RawPoint>>(points: T) -> Run {
        let (at, value) = points.into_iter().unzip();
        Run { at, value }
    }
}
