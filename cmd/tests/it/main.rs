//! The real binary, on loopback, killed and restarted; and the rules of the house.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod agent;
mod api;
mod bounds;
mod cli;
mod crash;
mod differential;
mod discovery;
mod foreign;
mod grafana;
mod house;
mod import;
mod kubernetes;
mod log_delete;
mod log_metrics;
mod logs;
mod monitors;
mod node_logs;
mod openapi;
mod oracle;
mod own;
mod parquet;
mod peers;
mod probes;
mod real;
mod real_logs;
mod remote_write;
mod scrape;
mod shippers;
mod support;
mod tell;
