//! The client's side of one SMTP connection.

use std::io;
use std::net::SocketAddr;

use tokio_uring::net::TcpStream;

use crate::message::{self, Content, PIECE, Stuffer};
use crate::options::Load;

/// RCPT commands that are sent together; their replies fit into any socket's buffers, so that the
/// relay is never kept from reading by replies that nobody takes (RFC 2920 3.1).
const TOGETHER_MAX: usize = 100;

/// Bytes of one reply line.
const LINE_MAX: usize = 4096;

/// What became of a message.
#[derive(Debug)]
pub(crate) enum Fate {
    /// Taken, but for these recipients.
    Acknowledged(Vec<u32>),
    /// Not taken, with the reply that says so.
    Refused(String),
}

/// An open connection after EHLO.
pub(crate) struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
    piece: Vec<u8>,
    output: Vec<u8>,
    /// The last line of the last reply.
    line: String,
    chunking: bool,
}

impl Connection {
    pub(crate) async fn open(to: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(to)
            .await
            .map_err(|error| io::Error::new(error.kind(), format!("{to}: {error}")))?;
        stream.set_nodelay(true)?;
        let mut connection = Self {
            stream,
            input: Vec::new(),
            piece: Vec::with_capacity(4096),
            output: Vec::new(),
            line: String::new(),
            chunking: false,
        };
        connection.expect(b'2').await?;
        connection.say("EHLO source.example");
        connection.expect(b'2').await?;
        Ok(connection)
    }

    /// Sends one message.
    pub(crate) async fn message(
        &mut self,
        number: u64,
        load: &Load,
        content: Content<'_>,
    ) -> io::Result<Fate> {
        let bdat = load.bdat && self.chunking;
        let end = if bdat {
            format!("BDAT {} LAST", content.len())
        } else {
            "DATA".to_owned()
        };
        let recipients = load.recipients_of(number);
        let mut commands = Vec::with_capacity(recipients as usize + 2);
        commands.push("MAIL FROM:<source@loadgen.example>".to_owned());
        for index in 0..recipients {
            let domain = load.domain_of(number, index);
            let address = message::recipient(number, index, &domain);
            commands.push(format!("RCPT TO:<{address}>"));
        }
        if bdat && load.pipelining {
            return self.all_at_once(&commands, &end, content).await;
        }
        if load.pipelining {
            commands.push(end.clone());
        }
        let together = if load.pipelining { TOGETHER_MAX } else { 1 };
        let mut envelope = Envelope::default();
        self.commands(&commands, together, &mut envelope).await?;
        let mut ready = envelope.last.starts_with('3');
        if !load.pipelining {
            if envelope.is_refused(recipients) {
                return self.reset(envelope).await;
            }
            self.say(&end);
            ready = bdat || self.reply().await? == b'3';
        }
        if !ready {
            envelope.note(&self.line);
            return self.reset(envelope).await;
        }
        self.content(content, bdat).await?;
        self.conclude(envelope).await
    }

    /// Envelope and content without waiting for anything in between.
    async fn all_at_once(
        &mut self,
        commands: &[String],
        end: &str,
        content: Content<'_>,
    ) -> io::Result<Fate> {
        let mut envelope = Envelope::default();
        let waited = commands.len().saturating_sub(TOGETHER_MAX);
        let (first, rest) = commands.split_at(waited);
        self.commands(first, TOGETHER_MAX, &mut envelope).await?;
        for command in rest.iter().map(String::as_str).chain([end]) {
            self.say(command);
        }
        self.content(content, true).await?;
        self.replies(rest, &mut envelope).await?;
        self.conclude(envelope).await
    }

    /// Sends commands in groups and takes their replies.
    async fn commands(
        &mut self,
        commands: &[String],
        together: usize,
        envelope: &mut Envelope,
    ) -> io::Result<()> {
        for group in commands.chunks(together) {
            for command in group {
                self.say(command);
            }
            self.replies(group, envelope).await?;
        }
        Ok(())
    }

    async fn replies(&mut self, commands: &[String], envelope: &mut Envelope) -> io::Result<()> {
        for command in commands {
            let kind = self.reply().await?;
            envelope.take(command, kind, &self.line);
        }
        Ok(())
    }

    async fn content(&mut self, mut content: Content<'_>, bdat: bool) -> io::Result<()> {
        let (mut stuffer, mut piece) = (Stuffer::new(), Vec::new());
        loop {
            let more = if bdat {
                content.piece(&mut self.output)
            } else {
                piece.clear();
                let more = content.piece(&mut piece);
                stuffer.push(&piece, &mut self.output);
                more
            };
            if !more {
                break;
            }
            if self.output.len() >= PIECE {
                self.flush().await?;
            }
        }
        if !bdat {
            self.output.extend_from_slice(b".\r\n");
        }
        self.flush().await
    }

    /// The reply to the content decides.
    async fn conclude(&mut self, envelope: Envelope) -> io::Result<Fate> {
        if self.reply().await? == b'2' {
            Ok(Fate::Acknowledged(envelope.refused))
        } else {
            Ok(Fate::Refused(self.line.clone()))
        }
    }

    async fn reset(&mut self, envelope: Envelope) -> io::Result<Fate> {
        self.say("RSET");
        self.expect(b'2').await?;
        Ok(Fate::Refused(envelope.reason))
    }

    fn say(&mut self, command: &str) {
        self.output.extend_from_slice(command.as_bytes());
        self.output.extend_from_slice(b"\r\n");
    }

    async fn flush(&mut self) -> io::Result<()> {
        let output = std::mem::take(&mut self.output);
        let (result, mut output) = self.stream.write_all(output).await;
        output.clear();
        self.output = output;
        result
    }

    async fn expect(&mut self, kind: u8) -> io::Result<()> {
        if self.reply().await? == kind {
            Ok(())
        } else {
            Err(io::Error::other(format!("the relay says {:?}", self.line)))
        }
    }

    /// One reply to what was said; its first digit.
    async fn reply(&mut self) -> io::Result<u8> {
        if !self.output.is_empty() {
            self.flush().await?;
        }
        loop {
            if let Some(at) = memchr::memchr(b'\n', &self.input) {
                let line = self.input[..at].trim_ascii_end();
                let kind = line.first().copied().unwrap_or(0);
                let last = line.get(3) != Some(&b'-');
                self.chunking |= line.get(4..) == Some(b"CHUNKING");
                if last {
                    self.line = String::from_utf8_lossy(line).into_owned();
                }
                self.input.drain(..=at);
                if last {
                    return Ok(kind);
                }
                continue;
            }
            if self.input.len() > LINE_MAX {
                return Err(io::Error::other("a reply line without end"));
            }
            let mut piece = std::mem::take(&mut self.piece);
            piece.clear();
            let (result, piece) = self.stream.read(piece).await;
            let read = result?;
            self.input.extend_from_slice(&piece);
            self.piece = piece;
            if read == 0 {
                let what = format!("the relay has closed the connection, last {:?}", self.line);
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
            }
        }
    }

    pub(crate) async fn quit(mut self) -> io::Result<()> {
        self.say("QUIT");
        self.reply().await.map(|_| ())
    }
}

/// How the commands before the content were answered.
#[derive(Debug, Default)]
struct Envelope {
    sender_refused: bool,
    recipients: u32,
    refused: Vec<u32>,
    reason: String,
    last: String,
}

impl Envelope {
    fn take(&mut self, command: &str, kind: u8, line: &str) {
        let good = kind == b'2' || kind == b'3';
        if !good {
            self.note(line);
        }
        if command.starts_with("MAIL") {
            self.sender_refused = !good;
        } else if command.starts_with("RCPT") {
            if !good {
                self.refused.push(self.recipients);
            }
            self.recipients += 1;
        }
        line.clone_into(&mut self.last);
    }

    /// The first bad reply is the reason; later ones follow from it.
    fn note(&mut self, line: &str) {
        if self.reason.is_empty() {
            line.clone_into(&mut self.reason);
        }
    }

    fn is_refused(&self, recipients: u32) -> bool {
        self.sender_refused || self.refused.len() == recipients as usize
    }
}
