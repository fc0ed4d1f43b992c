//! From the text of a label to the nodes that the matcher walks.

use std::fmt;

use super::{GROUPS_MAX, prepare};

/// What a pattern is matched against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Bytes: `ssift`. Upper and lower case differ.
    Bytes,
    /// RFC 822 tokens: `tsift`. Case does not matter, and a literal ends where a token ends.
    Tokens,
}

/// A step of a pattern. Steps follow each other; only [`Node::Split`], [`Node::Repeat`] and [`Node::Jump`] go
/// elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Node {
    /// Any element.
    Any,
    /// An element that begins with a byte of the set.
    Set(Box<[bool; 256]>),
    /// These bytes: that many bytes, or the tokens they spell.
    Literal(Box<[u8]>),
    /// `\[` against tokens: stands before a domain literal without taking it.
    Open,
    /// `\]` against tokens: stands behind a domain literal.
    Close,
    /// Try the first way, then the second.
    Split(u32, u32),
    /// Over bytes: takes as many as the node `of` does and goes on with `then`; with fewer where that fails.
    Repeat {
        /// [`Node::Any`] or [`Node::Set`].
        of: u32,
        /// What follows.
        then: u32,
        /// With fewer it always fails.
        sure: bool,
    },
    /// Go on there.
    Jump(u32),
    /// What a group matched, once more.
    Same(u8),
    /// Remember this place as group start (`2n`) or end (`2n + 1`).
    Save(u8),
    /// The start of the input.
    Start,
    /// The end of the input.
    End,
    /// Matched, when at the end.
    Accept,
}

/// A compiled label.
#[derive(Clone, Debug)]
pub struct Pattern {
    pub(super) kind: Kind,
    pub(super) nodes: Vec<Node>,
    /// Groups that begin directly behind `\[`: a domain literal in there loses its brackets.
    pub(super) bare_groups: [bool; GROUPS_MAX],
    /// A byte that all that it matches contains; none: not known, or there are tokens.
    pub(super) needs: Option<u8>,
}

/// Why a label is no pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadPattern {
    /// `( )` do not pair.
    Parentheses,
    /// `[` without `]`.
    Bracket,
    /// `* + ?` behind nothing.
    Repetition,
    /// More groups than `\1` to `\9` can name.
    Groups,
    /// A `\` at the end.
    Backslash,
    /// `[z-a]`.
    Range,
    /// Longer than [`PATTERN_BYTES_MAX`].
    TooLong,
}

/// Longest label.
pub(super) const PATTERN_BYTES_MAX: usize = 8192;

impl fmt::Display for BadPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Parentheses => "parentheses do not pair",
            Self::Bracket => "'[' without ']'",
            Self::Repetition => "'*', '+' or '?' repeats nothing",
            Self::Groups => "more than nine groups",
            Self::Backslash => "a '\\' at the end quotes nothing",
            Self::Range => "a range in '[]' runs backwards",
            Self::TooLong => "longer than 8192 bytes",
        })
    }
}

impl Pattern {
    /// Bytes that matching an input of so many bytes may need.
    #[must_use]
    pub fn memory_bytes(&self, input_bytes: usize) -> usize {
        self.nodes
            .len()
            .saturating_mul(input_bytes.saturating_add(1))
            / 4
    }

    /// Compiles a label.
    ///
    /// # Errors
    /// When it is none.
    pub fn new(kind: Kind, text: &[u8]) -> Result<Self, BadPattern> {
        if text.len() > PATTERN_BYTES_MAX {
            return Err(BadPattern::TooLong);
        }
        let mut parser = Parser {
            text,
            at: 0,
            groups: 1,
            pattern: Self {
                kind,
                nodes: Vec::with_capacity(text.len() + 1),
                bare_groups: [false; GROUPS_MAX],
                needs: None,
            },
        };
        parser.alternatives(0)?;
        if parser.at < text.len() {
            return Err(BadPattern::Parentheses);
        }
        parser.pattern.nodes.push(Node::Accept);
        let mut pattern = parser.pattern;
        if kind == Kind::Bytes {
            prepare::repeat(&mut pattern.nodes);
            pattern.needs = prepare::needed_byte(&pattern.nodes);
        }
        Ok(pattern)
    }
}

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
    groups: u8,
    pattern: Pattern,
}

/// Deepest nesting of groups; nine groups cannot nest deeper.
const DEPTH_MAX: usize = GROUPS_MAX;

impl Parser<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn here(&self) -> u32 {
        u32::try_from(self.pattern.nodes.len()).unwrap_or(u32::MAX)
    }

    fn emit(&mut self, node: Node) {
        self.pattern.nodes.push(node);
    }

    /// `a|b|c`.
    fn alternatives(&mut self, depth: usize) -> Result<(), BadPattern> {
        if depth > DEPTH_MAX {
            return Err(BadPattern::Groups);
        }
        let mut ends = Vec::new();
        loop {
            let start = self.here();
            self.sequence(depth)?;
            if self.peek() != Some(b'|') {
                break;
            }
            self.at += 1;
            self.insert(start, Node::Split(start + 1, 0));
            ends.push(self.here());
            self.emit(Node::Jump(0));
            let next = self.here();
            self.pattern.nodes[start as usize] = Node::Split(start + 1, next);
        }
        let end = self.here();
        for jump in ends {
            self.pattern.nodes[jump as usize] = Node::Jump(end);
        }
        Ok(())
    }

    fn sequence(&mut self, depth: usize) -> Result<(), BadPattern> {
        while let Some(byte) = self.peek() {
            if byte == b'|' || byte == b')' {
                break;
            }
            self.piece(depth)?;
        }
        Ok(())
    }

    /// An atom and what repeats it.
    fn piece(&mut self, depth: usize) -> Result<(), BadPattern> {
        let start = self.here();
        self.atom(depth)?;
        while let Some(operator @ (b'*' | b'+' | b'?')) = self.peek() {
            self.at += 1;
            self.repeat(operator, start);
        }
        Ok(())
    }

    fn repeat(&mut self, operator: u8, start: u32) {
        if operator == b'+' {
            let next = self.here() + 1;
            self.emit(Node::Split(start, next));
            return;
        }
        self.insert(start, Node::Split(start + 1, 0));
        if operator == b'*' {
            self.emit(Node::Jump(start));
        }
        let end = self.here();
        self.pattern.nodes[start as usize] = Node::Split(start + 1, end);
    }

    /// Puts a node in front of those from `at` on, which move.
    fn insert(&mut self, at: u32, node: Node) {
        for node in &mut self.pattern.nodes[at as usize..] {
            match node {
                Node::Jump(to) => shift(to, at),
                Node::Split(one, other) => {
                    shift(one, at);
                    shift(other, at);
                }
                _ => {}
            }
        }
        self.pattern.nodes.insert(at as usize, node);
    }

    fn atom(&mut self, depth: usize) -> Result<(), BadPattern> {
        let Some(byte) = self.peek() else {
            return Ok(());
        };
        self.at += 1;
        match byte {
            b'.' => self.emit(Node::Any),
            b'[' => self.set()?,
            b'(' => self.group(depth)?,
            b'*' | b'+' | b'?' => return Err(BadPattern::Repetition),
            b'^' if self.at == 1 => self.emit(Node::Start),
            b'$' if self.peek().is_none() => self.emit(Node::End),
            b'\\' => self.escape()?,
            _ => self.literal(byte),
        }
        Ok(())
    }

    fn group(&mut self, depth: usize) -> Result<(), BadPattern> {
        let group = self.groups;
        if usize::from(group) >= GROUPS_MAX {
            return Err(BadPattern::Groups);
        }
        self.groups += 1;
        let bare = matches!(self.pattern.nodes.last(), Some(Node::Open));
        self.pattern.bare_groups[usize::from(group)] = bare;
        self.emit(Node::Save(group * 2));
        self.alternatives(depth + 1)?;
        if self.peek() != Some(b')') {
            return Err(BadPattern::Parentheses);
        }
        self.at += 1;
        self.emit(Node::Save(group * 2 + 1));
        Ok(())
    }

    fn escape(&mut self) -> Result<(), BadPattern> {
        let Some(byte) = self.peek() else {
            return Err(BadPattern::Backslash);
        };
        self.at += 1;
        let node = match (self.pattern.kind, byte) {
            (Kind::Tokens, b'[') if !self.follows_repetition() => Node::Open,
            (Kind::Tokens, b']') if !self.follows_repetition() => Node::Close,
            (Kind::Bytes, b'w' | b'W') => word_class(byte == b'w'),
            (Kind::Bytes, b'1'..=b'9') => Node::Same(byte - b'0'),
            _ => Node::Literal([byte].into()),
        };
        self.emit(node);
        Ok(())
    }

    /// Directly behind `*` or `+`, `\[` and `\]` look for the token of that name and not for a domain literal
    /// (`\[.*\]` matches none, `\[(.*)\]` does): what scripts were written against.
    fn follows_repetition(&self) -> bool {
        let end = self.here();
        match self.pattern.nodes.last() {
            Some(Node::Jump(back)) => *back < end,
            Some(Node::Split(back, next)) => *back < end && *next == end,
            _ => false,
        }
    }

    /// Ordinary bytes; against tokens they are one literal as far as they go, because a literal must end where a
    /// token ends. The last one stays apart when it is repeated.
    fn literal(&mut self, first: u8) {
        let mut run = vec![first];
        while let Some(byte) = self.peek() {
            let next = self.text.get(self.at + 1).copied();
            if b"^$.[()|?+*\\".contains(&byte) || matches!(next, Some(b'*' | b'+' | b'?')) {
                break;
            }
            run.push(byte);
            self.at += 1;
        }
        if matches!(self.peek(), Some(b'*' | b'+' | b'?')) && run.len() > 1 {
            run.pop();
            self.at -= 1;
        }
        self.emit(Node::Literal(run.into()));
    }

    fn set(&mut self) -> Result<(), BadPattern> {
        let negated = self.peek() == Some(b'^');
        self.at += usize::from(negated);
        let mut set = [negated; 256];
        let start = self.at;
        loop {
            let byte = self.peek().ok_or(BadPattern::Bracket)?;
            self.at += 1;
            if byte == b']' && self.at > start + 1 {
                break;
            }
            let last = self.range_end(byte)?;
            for member in byte..=last {
                set[usize::from(member)] = !negated;
            }
        }
        self.emit(Node::Set(Box::new(set)));
        Ok(())
    }

    /// The end of `a-z`; `a` itself when it is no range.
    fn range_end(&mut self, first: u8) -> Result<u8, BadPattern> {
        if self.peek() != Some(b'-') {
            return Ok(first);
        }
        match self.text.get(self.at + 1) {
            None | Some(b']') => Ok(first),
            Some(last) if *last < first => Err(BadPattern::Range),
            Some(last) => {
                self.at += 2;
                Ok(*last)
            }
        }
    }
}

fn shift(target: &mut u32, at: u32) {
    if *target >= at {
        *target += 1;
    }
}

fn word_class(inside: bool) -> Node {
    let mut set = [!inside; 256];
    for byte in 0..=255u8 {
        if byte.is_ascii_alphanumeric() || byte == b'_' {
            set[usize::from(byte)] = inside;
        }
    }
    Node::Set(Box::new(set))
}
