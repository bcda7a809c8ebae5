//! The engine as a whole: rules in tables, then random events against simpler models.

mod accusations;
mod adversaries;
mod bursts;
mod convergence;
mod effects;
mod failover;
mod plans;
mod random;
mod replay;
mod returning;
mod rules;
mod stripes;
mod uploads;
mod world;
