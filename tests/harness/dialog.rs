//! Scripted dialogues: one file a behaviour, run against the pure session and over TCP.
//!
//! Lines: `# why`; `C: text` sends a line; `C= bytes` sends bytes with `\r \n \0 \\` escapes; `S: text`
//! expects a line, `*` at its end stands for anything; `M= bytes` expects that this was stored since the
//! last `M=`, without our trace field (pure runs only); `@end` expects the end of the connection.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;

use zmailer::base::clock::Now;
use zmailer::protocol::Input;
use zmailer::protocol::server::{Peer, Session, Settings, Stored, Verdict, Want};

enum Step {
    Send(Vec<u8>),
    Expect(String),
    Message(Vec<u8>),
    End,
}

/// One file.
pub struct Dialog {
    name: String,
    steps: Vec<Step>,
}

/// All files below tests/dialogs.
pub fn corpus() -> Vec<Dialog> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/dialogs");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)
        .expect("the corpus is part of the tree")
        .flatten()
    {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "dlg") {
            let text = std::fs::read_to_string(&path).expect("a dialogue is text");
            let name = path
                .file_name()
                .expect("a file")
                .to_string_lossy()
                .into_owned();
            found.push(parse(name, &text));
        }
    }
    assert!(found.len() >= 20, "the corpus is there");
    found
}

fn parse(name: String, text: &str) -> Dialog {
    let steps = text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| match line.split_at(2) {
            ("C:", text) => Step::Send(format!("{}\r\n", text.trim_start()).into_bytes()),
            ("C=", text) => Step::Send(unescape(text.trim_start())),
            ("S:", text) => Step::Expect(text.trim_start().to_owned()),
            ("M=", text) => Step::Message(unescape(text.trim_start())),
            ("@e", _) => Step::End,
            _ => panic!("{name}: {line:?} is not a step"),
        })
        .collect();
    Dialog { name, steps }
}

fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match (byte, byte == b'\\') {
            (_, true) => out.push(match bytes.next() {
                Some(b'r') => b'\r',
                Some(b'n') => b'\n',
                Some(b'0') => 0,
                Some(b'x') => {
                    let digits: String = bytes.by_ref().take(2).map(char::from).collect();
                    u8::from_str_radix(&digits, 16).expect("two digits")
                }
                Some(other) => other,
                None => b'\\',
            }),
            (byte, false) => out.push(byte),
        }
    }
    out
}

/// Content behind the field that we put in front.
fn without_trace(content: &[u8]) -> Vec<u8> {
    let mut lines = content.split_inclusive(|byte| *byte == b'\n');
    let trace = lines
        .next()
        .filter(|line| line.starts_with(b"Received: from "));
    let mut taken = trace.expect("a trace field is in front").len();
    taken += lines
        .take_while(|line| line.starts_with(b"\t"))
        .map(<[u8]>::len)
        .sum::<usize>();
    content[taken..].to_vec()
}

fn matches(expected: &str, line: &str) -> bool {
    match expected.strip_suffix('*') {
        Some(start) => line.starts_with(start),
        None => line == expected,
    }
}

/// The pure session with everything around it that the daemon would do.
struct Pure {
    session: Session,
    input: Vec<u8>,
    output: Vec<u8>,
    stored: std::collections::VecDeque<Vec<u8>>,
    closed: bool,
}

impl Pure {
    fn start() -> Self {
        let settings = Settings {
            hostname: "mx.test.example".to_owned(),
            message_bytes_max: 2048,
            recipients_max: 3,
            errors_max: 4,
            line_bytes_max: 998,
            received_max: 5,
            ..Settings::default()
        };
        let peer = Peer {
            address: "127.0.0.1".parse().expect("an address"),
            port: 1,
        };
        let session = Session::new(Arc::new(settings), peer, Now::default());
        let mut pure = Self {
            session,
            input: Vec::new(),
            output: Vec::new(),
            stored: std::collections::VecDeque::new(),
            closed: false,
        };
        pure.session.greet(&mut pure.output);
        pure
    }

    fn send(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        let now = Now::default();
        while !self.closed {
            let mut input = Input::new(&self.input);
            let want = self.session.receive(&mut input, now, &mut self.output);
            let used = input.consumed();
            self.input.drain(..used);
            match want {
                Want::Input => return,
                Want::Begin => self.session.begin("TESTID000001", now, &mut self.output),
                Want::Policy(_) => self.session.verdict(Verdict::Accept, now, &mut self.output),
                Want::Store(transaction) => {
                    self.stored.push_back(without_trace(&transaction.content));
                    let stored = Stored::Accepted { id: "TESTID000001" };
                    self.session.stored(stored, now, &mut self.output);
                }
                Want::Close => self.closed = true,
            }
        }
    }

    fn line(&mut self) -> Option<String> {
        let end = self.output.windows(2).position(|pair| pair == b"\r\n")?;
        let line = String::from_utf8_lossy(&self.output[..end]).into_owned();
        self.output.drain(..end + 2);
        Some(line)
    }
}

impl Dialog {
    /// Against the pure session, input cut into pieces of `piece` bytes.
    pub fn run_pure(&self, piece: usize) {
        let mut pure = Pure::start();
        for step in &self.steps {
            match step {
                Step::Send(bytes) => bytes
                    .chunks(piece.min(bytes.len()))
                    .for_each(|piece| pure.send(piece)),
                Step::Expect(expected) => {
                    let line = pure.line();
                    let good = line.as_ref().is_some_and(|line| matches(expected, line));
                    assert!(good, "{}: expected {expected:?}, got {line:?}", self.name);
                }
                Step::Message(content) => {
                    let stored = pure
                        .stored
                        .pop_front()
                        .unwrap_or_else(|| panic!("{}: nothing stored", self.name));
                    assert_eq!(
                        stored.escape_ascii().to_string(),
                        content.escape_ascii().to_string(),
                        "{}",
                        self.name
                    );
                }
                Step::End => assert!(pure.closed, "{}: the session goes on", self.name),
            }
        }
        assert_eq!(
            pure.line(),
            None,
            "{}: more replies than expected",
            self.name
        );
    }

    /// Against a daemon.
    pub fn run_tcp(&self, address: SocketAddr) {
        let mut stream = TcpStream::connect(address).expect("the daemon listens");
        stream
            .set_read_timeout(Some(super::PATIENCE))
            .expect("a time limit can be set");
        let mut reader = BufReader::new(stream.try_clone().expect("a socket can be cloned"));
        for step in &self.steps {
            match step {
                // After the end of the session the rest may find a closed connection.
                Step::Send(bytes) => drop(stream.write_all(bytes)),
                Step::Expect(expected) => {
                    let mut line = String::new();
                    let _ = reader.read_line(&mut line);
                    let line = line.trim_end_matches("\r\n");
                    assert!(
                        matches(expected, line),
                        "{}: expected {expected:?}, got {line:?}",
                        self.name
                    );
                }
                Step::Message(_) => {}
                Step::End => {
                    let mut rest = String::new();
                    let _ = reader.read_line(&mut rest);
                    assert_eq!(rest, "", "{}: the session goes on", self.name);
                }
            }
        }
    }
}
