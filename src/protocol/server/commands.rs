//! What each command does in each state: sequence first, then the effect.

use super::state::{Before, Command, Judged, Recipients, Sender, State};
use super::transfer::{Beginning, Chunk};
use super::{Context, Hello, Question, RecipientParams, Verdict, Want, put_line};
use crate::mail::target::{self, Target};
use crate::mail::xtext;
use crate::protocol::command::{self, BodyKind};

type Next = (State, Option<Want>);

const HELP: &str = "214-2.0.0 commands: EHLO HELO MAIL RCPT DATA BDAT RSET NOOP HELP VRFY QUIT\r\n\
                    214 2.0.0 RFC 5321; ask postmaster for a person";

impl Command {
    pub(super) fn handle(
        self,
        parsed: command::Command<'_>,
        context: &mut Context,
        output: &mut Vec<u8>,
    ) -> Next {
        match parsed {
            // RFC 2033 4.1: LHLO instead of the other two, and nowhere else.
            command::Command::Lhlo(name) if context.settings.lmtp => {
                Self::hello(name, true, context, output)
            }
            command::Command::Ehlo(name) if !context.settings.lmtp => {
                Self::hello(name, true, context, output)
            }
            command::Command::Helo(name) if !context.settings.lmtp => {
                Self::hello(name, false, context, output)
            }
            command::Command::Lhlo(_) | command::Command::Ehlo(_) | command::Command::Helo(_) => {
                self.wrong("500 5.5.1 not in this protocol", context, output)
            }
            command::Command::Mail(mail) => self.mail(&mail, context, output),
            command::Command::Rcpt(rcpt) => self.rcpt(&rcpt, context, output),
            command::Command::Data => self.data(context, output),
            command::Command::Bdat { size, last } => self.bdat(size, last),
            command::Command::Rset => self.reset(output),
            command::Command::Noop => self.say("250 2.0.0 ok", output),
            command::Command::Help => self.say(HELP, output),
            // RFC 5321 7.3: whether a mailbox exists is not told.
            command::Command::Vrfy => {
                self.say("252 2.5.2 send some mail, it will be tried", output)
            }
            command::Command::Quit => {
                put_line(output, "221 2.0.0 closing");
                (State::Closed, None)
            }
            command::Command::Unimplemented => (
                context.error(self, "502 5.5.1 command not implemented", output),
                None,
            ),
        }
    }

    fn say(self, line: &str, output: &mut Vec<u8>) -> Next {
        put_line(output, line);
        (State::Command(self), None)
    }

    fn wrong(self, reply: &str, context: &mut Context, output: &mut Vec<u8>) -> Next {
        (context.error(self, reply, output), None)
    }

    /// RFC 5321 4.1.4: EHLO and HELO also reset.
    fn hello(name: &[u8], extended: bool, context: &mut Context, output: &mut Vec<u8>) -> Next {
        context.hello = Hello {
            name: name.to_vec(),
            extended,
        };
        let hostname = &context.settings.hostname;
        if extended {
            let size = context.settings.message_bytes_max;
            let private = if context.settings.lmtp {
                "250-XSPOOLID\r\n250-XTARGET\r\n"
            } else {
                ""
            };
            output.extend_from_slice(
                format!(
                    "250-{hostname}\r\n{private}250-PIPELINING\r\n250-8BITMIME\r\n250-SIZE {size}\r\n\
                     250-ENHANCEDSTATUSCODES\r\n250-DSN\r\n250-SMTPUTF8\r\n250-CHUNKING\r\n\
                     250-BINARYMIME\r\n250 HELP\r\n"
                )
                .as_bytes(),
            );
        } else {
            output.extend_from_slice(format!("250 {hostname}\r\n").as_bytes());
        }
        (State::Command(Self::Ready), None)
    }

    fn reset(self, output: &mut Vec<u8>) -> Next {
        let next = if matches!(self, Self::Unknown) {
            Self::Unknown
        } else {
            Self::Ready
        };
        next.say("250 2.0.0 ok", output)
    }

    fn mail(self, mail: &command::Mail<'_>, context: &mut Context, output: &mut Vec<u8>) -> Next {
        match self {
            Self::Unknown => {
                return self.wrong("503 5.5.1 say EHLO or HELO first", context, output);
            }
            Self::Ready => {}
            _ => return self.wrong("503 5.5.1 a transaction is under way", context, output),
        }
        context.transactions_count += 1;
        if context.transactions_count > context.settings.transactions_max {
            put_line(output, "421 4.7.0 too many transactions, closing");
            return (State::Closed, None);
        }
        // RFC 1870 6.1.
        if mail
            .size
            .is_some_and(|size| size > context.settings.message_bytes_max)
        {
            return self.say("552 5.3.4 the message is too large", output);
        }
        if mail.spool_id.is_some() && !context.settings.lmtp {
            return self.wrong(command::CommandError::Parameter.reply(), context, output);
        }
        let sender = Sender {
            spool_id: mail.spool_id.map(<[u8]>::to_vec),
            address: mail.address.to_vec(),
            size: mail.size,
            body: mail.body,
            smtputf8: mail.smtputf8,
            ret: mail.ret,
            envid: mail.envid.map(<[u8]>::to_vec),
        };
        let question = Question::Sender {
            address: sender.address.clone(),
        };
        (
            State::Judged(Judged::Sender(sender)),
            Some(Want::Policy(question)),
        )
    }

    fn rcpt(self, rcpt: &command::Rcpt<'_>, context: &mut Context, output: &mut Vec<u8>) -> Next {
        let smtputf8 = match &self {
            Self::Sender(sender) => sender.smtputf8,
            Self::Recipients(recipients) => recipients.sender.smtputf8,
            _ => return self.wrong("503 5.5.1 MAIL first", context, output),
        };
        if let Err(error) = crate::protocol::path::check(rcpt.address, smtputf8) {
            let reply = command::CommandError::Recipient(error).reply();
            return self.wrong(reply, context, output);
        }
        let known = match &self {
            Self::Recipients(recipients) => recipients.list.len(),
            _ => 0,
        };
        // RFC 5321 4.5.3.1.10: 452, so that the client sends the rest in another transaction.
        if known >= context.settings.recipients_max as usize {
            return self.say("452 4.5.3 too many recipients", output);
        }
        let target = match target_of(rcpt, context) {
            Ok(target) => target,
            Err(error) => return self.wrong(error.reply(), context, output),
        };
        let recipient = RecipientParams {
            address: rcpt.address.to_vec(),
            notify: rcpt.notify,
            orcpt: rcpt.orcpt.map(<[u8]>::to_vec),
            target,
        };
        let is_user = recipient.target.is_none();
        let question = Question::Recipient {
            address: recipient.address.clone(),
        };
        let before = match self {
            Self::Sender(sender) => Before::Sender(sender),
            Self::Recipients(recipients) => Before::Recipients(recipients),
            other => return (State::Command(other), None),
        };
        let judged = Judged::Recipient { before, recipient };
        if is_user {
            (State::Judged(judged), Some(Want::Policy(question)))
        } else {
            // Whether there is such a program or file shows when it is used.
            (judged.verdict(Verdict::Accept, context, output), None)
        }
    }

    fn data(self, context: &mut Context, output: &mut Vec<u8>) -> Next {
        match self {
            // RFC 3030 3: binary content has no lines that DATA could end.
            Self::Recipients(recipients) if recipients.sender.body == BodyKind::Binary => {
                Self::Recipients(recipients).wrong(
                    "503 5.5.1 BINARYMIME needs BDAT",
                    context,
                    output,
                )
            }
            Self::Recipients(recipients) => (
                State::Beginning(Beginning::data(recipients)),
                Some(Want::Begin),
            ),
            // RFC 5321 3.3: no valid recipients.
            Self::Sender(_) => self.wrong("554 5.5.1 no valid recipients", context, output),
            Self::Chunks(_) => self.wrong("503 5.5.1 BDAT is under way", context, output),
            Self::Unknown | Self::Ready => self.wrong("503 5.5.1 MAIL first", context, output),
        }
    }

    fn bdat(self, size: u64, last: bool) -> Next {
        match self {
            Self::Recipients(recipients) => {
                let beginning = Beginning::chunks(recipients, size, last);
                (State::Beginning(beginning), Some(Want::Begin))
            }
            Self::Chunks(chunks) => (State::Chunk(Chunk::next(chunks, size, last)), None),
            // RFC 3030 2: the chunk is taken, whatever it belongs to.
            other => (State::Chunk(Chunk::skip(other, size)), None),
        }
    }
}

/// What the two parameters of our own agents name; they come together, and to agents only.
fn target_of(
    rcpt: &command::Rcpt<'_>,
    context: &Context,
) -> Result<Option<(Target, u32)>, command::CommandError> {
    match (rcpt.target, rcpt.privilege) {
        (None, None) => Ok(None),
        _ if !context.settings.lmtp => Err(command::CommandError::Parameter),
        (Some(text), Some(privilege)) => {
            let target = xtext::decode(text).and_then(|user| target::parse(&user));
            let target = target.ok_or(command::CommandError::Value)?;
            Ok(Some((target, privilege)))
        }
        _ => Err(command::CommandError::Parameter),
    }
}

impl Judged {
    pub(super) fn verdict(
        self,
        verdict: Verdict,
        context: &mut Context,
        output: &mut Vec<u8>,
    ) -> State {
        match (self, verdict) {
            (Self::Sender(sender), Verdict::Accept) => {
                put_line(output, "250 2.1.0 sender ok");
                State::Command(Command::Sender(sender))
            }
            (Self::Sender(_), Verdict::Reject(reply)) => {
                context.error(Command::Ready, &reply, output)
            }
            (Self::Recipient { before, recipient }, Verdict::Accept) => {
                put_line(output, "250 2.1.5 recipient ok");
                let recipients = match before {
                    Before::Sender(sender) => Recipients {
                        sender,
                        list: vec![recipient],
                    },
                    Before::Recipients(mut recipients) => {
                        recipients.list.push(recipient);
                        recipients
                    }
                };
                State::Command(Command::Recipients(recipients))
            }
            (Self::Recipient { before, .. }, Verdict::Reject(reply)) => {
                let command = match before {
                    Before::Sender(sender) => Command::Sender(sender),
                    Before::Recipients(recipients) => Command::Recipients(recipients),
                };
                context.error(command, &reply, output)
            }
        }
    }
}
