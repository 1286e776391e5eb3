//! The NGSI-LD language (ETSI GS CIM 009 V1.8.1): parse, check, expand and compact, queries and
//! representations. Nothing here stores or sends anything, or asks who may.

mod context;
mod filter;
mod geo;
mod invalid;
mod members;
mod parse;
mod q;
mod readings;
mod render;
mod sieve;
mod temporal;

pub use context::{CORE_CONTEXT, Context, ContextError, MAX_CONTEXTS, is_core_context};
pub use filter::{
    Filter, MAX_IDS, MAX_ORDER_KEYS, MAX_SELECTORS, OrderKey, ScopeSelection, TypeSelection,
};
pub use geo::{GeoQuery, Georel, MAX_REFERENCE, place_of};
pub use invalid::Invalid;
pub use members::{MAX_JOIN_LEVELS, Members};
pub use parse::{
    Form, MAX_ATTRIBUTES, MAX_INSTANCES, MAX_JSON_VALUES, MAX_TYPES, attribute_name,
    check_all_texts, check_texts, check_uri, parse_attribute, parse_entity, parse_fragment,
    parse_json,
};
pub use q::{MAX_PATTERNS, Q, parse_q};
pub use readings::{Measured, Reading, parse_reading_of, parse_readings};
pub use render::{
    Linked, Notes, Options, Representation, render_entity, render_feature, render_instance,
    render_value, write_text,
};
pub use sieve::{Columns, Look, Sieve};
pub use temporal::{Aggregate, Aggregation, TemporalQuery, parse_duration};
