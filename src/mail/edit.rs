//! Changes of a message's content on its way out: what is stored is never modified.
//!
//! Pure, and the same however the content is cut into pieces. Offsets are those of the stored content.

/// A change: at an offset some bytes are left out, and others come in their place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// Offset in the stored content.
    pub at: u64,
    /// Bytes that are left out there.
    pub remove: u32,
    /// Bytes that come in their place.
    pub insert: Vec<u8>,
}

/// Whether the edits are in order, do not overlap, and lie in a content of `len` bytes.
#[must_use]
pub fn fit(edits: &[Edit], len: u64) -> bool {
    let mut end = 0;
    edits.iter().all(|edit| {
        let in_order = edit.at >= end;
        end = edit.at.saturating_add(edit.remove.into());
        in_order && end <= len
    })
}

/// Bytes of the content behind its edits.
#[must_use]
pub fn edited_len(len: u64, edits: &[Edit]) -> u64 {
    let removed: u64 = edits.iter().map(|edit| u64::from(edit.remove)).sum();
    let inserted: u64 = edits.iter().map(|edit| edit.insert.len() as u64).sum();
    (len + inserted).saturating_sub(removed)
}

/// The content behind its edits, all at once.
#[must_use]
pub fn apply(content: &[u8], edits: &[Edit]) -> Vec<u8> {
    let mut out = Vec::with_capacity(edited_len(content.len() as u64, edits) as usize);
    let mut editor = Editor::default();
    editor.feed(edits, content, &mut out);
    editor.end(edits, &mut out);
    out
}

/// Applies edits to content that comes in pieces.
#[derive(Clone, Debug, Default)]
pub struct Editor {
    /// Edits that have been applied.
    done: usize,
    /// Offset of the next byte.
    at: u64,
    /// Bytes that are to be left out still.
    skip: u64,
}

impl Editor {
    /// Takes the next piece, appends what it becomes.
    pub fn feed(&mut self, edits: &[Edit], mut bytes: &[u8], out: &mut Vec<u8>) {
        while !bytes.is_empty() {
            if self.skip > 0 {
                bytes = self.leave_out(bytes);
                continue;
            }
            let Some(edit) = edits.get(self.done) else {
                self.at += bytes.len() as u64;
                out.extend_from_slice(bytes);
                return;
            };
            let before = edit.at.saturating_sub(self.at).min(bytes.len() as u64);
            let (kept, rest) = bytes.split_at(before as usize);
            out.extend_from_slice(kept);
            self.at += before;
            bytes = rest;
            if self.at >= edit.at && !bytes.is_empty() {
                self.begin(edit, out);
            }
        }
    }

    /// The content has come to its end: what is to be inserted there.
    pub fn end(&mut self, edits: &[Edit], out: &mut Vec<u8>) {
        while let Some(edit) = edits.get(self.done) {
            self.begin(edit, out);
        }
    }

    fn begin(&mut self, edit: &Edit, out: &mut Vec<u8>) {
        out.extend_from_slice(&edit.insert);
        self.skip = edit.remove.into();
        self.done += 1;
    }

    fn leave_out<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let gone = self.skip.min(bytes.len() as u64);
        self.skip -= gone;
        self.at += gone;
        bytes.split_at(gone as usize).1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn edit(at: u64, remove: u32, insert: &str) -> Edit {
        Edit {
            at,
            remove,
            insert: insert.as_bytes().to_vec(),
        }
    }

    #[test]
    fn edits_replace_what_they_name() {
        let content = b"0123456789";
        let cases: [(&[Edit], &str); 6] = [
            (&[], "0123456789"),
            (&[edit(0, 0, "a")], "a0123456789"),
            (&[edit(0, 3, ""), edit(3, 1, "xy")], "xy456789"),
            (&[edit(2, 0, "a"), edit(2, 2, "b")], "01ab456789"),
            (&[edit(10, 0, "end")], "0123456789end"),
            (&[edit(0, 10, "new")], "new"),
        ];
        for (edits, expected) in cases {
            assert!(fit(edits, 10), "{edits:?}");
            let edited = apply(content, edits);
            assert_eq!(edited, expected.as_bytes(), "{edits:?}");
            assert_eq!(edited_len(10, edits), expected.len() as u64, "{edits:?}");
        }
        assert_eq!(apply(b"", &[edit(0, 0, "x")]), b"x");
    }

    #[test]
    fn edits_that_make_no_sense_do_not_fit() {
        for edits in [
            &[edit(9, 2, "")][..],
            &[edit(11, 0, "")],
            &[edit(3, 2, ""), edit(4, 0, "")],
            &[edit(u64::MAX, 2, "")],
        ] {
            assert!(!fit(edits, 10), "{edits:?}");
        }
    }

    proptest! {
        #[test]
        fn however_the_content_is_cut(
            content in proptest::collection::vec(any::<u8>(), 0..60),
            raw in proptest::collection::vec((0u64..20, 0u32..8, "[a-z]{0,5}"), 0..5),
            cuts in proptest::collection::vec(1usize..9, 1..20),
        ) {
            let mut edits = Vec::new();
            let mut at = 0;
            for (gap, remove, insert) in raw {
                at += gap;
                if at + u64::from(remove) <= content.len() as u64 {
                    edits.push(edit(at, remove, &insert));
                    at += u64::from(remove);
                }
            }
            let whole = apply(&content, &edits);
            let (mut editor, mut out, mut rest) = (Editor::default(), Vec::new(), &content[..]);
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, behind) = rest.split_at((*cut).min(rest.len()));
                editor.feed(&edits, piece, &mut out);
                rest = behind;
            }
            editor.end(&edits, &mut out);
            prop_assert_eq!(&out, &whole);
            prop_assert_eq!(out.len() as u64, edited_len(content.len() as u64, &edits));
        }
    }
}
