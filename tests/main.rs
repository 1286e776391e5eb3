//! End to end, on the real binary: every test starts its own city in its own directory, on ports
//! the system gives, and talks to it through its doors only.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test ends where it fails")]

mod clients;
mod crash;
mod desk;
mod faults;
mod floors;
mod fuzz;
mod govern;
mod harness;
mod hostile;
mod import;
mod inputs;
mod lens;
mod limits;
mod log;
mod mqtt;
mod oracle;
mod routes;
mod sealed;
mod skeleton;
mod subscriptions;
