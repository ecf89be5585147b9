//! The real binary, on loopback, killed and restarted; and the rules of the house.

mod cli;
mod crash;
mod house;
mod peers;
mod support;
