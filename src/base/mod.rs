//! Small helpers without knowledge of mail. Every container here has a capacity.

pub mod clock;
pub mod credit;
pub mod fast_map;
pub mod records;
pub mod sequence;
pub mod slab;
pub mod timers;
