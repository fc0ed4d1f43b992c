//! A next hop that keeps what it receives and can be told to misbehave. Independent of the code
//! under test; one thread a connection.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// One delivered message.
#[derive(Clone, Debug)]
pub struct Mail {
    pub sender: String,
    pub recipients: Vec<String>,
    pub content: Vec<u8>,
    pub at: Instant,
}

/// How the hop answers. Replies are taken from the front while there are some, then the usual ones.
#[derive(Default)]
pub struct Script {
    pub greeting: Option<String>,
    /// Without EHLO only HELO is understood.
    pub no_ehlo: bool,
    pub extensions: Vec<&'static str>,
    pub mail: VecDeque<String>,
    pub rcpt: VecDeque<String>,
    /// The reply to RCPT when there is none in front.
    pub rcpt_usual: Option<&'static str>,
    pub dot: VecDeque<String>,
    /// Connections to be closed right after accepting.
    pub drop_connections: usize,
    /// Connections that are accepted and never spoken to.
    pub mute_connections: usize,
    /// Contents that have arrived, answered or not.
    pub contents: usize,
    /// Close instead of answering this many final dots.
    pub drop_at_dot: usize,
    /// Count messages, and keep nothing of them.
    pub forget_content: bool,
    /// Before each final reply.
    pub delay: Duration,
    /// Connections beyond so many get 421; 0: no limit.
    pub connections_max: usize,
}

/// A listening next hop.
pub struct Hop {
    pub address: SocketAddr,
    pub script: Arc<Mutex<Script>>,
    mails: Arc<Mutex<Vec<Mail>>>,
    open: Arc<AtomicUsize>,
    open_max: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
}

struct Counters {
    open: Arc<AtomicUsize>,
}

impl Drop for Counters {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Hop {
    /// Listens on a free port of 127.0.0.1.
    pub fn start() -> Self {
        Self::start_on("127.0.0.1:0".parse().expect("an address"))
    }

    /// Listens on `address`.
    pub fn start_on(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).expect("the hop can listen");
        let hop = Self {
            address: listener
                .local_addr()
                .expect("a bound socket has an address"),
            script: Arc::default(),
            mails: Arc::default(),
            open: Arc::default(),
            open_max: Arc::default(),
            connections: Arc::default(),
        };
        hop.serve(listener);
        hop
    }

    fn serve(&self, listener: TcpListener) {
        let (script, mails) = (Arc::clone(&self.script), Arc::clone(&self.mails));
        let (open, open_max) = (Arc::clone(&self.open), Arc::clone(&self.open_max));
        let connections = Arc::clone(&self.connections);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                connections.fetch_add(1, Ordering::SeqCst);
                let now = open.fetch_add(1, Ordering::SeqCst) + 1;
                open_max.fetch_max(now, Ordering::SeqCst);
                let allowed = script.lock().map_or(0, |script| script.connections_max);
                if allowed > 0 && now > allowed {
                    open.fetch_sub(1, Ordering::SeqCst);
                    let mut stream = stream;
                    let _ = stream.write_all(b"421 4.7.0 too many connections\r\n");
                    continue;
                }
                let counters = Counters {
                    open: Arc::clone(&open),
                };
                let (script, mails) = (Arc::clone(&script), Arc::clone(&mails));
                std::thread::spawn(move || {
                    let Ok(farewell) = converse(&stream, &script, &mails) else {
                        return;
                    };
                    // Who reads the farewell may connect again: this one is not open any more then.
                    drop(counters);
                    let _ = (&stream).write_all(farewell);
                });
            }
        });
    }

    /// What has arrived so far.
    pub fn mails(&self) -> Vec<Mail> {
        self.mails
            .lock()
            .expect("no thread panicked with it")
            .clone()
    }

    /// Waits until `count` messages have arrived.
    pub fn wait_for_mails(&self, count: usize) -> Vec<Mail> {
        super::wait_for(&format!("{count} messages at the next hop"), || {
            let mails = self.mails();
            (mails.len() >= count).then_some(mails)
        })
    }

    /// The most connections that were open at a time.
    pub fn open_max(&self) -> usize {
        self.open_max.load(Ordering::SeqCst)
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

type Shared<T> = Arc<Mutex<T>>;

fn pop(script: &Shared<Script>, pick: impl Fn(&mut Script) -> Option<String>) -> Option<String> {
    pick(&mut script.lock().expect("no thread panicked with it"))
}

fn greet(mut stream: &TcpStream, script: &Shared<Script>) -> std::io::Result<bool> {
    let greeting = {
        let mut script = script.lock().expect("no thread panicked with it");
        if script.drop_connections > 0 {
            script.drop_connections -= 1;
            return Ok(false);
        }
        if script.mute_connections > 0 {
            script.mute_connections -= 1;
            drop(script);
            // Until the other side has enough of it.
            std::io::copy(&mut stream, &mut std::io::sink())?;
            return Ok(false);
        }
        script
            .greeting
            .clone()
            .unwrap_or_else(|| "220 hop.example ESMTP".to_owned())
    };
    write!(stream, "{greeting}\r\n")?;
    Ok(true)
}

/// Returns what is said before the connection is closed.
fn converse(
    mut stream: &TcpStream,
    script: &Shared<Script>,
    mails: &Shared<Vec<Mail>>,
) -> std::io::Result<&'static [u8]> {
    stream.set_nodelay(true)?;
    if !greet(stream, script)? {
        return Ok(b"");
    }
    let mut reader = BufReader::new(stream);
    let (mut sender, mut recipients) = (String::new(), Vec::new());
    let mut line = String::new();
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(b"");
        }
        let command = line.trim_end();
        let verb = command.to_ascii_uppercase();
        let reply = if verb.starts_with("EHLO") {
            hello(script)
        } else if verb.starts_with("HELO") || verb.starts_with("RSET") || verb.starts_with("NOOP") {
            recipients.clear();
            "250 ok".to_owned()
        } else if verb.starts_with("MAIL FROM:") {
            sender = path_of(command);
            recipients.clear();
            pop(script, |script| script.mail.pop_front()).unwrap_or_else(|| "250 2.1.0 ok".into())
        } else if verb.starts_with("RCPT TO:") {
            let reply = pop(script, |script| {
                let usual = script.rcpt_usual.map(str::to_owned);
                script.rcpt.pop_front().or(usual)
            })
            .unwrap_or_else(|| "250 2.1.5 ok".into());
            if reply.starts_with('2') {
                recipients.push(path_of(command));
            }
            reply
        } else if verb.starts_with("DATA") {
            if recipients.is_empty() {
                "554 5.5.1 no valid recipients".to_owned()
            } else {
                write!(stream, "354 go on\r\n")?;
                let content = dotted(&mut reader)?;
                match accept(script, mails, &sender, &mut recipients, content) {
                    Some(reply) => reply,
                    None => return Ok(b""),
                }
            }
        } else if verb.starts_with("BDAT ") {
            let content = chunk(&mut reader, &verb)?;
            match accept(script, mails, &sender, &mut recipients, content) {
                Some(reply) => reply,
                None => return Ok(b""),
            }
        } else if verb.starts_with("QUIT") {
            return Ok(b"221 2.0.0 bye\r\n");
        } else {
            "500 5.5.2 what?".to_owned()
        };
        write!(stream, "{reply}\r\n")?;
    }
}

fn hello(script: &Shared<Script>) -> String {
    let script = script.lock().expect("no thread panicked with it");
    if script.no_ehlo {
        return "502 5.5.1 what?".to_owned();
    }
    let mut reply = String::from("250-hop.example\r\n");
    for extension in &script.extensions {
        reply.push_str(&format!("250-{extension}\r\n"));
    }
    reply.push_str("250 ENHANCEDSTATUSCODES");
    reply
}

fn accept(
    script: &Shared<Script>,
    mails: &Shared<Vec<Mail>>,
    sender: &str,
    recipients: &mut Vec<String>,
    content: Vec<u8>,
) -> Option<String> {
    let (reply, delay, forget) = {
        let mut script = script.lock().expect("no thread panicked with it");
        script.contents += 1;
        if script.drop_at_dot > 0 {
            script.drop_at_dot -= 1;
            return None;
        }
        (
            script
                .dot
                .pop_front()
                .unwrap_or_else(|| "250 2.0.0 taken".into()),
            script.delay,
            script.forget_content,
        )
    };
    std::thread::sleep(delay);
    let recipients = std::mem::take(recipients);
    if reply.starts_with('2') {
        let mail = Mail {
            sender: sender.to_owned(),
            recipients,
            content: if forget { Vec::new() } else { content },
            at: Instant::now(),
        };
        mails.lock().expect("no thread panicked with it").push(mail);
    }
    Some(reply)
}

fn path_of(command: &str) -> String {
    let from = command.find('<').map_or(0, |at| at + 1);
    let to = command.find('>').unwrap_or(command.len());
    command[from..to].to_owned()
}

fn dotted(reader: &mut impl BufRead) -> std::io::Result<Vec<u8>> {
    let mut content = Vec::new();
    loop {
        let mut line = Vec::new();
        if reader.read_until(b'\n', &mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if line == b".\r\n" {
            return Ok(content);
        }
        content.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
    }
}

fn chunk(reader: &mut impl BufRead, verb: &str) -> std::io::Result<Vec<u8>> {
    let size = verb
        .split(' ')
        .nth(1)
        .and_then(|size| size.parse().ok())
        .unwrap_or(0);
    let mut content = vec![0; size];
    reader.read_exact(&mut content)?;
    Ok(content)
}
