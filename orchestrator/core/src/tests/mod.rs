//! The engine as a whole: rules in tables, then random events against simpler models.

mod convergence;
mod random;
mod rules;
mod world;
