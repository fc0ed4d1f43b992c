//! Every dialogue of the corpus against the running daemon, over TCP.
