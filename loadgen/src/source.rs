//! The sending end: a closed loop of small SMTP clients.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use tokio_uring::net::TcpStream;

use crate::Load;
use crate::ledger::Ledger;
use crate::message;

/// Sends everything; ends when each message has been acknowledged or refused.
pub(crate) async fn send(to: SocketAddr, load: Load, ledger: Arc<Ledger>) -> io::Result<()> {
    let next = Rc::new(Cell::new(0));
    let load = Rc::new(load);
    let tasks: Vec<_> = (0..load.connections)
        .map(|_| {
            let (next, load) = (Rc::clone(&next), Rc::clone(&load));
            let ledger = Arc::clone(&ledger);
            tokio_uring::spawn(async move { client(to, &load, &next, &ledger).await })
        })
        .collect();
    let mut result = Ok(());
    for task in tasks {
        let ended = task.await.map_err(io::Error::other).and_then(|ended| ended);
        result = result.and(ended);
    }
    result
}

async fn client(to: SocketAddr, load: &Load, next: &Cell<u64>, ledger: &Ledger) -> io::Result<()> {
    let mut connection: Option<Connection> = None;
    loop {
        let number = next.get();
        if number >= load.messages {
            break;
        }
        next.set(number + 1);
        let mut open = match connection.take() {
            Some(open) => open,
            None => Connection::open(to).await?,
        };
        let start = Instant::now();
        if open.message(number, load).await? {
            ledger.acknowledged(number, start.elapsed().as_micros() as u32);
        } else {
            ledger.refused();
        }
        if load.no_reuse {
            open.quit().await?;
        } else {
            connection = Some(open);
        }
    }
    match connection {
        Some(open) => open.quit().await,
        None => Ok(()),
    }
}

struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
}

impl Connection {
    async fn open(to: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(to).await?;
        stream.set_nodelay(true)?;
        let mut connection = Self {
            stream,
            input: Vec::new(),
        };
        connection.reply(b'2').await?;
        connection
            .write(b"EHLO source.example\r\n".to_vec())
            .await?;
        connection.reply(b'2').await?;
        Ok(connection)
    }

    async fn write(&mut self, bytes: Vec<u8>) -> io::Result<()> {
        self.stream.write_all(bytes).await.0
    }

    /// One reply; whether its first digit is the expected one.
    async fn reply(&mut self, expected: u8) -> io::Result<bool> {
        loop {
            if let Some(at) = memchr::memchr(b'\n', &self.input) {
                let good = self.input.first() == Some(&expected);
                let last = self.input.get(3) != Some(&b'-');
                self.input.drain(..=at);
                if last {
                    return Ok(good);
                }
                continue;
            }
            let (result, piece) = self.stream.read(Vec::with_capacity(4096)).await;
            if result? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.input.extend_from_slice(&piece);
        }
    }

    /// Sends one message; says whether it was acknowledged.
    async fn message(&mut self, number: u64, load: &Load) -> io::Result<bool> {
        let content = message::build(number, load.size);
        let mut commands = vec![b"MAIL FROM:<source@loadgen.example>\r\n".to_vec()];
        for recipient in 0..load.recipients {
            commands.push(format!("RCPT TO:<r{recipient}.{number}@sink.example>\r\n").into_bytes());
        }
        if load.bdat {
            let mut last = format!("BDAT {} LAST\r\n", content.len()).into_bytes();
            last.extend_from_slice(&content);
            return self.exchange(commands, Some(last), load.pipelining).await;
        }
        commands.push(b"DATA\r\n".to_vec());
        if !self.exchange(commands, None, load.pipelining).await? {
            return Ok(false);
        }
        let mut stuffed = Vec::with_capacity(content.len() + 64);
        message::stuff(&content, &mut stuffed);
        self.write(stuffed).await?;
        self.reply(b'2').await
    }

    /// Sends commands, together or one by one; the last reply decides.
    async fn exchange(
        &mut self,
        mut commands: Vec<Vec<u8>>,
        last: Option<Vec<u8>>,
        together: bool,
    ) -> io::Result<bool> {
        commands.extend(last);
        let count = commands.len();
        if together {
            self.write(commands.concat()).await?;
        }
        let mut good = false;
        for (at, command) in commands.into_iter().enumerate() {
            let is_data = command == b"DATA\r\n";
            if !together {
                self.write(command).await?;
            }
            good = self.reply(if is_data { b'3' } else { b'2' }).await?;
            if !good && !together && at + 1 < count {
                self.write(b"RSET\r\n".to_vec()).await?;
                self.reply(b'2').await?;
                return Ok(false);
            }
        }
        Ok(good)
    }

    async fn quit(mut self) -> io::Result<()> {
        self.write(b"QUIT\r\n".to_vec()).await?;
        self.reply(b'2').await.map(|_| ())
    }
}
