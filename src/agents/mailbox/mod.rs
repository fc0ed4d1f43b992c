//! The mailbox agent: takes messages by LMTP (RFC 2033) and writes them into mailboxes and files or hands them to
//! programs, as the user they are for when it runs as root. It also reads users' files for the routing script.
//!
//! A process with a thread for each connection and plain blocking calls; it ends with the daemon. A recipient's `250`
//! means that the message is on disk under its final name, or that the program has said so. In a Maildir the name comes
//! from the message's id, so that a message that is delivered again after a crash is there once; files of many messages
//! are looked through (`mbox`); a program that was ended by the crash gets it again.
//!
//! Programs and files come as parameters of RCPT that only the daemon's user may use: `XTARGET` names them, and
//! `XPRIVILEGE` is the account (`rights`).

mod batch;
mod content;
mod dot_lock;
mod draft;
mod entry;
mod files;
mod group;
mod maildir;
mod mbox;
mod program;
mod rights;

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use crate::base::clock::Now;
use crate::control::script::rights as file_questions;
use crate::control::users;
use crate::mail::target::{TARGET_BYTES_MAX, Target};
use crate::protocol::Input;
use crate::protocol::server::{
    self, Peer, Question, RecipientParams, Session, Transaction, Verdict, Want,
};
use batch::Batches;
use content::{Content, HELD_BYTES_MAX};
use group::Groups;
use maildir::{Delivery, Letter, Owner, Step};
use mbox::Fault;
use program::Program;
pub use program::end_all;
use rights::Rights;

/// Connections at a time; the daemon's own limit for the channel is lower.
const CONNECTIONS_MAX: usize = 512;

/// Largest message: the daemon has its own limit.
const MESSAGE_BYTES_MAX: u64 = 1 << 32;

const INPUT_BYTES: usize = 64 << 10;

/// A command line: a program or a file with all its bytes encoded.
const COMMAND_BYTES_MAX: usize = 4 * TARGET_BYTES_MAX;

/// How long the lock of a file is waited for...
const LOCK_TIME: Duration = Duration::from_secs(20);

/// ... and those of all recipients of a message: the daemon waits for the replies.
const LOCKS_TIME: Duration = Duration::from_secs(240);

/// Recipients of a transaction that are delivered to at the same time.
const TOGETHER_MAX: usize = 32;

/// The reply for users while there is no path for their mail.
const NO_MAILBOXES: &str = "451 4.3.5 there are no mailboxes here (transport.mailbox.path)";

/// What the agent is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Template of a mailbox's path; empty: there are none.
    pub path: String,
    /// Mailboxes are files of many messages, not Maildirs.
    pub is_mbox: bool,
    /// The account that root's programs and files have instead of root's.
    pub program_user: String,
    /// Longest time of a program.
    pub program_time: Duration,
    /// The file of the settings.
    pub config: Option<PathBuf>,
    /// This host's name.
    pub hostname: String,
    /// A directory for what does not fit into memory.
    pub scratch: PathBuf,
    /// Who may connect, besides root.
    pub daemon_uid: u32,
}

/// What all connections share.
struct Agent {
    settings: Settings,
    session: Arc<server::Settings>,
    users: users::Users,
    batches: Batches,
    groups: Groups,
    /// Messages that arrived before may have been delivered by a run that crashed.
    started_ms: u64,
    connections: AtomicUsize,
}

/// Serves until the process is ended.
///
/// # Errors
/// When no more connections can be taken.
pub fn serve(listener: &UnixListener, settings: Settings) -> io::Result<()> {
    let session = server::Settings {
        hostname: settings.hostname.clone(),
        message_bytes_max: MESSAGE_BYTES_MAX,
        recipients_max: 100_000,
        line_bytes_max: usize::MAX / 2,
        header_bytes_max: usize::MAX / 2,
        received_max: usize::MAX / 2,
        transactions_max: u32::MAX,
        errors_max: u32::MAX,
        total_ns: u64::MAX / 2,
        command_line_bytes_max: COMMAND_BYTES_MAX,
        lmtp: true,
        ..server::Settings::default()
    };
    let agent = Arc::new(Agent {
        users: users::Users::new(&settings.path, &settings.hostname),
        settings,
        session: Arc::new(session),
        batches: Batches::default(),
        groups: Groups::default(),
        started_ms: now(Instant::now()).wall_ms,
        connections: AtomicUsize::new(0),
    });
    loop {
        let (stream, _) = listener.accept()?;
        let agent = Arc::clone(&agent);
        if agent.connections.fetch_add(1, Ordering::AcqRel) >= CONNECTIONS_MAX {
            agent.connections.fetch_sub(1, Ordering::AcqRel);
            continue;
        }
        let thread = thread::Builder::new().name("mailbox".to_owned());
        thread.spawn(move || {
            if let Err(error) = agent.converse(&stream) {
                tracing::debug!("connection: {error}");
            }
            agent.connections.fetch_sub(1, Ordering::AcqRel);
        })?;
    }
}

fn now(started: Instant) -> Now {
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    Now {
        mono_ns: started.elapsed().as_nanos() as u64,
        wall_ms: wall.map_or(0, |since| since.as_millis() as u64),
    }
}

impl Agent {
    fn converse(&self, stream: &UnixStream) -> io::Result<()> {
        let uid = rustix::net::sockopt::socket_peercred(stream)?.uid.as_raw();
        if uid != 0 && uid != self.settings.daemon_uid {
            tracing::warn!("user {uid} may not deliver to mailboxes");
            return Ok(());
        }
        stream.set_read_timeout(Some(Duration::from_secs(600)))?;
        let peer = Peer {
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 0,
        };
        let started = Instant::now();
        let mut session = Session::new(Arc::clone(&self.session), peer, now(started));
        let (mut reader, mut writer) = (stream, stream);
        let mut output = Vec::new();
        let mut content = Content::default();
        session.greet(&mut output);
        let (mut bytes, mut held) = (vec![0; INPUT_BYTES], Vec::new());
        let mut is_first = true;
        loop {
            writer.write_all(&output)?;
            output.clear();
            let count = reader.read(&mut bytes)?;
            if count == 0 {
                return Ok(());
            }
            held.extend_from_slice(bytes.get(..count).unwrap_or_default());
            if held.starts_with(file_questions::KEYWORD.as_bytes()) && is_first {
                match answer_file(&held, &mut writer) {
                    Some(result) => return result,
                    None => continue,
                }
            }
            is_first = false;
            let mut input = Input::new(&held);
            let open = self.feed(&mut session, &mut input, &mut content, started, &mut output);
            let used = input.consumed();
            held.drain(..used);
            if session.held_bytes() >= HELD_BYTES_MAX {
                let bytes = session.take_content(1);
                content.store(&self.settings.scratch, &bytes)?;
            }
            if !open {
                return writer.write_all(&output);
            }
        }
    }

    /// Feeds the session; false when the conversation is over.
    fn feed(
        &self,
        session: &mut Session,
        input: &mut Input<'_>,
        content: &mut Content,
        started: Instant,
        output: &mut Vec<u8>,
    ) -> bool {
        loop {
            let now = now(started);
            match session.receive(input, now, output) {
                Want::Input => return true,
                Want::Close => return false,
                Want::Policy(Question::Sender { .. }) => {
                    session.verdict(Verdict::Accept, now, output);
                }
                Want::Policy(Question::Recipient { address }) => {
                    let verdict = match self.users.find(&address) {
                        Ok(Some(_)) if self.settings.path.is_empty() => {
                            Verdict::Reject(NO_MAILBOXES.into())
                        }
                        Ok(Some(_)) => Verdict::Accept,
                        Ok(None) => Verdict::Reject(users::UNKNOWN.into()),
                        Err(_) => Verdict::Reject(users::UNSURE.into()),
                    };
                    session.verdict(verdict, now, output);
                }
                Want::Begin => {
                    *content = Content::default();
                    session.begin("LMTP", now, output);
                }
                Want::Store(mut transaction) => {
                    content.end(std::mem::take(&mut transaction.content));
                    let content = std::mem::take(content);
                    let replies = self.deliver(&transaction, &content, now.wall_ms);
                    session.stored_each(&replies, now, output);
                }
            }
        }
    }

    /// Delivers to each recipient; a reply for each.
    fn deliver(&self, transaction: &Transaction, content: &Content, now_ms: u64) -> Vec<String> {
        let (id, arrival_ms) = identity(transaction.spool_id.as_deref(), now_ms);
        let locks_until = Instant::now() + LOCKS_TIME;
        let letter = |recipient| Letter {
            id: &id,
            arrival_ms,
            perhaps_there: arrival_ms <= self.started_ms,
            hostname: &self.settings.hostname,
            sender: &transaction.sender,
            recipient,
            content,
        };
        let mut replies = Vec::with_capacity(transaction.recipients.len());
        for some in transaction.recipients.chunks(TOGETHER_MAX) {
            let users = some.iter().filter(|recipient| recipient.target.is_none());
            let mut following = users.count();
            let begun = some.iter().map(|recipient| {
                let until = locks_until.min(Instant::now() + LOCK_TIME);
                let letter = letter(recipient.address.as_slice());
                match &recipient.target {
                    Some(target) => Begun::Ended(self.deliver_to_target(
                        target,
                        transaction,
                        recipient,
                        &letter,
                        until,
                    )),
                    None => {
                        following -= 1;
                        self.begin_for_user(letter, until, following)
                    }
                }
            });
            let begun: Vec<Begun<'_>> = begun.collect();
            replies.extend(begun.into_iter().map(Begun::finish));
        }
        replies
    }

    fn deliver_to_target(
        &self,
        (target, privilege): &(Target, u32),
        transaction: &Transaction,
        recipient: &RecipientParams,
        letter: &Letter<'_>,
        until: Instant,
    ) -> String {
        let rights = match Rights::of(*privilege, &self.settings.program_user) {
            Err(reply) => return reply,
            Ok(rights) => rights,
        };
        match target {
            Target::Program(command) => self.run(command, &rights, transaction, recipient, letter),
            Target::File(path) => {
                self.append(Path::new(OsStr::from_bytes(path)), &rights, letter, until)
            }
        }
    }

    fn run(
        &self,
        command: &[u8],
        rights: &Rights,
        transaction: &Transaction,
        recipient: &RecipientParams,
        letter: &Letter<'_>,
    ) -> String {
        let program = Program {
            command,
            rights,
            time: self.settings.program_time,
            orcpt: recipient.orcpt.as_deref(),
            envid: transaction.envid.as_deref(),
            notify: recipient.notify,
            config: self.settings.config.as_deref(),
        };
        let reply = program::run(&program, letter);
        let command = String::from_utf8_lossy(command);
        let account = &rights.account.name;
        let id = letter.id;
        tracing::debug!("program of {account} for {id}: {command:?}: {reply}");
        reply
    }

    fn append(&self, path: &Path, rights: &Rights, letter: &Letter<'_>, until: Instant) -> String {
        let owner = rights.owner();
        let result = mbox::append(path, owner.as_ref(), letter, &self.batches, until);
        match result {
            Ok(()) => "250 2.0.0 appended".to_owned(),
            Err(fault) => refusal(path, &fault, "the file"),
        }
    }

    /// `following` more for users come with the same transaction.
    fn begin_for_user<'a>(
        &'a self,
        letter: Letter<'a>,
        until: Instant,
        following: usize,
    ) -> Begun<'a> {
        let found = match self.users.find(letter.recipient) {
            Ok(Some(found)) => found,
            Ok(None) => return Begun::Ended(users::UNKNOWN.to_owned()),
            Err(_) => return Begun::Ended(users::UNSURE.to_owned()),
        };
        let owner = Owner::of(&found);
        if self.settings.is_mbox {
            let owner = owner.map(|owner| owner.with_group_of(&found.path));
            let result = mbox::append(&found.path, owner.as_ref(), &letter, &self.batches, until);
            return Begun::Ended(reply_for_user(&found.user, &found.path, result));
        }
        let delivery = Delivery {
            maildir: found.path,
            owner,
            letter,
            batches: &self.batches,
            groups: &self.groups,
        };
        match delivery.begin(following) {
            Ok(step) => Begun::Maildir {
                user: found.user,
                delivery: Box::new(delivery),
                step,
            },
            Err(error) => {
                let result = Err(Fault::Later(error));
                Begun::Ended(reply_for_user(&found.user, &delivery.maildir, result))
            }
        }
    }
}

/// A delivery to one recipient.
enum Begun<'a> {
    /// With this reply.
    Ended(String),
    /// There may be something to wait for.
    Maildir {
        user: String,
        delivery: Box<Delivery<'a>>,
        step: Step,
    },
}

impl Begun<'_> {
    fn finish(self) -> String {
        match self {
            Self::Ended(reply) => reply,
            Self::Maildir {
                user,
                delivery,
                step,
            } => {
                let result = delivery.finish(step).map_err(Fault::Later);
                reply_for_user(&user, &delivery.maildir, result)
            }
        }
    }
}

fn reply_for_user(user: &str, mailbox: &Path, result: Result<(), Fault>) -> String {
    match result {
        Ok(()) => "250 2.1.5 delivered".to_owned(),
        Err(fault) => refusal(mailbox, &fault, &format!("mailbox of {user}")),
    }
}

/// The reply for a file that did not take a message.
fn refusal(path: &Path, fault: &Fault, name: &str) -> String {
    match fault {
        Fault::Never(why) => {
            tracing::error!("{}: {why}", path.display());
            format!("554 5.2.0 {name}: {why}")
        }
        Fault::Later(error) => {
            tracing::error!("{}: {error}", path.display());
            let status = match error.raw_os_error() {
                Some(libc::ENOSPC) => "4.3.1",
                Some(libc::EDQUOT) => "4.2.2",
                _ => "4.2.0",
            };
            format!("451 {status} {name}: {error}")
        }
    }
}

/// Answers the question of a connection that asks for a file. None: it is not whole yet.
fn answer_file(held: &[u8], writer: &mut impl Write) -> Option<io::Result<()>> {
    let Some(end) = memchr::memchr(b'\n', held) else {
        let too_long = held.len() as u64 > file_questions::LINE_BYTES_MAX;
        return too_long.then(|| Err(io::Error::other("a question that is too long")));
    };
    let line = held.get(..end).unwrap_or_default().trim_ascii_end();
    let answer = match file_questions::Question::parse(line) {
        Some(question) => files::answer(&question),
        None => Err(crate::router::request::Failure {
            missing: false,
            temporary: false,
            text: "this is no question".to_owned(),
        }),
    };
    Some(file_questions::write_answer(writer, &answer))
}

/// Id and arrival of a message; one of our own making when the peer told none.
fn identity(told: Option<&[u8]>, now_ms: u64) -> (String, u64) {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let told = told.and_then(|told| std::str::from_utf8(told).ok());
    let parts = told.and_then(|told| told.split_once('.'));
    let good = parts.and_then(|(id, arrival)| {
        let plain =
            !id.is_empty() && id.len() <= 64 && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
        Some((id.to_owned(), arrival.parse().ok()?)).filter(|_| plain)
    });
    good.unwrap_or_else(|| {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        (format!("L{}P{count}", std::process::id()), now_ms)
    })
}
