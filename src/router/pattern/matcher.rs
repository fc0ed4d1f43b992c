//! Runs a pattern over elements: backtracking with a memory of failed places, so that no input takes longer than
//! pattern size times input size.

use super::GROUPS_MAX;
use super::parse::{Kind, Node, Pattern};
use super::token::Tokens;

/// Where the groups of a match lie: element positions, start and end; unset: the group took no part.
pub type Groups = [Option<(usize, usize)>; GROUPS_MAX];

/// What a pattern walks over.
trait Elements {
    fn count(&self) -> usize;
    /// Whether `.` takes the element.
    fn any(&self, at: usize) -> bool;
    /// The byte that a set looks at.
    fn first_byte(&self, at: usize) -> Option<u8>;
    /// The place behind the literal, when it stands at `at`.
    fn literal(&self, at: usize, literal: &[u8]) -> Option<usize>;
    fn is_domain_literal(&self, at: usize) -> bool;
    /// The place behind a repetition of what stands between two places.
    fn same(&self, at: usize, start: usize, end: usize) -> Option<usize>;
}

struct Bytes<'a>(&'a [u8]);

impl Elements for Bytes<'_> {
    fn count(&self) -> usize {
        self.0.len()
    }

    fn any(&self, at: usize) -> bool {
        self.0[at] != b'\n'
    }

    fn first_byte(&self, at: usize) -> Option<u8> {
        self.0.get(at).copied()
    }

    fn literal(&self, at: usize, literal: &[u8]) -> Option<usize> {
        self.0[at..]
            .starts_with(literal)
            .then(|| at + literal.len())
    }

    fn is_domain_literal(&self, _at: usize) -> bool {
        false
    }

    fn same(&self, at: usize, start: usize, end: usize) -> Option<usize> {
        self.literal(at, &self.0[start..end])
    }
}

impl Elements for Tokens<'_> {
    fn count(&self) -> usize {
        self.len()
    }

    fn any(&self, _at: usize) -> bool {
        true
    }

    fn first_byte(&self, at: usize) -> Option<u8> {
        self.match_text(at).first().copied()
    }

    /// Token after token spells the literal; its end is the end of a token. Upper and lower case are the same.
    fn literal(&self, mut at: usize, mut literal: &[u8]) -> Option<usize> {
        while !literal.is_empty() {
            if at >= self.len() {
                return None;
            }
            let token = self.match_text(at);
            let spelled = !token.is_empty()
                && literal.len() >= token.len()
                && literal[..token.len()].eq_ignore_ascii_case(token);
            if !spelled {
                return None;
            }
            literal = &literal[token.len()..];
            at += 1;
        }
        Some(at)
    }

    fn is_domain_literal(&self, at: usize) -> bool {
        at < self.len() && Tokens::is_domain_literal(self, at)
    }

    fn same(&self, _at: usize, _start: usize, _end: usize) -> Option<usize> {
        None
    }
}

/// The memory of a matcher, kept for the next match.
#[derive(Default)]
pub struct Matcher {
    jobs: Vec<Job>,
    visited: Vec<u64>,
    /// Steps of the last match.
    steps: usize,
}

/// What is still to be tried, last first.
enum Job {
    /// Go on with this node at this place; the flag says that a domain literal was just passed.
    Try { node: u32, at: u32, literal: bool },
    /// Go on with this node at these places, the last one first.
    Back { node: u32, from: u32, to: u32 },
    /// Forget what a group was set to behind this.
    Restore { slot: u8, old: u32 },
}

const UNSET: u32 = u32::MAX;

/// A pattern with `\1` in it cannot remember failures; it stops after this many steps and does not match.
const STEPS_MAX: usize = 1_000_000;

/// Bytes that are searched for one in the time of a step.
const SEARCHED_BYTES: usize = 16;

impl Matcher {
    /// Steps that the last match took.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// Matches the whole of `input`.
    pub fn matches_bytes(&mut self, pattern: &Pattern, input: &[u8]) -> Option<Groups> {
        debug_assert_eq!(pattern.kind, Kind::Bytes);
        if let Some(byte) = pattern.needs
            && memchr::memchr(byte, input).is_none()
        {
            self.steps = 1 + input.len() / SEARCHED_BYTES;
            return None;
        }
        self.run(pattern, &Bytes(input))
    }

    /// Matches all tokens. A group that begins directly behind `\[` takes the brackets off the domain literal it
    /// begins with, for this and for later matches over the same tokens.
    pub fn matches_tokens(&mut self, pattern: &Pattern, tokens: &mut Tokens<'_>) -> Option<Groups> {
        debug_assert_eq!(pattern.kind, Kind::Tokens);
        let groups = self.run(pattern, tokens)?;
        for (group, bare) in groups.iter().zip(pattern.bare_groups) {
            if let (Some((start, end)), true) = (group, bare)
                && start < end
            {
                tokens.take_brackets(*start);
            }
        }
        Some(groups)
    }

    fn run<E: Elements>(&mut self, pattern: &Pattern, input: &E) -> Option<Groups> {
        let count = input.count();
        let places = (count + 1) * 2;
        let memory = !pattern
            .nodes
            .iter()
            .any(|node| matches!(node, Node::Same(_)));
        self.visited.clear();
        if memory {
            self.visited
                .resize((pattern.nodes.len() * places).div_ceil(64), 0);
        }
        self.jobs.clear();
        let mut run = Run {
            nodes: &pattern.nodes,
            input,
            count,
            places,
            memory,
            slots: [UNSET; GROUPS_MAX * 2],
        };
        self.steps = 0;
        run.go(&mut self.jobs, &mut self.visited, &mut self.steps)
    }
}

struct Run<'a, E> {
    nodes: &'a [Node],
    input: &'a E,
    count: usize,
    places: usize,
    memory: bool,
    slots: [u32; GROUPS_MAX * 2],
}

/// A [`Node::Repeat`] and where it stands.
#[derive(Clone, Copy)]
struct Loop {
    node: usize,
    of: u32,
    then: u32,
    sure: bool,
}

/// What a node says.
enum Next {
    Go {
        node: usize,
        at: usize,
        literal: bool,
    },
    Fail,
    Matched,
}

impl<E: Elements> Run<'_, E> {
    fn go(
        &mut self,
        jobs: &mut Vec<Job>,
        visited: &mut [u64],
        steps: &mut usize,
    ) -> Option<Groups> {
        jobs.push(Job::Try {
            node: 0,
            at: 0,
            literal: false,
        });
        while let Some(job) = jobs.pop() {
            let (mut node, mut at, mut literal) = match job {
                Job::Restore { slot, old } => {
                    self.slots[usize::from(slot)] = old;
                    continue;
                }
                Job::Try { node, at, literal } => (node as usize, at as usize, literal),
                Job::Back { node, from, to } => {
                    if from < to {
                        let to = to - 1;
                        jobs.push(Job::Back { node, from, to });
                    }
                    (node as usize, to as usize, false)
                }
            };
            loop {
                *steps += 1;
                let seen = self.memory && self.seen(visited, node, at, literal);
                if seen || (!self.memory && *steps > STEPS_MAX) {
                    break;
                }
                let next = match self.nodes[node] {
                    Node::Repeat { of, then, sure } => self.repeat(
                        jobs,
                        visited,
                        steps,
                        Loop {
                            node,
                            of,
                            then,
                            sure,
                        },
                        at,
                    ),
                    _ => self.step(jobs, node, at, literal),
                };
                match next {
                    Next::Go {
                        node: to,
                        at: place,
                        literal: passed,
                    } => (node, at, literal) = (to, place, passed),
                    Next::Fail => break,
                    Next::Matched => return Some(self.groups()),
                }
            }
        }
        None
    }

    /// Takes what it can. Each place is marked, and where another way has been is nothing left to find.
    fn repeat(
        &self,
        jobs: &mut Vec<Job>,
        visited: &mut [u64],
        steps: &mut usize,
        round: Loop,
        start: usize,
    ) -> Next {
        let mut at = start;
        let mut been = false;
        while at < self.count && !been && self.takes(round.of as usize, at) {
            at += 1;
            been = self.seen(visited, round.node, at, false);
        }
        *steps += at - start;
        if start < at && !round.sure {
            jobs.push(Job::Back {
                node: round.then,
                from: start as u32,
                to: at as u32 - 1,
            });
        }
        match been {
            true => Next::Fail,
            false => Next::Go {
                node: round.then as usize,
                at,
                literal: false,
            },
        }
    }

    fn takes(&self, node: usize, at: usize) -> bool {
        match &self.nodes[node] {
            Node::Set(set) => match self.input.first_byte(at) {
                Some(byte) => set[usize::from(byte)],
                None => false,
            },
            _ => self.input.any(at),
        }
    }

    fn seen(&self, visited: &mut [u64], node: usize, at: usize, literal: bool) -> bool {
        let bit = node * self.places + at * 2 + usize::from(literal);
        let (word, mask) = (bit / 64, 1 << (bit % 64));
        let seen = visited[word] & mask != 0;
        visited[word] |= mask;
        seen
    }

    fn step(&mut self, jobs: &mut Vec<Job>, node: usize, at: usize, literal: bool) -> Next {
        let go = |node, at, literal| Next::Go { node, at, literal };
        match &self.nodes[node] {
            Node::Any if at < self.count && self.input.any(at) => {
                self.pass(node, at, at + 1, literal)
            }
            Node::Set(set) if at < self.count => match self.input.first_byte(at) {
                Some(byte) if set[usize::from(byte)] => self.pass(node, at, at + 1, literal),
                _ => Next::Fail,
            },
            Node::Literal(text) => match self.input.literal(at, text) {
                Some(next) => self.pass(node, at, next, literal),
                None => Next::Fail,
            },
            Node::Open if self.input.is_domain_literal(at) => go(node + 1, at, true),
            Node::Close if literal => go(node + 1, at, literal),
            Node::Open => self.bracket(b"[", node, at),
            Node::Close => self.bracket(b"]", node, at),
            Node::Split(first, second) => {
                jobs.push(Job::Try {
                    node: *second,
                    at: at as u32,
                    literal,
                });
                go(*first as usize, at, literal)
            }
            Node::Jump(to) => go(*to as usize, at, literal),
            Node::Save(slot) => {
                let old = std::mem::replace(&mut self.slots[usize::from(*slot)], at as u32);
                jobs.push(Job::Restore { slot: *slot, old });
                go(node + 1, at, literal)
            }
            Node::Same(group) => self.same(*group, node, at),
            Node::Start if at == 0 => go(node + 1, at, literal),
            Node::End if at == self.count => go(node + 1, at, literal),
            Node::Accept if at == self.count => Next::Matched,
            Node::Any | Node::Set(_) | Node::Start | Node::End | Node::Accept => Next::Fail,
            Node::Repeat { .. } => unreachable!("a loop is no single step"),
        }
    }

    /// An element was taken. Inside a repetition the memory of a domain literal stays as it was: see
    /// [`Node::Close`].
    fn pass(&self, node: usize, at: usize, next: usize, literal: bool) -> Next {
        let repeated = match self.nodes.get(node + 1) {
            Some(Node::Jump(back)) => (*back as usize) < node,
            Some(Node::Split(back, _)) => *back as usize == node,
            _ => false,
        };
        Next::Go {
            node: node + 1,
            at: next,
            literal: if repeated {
                literal
            } else {
                next > at && self.input.is_domain_literal(next - 1)
            },
        }
    }

    fn bracket(&self, bracket: &[u8], node: usize, at: usize) -> Next {
        match self.input.literal(at, bracket) {
            Some(next) => self.pass(node, at, next, false),
            None => Next::Fail,
        }
    }

    fn same(&self, group: u8, node: usize, at: usize) -> Next {
        let slot = usize::from(group) * 2;
        let (start, end) = (self.slots[slot], self.slots[slot + 1]);
        if start == UNSET || end == UNSET || end < start {
            return Next::Fail;
        }
        match self.input.same(at, start as usize, end as usize) {
            Some(next) => self.pass(node, at, next, false),
            None => Next::Fail,
        }
    }

    fn groups(&self) -> Groups {
        let mut groups = [None; GROUPS_MAX];
        groups[0] = Some((0, self.count));
        for (group, pair) in groups.iter_mut().zip(self.slots.chunks(2)).skip(1) {
            if pair[0] != UNSET && pair[1] != UNSET && pair[0] <= pair[1] {
                *group = Some((pair[0] as usize, pair[1] as usize));
            }
        }
        groups
    }
}

#[cfg(test)]
mod tests;
