//! Transport agents: processes of their own, because they need rights that the daemon has given up.
//! The daemon speaks LMTP to them over a socket of the postoffice.

pub mod mailbox;
