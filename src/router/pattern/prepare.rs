//! What a pattern over bytes is told before it runs, so that it takes fewer steps: loops over one element are steps of
//! their own, and a byte without which nothing can match is looked for first. What matches, and the groups of it, stay
//! the same.

use super::parse::Node;

/// Whether the bytes of a node can be told by looking at one.
fn takes(node: &Node, byte: u8) -> Option<bool> {
    match node {
        Node::Any => Some(byte != b'\n'),
        Node::Set(set) => Some(set[usize::from(byte)]),
        _ => None,
    }
}

/// Turns `x*` and `x+` of one element into [`Node::Repeat`].
pub(super) fn repeat(nodes: &mut [Node]) {
    if nodes.iter().any(|node| matches!(node, Node::Same(_))) {
        return;
    }
    for at in 0..nodes.len() {
        let here = at as u32;
        let (of, then) = match (&nodes[at], nodes.get(at + 1), nodes.get(at + 2)) {
            // `x*`: this node, `x`, a jump back to this node.
            (Node::Split(one, end), Some(Node::Any | Node::Set(_)), Some(Node::Jump(back)))
                if *one == here + 1 && *end == here + 3 && *back == here =>
            {
                (here + 1, *end)
            }
            // `x+`: `x`, this node.
            (Node::Split(back, end), _, _)
                if *back + 1 == here
                    && *end == here + 1
                    && matches!(nodes[*back as usize], Node::Any | Node::Set(_)) =>
            {
                (*back, *end)
            }
            _ => continue,
        };
        nodes[at] = Node::Repeat {
            of,
            then,
            sure: is_sure(nodes, of, then),
        };
    }
}

/// Whether what follows the loop cannot take a byte that the loop takes: then it goes as far as it can, and back never.
fn is_sure(nodes: &[Node], of: u32, then: u32) -> bool {
    let mut firsts = [false; 256];
    let mut seen = vec![false; nodes.len()];
    let mut todo = vec![then];
    while let Some(at) = todo.pop() {
        if std::mem::replace(&mut seen[at as usize], true) {
            continue;
        }
        match &nodes[at as usize] {
            node @ (Node::Any | Node::Set(_)) => {
                for byte in 0..=u8::MAX {
                    firsts[usize::from(byte)] |= takes(node, byte) == Some(true);
                }
            }
            Node::Literal(text) => match text.first() {
                Some(first) => firsts[usize::from(*first)] = true,
                None => return false,
            },
            Node::Split(one, other) => todo.extend([*one, *other]),
            Node::Repeat { of, then, .. } => todo.extend([*of, *then]),
            Node::Jump(to) => todo.push(*to),
            Node::Save(_) => todo.push(at + 1),
            // Both need the end, where the loop cannot take another byte.
            Node::End | Node::Accept => {}
            Node::Start | Node::Same(_) | Node::Open | Node::Close => return false,
        }
    }
    (0..=u8::MAX)
        .all(|byte| !firsts[usize::from(byte)] || takes(&nodes[of as usize], byte) != Some(true))
}

/// A byte that every match contains: one of a literal that no way through the pattern passes by.
pub(super) fn needed_byte(nodes: &[Node]) -> Option<u8> {
    let furthest = |node: &Node| match node {
        Node::Split(one, other) => *one.max(other) as usize,
        Node::Repeat { then, .. } => *then as usize,
        Node::Jump(to) => *to as usize,
        _ => 0,
    };
    let mut reached = 0;
    for (at, node) in nodes.iter().enumerate() {
        if let (Node::Literal(text), true) = (node, reached <= at) {
            return text.first().copied();
        }
        reached = reached.max(furthest(node));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::parse::{Kind, Pattern};
    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::new(Kind::Bytes, text.as_bytes()).unwrap()
    }

    #[test]
    fn loops_that_never_go_back() {
        let sure = |text: &str| -> Vec<bool> {
            let nodes = pattern(text).nodes;
            let sure = nodes.iter().filter_map(|node| match node {
                Node::Repeat { sure, .. } => Some(*sure),
                _ => None,
            });
            sure.collect()
        };
        assert_eq!(sure("([a-z]+)@([a-z.]+\\.)([a-z]+)"), [true, false, true]);
        assert_eq!(sure("[a-z]*(x)?"), [false]);
        assert_eq!(sure("[a-z]*(1)?[0-9]*"), [true, true]);
        assert_eq!(sure("(.*)@"), [false]);
        assert_eq!(sure("[a-z]+$"), [true]);
        assert_eq!(sure("([a-z]+)*"), [false]);
        assert!(sure("([a-z]+)\\1").is_empty());
    }

    #[test]
    fn bytes_that_a_match_needs() {
        for (text, needed) in [
            ("([a-z]+)@(.+)", Some(b'@')),
            ("(.*)(@x)?", None),
            ("a|b", None),
            ("(a|b)c", Some(b'c')),
            ("(@x)+", Some(b'@')),
            ("(@x)*", None),
            ("[a-z]+", None),
        ] {
            assert_eq!(pattern(text).needs, needed, "{text}");
        }
    }
}
