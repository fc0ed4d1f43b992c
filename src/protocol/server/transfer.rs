//! Content: DATA and BDAT up to the transaction that is handed out.

use super::body::Body;
use super::state::{Chunks, Command, Recipients, State};
use super::{BodyKind, Context, Transaction, Want, put_line};
use crate::base::clock::Now;
use crate::mail::date;
use crate::protocol::Input;
use crate::protocol::content::{DotDecoder, Fault, Progress};

type Next = (State, Option<Want>);

/// Memory for content without a SIZE.
const CONTENT_BYTES: usize = 8 << 10;

/// Memory reserved for a declared SIZE, at most: a client does not get memory for a promise.
const DECLARED_BYTES_MAX: u64 = 256 << 10;

/// A transaction that waits for its id.
#[derive(Debug)]
pub(super) struct Beginning {
    recipients: Recipients,
    /// The first chunk: size and LAST. None: DATA.
    chunk: Option<(u64, bool)>,
}

impl Beginning {
    pub(super) fn data(recipients: Recipients) -> Self {
        Self {
            recipients,
            chunk: None,
        }
    }

    pub(super) fn chunks(recipients: Recipients, size: u64, last: bool) -> Self {
        Self {
            recipients,
            chunk: Some((size, last)),
        }
    }

    pub(super) fn begin(
        self,
        context: &mut Context,
        id: &str,
        now: Now,
        output: &mut Vec<u8>,
    ) -> State {
        let mut buffer = Vec::new();
        let declared = self
            .recipients
            .sender
            .size
            .unwrap_or(0)
            .min(DECLARED_BYTES_MAX) as usize;
        buffer.reserve(declared.max(CONTENT_BYTES));
        received_line(&mut buffer, context, &self.recipients, id, now);
        let settings = &context.settings;
        match self.chunk {
            None => {
                put_line(output, "354 end with CR LF . CR LF");
                let bytes_max = settings.message_bytes_max as usize;
                let decoder = DotDecoder::new(settings.line_bytes_max, bytes_max);
                State::Content(Content {
                    recipients: self.recipients,
                    body: Body::new(buffer, settings, false),
                    decoder,
                })
            }
            Some((size, last)) => {
                let binary = self.recipients.sender.body == BodyKind::Binary;
                let chunks = Chunks {
                    envelope: self.recipients,
                    body: Body::new(buffer, settings, !binary),
                    too_large: false,
                };
                State::Chunk(Chunk::next(chunks, size, last))
            }
        }
    }
}

/// RFC 5321 4.4; the client's words are put in only when they are harmless in a header.
fn received_line(
    out: &mut Vec<u8>,
    context: &Context,
    recipients: &Recipients,
    id: &str,
    now: Now,
) {
    let helo: String = context
        .hello
        .name
        .iter()
        .map(|byte| {
            if byte.is_ascii_graphic() && !b"()<>\\\"".contains(byte) {
                char::from(*byte)
            } else {
                '?'
            }
        })
        .collect();
    let address = match context.peer.address {
        std::net::IpAddr::V4(address) => format!("[{address}]"),
        std::net::IpAddr::V6(address) => format!("[IPv6:{address}]"),
    };
    let hostname = &context.settings.hostname;
    let with = protocol(context, recipients);
    let date = date::format(now.wall_ms);
    out.extend_from_slice(
        format!("Received: from {helo} ({address})\r\n\tby {hostname} with {with} id {id}")
            .as_bytes(),
    );
    // RFC 5321 7.6: naming one recipient tells nobody about another.
    if let [only] = recipients.list.as_slice()
        && only.address.iter().all(u8::is_ascii_graphic)
    {
        out.extend_from_slice(b"\r\n\tfor <");
        out.extend_from_slice(&only.address);
        out.push(b'>');
    }
    out.extend_from_slice(format!("; {date}\r\n").as_bytes());
}

fn protocol(context: &Context, recipients: &Recipients) -> &'static str {
    match (context.hello.extended, recipients.sender.smtputf8) {
        (false, _) => "SMTP",
        (true, false) => "ESMTP",
        (true, true) => "UTF8SMTP",
    }
}

/// Between 354 and the final dot.
#[derive(Debug)]
pub(super) struct Content {
    recipients: Recipients,
    pub(super) body: Body,
    decoder: DotDecoder,
}

impl Content {
    pub(super) fn receive(
        mut self,
        context: &mut Context,
        input: &mut Input<'_>,
        output: &mut Vec<u8>,
    ) -> Next {
        let (used, progress) = self.decoder.feed(input.remaining(), &mut self.body.buffer);
        input.take(used);
        if progress == Progress::More {
            return (State::Content(self), Some(Want::Input));
        }
        let Self {
            recipients,
            body,
            decoder,
        } = self;
        finish(context, recipients, body, decoder.fault(), output)
    }
}

/// The end of content: refused for what is wrong with it, or handed out.
fn finish(
    context: &mut Context,
    recipients: Recipients,
    body: Body,
    fault: Option<Fault>,
    output: &mut Vec<u8>,
) -> Next {
    let (body_fault, mut rest) = body.end();
    let fault = fault.or(body_fault);
    let settings = &context.settings;
    // RFC 2033 4.2: as many replies as recipients.
    let replies = if settings.lmtp {
        recipients.list.len()
    } else {
        1
    };
    if let Some(fault) = fault {
        for _ in 1..replies {
            put_line(output, fault.reply());
        }
        return (context.error(Command::Ready, fault.reply(), output), None);
    }
    // Lines end with CR LF everywhere behind this point.
    if recipients.sender.body != BodyKind::Binary && !rest.ends_with(b"\r\n") {
        rest.extend_from_slice(b"\r\n");
    }
    let with = protocol(context, &recipients);
    let Recipients { sender, list } = recipients;
    let transaction = Transaction {
        sender: sender.address,
        recipients: list,
        body: sender.body,
        smtputf8: sender.smtputf8,
        ret: sender.ret,
        envid: sender.envid,
        spool_id: sender.spool_id,
        helo: context.hello.name.clone(),
        protocol: with,
        content: rest,
    };
    (
        State::Storing(replies),
        Some(Want::Store(Box::new(transaction))),
    )
}

/// Inside a BDAT chunk.
#[derive(Debug)]
pub(super) struct Chunk {
    into: Into,
    remaining: u64,
    size: u64,
    last: bool,
}

#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "one for each session, and the large one is the usual one"
)]
enum Into {
    /// A transaction.
    Chunks(Chunks),
    /// Nothing: there is no transaction for it.
    Nowhere(Box<Command>),
}

impl Chunk {
    pub(super) fn next(chunks: Chunks, size: u64, last: bool) -> Self {
        Self {
            into: Into::Chunks(chunks),
            remaining: size,
            size,
            last,
        }
    }

    pub(super) fn skip(command: Command, size: u64) -> Self {
        Self {
            into: Into::Nowhere(Box::new(command)),
            remaining: size,
            size,
            last: false,
        }
    }

    pub(super) fn body(&mut self) -> Option<&mut Body> {
        match &mut self.into {
            Into::Chunks(chunks) => Some(&mut chunks.body),
            Into::Nowhere(_) => None,
        }
    }

    pub(super) fn receive(
        mut self,
        context: &mut Context,
        input: &mut Input<'_>,
        output: &mut Vec<u8>,
    ) -> Next {
        let count = usize::try_from(self.remaining).unwrap_or(usize::MAX);
        let bytes = input.take(count);
        self.remaining -= bytes.len() as u64;
        if let Into::Chunks(chunks) = &mut self.into {
            let len = chunks.body.len() + bytes.len() as u64;
            if len > context.settings.message_bytes_max {
                chunks.too_large = true;
            } else {
                chunks.body.buffer.extend_from_slice(bytes);
            }
        }
        if self.remaining > 0 {
            return (State::Chunk(self), Some(Want::Input));
        }
        match self.into {
            Into::Nowhere(command) => (
                context.error(*command, "503 5.5.1 MAIL and RCPT first", output),
                None,
            ),
            Into::Chunks(chunks) if self.last => Self::end(chunks, context, output),
            Into::Chunks(chunks) => {
                let size = self.size;
                output.extend_from_slice(format!("250 2.0.0 {size} bytes received\r\n").as_bytes());
                (State::Command(Command::Chunks(chunks)), None)
            }
        }
    }

    fn end(chunks: Chunks, context: &mut Context, output: &mut Vec<u8>) -> Next {
        let Chunks {
            envelope,
            body,
            too_large,
        } = chunks;
        let fault = too_large.then_some(Fault::TooLarge);
        finish(context, envelope, body, fault, output)
    }
}
