//! A client of the long runs: one connection, a few letters, manners of all kinds.

use std::collections::VecDeque;

use spool::sim::Rng;
use zmailer::io::sim::{ClientId, SimNet};

use super::ledger::{Fate, Ledger, Letter};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Greeting,
    Ehlo,
    Mail,
    Recipient(usize),
    Data,
    Content,
    Quit,
}

/// What a client does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    Good,
    /// Resets in the middle of some content.
    Breaks,
    /// Sends the final dot and goes at once.
    Hurried,
    /// Falls silent in the middle of some content.
    Silent,
}

/// See the module.
#[derive(Debug)]
pub struct Sender {
    id: ClientId,
    at: At,
    manner: Manner,
    input: Vec<u8>,
    /// Letters to be sent, by name; the first is under way.
    letters: VecDeque<(String, Letter)>,
    pub over: bool,
}

impl Sender {
    pub fn new(id: ClientId, manner: Manner, letters: VecDeque<(String, Letter)>) -> Self {
        Self {
            id,
            at: At::Greeting,
            manner,
            input: Vec::new(),
            letters,
            over: false,
        }
    }

    pub fn turn(&mut self, net: &SimNet, rng: &mut Rng, ledger: &mut Ledger) {
        self.input.extend(net.client_received(self.id));
        while !self.over
            && let Some(code) = self.reply()
        {
            self.answer(net, rng, ledger, code);
        }
        if !self.over && net.client_ended(self.id).is_some() {
            self.leave(net);
        }
    }

    /// The code of the next complete reply.
    fn reply(&mut self) -> Option<u16> {
        let mut end = 0;
        loop {
            let rest = &self.input[end..];
            let line = rest.iter().position(|byte| *byte == b'\n')? + 1;
            let last = rest.get(3) != Some(&b'-');
            end += line;
            if last {
                break;
            }
        }
        let reply: Vec<u8> = self.input.drain(..end).collect();
        std::str::from_utf8(&reply[..3]).ok()?.parse().ok()
    }

    fn leave(&mut self, net: &SimNet) {
        net.client_close(self.id);
        net.forget(self.id);
        self.over = true;
    }

    fn answer(&mut self, net: &SimNet, rng: &mut Rng, ledger: &mut Ledger, code: u16) {
        if self.at == At::Content {
            self.settled(net, ledger, code);
        }
        let good = match self.at {
            At::Greeting => code == 220,
            At::Data => code == 354,
            _ => code == 250,
        };
        if !good {
            self.leave(net);
            return;
        }
        match self.at {
            At::Greeting => self.say(net, At::Ehlo, "EHLO client.example\r\n"),
            At::Ehlo | At::Content => self.next(net, ledger),
            At::Mail => self.recipient(net, 0),
            At::Recipient(number) => self.recipient(net, number + 1),
            At::Data => self.content(net, rng, ledger),
            At::Quit => self.leave(net),
        }
    }

    fn settled(&mut self, net: &SimNet, ledger: &mut Ledger, code: u16) {
        let Some((name, _)) = self.letters.pop_front() else {
            return;
        };
        if let Some(letter) = ledger.letters.get_mut(&name) {
            letter.fate = match code {
                250 => Fate::Accepted,
                _ => Fate::Refused(net.now().mono_ns),
            };
        }
    }

    fn say(&mut self, net: &SimNet, at: At, text: &str) {
        self.at = at;
        net.client_send(self.id, text.as_bytes());
    }

    fn next(&mut self, net: &SimNet, ledger: &mut Ledger) {
        match self.letters.front() {
            None => self.say(net, At::Quit, "QUIT\r\n"),
            Some((name, letter)) => {
                ledger.letters.insert(name.clone(), letter.clone());
                let text = format!("MAIL FROM:<{}>\r\n", letter.sender);
                self.say(net, At::Mail, &text);
            }
        }
    }

    fn recipient(&mut self, net: &SimNet, number: usize) {
        let recipients = self.letters.front().map(|(_, letter)| &letter.recipients);
        match recipients.and_then(|all| all.get(number)) {
            Some(recipient) => {
                let text = format!("RCPT TO:<{recipient}>\r\n");
                self.say(net, At::Recipient(number), &text);
            }
            None => self.say(net, At::Data, "DATA\r\n"),
        }
    }

    fn content(&mut self, net: &SimNet, rng: &mut Rng, ledger: &mut Ledger) {
        let Some((name, letter)) = self.letters.front() else {
            return;
        };
        let breaks = matches!(self.manner, Manner::Breaks | Manner::Silent);
        if breaks && (self.letters.len() == 1 || rng.below(2) == 0) {
            net.client_send(self.id, &letter.content[..rng.index(letter.content.len())]);
            if self.manner == Manner::Breaks {
                net.client_reset(self.id);
                net.forget(self.id);
                self.over = true;
            }
            return;
        }
        if let Some(entry) = ledger.letters.get_mut(name) {
            entry.fate = Fate::Unsure;
            entry.sent_ns = net.now().mono_ns;
        }
        let mut content = letter.content.clone();
        content.extend_from_slice(b".\r\n");
        self.at = At::Content;
        net.client_send(self.id, &content);
        if self.manner == Manner::Hurried {
            self.leave(net);
        }
    }
}

/// A letter's content; lines without leading dots.
pub fn content(name: &str, large: bool, rng: &mut Rng) -> Vec<u8> {
    let mut content = format!("X-Name: {name}\r\n\r\n").into_bytes();
    for _ in 0..if large { 10_000 } else { rng.below(60) } {
        if large {
            content.extend_from_slice(format!("{:030}", rng.next_u64()).as_bytes());
        } else {
            content.extend((0..rng.below(70)).map(|_| b'a' + rng.below(26) as u8));
        }
        content.extend_from_slice(b"\r\n");
    }
    content
}
