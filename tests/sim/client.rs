//! A client: one session, message after message, each line sent when the reply to the last is there.

use std::collections::BTreeMap;

use spool::sim::Rng;
use zmailer::io::sim::{ClientId, SimNet};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Greeting,
    Ehlo,
    /// Connected; told to begin.
    Ready,
    Mail,
    Rcpt,
    Data,
    Content,
    Finished,
}

/// See the module.
#[derive(Debug)]
pub struct Client {
    id: ClientId,
    number: usize,
    messages: usize,
    large_one_in: u64,
    sent: usize,
    at: At,
    input: Vec<u8>,
    begun: bool,
    /// Content of each acknowledged message by its sequence name.
    pub acknowledged: BTreeMap<String, Vec<u8>>,
    /// Replies that were not what a good server says.
    pub surprises: Vec<String>,
    current: (String, Vec<u8>),
}

impl Client {
    pub fn new(id: ClientId, number: usize, messages: usize, large_one_in: u64) -> Self {
        Self {
            id,
            number,
            messages,
            large_one_in,
            sent: 0,
            at: At::Greeting,
            input: Vec::new(),
            begun: false,
            acknowledged: BTreeMap::new(),
            surprises: Vec::new(),
            current: (String::new(), Vec::new()),
        }
    }

    pub fn is_ready(&self) -> bool {
        !matches!(self.at, At::Greeting | At::Ehlo)
    }

    pub fn is_finished(&self) -> bool {
        self.at == At::Finished
    }

    pub fn begin(&mut self) {
        self.begun = true;
    }

    pub fn turn(&mut self, net: &SimNet, rng: &mut Rng) {
        self.input.extend(net.client_received(self.id));
        if self.at == At::Ready && self.begun {
            self.next(net, rng);
        }
        while let Some(code) = self.reply() {
            self.answer(net, rng, code);
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

    fn answer(&mut self, net: &SimNet, rng: &mut Rng, code: u16) {
        let expected = match self.at {
            At::Greeting => 220,
            At::Data => 354,
            _ => 250,
        };
        if code != expected {
            self.surprises.push(format!("{:?}: {code}", self.at));
        }
        match self.at {
            At::Greeting => self.say(net, At::Ehlo, b"EHLO client.example\r\n"),
            At::Ehlo => self.at = At::Ready,
            At::Mail => self.say(net, At::Rcpt, b"RCPT TO:<b@sink.example>\r\n"),
            At::Rcpt => self.say(net, At::Data, b"DATA\r\n"),
            At::Data => {
                let mut content = self.current.1.clone();
                content.extend_from_slice(b".\r\n");
                self.say(net, At::Content, &content);
            }
            At::Content => {
                if code == 250 {
                    let (name, content) = std::mem::take(&mut self.current);
                    self.acknowledged.insert(name, content);
                }
                self.next(net, rng);
            }
            At::Ready | At::Finished => self.surprises.push(format!("{code} for nothing")),
        }
    }

    fn say(&mut self, net: &SimNet, at: At, bytes: &[u8]) {
        self.at = at;
        net.client_send(self.id, bytes);
    }

    fn next(&mut self, net: &SimNet, rng: &mut Rng) {
        if self.sent == self.messages {
            self.at = At::Finished;
            return;
        }
        self.sent += 1;
        let name = format!("{}-{}", self.number, self.sent);
        let mut content = format!("X-Name: {name}\r\n\r\n").into_bytes();
        let large = self.large_one_in > 0 && rng.below(self.large_one_in) == 0;
        for _ in 0..if large { 12_000 } else { rng.below(60) } {
            if large {
                content.extend_from_slice(format!("{:030}", rng.next_u64()).as_bytes());
            } else {
                content.extend((0..rng.below(70)).map(|_| b'a' + rng.below(26) as u8));
            }
            content.extend_from_slice(b"\r\n");
        }
        self.current = (name, content);
        self.say(net, At::Mail, b"MAIL FROM:<a@source.example>\r\n");
    }
}
