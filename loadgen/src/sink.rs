//! The receiving end: a small SMTP server with programmable replies.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio_uring::net::{TcpListener, TcpStream};

use crate::Behaviour;
use crate::ledger::Ledger;
use crate::message;

/// Serves connections until the process ends.
pub(crate) async fn serve(listener: TcpListener, behaviour: Behaviour, ledger: Arc<Ledger>) {
    let behaviour = Rc::new(behaviour);
    let mut seed = 1u64;
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        // Replies must not wait for the peer's delayed acknowledgement.
        let _ = stream.set_nodelay(true);
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let session = Session {
            stream,
            behaviour: Rc::clone(&behaviour),
            ledger: Arc::clone(&ledger),
            input: Vec::new(),
            output: Vec::new(),
            recipients: 0,
            content: Vec::new(),
            seed,
        };
        tokio_uring::spawn(async move {
            // A connection that breaks is the peer's business.
            let _ = session.serve().await;
        });
    }
}

struct Session {
    stream: TcpStream,
    behaviour: Rc<Behaviour>,
    ledger: Arc<Ledger>,
    input: Vec<u8>,
    output: Vec<u8>,
    recipients: u32,
    content: Vec<u8>,
    seed: u64,
}

impl Session {
    async fn serve(mut self) -> io::Result<()> {
        self.output.extend_from_slice(b"220 sink.example ESMTP\r\n");
        loop {
            let line = self.line().await?;
            let upper = line.to_ascii_uppercase();
            let verb = upper.get(..4).unwrap_or(&upper);
            match verb {
                b"EHLO" => self.hello(),
                b"MAIL" => {
                    self.recipients = 0;
                    self.content.clear();
                    self.say("250 2.1.0 ok");
                }
                b"RCPT" => {
                    self.recipients += 1;
                    self.say("250 2.1.5 ok");
                }
                b"DATA" => {
                    self.say("354 go on");
                    self.dotted().await?;
                    self.finish().await?;
                }
                b"BDAT" => self.chunk(&upper).await?,
                b"QUIT" => {
                    self.say("221 2.0.0 bye");
                    return self.flush().await;
                }
                _ => self.say("250 2.0.0 ok"),
            }
        }
    }

    fn say(&mut self, line: &str) {
        self.output.extend_from_slice(line.as_bytes());
        self.output.extend_from_slice(b"\r\n");
    }

    fn hello(&mut self) {
        let chunking = if self.behaviour.chunking {
            "250-CHUNKING\r\n"
        } else {
            ""
        };
        let reply = format!(
            "250-sink.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SIZE 100000000\r\n{chunking}250 ENHANCEDSTATUSCODES"
        );
        self.say(&reply);
    }

    async fn flush(&mut self) -> io::Result<()> {
        if !self.output.is_empty() {
            let output = std::mem::take(&mut self.output);
            let (result, mut output) = self.stream.write_all(output).await;
            output.clear();
            self.output = output;
            result?;
        }
        Ok(())
    }

    /// More input; replies go out first, since the peer may wait for them.
    async fn fill(&mut self) -> io::Result<()> {
        self.flush().await?;
        let (result, piece) = self.stream.read(Vec::with_capacity(32 << 10)).await;
        if result? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.input.extend_from_slice(&piece);
        Ok(())
    }

    async fn line(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some(at) = memchr::memchr(b'\n', &self.input) {
                let line = self.input[..at].trim_ascii_end().to_vec();
                self.input.drain(..=at);
                return Ok(line);
            }
            self.fill().await?;
        }
    }

    async fn dotted(&mut self) -> io::Result<()> {
        let mut from = 0;
        let end = loop {
            if self.input.starts_with(b".\r\n") {
                break 0;
            }
            if let Some(at) = memchr::memmem::find(&self.input[from..], b"\r\n.\r\n") {
                break from + at + 2;
            }
            from = self.input.len().saturating_sub(4);
            self.fill().await?;
        };
        let text = &self.input[..end];
        let mut start = usize::from(text.starts_with(b"."));
        for at in memchr::memmem::find_iter(text, b"\r\n.") {
            self.content.extend_from_slice(&text[start..at + 2]);
            start = at + 3;
        }
        self.content.extend_from_slice(&text[start..]);
        self.input.drain(..end + 3);
        Ok(())
    }

    async fn chunk(&mut self, line: &[u8]) -> io::Result<()> {
        let mut words = line.split(|byte| *byte == b' ').skip(1);
        let size = words
            .next()
            .and_then(|word| std::str::from_utf8(word).ok()?.parse().ok());
        let size: usize = size.unwrap_or(0);
        while self.input.len() < size {
            self.fill().await?;
        }
        self.content.extend(self.input.drain(..size));
        if words.next() == Some(b"LAST") {
            return self.finish().await;
        }
        self.say("250 2.0.0 more");
        Ok(())
    }

    fn chance(&mut self, share: f64) -> bool {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        (self.seed % 1_000_000) as f64 / 1_000_000.0 < share
    }

    async fn finish(&mut self) -> io::Result<()> {
        if self.behaviour.delay > 0 {
            self.flush().await?;
            tokio::time::sleep(Duration::from_millis(self.behaviour.delay)).await;
        }
        let Behaviour {
            fail_4xx,
            fail_5xx,
            drop,
            ..
        } = *self.behaviour;
        if self.chance(drop) {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        if self.chance(fail_4xx) {
            self.say("451 4.3.0 not now");
        } else if self.chance(fail_5xx) {
            self.say("554 5.3.0 never");
        } else {
            self.ledger
                .delivered(message::identify(&self.content), self.recipients);
            self.say("250 2.0.0 taken");
        }
        self.content.clear();
        Ok(())
    }
}
