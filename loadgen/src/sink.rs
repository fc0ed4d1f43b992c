//! The receiving end: a small SMTP server with programmable replies, on a thread of its own.
//!
//! Content is hashed while it arrives and never kept. What is refused for good is entered in the
//! ledger, and it is always the same: chance decides by seed and recipient, not by attempt.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio_uring::net::{TcpListener, TcpStream};
use xxhash_rust::xxh3::xxh3_64;

use crate::distribution::{Purpose, Random};
use crate::ledger::Ledger;
use crate::message::parse_recipient;
use crate::options::Behaviour;
use crate::receive::{Digest, Identity, Undotter};
use crate::wire::Wire;

/// Recipients of one transaction.
const RECIPIENTS_MAX: usize = 10_000;

/// A sink that runs until it is stopped.
pub(crate) struct Sink {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    thread: thread::JoinHandle<io::Result<()>>,
}

impl Sink {
    /// Listens on `listen` at once, or later when the behaviour says so.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub(crate) fn start(
        listen: SocketAddr,
        behaviour: Behaviour,
        seed: u64,
        ledger: &Arc<Ledger>,
    ) -> io::Result<Self> {
        let (ready, bound) = mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let rules = Rules {
            behaviour,
            seed,
            ledger: Arc::clone(ledger),
            open: Cell::new(0),
        };
        let thread = thread::spawn(move || {
            tokio_uring::start(async move {
                tokio::select! {
                    result = serve(listen, rules, &ready) => result,
                    // A sender that is gone means stop as well.
                    _ = stopped => Ok(()),
                }
            })
        });
        match bound.recv() {
            Ok(address) => Ok(Self {
                address,
                stop,
                thread,
            }),
            // The thread has ended with the reason.
            Err(_) => match thread.join() {
                Ok(Err(error)) => Err(error),
                _ => Err(io::Error::other("the sink ended before it listened")),
            },
        }
    }

    /// Where it listens, or will.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes everything.
    ///
    /// # Errors
    /// When it has ended before, with the reason.
    pub(crate) fn stop(self) -> io::Result<()> {
        // It may have ended already; then the result says why.
        let _ = self.stop.send(());
        match self.thread.join() {
            Ok(result) => result,
            Err(_) => Err(io::Error::other("the sink's thread panicked")),
        }
    }
}

/// What all sessions share.
struct Rules {
    behaviour: Behaviour,
    seed: u64,
    ledger: Arc<Ledger>,
    /// Connections at the moment.
    open: Cell<usize>,
}

async fn serve(
    listen: SocketAddr,
    rules: Rules,
    ready: &mpsc::Sender<SocketAddr>,
) -> io::Result<()> {
    let mut listener = TcpListener::bind(listen)?;
    let address = listener.local_addr()?;
    // Nobody waits any more only when the process ends.
    let _ = ready.send(address);
    if rules.behaviour.down_for > 0 {
        drop(listener);
        tokio::time::sleep(Duration::from_secs(rules.behaviour.down_for)).await;
        listener = TcpListener::bind(address)?;
    }
    let rules = Rc::new(rules);
    for connection in 0.. {
        match listener.accept().await {
            Ok((stream, _)) => {
                let rules = Rc::clone(&rules);
                tokio_uring::spawn(async move {
                    // A connection that breaks is the peer's business.
                    let _ = attend(stream, rules, connection).await;
                });
            }
            // No descriptor is free, or the peer has gone; both pass.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
    Ok(())
}

async fn attend(stream: TcpStream, rules: Rc<Rules>, connection: u64) -> io::Result<()> {
    // Replies must not wait for the peer's delayed acknowledgement.
    stream.set_nodelay(true)?;
    let behaviour = &rules.behaviour;
    let mut random = Random::new(rules.seed, Purpose::Session, connection);
    let mut wire = Wire::new(stream, behaviour.read_rate);
    if random.chance(behaviour.mute) {
        return be_mute(wire).await;
    }
    if behaviour.max_connections > 0 && rules.open.get() >= behaviour.max_connections {
        wire.say("421 4.7.0 too many connections");
        return wire.flush().await;
    }
    rules.open.set(rules.open.get() + 1);
    let mut session = Session {
        wire,
        rules: Rc::clone(&rules),
        mail: Mail::new(false),
        random,
    };
    let result = session.serve().await;
    rules.open.set(rules.open.get() - 1);
    result
}

/// Reads and says nothing until the peer gives up.
async fn be_mute(mut wire: Wire) -> io::Result<()> {
    loop {
        wire.fill().await?;
        wire.input.clear();
    }
}

/// One transaction.
struct Mail {
    /// The reverse-path is empty: a report, which is never refused for good.
    report: bool,
    recipients: Vec<Option<(u64, u32)>>,
    digest: Digest,
}

impl Mail {
    fn new(report: bool) -> Self {
        Self {
            report,
            recipients: Vec::new(),
            digest: Digest::new(report),
        }
    }
}

struct Session {
    wire: Wire,
    rules: Rc<Rules>,
    mail: Mail,
    random: Random,
}

impl Session {
    async fn serve(&mut self) -> io::Result<()> {
        self.wire.say("220 sink.example ESMTP");
        loop {
            let line = self.wire.line().await?;
            let upper = line.to_ascii_uppercase();
            match upper.get(..4).unwrap_or(&upper) {
                b"EHLO" => self.hello(),
                b"MAIL" => {
                    self.mail = Mail::new(upper.starts_with(b"MAIL FROM:<>"));
                    self.wire.say("250 2.1.0 ok");
                }
                b"RCPT" => self.recipient(&line),
                b"DATA" if self.mail.recipients.is_empty() => {
                    self.wire.say("554 5.5.1 no recipients");
                }
                b"DATA" => {
                    self.wire.say("354 go on");
                    self.dotted().await?;
                    self.finish().await?;
                }
                b"BDAT" => self.chunk(&upper).await?,
                b"QUIT" => {
                    self.wire.say("221 2.0.0 bye");
                    return self.wire.flush().await;
                }
                _ => self.wire.say("250 2.0.0 ok"),
            }
        }
    }

    fn hello(&mut self) {
        for extension in ["sink.example", "PIPELINING", "8BITMIME", "SIZE 1073741824"] {
            self.wire.say(&format!("250-{extension}"));
        }
        if self.rules.behaviour.chunking {
            self.wire.say("250-CHUNKING");
        }
        self.wire.say("250 ENHANCEDSTATUSCODES");
    }

    fn recipient(&mut self, line: &[u8]) {
        let path = line.split(|byte| *byte == b'<').nth(1).unwrap_or(b"");
        let address = path.split(|byte| *byte == b'>').next().unwrap_or(b"");
        let known = parse_recipient(address);
        if self.refuses(address, known) {
            if let Some((number, index)) = known {
                self.rules.ledger.refused_by_sink(number, index);
            }
            self.wire.say("550 5.1.1 no such user");
        } else if self.mail.recipients.len() == RECIPIENTS_MAX {
            self.wire.say("452 4.5.3 too many recipients");
        } else {
            self.mail.recipients.push(known);
            self.wire.say("250 2.1.5 ok");
        }
    }

    fn refuses(&self, address: &[u8], known: Option<(u64, u32)>) -> bool {
        let which = known.map_or_else(
            || xxh3_64(address),
            |(number, index)| (number << 16) | u64::from(index),
        );
        let mut random = Random::new(self.rules.seed, Purpose::RefusedRecipient, which);
        !self.mail.report && random.chance(self.rules.behaviour.fail_rcpt)
    }

    async fn dotted(&mut self) -> io::Result<()> {
        let mut undotter = Undotter::new();
        loop {
            let digest = &mut self.mail.digest;
            let taken = undotter.take(&self.wire.input, |text| digest.push(text));
            self.wire.input.drain(..taken.bytes);
            if taken.ended {
                return Ok(());
            }
            self.wire.fill().await?;
        }
    }

    async fn chunk(&mut self, line: &[u8]) -> io::Result<()> {
        let mut words = line.split(|byte| *byte == b' ').skip(1);
        let size = words
            .next()
            .and_then(|word| std::str::from_utf8(word).ok()?.parse::<u64>().ok());
        let Some(mut left) = size else {
            // RFC 3030 2: without a size nobody knows where the next command begins.
            return Err(io::ErrorKind::InvalidData.into());
        };
        while left > 0 {
            if self.wire.input.is_empty() {
                self.wire.fill().await?;
            }
            let taken = self.wire.input.len().min(left as usize);
            self.mail.digest.push(&self.wire.input[..taken]);
            self.wire.input.drain(..taken);
            left -= taken as u64;
        }
        if words.next() == Some(b"LAST") {
            return self.finish().await;
        }
        self.wire.say("250 2.0.0 more");
        Ok(())
    }

    async fn finish(&mut self) -> io::Result<()> {
        let mail = std::mem::replace(&mut self.mail, Mail::new(false));
        let behaviour = &self.rules.behaviour;
        if behaviour.delay > 0 {
            self.wire.flush().await?;
            tokio::time::sleep(Duration::from_millis(behaviour.delay)).await;
        }
        if self.random.chance(behaviour.drop) {
            self.wire.hang_up().await?;
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        if mail.recipients.is_empty() {
            self.wire.say("554 5.5.1 no recipients");
        } else if self.random.chance(behaviour.fail_4xx) {
            self.wire.say("451 4.3.0 not now");
        } else {
            let taken = enter(&self.rules, mail, &mut self.random);
            let reply = if taken {
                "250 2.0.0 taken"
            } else {
                "554 5.3.0 never"
            };
            self.wire.say(reply);
        }
        Ok(())
    }
}

/// Enters complete mail in the ledger; whether it is taken. `random` decides where no number does.
fn enter(rules: &Rules, mail: Mail, random: &mut Random) -> bool {
    let (ledger, refused) = (&rules.ledger, rules.behaviour.fail_5xx);
    match mail.digest.finish() {
        Identity::Message { number, good } => {
            let mut random = Random::new(rules.seed, Purpose::RefusedMessage, number);
            if random.chance(refused) {
                for (number, index) in mail.recipients.into_iter().flatten() {
                    ledger.refused_by_sink(number, index);
                }
                return false;
            }
            ledger.delivered(number, good, &mail.recipients);
        }
        Identity::Report(recipients) => ledger.reported(&recipients),
        Identity::Strange if random.chance(refused) => {
            ledger.strange(0);
            return false;
        }
        Identity::Strange => ledger.strange(mail.recipients.len()),
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message;
    use std::io::{Read, Write};

    fn start(behaviour: Behaviour, ledger: Ledger) -> (Sink, Arc<Ledger>) {
        let (ledger, listen) = (Arc::new(ledger), SocketAddr::from(([127, 0, 0, 1], 0)));
        let sink = Sink::start(listen, behaviour, 1, &ledger).unwrap();
        (sink, ledger)
    }

    /// All that the sink says to this on one connection.
    fn talk(sink: &Sink, text: &str) -> String {
        let mut stream = std::net::TcpStream::connect(sink.address()).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        said
    }

    /// Messages were entered as delivered and their replies lost with the connection, when a later
    /// one in the same write made the sink drop it; a relay then sent them again. What the sink says
    /// it has taken and what the ledger has must be the same.
    #[test]
    fn a_dropped_connection_takes_no_reply_with_it() {
        let behaviour = Behaviour {
            drop: 0.3,
            ..Behaviour::default()
        };
        let (sink, ledger) = start(behaviour, Ledger::without_messages());
        let message = "MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n\
            BDAT 10 LAST\r\nX: y\r\n\r\nz\r\n";
        let talks = (0..30).map(|_| talk(&sink, &(message.repeat(10) + "QUIT\r\n")));
        let taken: usize = talks
            .map(|said| said.matches("250 2.0.0 taken").count())
            .sum();
        assert!(taken > 30, "{taken}");
        assert_eq!(ledger.progress().delivered, taken as u64);
        sink.stop().unwrap();
    }

    #[test]
    fn the_same_recipients_are_refused_each_time_and_entered_once() {
        let behaviour = Behaviour {
            fail_rcpt: 0.3,
            ..Behaviour::default()
        };
        let load = crate::options::tests::load(&["--messages", "10", "--recipients", "10"]);
        let (sink, ledger) = start(behaviour, Ledger::new(&load.unwrap()).unwrap());
        let recipients: String = (0..100)
            .map(|at| message::recipient(at / 10, (at % 10) as u32, "sink.example"))
            .map(|address| format!("RCPT TO:<{address}>\r\n"))
            .collect();
        let words = format!("MAIL FROM:<a@b.example>\r\n{recipients}QUIT\r\n");
        let (first, second) = (talk(&sink, &words), talk(&sink, &words));
        assert_eq!(first, second);
        let refused = first.matches("\r\n550 ").count();
        assert!((10..60).contains(&refused), "{refused}");
        assert_eq!(ledger.summary().balance.refused_by_sink, refused as u64);
        sink.stop().unwrap();
    }

    #[test]
    fn a_report_is_never_refused_for_good() {
        let behaviour = Behaviour {
            fail_rcpt: 1.0,
            fail_5xx: 1.0,
            ..Behaviour::default()
        };
        let (sink, _) = start(behaviour, Ledger::without_messages());
        let words = "MAIL FROM:<>\r\nRCPT TO:<source@loadgen.example>\r\nDATA\r\n\
            Subject: x\r\n\r\n..\r\n.\r\nQUIT\r\n";
        assert!(talk(&sink, words).contains("250 2.0.0 taken"));
        let words = words.replace("<>", "<a@b.example>");
        assert!(talk(&sink, &words).contains("\r\n550 "));
        sink.stop().unwrap();
    }

    #[test]
    fn a_connection_too_many_gets_421() {
        let behaviour = Behaviour {
            max_connections: 1,
            ..Behaviour::default()
        };
        let (sink, _) = start(behaviour, Ledger::without_messages());
        let mut first = std::net::TcpStream::connect(sink.address()).unwrap();
        // It has been let in when it is greeted.
        first.read_exact(&mut [0; 3]).unwrap();
        assert!(talk(&sink, "").starts_with("421 "));
        sink.stop().unwrap();
    }
}
