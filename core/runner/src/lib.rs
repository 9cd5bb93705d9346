//! The runner: experiment files to plans, plans to jobs, jobs to results. Only this crate loads libraries; only it and the
//! benchmark print and parse a command line.

mod any_path;
pub mod cli;
pub mod cluster;
pub mod collect;
pub mod commands;
pub mod describe;
pub mod experiment;
pub mod gpu;
pub mod home;
pub mod id;
pub mod identity;
pub mod import;
pub mod job;
pub mod jobs;
pub mod machine;
pub mod needs;
pub mod own_images;
mod pictures;
pub mod place;
pub mod plan;
pub mod plugins;
pub mod provenance;
pub mod ranks;
pub mod repeat;
pub mod settings;
mod setup;
mod shared;
pub mod sheets;
pub mod stages;
pub mod store;
pub mod sweep;
pub mod ui;
pub mod weights;
