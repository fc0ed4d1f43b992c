//! Changes of a stored message on its way out: the message itself is never modified, what is different
//! for some of its recipients is recorded beside it and applied while it is sent.
//!
//! Edits are in order and do not overlap ([`are_ordered`]); of others nothing is promised but an end.
//! What an edit removes behind the end of the content is not there to be removed.

/// One change: bytes go, bytes come.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Edit {
    /// Where, counted in the stored content.
    pub at: u64,
    /// How many bytes of the content go.
    pub remove: u32,
    /// What stands there instead.
    pub insert: Vec<u8>,
}

impl Edit {
    /// Puts bytes in front of a place.
    #[must_use]
    pub fn insert(at: u64, bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            at,
            remove: 0,
            insert: bytes.into(),
        }
    }

    /// Where what it removes ends.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.at.saturating_add(u64::from(self.remove))
    }
}

/// Whether each edit begins where the one before ends, or behind that.
#[must_use]
pub fn are_ordered(edits: &[Edit]) -> bool {
    edits.is_sorted_by(|one, next| one.end() <= next.at)
}

/// Whether the edits are in order, and of a content of `content_len` bytes.
#[must_use]
pub fn fit(edits: &[Edit], content_len: u64) -> bool {
    are_ordered(edits) && edits.last().is_none_or(|last| last.end() <= content_len)
}

/// The whole content with its edits.
#[must_use]
pub fn apply(content: &[u8], edits: &[Edit]) -> Vec<u8> {
    let mut out = Vec::with_capacity(edited_len(content.len() as u64, edits) as usize);
    let mut editor = Editor::default();
    editor.feed(edits, content, &mut out);
    editor.end(edits, &mut out);
    out
}

/// Bytes of a message after the edits, as SIZE announces them.
#[must_use]
pub fn edited_len(content_len: u64, edits: &[Edit]) -> u64 {
    let sum = |len: u64, edit: &Edit| {
        let gone = edit.end().min(content_len).saturating_sub(edit.at);
        (len + edit.insert.len() as u64).saturating_sub(gone)
    };
    edits.iter().fold(content_len, sum)
}

/// A message under way, piece by piece. It holds a position only; the edits are given with each piece.
#[derive(Clone, Copy, Debug, Default)]
pub struct Editor {
    /// The next edit.
    next: usize,
    /// Bytes of the content taken so far.
    at: u64,
    /// Up to here the content goes.
    removed_to: u64,
}

impl Editor {
    /// Whether all that follows passes as it is, so that it need not be copied.
    #[must_use]
    pub fn is_over(&self, edits: &[Edit]) -> bool {
        self.next >= edits.len() && self.removed_to <= self.at
    }

    /// Takes the next piece of the content and appends what becomes of it. What is inserted behind the
    /// last byte of a piece comes with the next one or at the end.
    pub fn feed(&mut self, edits: &[Edit], piece: &[u8], out: &mut Vec<u8>) {
        let end = self.at + piece.len() as u64;
        let mut rest = piece;
        loop {
            self.pass(&mut rest, self.removed_to.min(end), None);
            match edits.get(self.next).filter(|edit| edit.at < end) {
                Some(edit) if !rest.is_empty() => {
                    self.pass(&mut rest, edit.at, Some(out));
                    out.extend_from_slice(&edit.insert);
                    self.removed_to = self.removed_to.max(edit.end());
                    self.next += 1;
                }
                _ => break,
            }
        }
        self.pass(&mut rest, end, Some(out));
    }

    /// Moves to a place, with or without the bytes before it.
    fn pass(&mut self, rest: &mut &[u8], to: u64, out: Option<&mut Vec<u8>>) {
        let len = usize::try_from(to.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let (before, behind) = rest.split_at_checked(len).unwrap_or((rest, b""));
        if let Some(out) = out {
            out.extend_from_slice(before);
        }
        self.at += before.len() as u64;
        *rest = behind;
    }

    /// Appends what stands behind the last byte of the content.
    pub fn end(&mut self, edits: &[Edit], out: &mut Vec<u8>) {
        for edit in edits.get(self.next..).unwrap_or_default() {
            out.extend_from_slice(&edit.insert);
        }
        self.next = edits.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn applied(content: &[u8], edits: &[Edit], piece: usize) -> Vec<u8> {
        let (mut editor, mut out) = (Editor::default(), Vec::new());
        for piece in content.chunks(piece) {
            editor.feed(edits, piece, &mut out);
        }
        editor.end(edits, &mut out);
        out
    }

    /// From the last edit to the first, so that places stay right.
    fn naive(content: &[u8], edits: &[Edit]) -> Vec<u8> {
        let mut out = content.to_vec();
        for edit in edits.iter().rev() {
            let at = (edit.at as usize).min(content.len());
            let end = (edit.end() as usize).min(content.len());
            out.splice(at..end, edit.insert.iter().copied());
        }
        out
    }

    #[test]
    fn edits_of_another_content_do_not_fit() {
        let edits = [Edit::insert(10, *b"end")];
        assert!(fit(&edits, 10) && !fit(&edits, 9));
        assert_eq!(apply(b"0123456789", &edits), b"0123456789end");
        let last = Edit {
            at: 9,
            remove: 2,
            insert: Vec::new(),
        };
        assert!(!fit(&[last], 10));
    }

    #[test]
    fn a_header_is_changed_and_the_body_passes() {
        let content = b"To: bob\r\nBcc: c@x\r\n\r\nbody\r\n";
        let edits = [
            Edit {
                at: 4,
                remove: 3,
                insert: b"bob@host".to_vec(),
            },
            Edit {
                at: 9,
                remove: 10,
                insert: Vec::new(),
            },
            Edit::insert(19, *b"Date: now\r\n"),
        ];
        assert!(are_ordered(&edits));
        let expected = b"To: bob@host\r\nDate: now\r\n\r\nbody\r\n";
        for piece in 1..=content.len() {
            assert_eq!(applied(content, &edits, piece), expected, "{piece}");
        }
        assert_eq!(
            edited_len(content.len() as u64, &edits),
            expected.len() as u64
        );
        let mut editor = Editor::default();
        assert!(!editor.is_over(&edits) && editor.is_over(&[]));
        editor.feed(&edits, content, &mut Vec::new());
        assert!(editor.is_over(&edits));
    }

    #[test]
    fn order_is_judged() {
        let edit = |at, remove| Edit {
            at,
            remove,
            insert: Vec::new(),
        };
        assert!(are_ordered(&[edit(1, 0), edit(1, 2), edit(3, 0)]));
        assert!(!are_ordered(&[edit(1, 2), edit(2, 0)]));
        assert!(!are_ordered(&[edit(3, 0), edit(2, 0)]));
    }

    /// Gap before an edit, bytes it removes, bytes it inserts.
    fn some_edits() -> impl Strategy<Value = Vec<Edit>> {
        let one = (
            0..40_u64,
            0..30_u32,
            proptest::collection::vec(any::<u8>(), 0..9),
        );
        proptest::collection::vec(one, 0..8).prop_map(|steps| {
            let mut at = 0;
            let edit = |(gap, remove, insert)| {
                let edit = Edit {
                    at: at + gap,
                    remove,
                    insert,
                };
                at = edit.end();
                edit
            };
            steps.into_iter().map(edit).collect()
        })
    }

    proptest! {
        /// However the content is cut, the result is that of the plain way, and as long as announced.
        #[test]
        fn pieces_make_no_difference(
            content in proptest::collection::vec(any::<u8>(), 0..120),
            edits in some_edits(),
            piece in 1..50_usize,
        ) {
            let out = applied(&content, &edits, piece);
            prop_assert!(are_ordered(&edits));
            prop_assert_eq!(&out, &naive(&content, &edits));
            prop_assert_eq!(out.len() as u64, edited_len(content.len() as u64, &edits));
        }
    }
}
