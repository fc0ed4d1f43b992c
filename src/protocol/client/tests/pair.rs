//! A session and a peer, joined by memory: [`Pair`] moves bytes until both are quiet.

use std::sync::Arc;

use super::super::{Content, Event, Job, JobRecipient, Session, Settings};
use crate::base::clock::Now;

pub(super) const START: Now = Now {
    mono_ns: 1_000,
    wall_ms: 1_000,
};

/// The other side of a [`Pair`].
pub(super) trait Peer {
    /// Takes bytes, appends replies.
    fn receive(&mut self, bytes: &[u8], output: &mut Vec<u8>);
}

pub(super) fn job(token: u64, recipients: &[&str], content: &[u8]) -> Job {
    let recipients = recipients.iter().map(|address| JobRecipient {
        address: address.as_bytes().to_vec(),
        notify: 0,
        orcpt: None,
        privilege: None,
    });
    Job {
        token,
        sender: b"s@a".to_vec(),
        recipients: recipients.collect(),
        content: Content::Memory(Arc::new(content.to_vec())),
        eight_bit: false,
        binary: false,
        smtputf8: false,
        ret: None,
        envid: None,
        identity: None,
    }
}

/// A session, its peer, and all that passed between them.
pub(super) struct Pair<P> {
    pub(super) session: Session,
    pub(super) peer: P,
    pub(super) jobs: Vec<Job>,
    pub(super) events: Vec<Event>,
    pub(super) sent: Vec<u8>,
    /// Exchanges in which the session sent something.
    pub(super) rounds: usize,
    /// Bytes of the peer that arrive at a time.
    pub(super) step: usize,
    /// Bytes of the peer after which the connection is lost.
    pub(super) budget: usize,
    /// What jobs whose content comes in pieces consist of, and the size of a piece.
    pub(super) pieces: (Vec<u8>, usize),
}

impl<P: Peer> Pair<P> {
    pub(super) fn new(settings: Settings, peer: P, jobs: Vec<Job>, step: usize) -> Self {
        let session = Session::new(Arc::new(settings), START);
        let (events, sent) = (Vec::new(), Vec::new());
        Self {
            session,
            peer,
            jobs,
            events,
            sent,
            rounds: 0,
            step,
            budget: usize::MAX,
            pieces: (Vec::new(), 1),
        }
    }

    /// Runs until nothing moves; `greeting` is what the peer says first.
    pub(super) fn run(&mut self, greeting: &[u8]) {
        let mut replies = greeting.to_vec();
        loop {
            let mut output = Vec::new();
            for chunk in replies.chunks(self.step) {
                let chunk = &chunk[..chunk.len().min(self.budget)];
                self.budget -= chunk.len();
                self.session.receive(chunk, START, &mut output);
                if self.budget == 0 {
                    self.session.ended(START, None);
                }
                self.turn(&mut output);
            }
            replies.clear();
            self.turn(&mut output);
            if output.is_empty() {
                return;
            }
            self.rounds += 1;
            while !output.is_empty() {
                self.sent.extend_from_slice(&output);
                self.peer.receive(&output, &mut replies);
                output.clear();
                self.give_piece();
                self.session.sent(START, &mut output);
            }
        }
    }

    fn give_piece(&mut self) -> bool {
        if let Some((token, offset)) = self.session.wants_piece() {
            let (content, size) = &self.pieces;
            let rest = &content[offset as usize..];
            let piece = rest[..rest.len().min(*size)].to_vec();
            self.session.piece(token, piece);
            return true;
        }
        false
    }

    fn turn(&mut self, output: &mut Vec<u8>) {
        while self.session.can_take() && !self.jobs.is_empty() {
            self.session.submit(self.jobs.remove(0), START, output);
        }
        if output.is_empty() && self.give_piece() {
            self.session.sent(START, output);
        }
        while let Some(event) = self.session.poll_event() {
            self.events.push(event);
        }
    }

    /// The results as rows of text: token, recipient, status letter, reply.
    pub(super) fn results(&self) -> Vec<String> {
        let mut rows = Vec::new();
        for event in &self.events {
            match event {
                Event::Ready => {}
                Event::Closed => rows.push("closed".to_owned()),
                Event::Broken { failure } => {
                    let reply = String::from_utf8_lossy(&failure.reply);
                    rows.push(format!("broken {:?} {reply}", failure.stage));
                }
                Event::Finished { token, results } => rows.extend(results.iter().map(|result| {
                    let reply = String::from_utf8_lossy(&result.reply);
                    let attempted = if result.not_attempted {
                        " (not attempted)"
                    } else {
                        ""
                    };
                    let (at, status) = (result.recipient, result.status);
                    format!("{token}/{at} {status:?}{attempted} {reply}")
                })),
            }
        }
        rows
    }
}

/// A small server: replies come from a table, or are positive.
#[derive(Default)]
pub(super) struct Toy {
    pub(super) offers: &'static str,
    /// Beginning of a command and the reply to it; the first that fits.
    pub(super) table: Vec<(&'static str, &'static str)>,
    pub(super) commands: Vec<String>,
    pub(super) contents: Vec<Vec<u8>>,
    input: Vec<u8>,
    sender: bool,
    recipients: usize,
    in_data: bool,
}

impl Peer for Toy {
    fn receive(&mut self, bytes: &[u8], output: &mut Vec<u8>) {
        self.input.extend_from_slice(bytes);
        while self.step(output) {}
    }
}

impl Toy {
    fn step(&mut self, output: &mut Vec<u8>) -> bool {
        if self.in_data {
            let whole = [b"\r\n", self.input.as_slice()].concat();
            let Some(end) = memchr::memmem::find(&whole, b"\r\n.\r\n") else {
                return false;
            };
            let text = String::from_utf8(whole[..end + 2].to_vec()).unwrap();
            let content = text.replace("\r\n.", "\r\n").as_bytes()[2..].to_vec();
            self.input.drain(..end + 3);
            self.in_data = false;
            self.end(".", content, output);
            return true;
        }
        let Some(end) = memchr::memmem::find(&self.input, b"\r\n") else {
            return false;
        };
        let line = String::from_utf8(self.input[..end].to_vec()).unwrap();
        if let Some(arguments) = line.strip_prefix("BDAT ") {
            let size: usize = arguments.split(' ').next().unwrap().parse().unwrap();
            if self.input.len() < end + 2 + size {
                return false;
            }
            let content = self.input[end + 2..end + 2 + size].to_vec();
            self.input.drain(..end + 2 + size);
            self.commands.push(line);
            self.end("BDAT", content, output);
            return true;
        }
        self.input.drain(..end + 2);
        let reply = self.command(&line);
        self.commands.push(line);
        output.extend_from_slice(reply.as_bytes());
        output.extend_from_slice(b"\r\n");
        true
    }

    fn listed(&self, line: &str) -> Option<&'static str> {
        self.table
            .iter()
            .find(|(start, _)| line.starts_with(start))
            .map(|(_, reply)| *reply)
    }

    fn command(&mut self, line: &str) -> String {
        if let Some(reply) = self.listed(line) {
            return reply.to_owned();
        }
        match &line[..4] {
            "EHLO" => return format!("250-toy{}\r\n250 HELP", self.offers),
            "MAIL" if self.sender => return "503 5.5.1 nested MAIL".to_owned(),
            "MAIL" => self.sender = true,
            "RCPT" if !self.sender => return "503 5.5.1 need MAIL".to_owned(),
            "RCPT" => self.recipients += 1,
            "DATA" if self.recipients == 0 => return "554 5.5.1 no valid recipients".to_owned(),
            "DATA" => {
                self.in_data = true;
                return "354 go".to_owned();
            }
            "RSET" => (self.sender, self.recipients) = (false, 0),
            "QUIT" => return "221 bye".to_owned(),
            _ => {}
        }
        "250 ok".to_owned()
    }

    /// A refused BDAT leaves the transaction open, as some servers do.
    fn end(&mut self, name: &str, content: Vec<u8>, output: &mut Vec<u8>) {
        let reply = match self.listed(name) {
            Some(reply) => reply,
            None if self.recipients == 0 => "503 5.5.1 no valid recipients",
            None => {
                self.contents.push(content);
                "250 2.0.0 taken"
            }
        };
        if name == "." || reply.starts_with('2') {
            (self.sender, self.recipients) = (false, 0);
        }
        output.extend_from_slice(format!("{reply}\r\n").as_bytes());
    }
}
