//! Region and rack as processes of their own, several regions on one database, and what happens when one
//! of them is killed.

mod apart;
mod kill_steps;
mod processes;
#[cfg(feature = "peers")]
mod regions;
#[cfg(feature = "peers")]
mod slow_mirror;
