//! The NGSI-LD door (ETSI GS CIM 009 clause 6).

pub mod answer;
pub mod batch;
pub mod contexts;
pub mod entities;
pub mod subscriptions;
pub mod temporal;
pub mod types;

pub use answer::Shape;
