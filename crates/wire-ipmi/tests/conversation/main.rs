//! Client and BMC against each other in virtual time.

mod errors;
mod goals;
mod hostile;
mod network;
mod sim;
