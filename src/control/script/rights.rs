//! Files of users, read with their rights by the mailbox agent: a daemon that has given up root's rights asks it.
//!
//! A connection for each question: behind the greeting one line, `XFILE KIND USER PATH`: the path is xtext, the user a
//! number or `-`, the kind `read`, `stat` or `link`. The answer is `OK` with nine numbers, the last one the length of
//! the content behind the line, or `NO missing|later|other TEXT`.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::mail::xtext;
use crate::router::request::{Failure, Stat};

/// How long the agent is waited for: a file system of another host may not answer.
const ANSWER_TIME: Duration = Duration::from_secs(30);

/// Largest file of a user that is read.
pub const FILE_BYTES_MAX: u64 = 64 << 20;

/// Longest line of question or answer.
pub const LINE_BYTES_MAX: u64 = 16 << 10;

/// What is asked about a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Its content, and what it is.
    Read,
    /// What it is.
    Stat,
    /// What it is; of a link, what the link is.
    Link,
}

const KINDS: &[(Kind, &str)] = &[
    (Kind::Read, "read"),
    (Kind::Stat, "stat"),
    (Kind::Link, "link"),
];

/// What the agent begins with.
pub const KEYWORD: &str = "XFILE ";

/// A question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// What is asked.
    pub kind: Kind,
    /// With whose rights; none: those of the agent.
    pub user: Option<u32>,
    /// The file.
    pub path: Vec<u8>,
}

impl Question {
    /// As a line, without its end.
    #[must_use]
    pub fn line(&self) -> Vec<u8> {
        let kind = KINDS.iter().find(|(kind, _)| *kind == self.kind);
        let kind = kind.map_or("read", |(_, name)| name);
        let user = self
            .user
            .map_or_else(|| "-".to_owned(), |user| user.to_string());
        let mut line = format!("{KEYWORD}{kind} {user} ").into_bytes();
        line.extend(xtext::encode(&self.path));
        line
    }

    /// From a line; none: it is no question.
    #[must_use]
    pub fn parse(line: &[u8]) -> Option<Self> {
        let words = line.strip_prefix(KEYWORD.as_bytes())?;
        let mut words = words.split(|byte| *byte == b' ');
        let kind = words.next()?;
        let (kind, _) = KINDS.iter().find(|(_, name)| name.as_bytes() == kind)?;
        let user = match words.next()? {
            b"-" => None,
            user => Some(std::str::from_utf8(user).ok()?.parse().ok()?),
        };
        let path = xtext::decode(words.next()?)?;
        let good = path.first() == Some(&b'/') && !path.contains(&0) && words.next().is_none();
        good.then_some(Self {
            kind: *kind,
            user,
            path,
        })
    }
}

/// An answer as the agent writes it.
///
/// # Errors
/// Those of the connection.
pub fn write_answer(
    out: &mut impl Write,
    answer: &Result<(Vec<u8>, Stat), Failure>,
) -> io::Result<()> {
    match answer {
        Ok((content, stat)) => {
            let (device, inode) = stat.identity;
            writeln!(
                out,
                "OK {} {} {} {} {} {device} {inode} {} {}",
                stat.mode,
                stat.user,
                stat.group,
                stat.size,
                stat.modified,
                stat.access,
                content.len()
            )?;
            out.write_all(content)
        }
        Err(failure) => {
            let kind = match (failure.missing, failure.temporary) {
                (true, _) => "missing",
                (false, true) => "later",
                (false, false) => "other",
            };
            let text: String = failure.text.replace(['\r', '\n'], " ");
            writeln!(out, "NO {kind} {text}")
        }
    }
}

fn read_answer(reader: &mut impl BufRead) -> io::Result<Result<(Vec<u8>, Stat), Failure>> {
    let mut line = String::new();
    reader.by_ref().take(LINE_BYTES_MAX).read_line(&mut line)?;
    let no_answer = || io::Error::new(io::ErrorKind::InvalidData, "that is no answer");
    let line = line.strip_suffix('\n').ok_or_else(no_answer)?;
    if let Some(refusal) = line.strip_prefix("NO ") {
        let (kind, text) = refusal.split_once(' ').unwrap_or((refusal, ""));
        return Ok(Err(Failure {
            missing: kind == "missing",
            temporary: kind == "later",
            text: text.to_owned(),
        }));
    }
    let numbers = line.strip_prefix("OK ").ok_or_else(no_answer)?;
    let numbers: Vec<i128> = numbers
        .split(' ')
        .map_while(|word| word.parse().ok())
        .collect();
    let [
        mode,
        user,
        group,
        size,
        modified,
        device,
        inode,
        access,
        len,
    ] = *numbers.as_slice()
    else {
        return Err(no_answer());
    };
    let stat = || -> Option<Stat> {
        Some(Stat {
            mode: mode.try_into().ok()?,
            user: user.try_into().ok()?,
            group: group.try_into().ok()?,
            size: size.try_into().ok()?,
            modified: modified.try_into().ok()?,
            identity: (device.try_into().ok()?, inode.try_into().ok()?),
            access: access.try_into().ok()?,
        })
    };
    let stat = stat().ok_or_else(no_answer)?;
    let len = u64::try_from(len).ok().filter(|len| *len <= FILE_BYTES_MAX);
    let mut content = vec![0; len.ok_or_else(no_answer)? as usize];
    reader.read_exact(&mut content)?;
    Ok(Ok((content, stat)))
}

/// Where the agent is asked.
#[derive(Clone, Debug)]
pub struct Rights(PathBuf);

impl Rights {
    /// At this socket.
    #[must_use]
    pub fn at(socket: &Path) -> Self {
        Self(socket.to_owned())
    }

    /// Asks.
    ///
    /// # Errors
    /// What the agent says of the file; when it says nothing, that.
    pub fn ask(&self, question: &Question) -> Result<(Vec<u8>, Stat), Failure> {
        self.answer(question).unwrap_or_else(|error| {
            let path = String::from_utf8_lossy(&question.path);
            Err(Failure {
                missing: false,
                temporary: true,
                text: format!("{path}: the mailbox agent: {error}"),
            })
        })
    }

    fn answer(&self, question: &Question) -> io::Result<Result<(Vec<u8>, Stat), Failure>> {
        let stream = UnixStream::connect(&self.0)?;
        stream.set_read_timeout(Some(ANSWER_TIME))?;
        stream.set_write_timeout(Some(ANSWER_TIME))?;
        let mut reader = BufReader::new(&stream);
        let mut greeting = Vec::new();
        reader
            .by_ref()
            .take(LINE_BYTES_MAX)
            .read_until(b'\n', &mut greeting)?;
        let mut line = question.line();
        line.extend_from_slice(b"\r\n");
        (&stream).write_all(&line)?;
        read_answer(&mut reader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_and_answers_come_over_whole() {
        for (kind, user, path) in [
            (Kind::Read, Some(1000), "/homes/joe/.forward"),
            (Kind::Stat, None, "/a b/c\r\n"),
            (Kind::Link, Some(0), "/"),
        ] {
            let path = path.as_bytes().to_vec();
            let question = Question { kind, user, path };
            assert_eq!(Question::parse(&question.line()), Some(question));
        }
        for bad in [
            "XFILE",
            "XFILE read",
            "XFILE read 1 x",
            "XFILE own 1 /x",
            "XFILE read a /x",
            "XFILE stat - /x y",
        ] {
            assert_eq!(Question::parse(bad.as_bytes()), None, "{bad}");
        }
        let stat = Stat {
            mode: 0o100_644,
            modified: -5,
            identity: (u64::MAX, 7),
            ..Stat::default()
        };
        let failure = |missing, temporary| Failure {
            missing,
            temporary,
            text: "x: not there".to_owned(),
        };
        for answer in [
            Ok((b"a\nb".to_vec(), stat)),
            Err(failure(true, false)),
            Err(failure(false, true)),
            Err(failure(false, false)),
        ] {
            let mut bytes = Vec::new();
            write_answer(&mut bytes, &answer).unwrap();
            assert_eq!(read_answer(&mut bytes.as_slice()).unwrap(), answer);
        }
    }
}
