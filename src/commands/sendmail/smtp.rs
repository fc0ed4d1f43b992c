//! `sendmail -bs`: SMTP on standard input and output, for programs that speak it to a pipe. Every
//! message is submitted like any other of `sendmail`, so no daemon is needed.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::input::Waiting;
use crate::base::clock::Now;
use crate::commands::submit::{Submission, SubmitError};
use crate::commands::{exit, fail, worker};
use crate::config::Config;
use crate::mail::message_file::{self, FileEnvelope, FileRecipient};
use crate::protocol::Input;
use crate::protocol::server::{BodyKind, Peer, Ret, Session, Stored, Transaction, Verdict, Want};

const INPUT_BYTES: usize = 64 << 10;

/// A conversation on a pipe.
struct Conversation<'a> {
    config: &'a Config,
    session: Session,
    output: Vec<u8>,
    started: Instant,
}

/// Speaks until QUIT or the end of input.
pub(super) fn run(config: &Config) -> ExitCode {
    let mut settings = config.smtpserver.services[0].session.clone();
    settings.hostname = worker::hostname(config);
    let peer = Peer {
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        port: 0,
    };
    let started = Instant::now();
    let mut conversation = Conversation {
        config,
        session: Session::new(Arc::new(settings), peer, now(started)),
        output: Vec::new(),
        started,
    };
    match conversation.hold(&mut Waiting(io::stdin().lock()), &mut io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(exit::IO, format!("sendmail -bs: {error}")),
    }
}

fn now(started: Instant) -> Now {
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    Now {
        mono_ns: started.elapsed().as_nanos() as u64,
        wall_ms: wall.map_or(0, |since| since.as_millis() as u64),
    }
}

impl Conversation<'_> {
    fn hold(&mut self, from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
        self.session.greet(&mut self.output);
        let mut bytes = vec![0; INPUT_BYTES];
        loop {
            to.write_all(&self.output)?;
            to.flush()?;
            self.output.clear();
            let count = from.read(&mut bytes)?;
            if count == 0 || !self.feed(bytes.get(..count).unwrap_or_default()) {
                to.write_all(&self.output)?;
                return to.flush();
            }
        }
    }

    /// Feeds the session; false when the conversation is over.
    fn feed(&mut self, bytes: &[u8]) -> bool {
        let mut input = Input::new(bytes);
        loop {
            let now = now(self.started);
            match self.session.receive(&mut input, now, &mut self.output) {
                Want::Input => return true,
                Want::Close => return false,
                Want::Policy(_) => self.session.verdict(Verdict::Accept, now, &mut self.output),
                Want::Begin => self.session.begin("STDIN", now, &mut self.output),
                Want::Store(transaction) => {
                    let name = submit(self.config, &transaction);
                    let stored = match &name {
                        Ok(name) => Stored::Accepted { id: name },
                        Err(error) => {
                            eprintln!("sendmail -bs: {error}");
                            if error.is_full() {
                                Stored::Full
                            } else {
                                Stored::Failed
                            }
                        }
                    };
                    self.session.stored(stored, now, &mut self.output);
                }
            }
        }
    }
}

fn submit(config: &Config, transaction: &Transaction) -> Result<String, SubmitError> {
    let binary = transaction.body == BodyKind::Binary;
    let recipients = transaction
        .recipients
        .iter()
        .map(|recipient| FileRecipient {
            address: recipient.address.clone(),
            notify: recipient.notify,
            orcpt: recipient.orcpt.clone(),
        });
    let envelope = FileEnvelope {
        sender: Some(transaction.sender.clone()),
        body_type: binary.then(|| b"BINARYMIME".to_vec()),
        ret: transaction.ret.map(|ret| match ret {
            Ret::Full => b"FULL".to_vec(),
            Ret::Headers => b"HDRS".to_vec(),
        }),
        envid: transaction.envid.clone(),
        recipients: recipients.collect(),
        ..FileEnvelope::default()
    };
    let mut submission = Submission::begin(&config.paths.postoffice)?;
    submission.write(&message_file::write(&envelope))?;
    if binary {
        submission.write(&transaction.content)?;
    } else {
        submission.write(&message_file::from_wire(&transaction.content))?;
    }
    submission.finish().map(|inode| format!("file{inode:0>12}"))
}
