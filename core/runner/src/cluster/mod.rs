//! Work on a cluster's queue (Slurm): the same experiment, the same store.
//!
//! ```text
//! rqlab sweep --launcher slurm --> RUNS/plans/ID/plan.json --sbatch--> array of tasks: rqlab crew, a member each
//!        |                                                               |
//!      Watch <------------------- RUNS/stages, RUNS/leases <------- Scheduler and Local, as in any sweep
//! ```
//!
//! The plan is written durably ([`Submission`]). An array's tasks are *members of a crew* ([`crew`]): each takes stages that can
//! be done, as every sweep of a shared folder does, until nothing is left that it could do or its time is about to end. So short
//! stages do not wait in the queue one by one, and what depends on what is the store's business, not Slurm's. Files are the
//! truth; Slurm is asked for nothing but who is alive ([`Slurm`]). The process that submitted only watches ([`watch`]): it may
//! die, and another one takes its place.

pub mod crew;
mod settings;
mod slurm;
mod submission;
pub mod watch;

pub use settings::{LauncherKind, Settings};
pub use slurm::Slurm;
pub use submission::{PLAN, PlanFile, Submission};
