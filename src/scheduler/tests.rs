//! Properties of the scheduler, alone and between shards.
