//! The session: which replies are outstanding, what each one means, what comes next.
//!
//! Replies come in the order of the commands (RFC 2920 3.2), so a queue of what is expected says
//! what a reply answers. All of them up to the one that ends a transaction belong to the oldest
//! transaction; RSET in front of a MAIL belongs to none.

use std::collections::VecDeque;
use std::io::Write as _;
use std::sync::Arc;

use super::pipeline::{Extensions, Progress, Transaction};
use super::reply::{REPLY_TEXT_BYTES_MAX, Reader, Reply};
use super::{Event, Failure, Job, Settings, Stage};
use crate::base::clock::Now;

mod transactions;

/// Transactions in one session: one under way, one behind it.
const TRANSACTIONS_MAX: usize = 2;

/// What the next reply answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    Greeting,
    Ehlo,
    Helo,
    Reset,
    Mail,
    Recipient(usize),
    Data,
    Final,
    Quit,
}

/// What the whole connection is about.
#[derive(Debug)]
enum Phase {
    /// The greeting or the answer to EHLO or HELO is outstanding.
    Opening,
    /// Transactions.
    Open(Extensions),
    /// QUIT was sent.
    Quitting,
    /// Its last event was given.
    Over,
}

/// A connection to one peer.
#[derive(Debug)]
pub struct Session {
    settings: Arc<Settings>,
    phase: Phase,
    reader: Reader,
    expected: VecDeque<Expected>,
    /// The oldest first; at most [`TRANSACTIONS_MAX`].
    transactions: VecDeque<Transaction>,
    /// The peer may still hold a transaction that is over for us.
    wants_reset: bool,
    /// QUIT follows when nothing else is left.
    wants_quit: bool,
    /// Transactions that came to a reply to their content.
    completed_count: u64,
    deadline: Option<u64>,
    events: VecDeque<Event>,
}

impl Session {
    /// A session whose connection was just made; waits for the greeting.
    #[must_use]
    pub fn new(settings: Arc<Settings>, now: Now) -> Self {
        let mut session = Self {
            settings,
            phase: Phase::Opening,
            reader: Reader::default(),
            expected: VecDeque::from([Expected::Greeting]),
            transactions: VecDeque::with_capacity(TRANSACTIONS_MAX),
            wants_reset: false,
            wants_quit: false,
            completed_count: 0,
            deadline: None,
            events: VecDeque::new(),
        };
        session.arm(now);
        session
    }

    /// Takes bytes of the peer, all of them.
    pub fn receive(&mut self, bytes: &[u8], now: Now, output: &mut Vec<u8>) {
        let mut input = bytes;
        let settings = Arc::clone(&self.settings);
        while !matches!(self.phase, Phase::Over) {
            match self.reader.read(&mut input, &settings) {
                None => return,
                Some(Ok(reply)) => {
                    self.reply(&reply, output);
                    self.advance(output);
                    self.arm(now);
                }
                Some(Err(malformed)) => {
                    let reply = format!("450 4.5.0 {} after {}", malformed.0, self.stage().name());
                    self.break_up(reply.as_bytes(), false);
                }
            }
        }
    }

    /// Whether a job can be submitted: nothing is under way, or the content of the only job is.
    #[must_use]
    pub fn can_take(&self) -> bool {
        let Phase::Open(_) = self.phase else {
            return false;
        };
        !self.wants_quit
            && match self.transactions.front() {
                None => true,
                Some(first) if self.transactions.len() < TRANSACTIONS_MAX => {
                    matches!(first.progress, Progress::Content(_) | Progress::Sent)
                }
                Some(_) => false,
            }
    }

    /// Begins a job, or keeps it until it can begin. One for which [`Session::can_take`] is false
    /// is given back unattempted.
    pub fn submit(&mut self, job: Job, now: Now, output: &mut Vec<u8>) {
        let mut transaction = Transaction::new(job);
        match self.phase {
            Phase::Open(offered) if self.can_take() => {
                transaction.check(&offered, &self.settings);
                let waiting = !self.expected.is_empty();
                self.transactions.push_back(transaction);
                self.advance(output);
                if !waiting {
                    self.arm(now);
                }
            }
            _ => {
                let (token, results) = transaction.finish(b"450 4.3.0 connection is busy", true);
                self.events.push_back(Event::Finished { token, results });
            }
        }
    }

    /// All output so far was sent: large content goes on, waiting for a reply begins.
    pub fn sent(&mut self, now: Now, output: &mut Vec<u8>) {
        if matches!(self.phase, Phase::Over) {
            return;
        }
        self.write_content(0, output);
        self.advance(output);
        self.arm(now);
    }

    /// The job and the offset of the piece of content that should be read now.
    #[must_use]
    pub fn wants_piece(&self) -> Option<(u64, u64)> {
        let transaction = self.transactions.front()?;
        let Progress::Content(writer) = &transaction.progress else {
            return None;
        };
        let offset = writer.wants(&transaction.job.content)?;
        Some((transaction.job.token, offset))
    }

    /// Takes the piece that was wanted; it is written with the next [`Self::sent`].
    pub fn piece(&mut self, token: u64, bytes: Vec<u8>) {
        if let Some(transaction) = self.transactions.front_mut()
            && transaction.job.token == token
            && let Progress::Content(writer) = &mut transaction.progress
        {
            let job = &transaction.job;
            if !writer.piece(&job.content, bytes, job.binary) {
                let reply = b"451 4.6.0 changes of the content would break its lines";
                self.break_up(reply, false);
            }
        }
    }

    /// The content of a job cannot be read: what was begun is not finished, and the session ends.
    pub fn abort(&mut self, token: u64, reply: &[u8]) {
        let front = self.transactions.front();
        if front.is_some_and(|transaction| transaction.job.token == token) {
            self.break_up(reply, false);
        }
    }

    /// The peer closed the connection, or it failed with `error`.
    pub fn ended(&mut self, _now: Now, error: Option<i32>) {
        match self.phase {
            Phase::Over => {}
            Phase::Quitting => self.close(),
            Phase::Opening | Phase::Open(_) => {
                let stage = self.stage().name();
                let reply = match error.map(std::io::Error::from_raw_os_error) {
                    None => format!("450 4.4.2 lost connection after {stage}"),
                    Some(error) => format!("450 4.4.2 lost connection after {stage}: {error}"),
                };
                self.break_up(reply.as_bytes(), false);
            }
        }
    }

    /// Ends the session in order, once nothing is under way.
    pub fn quit(&mut self, now: Now, output: &mut Vec<u8>) {
        if matches!(self.phase, Phase::Quitting | Phase::Over) || self.wants_quit {
            return;
        }
        self.wants_quit = true;
        self.advance(output);
        self.arm(now);
    }

    /// When [`Session::timeout`] is due.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        self.deadline
    }

    /// The time given by [`Session::deadline`] may have come.
    pub fn timeout(&mut self, now: Now) {
        if self.deadline.is_none_or(|deadline| deadline > now.mono_ns) {
            return;
        }
        match self.phase {
            Phase::Quitting => self.close(),
            _ => {
                let reply = format!("450 4.4.2 timed out after {}", self.stage().name());
                self.break_up(reply.as_bytes(), false);
            }
        }
    }

    /// The next event, oldest first.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// No transaction is outstanding.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.transactions.is_empty()
    }

    fn stage(&self) -> Stage {
        if let Some(Transaction {
            progress: Progress::Content(_),
            ..
        }) = self.transactions.front()
            && self
                .expected
                .front()
                .is_none_or(|expected| *expected == Expected::Final)
        {
            return Stage::Content;
        }
        match self.expected.front() {
            None => Stage::Idle,
            Some(Expected::Greeting) => Stage::Greeting,
            Some(Expected::Ehlo | Expected::Helo) => Stage::Hello,
            Some(Expected::Reset) => Stage::Reset,
            Some(Expected::Mail) => Stage::Mail,
            Some(Expected::Recipient(_)) => Stage::Recipient,
            Some(Expected::Data) => Stage::Data,
            Some(Expected::Final) => Stage::Final,
            Some(Expected::Quit) => Stage::Quit,
        }
    }

    fn arm(&mut self, now: Now) {
        let settings = &self.settings;
        let wait_ns = match self.stage() {
            _ if matches!(self.phase, Phase::Over) => None,
            Stage::Idle => None,
            Stage::Greeting => Some(settings.greeting_ns),
            Stage::Hello | Stage::Mail | Stage::Reset => Some(settings.mail_ns),
            Stage::Recipient => Some(settings.rcpt_ns),
            Stage::Data => Some(settings.data_ns),
            Stage::Content => Some(settings.block_ns),
            Stage::Final => Some(settings.final_ns),
            Stage::Quit => Some(settings.quit_ns),
        };
        self.deadline = wait_ns.map(|wait_ns| now.after_ns(wait_ns));
    }

    /// Gives one reply to what it answers.
    fn reply(&mut self, reply: &Reply, output: &mut Vec<u8>) {
        let stage = self.stage();
        let expected = self.expected.pop_front();
        if matches!(self.phase, Phase::Quitting) {
            if expected == Some(Expected::Quit) {
                self.close();
            }
            return;
        }
        if reply.code == 421 {
            self.break_at(&reply.text(), false, stage);
            return;
        }
        match expected {
            None => self.violated(reply, stage),
            Some(Expected::Greeting | Expected::Ehlo | Expected::Helo) => {
                self.opening(expected, reply, output);
            }
            Some(Expected::Reset) if reply.code / 100 == 2 => {}
            Some(Expected::Reset | Expected::Quit) => self.violated(reply, stage),
            Some(Expected::Mail) => self.mail_reply(reply),
            Some(Expected::Recipient(recipient)) => self.rcpt_reply(recipient, reply),
            Some(Expected::Data) => self.data_reply(reply, output),
            Some(Expected::Final) => self.final_reply(reply, stage),
        }
    }

    fn opening(&mut self, expected: Option<Expected>, reply: &Reply, output: &mut Vec<u8>) {
        let (word, next) = match (expected, reply.code) {
            (Some(Expected::Greeting), 220) if self.settings.lmtp => ("LHLO", Expected::Ehlo),
            (Some(Expected::Greeting), 220) => ("EHLO", Expected::Ehlo),
            (Some(Expected::Ehlo), 500..=599) if !self.settings.lmtp => ("HELO", Expected::Helo),
            (Some(Expected::Ehlo | Expected::Helo), 250) => {
                let offered = match expected {
                    Some(Expected::Ehlo) => Extensions::parse(reply, &self.settings),
                    _ => Extensions::default(),
                };
                self.phase = Phase::Open(offered);
                self.events.push_back(Event::Ready);
                return;
            }
            (_, code) => {
                let stage = match expected {
                    Some(Expected::Greeting) => Stage::Greeting,
                    _ => Stage::Hello,
                };
                self.break_at(&reply.text(), matches!(code, 521 | 556), stage);
                return;
            }
        };
        // Writing to a Vec cannot fail.
        let _ = write!(output, "{word} {}\r\n", self.settings.hostname);
        self.expected.push_back(next);
    }

    /// The peer said something that cannot be an answer.
    fn violated(&mut self, reply: &Reply, stage: Stage) {
        let text = reply.text();
        let text = String::from_utf8_lossy(&text);
        let mut own = format!("450 4.5.0 unexpected reply after {}: {text}", stage.name());
        own.truncate(REPLY_TEXT_BYTES_MAX); // all ASCII
        self.break_at(own.as_bytes(), false, stage);
    }

    fn break_up(&mut self, reply: &[u8], permanent: bool) {
        self.break_at(reply, permanent, self.stage());
    }

    /// Ends the session; what is undecided is deferred with `reply`.
    ///
    /// A transaction that the peer has not answered at all, on a session that served before it or
    /// behind one that was under way, met a connection that was ending: it was not attempted. A
    /// new session that ends at once is an attempt, so that nobody tries it for ever.
    fn break_at(&mut self, reply: &[u8], permanent: bool, stage: Stage) {
        let mut served = self.completed_count > 0;
        for transaction in std::mem::take(&mut self.transactions) {
            let not_attempted = served && !transaction.heard;
            served = true;
            let (token, results) = transaction.finish(reply, not_attempted);
            self.events.push_back(Event::Finished { token, results });
        }
        let failure = Failure {
            permanent,
            reply: reply.to_vec(),
            stage,
        };
        self.over(Event::Broken { failure });
    }

    fn close(&mut self) {
        self.over(Event::Closed);
    }

    fn over(&mut self, event: Event) {
        self.phase = Phase::Over;
        self.expected.clear();
        self.deadline = None;
        self.events.push_back(event);
    }
}
