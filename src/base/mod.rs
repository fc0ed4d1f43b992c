//! Small helpers without knowledge of mail. Every container here has a capacity.

pub mod clock;
pub mod credit;
pub mod slab;
pub mod timers;
