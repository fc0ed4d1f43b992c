//! One integration binary: the rules of the tree, the dialogues, and one file a story.

mod harness;
mod tidy;

mod e2e;
