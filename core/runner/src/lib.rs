//! The runner: experiment files to plans, plans to jobs, jobs to results. Only this crate prints, parses the command
//! line, or loads libraries.

pub mod cli;
pub mod commands;
pub mod job;
pub mod plan;
pub mod plugins;
pub mod settings;
pub mod spec;
pub mod ui;
