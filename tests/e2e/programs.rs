//! Programs of other people that send by us.
