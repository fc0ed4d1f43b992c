//! A next hop with moods: prompt, slow, mute, capped, hasty, refusing, forgetful.

use std::collections::VecDeque;
use std::net::SocketAddr;

use spool::sim::Rng;
use zmailer::io::sim::{ClientId, SimNet};

use super::ledger::{Ledger, SECOND_NS, name_of};

/// Who opens the door.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Door {
    #[default]
    Open,
    /// Connecting is refused.
    Refused,
    /// Connecting fails: no route.
    Unreachable,
    /// Nothing answers.
    Silent,
}

/// What the first line says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Greeting {
    #[default]
    Ready,
    Busy,
    /// Takes no mail, for good.
    Never,
    Mute,
}

/// How a next hop behaves for a while. Numbers without a unit are chances in a hundred.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mood {
    pub name: &'static str,
    pub door: Door,
    pub greeting: Greeting,
    /// Connections beyond so many are greeted with 421; 0: none are.
    pub cap: usize,
    /// Longest time before a reply.
    pub delay_ns: u64,
    /// Says nothing any more.
    pub mute: u64,
    pub defer: u64,
    pub defer_content: u64,
    pub reject: u64,
    pub reject_content: u64,
    /// Reset instead of a reply, perhaps behind half of it.
    pub reset: u64,
    /// Reset while content arrives.
    pub cut_content: u64,
    /// Reset after the content was taken, before it says so.
    pub forget: u64,
    /// Closes behind the answer to EHLO.
    pub hasty: u64,
    /// Stops reading.
    pub stall: u64,
}

impl Mood {
    /// Whether it answers at once and lets everybody in.
    pub fn is_prompt(&self) -> bool {
        let rough = self.mute + self.reset + self.cut_content + self.forget + self.hasty;
        self.door == Door::Open
            && self.greeting == Greeting::Ready
            && self.cap == 0
            && self.delay_ns == 0
            && rough + self.stall == 0
    }
}

/// All moods but the good one.
pub const MOODS: &[Mood] = &[
    Mood {
        name: "refused",
        door: Door::Refused,
        ..GOOD
    },
    Mood {
        name: "unreachable",
        door: Door::Unreachable,
        ..GOOD
    },
    Mood {
        name: "silent",
        door: Door::Silent,
        ..GOOD
    },
    Mood {
        name: "busy",
        greeting: Greeting::Busy,
        ..GOOD
    },
    Mood {
        name: "mute greeting",
        greeting: Greeting::Mute,
        ..GOOD
    },
    Mood {
        name: "never",
        greeting: Greeting::Never,
        ..GOOD
    },
    Mood {
        name: "capped",
        cap: 1,
        ..GOOD
    },
    Mood {
        name: "slow",
        delay_ns: 20 * SECOND_NS,
        ..GOOD
    },
    Mood {
        name: "mute",
        mute: 5,
        ..GOOD
    },
    Mood {
        name: "deferring",
        defer: 60,
        defer_content: 30,
        ..GOOD
    },
    Mood {
        name: "full",
        defer: 100,
        ..GOOD
    },
    Mood {
        name: "rejecting",
        reject: 40,
        reject_content: 20,
        ..GOOD
    },
    Mood {
        name: "resetting",
        reset: 10,
        cut_content: 10,
        forget: 10,
        ..GOOD
    },
    Mood {
        name: "hasty",
        hasty: 70,
        ..GOOD
    },
    Mood {
        name: "stalling",
        stall: 10,
        ..GOOD
    },
    Mood {
        name: "flaky",
        delay_ns: SECOND_NS,
        mute: 1,
        defer: 5,
        defer_content: 5,
        reject: 2,
        reset: 2,
        cut_content: 2,
        forget: 2,
        hasty: 5,
        ..GOOD
    },
];

pub const GOOD: Mood = Mood {
    name: "good",
    door: Door::Open,
    greeting: Greeting::Ready,
    cap: 0,
    delay_ns: 0,
    mute: 0,
    defer: 0,
    defer_content: 0,
    reject: 0,
    reject_content: 0,
    reset: 0,
    cut_content: 0,
    forget: 0,
    hasty: 0,
    stall: 0,
};

/// Behind a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    GoOn,
    Close,
    Reset,
}

#[derive(Debug)]
struct Reply {
    due_ns: u64,
    bytes: Vec<u8>,
    /// What it acknowledges.
    deliveries: Vec<usize>,
    then: Then,
}

#[derive(Debug)]
struct Session {
    id: ClientId,
    connection: usize,
    input: Vec<u8>,
    replies: VecDeque<Reply>,
    sender: String,
    recipients: Vec<String>,
    content: Option<Vec<u8>>,
    cut: bool,
    mute: bool,
    quit: bool,
    over: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Site {
    pub addresses: Vec<SocketAddr>,
    pub domain: String,
    pub lmtp: bool,
    /// Connections that the relay may have.
    pub limit: usize,
    pub mood: Mood,
    pub since_ns: u64,
    /// The last moment at which all connections that the relay may have were in use.
    pub full_ns: u64,
    sessions: Vec<Session>,
    pub deeds: Deeds,
}

/// Deliberate misbehaviour, to show that the oracle sees it. One in so many; 0: never.
#[derive(Clone, Copy, Debug, Default)]
pub struct Deeds {
    /// Says that it has taken a message and throws it away.
    pub lose: u64,
    /// Takes a message twice.
    pub repeat: u64,
    /// Changes content.
    pub alter: u64,
    /// Slower than its mood says, in nanoseconds.
    pub slow_ns: u64,
}

impl Site {
    pub fn new(addresses: Vec<SocketAddr>, domain: String, lmtp: bool, limit: usize) -> Self {
        Self {
            addresses,
            domain,
            lmtp,
            limit,
            mood: GOOD,
            since_ns: 0,
            full_ns: 0,
            sessions: Vec::new(),
            deeds: Deeds::default(),
        }
    }

    pub fn set_mood(&mut self, net: &SimNet, mood: Mood) {
        const EHOSTUNREACH: i32 = 113;
        let was = self.mood.door;
        self.mood = mood;
        self.since_ns = net.now().mono_ns;
        for address in &self.addresses {
            match mood.door {
                // A second call would forget who waits at the door.
                Door::Open if was == Door::Open && self.since_ns > 0 => {}
                Door::Open => net.listen(*address),
                Door::Refused => net.unlisten(*address),
                Door::Unreachable => net.fail_connect(*address, EHOSTUNREACH),
                Door::Silent => net.mute(*address),
            }
        }
    }

    /// No content is under way.
    pub fn is_idle(&self) -> bool {
        let mut sessions = self.sessions.iter();
        sessions.all(|session| session.content.is_none() && session.replies.is_empty())
    }

    /// When it has something to say.
    pub fn due_ns(&self) -> Option<u64> {
        let replies = self.sessions.iter().filter_map(|session| {
            let reply = session.replies.front()?;
            Some(reply.due_ns)
        });
        replies.min()
    }

    pub fn turn(&mut self, net: &SimNet, rng: &mut Rng, ledger: &mut Ledger) {
        let now_ns = net.now().mono_ns;
        let calls: usize = self.addresses.iter().map(|at| net.calls(*at)).sum();
        if calls >= self.limit {
            self.full_ns = now_ns;
        }
        for address in self.addresses.clone() {
            while let Some(id) = net.accept(address) {
                self.welcome(id, now_ns, rng, ledger);
            }
        }
        let mut sessions = std::mem::take(&mut self.sessions);
        for session in &mut sessions {
            self.serve(session, net, rng, ledger);
            say(session, net, rng, ledger);
            if session.over {
                net.forget(session.id);
            }
        }
        sessions.retain(|session| !session.over);
        self.sessions = sessions;
    }

    fn welcome(&mut self, id: ClientId, now_ns: u64, rng: &mut Rng, ledger: &mut Ledger) {
        let mut session = Session {
            id,
            connection: ledger.connection(),
            input: Vec::new(),
            replies: VecDeque::new(),
            sender: String::new(),
            recipients: Vec::new(),
            content: None,
            cut: false,
            mute: self.mood.greeting == Greeting::Mute,
            quit: false,
            over: false,
        };
        let capped = self.mood.cap > 0 && self.sessions.len() >= self.mood.cap;
        let (text, then): (&[u8], Then) = match self.mood.greeting {
            _ if capped => (b"421 4.7.0 too many connections\r\n", Then::Close),
            Greeting::Busy => (b"421 4.3.2 not now\r\n", Then::Close),
            Greeting::Never => {
                ledger.refusals.push((self.domain.clone(), now_ns));
                (b"554 5.3.2 no mail here\r\n", Then::Close)
            }
            Greeting::Ready | Greeting::Mute => (b"220 hop.example\r\n", Then::GoOn),
        };
        self.reply(&mut session, now_ns, rng, text, Vec::new(), then);
        self.sessions.push(session);
    }

    /// Queues a reply, or what happens in its place.
    fn reply(
        &self,
        session: &mut Session,
        now_ns: u64,
        rng: &mut Rng,
        text: &[u8],
        deliveries: Vec<usize>,
        then: Then,
    ) {
        if rng.below(100) < self.mood.mute {
            session.mute = true;
        }
        if session.mute {
            return;
        }
        let mut bytes = text.to_vec();
        let reset = rng.below(100) < self.mood.reset;
        if reset {
            bytes.truncate(rng.index(bytes.len()));
        }
        let delay_ns = rng.below(self.mood.delay_ns.max(1)) + self.deeds.slow_ns;
        let before = session.replies.back().map_or(0, |reply| reply.due_ns);
        session.replies.push_back(Reply {
            due_ns: before.max(now_ns + delay_ns),
            bytes,
            deliveries: if reset { Vec::new() } else { deliveries },
            then: if reset { Then::Reset } else { then },
        });
    }

    fn serve(&mut self, session: &mut Session, net: &SimNet, rng: &mut Rng, ledger: &mut Ledger) {
        let now_ns = net.now().mono_ns;
        if net.client_ended(session.id).is_some() {
            if !session.quit {
                ledger.lost(session.connection, now_ns);
            }
            net.client_close(session.id);
            session.over = true;
            return;
        }
        let arrived = net.client_received(session.id);
        if arrived.is_empty() {
            return;
        }
        if rng.below(100) < self.mood.stall {
            net.client_stall(session.id, true);
            session.mute = true;
        }
        if session.cut {
            ledger.lost(session.connection, now_ns);
            net.client_reset(session.id);
            session.over = true;
            return;
        }
        session.input.extend(arrived);
        while !session.mute
            && let Some(end) = session.input.iter().position(|byte| *byte == b'\n')
        {
            let line: Vec<u8> = session.input.drain(..=end).collect();
            self.line(session, now_ns, &line, rng, ledger);
        }
    }

    fn line(
        &mut self,
        session: &mut Session,
        now_ns: u64,
        line: &[u8],
        rng: &mut Rng,
        ledger: &mut Ledger,
    ) {
        if let Some(content) = &mut session.content {
            if line == b".\r\n" {
                let content = session.content.take().unwrap_or_default();
                self.content(session, now_ns, &content, rng, ledger);
            } else {
                content.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
            }
            return;
        }
        let mut then = Then::GoOn;
        let text: &[u8] = match line.get(..4) {
            Some(b"EHLO" | b"LHLO") => {
                if rng.below(100) < self.mood.hasty {
                    then = Then::Close;
                }
                b"250-hop.example\r\n250-8BITMIME\r\n250 PIPELINING\r\n"
            }
            Some(b"MAIL") => {
                session.sender = address_of(line);
                session.recipients.clear();
                b"250 2.1.0 fine\r\n"
            }
            Some(b"RCPT") => self.recipient(session, line, rng, ledger),
            Some(b"DATA") if session.recipients.is_empty() => b"503 5.5.1 for whom?\r\n",
            Some(b"DATA") => {
                session.content = Some(Vec::new());
                session.cut = rng.below(100) < self.mood.cut_content;
                b"354 go on\r\n"
            }
            Some(b"QUIT") => {
                session.quit = true;
                then = Then::Close;
                b"221 2.0.0 bye\r\n"
            }
            _ => b"250 2.0.0 fine\r\n",
        };
        self.reply(session, now_ns, rng, text, Vec::new(), then);
    }

    fn recipient(
        &self,
        session: &mut Session,
        line: &[u8],
        rng: &mut Rng,
        ledger: &mut Ledger,
    ) -> &'static [u8] {
        let address = address_of(line);
        if rng.below(100) < self.mood.defer {
            return b"451 4.2.0 later\r\n";
        }
        // The letter's name stands in front of the @; reports are to one who sent a letter.
        if address.starts_with("bad") || rng.below(100) < self.mood.reject {
            let name = address.split(['.', '@']).nth(1).unwrap_or_default();
            ledger.rejected(name, &address);
            return b"550 5.1.1 nobody\r\n";
        }
        session.recipients.push(address);
        b"250 2.1.5 fine\r\n"
    }

    /// The final dot: one verdict, or with LMTP one for each recipient.
    fn content(
        &mut self,
        session: &mut Session,
        now_ns: u64,
        content: &[u8],
        rng: &mut Rng,
        ledger: &mut Ledger,
    ) {
        session.cut = false;
        let recipients = std::mem::take(&mut session.recipients);
        if self.lmtp {
            for recipient in recipients {
                self.take(session, now_ns, vec![recipient], content, rng, ledger);
            }
        } else {
            self.take(session, now_ns, recipients, content, rng, ledger);
        }
    }

    fn take(
        &mut self,
        session: &mut Session,
        now_ns: u64,
        recipients: Vec<String>,
        content: &[u8],
        rng: &mut Rng,
        ledger: &mut Ledger,
    ) {
        if rng.below(100) < self.mood.defer_content {
            let text = b"451 4.3.0 not now\r\n";
            self.reply(session, now_ns, rng, text, Vec::new(), Then::GoOn);
            return;
        }
        if rng.below(100) < self.mood.reject_content {
            for recipient in &recipients {
                ledger.rejected(&name_of(content), recipient);
            }
            let text = b"554 5.6.0 not this\r\n";
            self.reply(session, now_ns, rng, text, Vec::new(), Then::GoOn);
            return;
        }
        let mut deliveries = Vec::new();
        let mut content = content.to_vec();
        if hits(rng, self.deeds.alter)
            && let Some(last) = content.iter_mut().rev().find(|byte| **byte > b' ')
        {
            *last ^= 1;
        }
        for recipient in &recipients {
            if hits(rng, self.deeds.lose) {
                continue;
            }
            let sender = &session.sender;
            for _ in 0..1 + u64::from(hits(rng, self.deeds.repeat)) {
                let connection = session.connection;
                deliveries.push(ledger.deliver(now_ns, connection, sender, recipient, &content));
            }
        }
        let then = if rng.below(100) < self.mood.forget {
            Then::Reset
        } else {
            Then::GoOn
        };
        let text: &[u8] = if then == Then::Reset {
            b"2"
        } else {
            b"250 2.0.0 taken\r\n"
        };
        let told = if then == Then::Reset {
            Vec::new()
        } else {
            deliveries
        };
        self.reply(session, now_ns, rng, text, told, then);
    }
}

fn hits(rng: &mut Rng, one_in: u64) -> bool {
    one_in > 0 && rng.below(one_in) == 0
}

/// Sends the replies whose time has come.
fn say(session: &mut Session, net: &SimNet, rng: &mut Rng, ledger: &mut Ledger) {
    let now_ns = net.now().mono_ns;
    while !session.over
        && let Some(reply) = session.replies.pop_front_if(|reply| reply.due_ns <= now_ns)
    {
        if !reply.bytes.is_empty() {
            net.client_send(session.id, &reply.bytes);
        }
        for delivery in &reply.deliveries {
            ledger.told(*delivery, now_ns);
        }
        session.over = reply.then != Then::GoOn;
        if session.over && !session.quit {
            ledger.lost(session.connection, now_ns);
        }
        match reply.then {
            Then::GoOn => {}
            // Both ways of a peer to be gone.
            Then::Close if rng.below(2) == 0 => net.client_close(session.id),
            Then::Close => {
                net.client_finish(session.id);
                net.client_close(session.id);
            }
            Then::Reset => net.client_reset(session.id),
        }
    }
}

fn address_of(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let from = text.find('<').map_or(0, |at| at + 1);
    let to = text.find('>').unwrap_or(from);
    text[from..to].to_owned()
}
