//! The one door: decide, do and record in one commit, tell.
//!
//! Everything that reaches data calls one of five verbs: [`Hub::open`], [`Hub::read`] (and its
//! kin), [`Hub::write`], [`Hub::watch`] and [`Hub::act`]. The hub speaks neither HTTP nor MQTT, and
//! knows nothing of floods or budgets.

mod act;
mod apply;
mod bootstrap;
mod chart;
mod committer;
mod contexts;
mod error;
mod govern;
mod hashes;
mod health;
mod history;
mod hub;
mod inbox;
mod job;
mod join;
mod kept;
mod kinds;
mod lenses;
mod limits;
mod open;
mod principals;
mod processors;
mod read;
mod readings;
mod receipt;
mod recorder;
mod ring;
mod search;
mod seen;
mod shredding;
mod size;
mod state;
mod subscription;
#[cfg(test)]
mod tests;
mod upkeep;
mod verify;
mod watch;
mod why;
mod write;

pub use act::{Act, ActKind, ActReport, Effects, Rehearsal};
pub use bootstrap::NewPrincipal;
pub use chart::{Chart, ChartQuery, MAX_COLUMNS};
pub use error::{HubError, Why};
pub use govern::Known;
pub use health::{AGES_S, Checked, Condition, Health};
pub use history::{HistoryAnswer, HistoryQuery, SeriesAnswer};
pub use hub::{Hub, HubOptions};
pub use inbox::SEALED;
pub use join::Join;
pub use kept::Version;
pub use limits::{FIXED as FIXED_LIMITS, Limit, Limits};
pub use open::{Block, SIGN_IN_S, Source};
pub use read::Answer;
pub use receipt::ReceiptRef;
pub use search::Query;
pub use search::TypeSeen;
pub use seen::Seen;
pub use state::{Counter, Counters, Durations};
pub use subscription::Subscription;
pub use upkeep::Tidying;
pub use verify::{Report, verify, verify_since};
pub use watch::{ChangeEvent, Changes, Watch};
pub use why::{Answered, Possible};
pub use write::{ItemResult, WriteReport};

pub use guard;
pub use store;

/// The tenant of a hub with one city.
pub const TENANT: u32 = 1;
