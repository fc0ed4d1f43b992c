//! Rules about the order of requests that no image shows, or shows too rarely: one commit in flight, no
//! block written twice in a generation, nothing to a segment to which a write has failed.

use std::collections::{BTreeMap, BTreeSet};

use crate::layout::{HeaderBlock, SegmentHeader};
use crate::op::{Completion, FileId, Op, Request, Token};
use crate::sim::OpKind;

/// What has been asked of the segments.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// The commit in flight: token, segment and bytes.
    flying: Option<(Token, u32, u64)>,
    /// Up to where each segment has been written in its generation.
    ends: BTreeMap<u32, u64>,
    failed: BTreeSet<u32>,
    /// Where the last commit went, for whoever wants to guess where the next one goes.
    pub(super) segment: u32,
    pub(super) generations: BTreeMap<u32, u64>,
    /// The engine has said that it takes no mail.
    pub(super) refusing: bool,
    /// A rule that was broken between two requests.
    pub(super) broken: Option<&'static str>,
}

impl Watch {
    pub(super) fn request(&mut self, request: &Request) -> Result<(), String> {
        if let Some(broken) = self.broken {
            return Err(broken.to_owned());
        }
        let Op::Write {
            file: FileId::Segment(segment),
            offset,
            buf,
            ..
        } = &request.op
        else {
            return Ok(());
        };
        match OpKind::of(&request.op) {
            Some(OpKind::HeaderWrite) => {
                self.ends.remove(segment);
                self.failed.remove(segment);
                if let HeaderBlock::Valid(header) = SegmentHeader::decode(buf) {
                    self.generations.insert(*segment, header.generation);
                }
            }
            Some(OpKind::CommitWrite) => {
                self.segment = *segment;
                let end = self.ends.insert(*segment, offset + buf.len() as u64);
                if end.is_some_and(|end| end > *offset) {
                    return Err(format!(
                        "segment {segment} offset {offset} is written twice"
                    ));
                }
                if self.failed.contains(segment) {
                    return Err(format!("a commit goes to {segment}, which has failed"));
                }
                let flying = (request.token, *segment, buf.len() as u64);
                if let Some((other, ..)) = self.flying.replace(flying) {
                    return Err(format!("two commits in flight, {other:?} is the other"));
                }
            }
            _ => {}
        }
        Ok(())
    }

    pub(super) fn completion(&mut self, completion: &Completion) {
        if let Some((_, segment, bytes)) = self
            .flying
            .take_if(|(token, ..)| *token == completion.token)
            && completion.result != Ok(bytes)
        {
            self.failed.insert(segment);
        }
    }
}
