//! Maps whose keys no outsider chooses.

use std::collections::HashMap;

/// A map with a fast hash; its keys are made here, so nobody can make them collide.
pub type FastMap<K, V> = HashMap<K, V, foldhash::fast::FixedState>;
