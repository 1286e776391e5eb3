//! Where it lies: atomic, fsynced, encrypted commits of entity changes, observations, documents and
//! records, and the queries over them. It does not decide who may, and no type of the engine below
//! leaves this crate.
//!
//! Limits: one process opens a store at a time; one thread commits; many read.

mod ahead;
mod batch;
mod codec;
mod engine;
mod entities;
mod error;
mod files;
mod held;
mod history;
mod log;
mod packed;
mod points;
mod rewrap;
mod seal;
mod segment;
mod states;
mod store;
mod table;
#[cfg(test)]
mod tests;
mod torn;
mod verify;

pub use batch::{Batch, Document, EntityWrite, Evidence, Row, RowValue, Rows, Step, Under};
pub use error::StoreError;
pub use files::{Files, Position};
pub use held::{Derived, Held, Series};
pub use log::LogReader;
pub use packed::Packed;
pub use points::{Point, RawPoint, RichPoint};
pub use rewrap::{Rewrap, Rewrapped};
pub use seal::{SealPlan, Sealed};
pub use states::{GOVERNING, States};
pub use store::{Now, Options, Store, Usage};
pub use table::{Current, Field, Glance, Table};
pub use verify::{DiskManifest, Finding};

/// Version of the layout on disk; written into `DIR/format`.
pub const FORMAT: u32 = 3;
/// The oldest version that is still opened; its directories become the current one's.
pub const OLDEST_FORMAT: u32 = 1;
