//! A directory as text that can be kept and read: a line `file NAME BYTES` for each file, then its rows of 32
//! bytes as `OFFSET HEX`, or `OFFSET+COUNT HEX` when that row stands so many times. Rows of zeroes are left out.

use std::collections::BTreeMap;
use std::fmt::Write;

use spool::blocking::{file_name, parse_file_name};
use spool::op::FileId;

/// Bytes of each file.
pub(crate) type Files = BTreeMap<FileId, Vec<u8>>;

const ROW: usize = 32;

/// Files as text.
#[allow(dead_code, reason = "who reads does not write")]
pub(crate) fn write(files: &Files) -> String {
    let mut text = String::new();
    for (file, bytes) in files {
        let _ = writeln!(text, "file {} {}", file_name(*file), bytes.len());
        let rows: Vec<&[u8]> = bytes.chunks(ROW).collect();
        let mut at = 0;
        while let Some(row) = rows.get(at) {
            let same = rows[at..].iter().take_while(|other| *other == row).count();
            if row.iter().any(|byte| *byte != 0) {
                let hex: String = row.iter().map(|byte| format!("{byte:02x}")).collect();
                let times = if same > 1 {
                    format!("+{same}")
                } else {
                    String::new()
                };
                let _ = writeln!(text, "{}{times} {hex}", at * ROW);
            }
            at += same;
        }
    }
    text
}

/// The files of a text.
#[allow(dead_code, reason = "who writes does not read")]
pub(crate) fn read(text: &str) -> Files {
    let mut files = Files::new();
    let mut current = None;
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        if let ["file", name, bytes] = words[..] {
            let file = parse_file_name(name).expect("a name of the spool");
            files.insert(file, vec![0; bytes.parse().expect("a number")]);
            current = Some(file);
            continue;
        }
        let [place, hex] = words[..] else {
            panic!("not a line of a golden spool: {line}")
        };
        let (offset, times) = place.split_once('+').unwrap_or((place, "1"));
        let offset: usize = offset.parse().expect("a number");
        let times: usize = times.parse().expect("a number");
        let row: Vec<u8> = (0..hex.len() / 2)
            .map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).expect("hex"))
            .collect();
        let bytes = current
            .and_then(|file| files.get_mut(&file))
            .expect("a file");
        bytes[offset..offset + times * row.len()].copy_from_slice(&row.repeat(times));
    }
    files
}
