//! A socket of the sink: lines and pieces in, replies out, reading no faster than it is told to.

use std::io;
use std::time::Duration;

use tokio::time::Instant;
use tokio_uring::net::TcpStream;

/// Bytes that are read at a time.
const READ: u64 = 32 << 10;

/// Bytes of a command line.
const LINE_MAX: usize = 8192;

/// The peer has to see within this that the connection has ended.
const HANG_UP: Duration = Duration::from_secs(5);

/// Reads a second of a slow connection, so that it is slow and does not stutter.
const SLOW_READS: u64 = 10;

/// The socket with what was read and not taken, and what was said and not sent.
pub(crate) struct Wire {
    stream: TcpStream,
    /// Input that nobody has taken yet.
    pub(crate) input: Vec<u8>,
    piece: Vec<u8>,
    output: Vec<u8>,
    rate: u64,
    next_read: Instant,
}

impl Wire {
    /// `rate`: bytes a second; 0 is as fast as they come.
    pub(crate) fn new(stream: TcpStream, rate: u64) -> Self {
        // What the buffer holds is what one read takes.
        let room = match rate {
            0 => READ,
            rate => (rate / SLOW_READS).clamp(1, READ),
        };
        Self {
            stream,
            input: Vec::new(),
            piece: Vec::with_capacity(room as usize),
            output: Vec::new(),
            rate,
            next_read: Instant::now(),
        }
    }

    /// A reply, to be sent before the next input is waited for.
    pub(crate) fn say(&mut self, line: &str) {
        self.output.extend_from_slice(line.as_bytes());
        self.output.extend_from_slice(b"\r\n");
    }

    pub(crate) async fn flush(&mut self) -> io::Result<()> {
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
    pub(crate) async fn fill(&mut self) -> io::Result<()> {
        self.flush().await?;
        if self.rate > 0 {
            tokio::time::sleep_until(self.next_read).await;
        }
        let mut piece = std::mem::take(&mut self.piece);
        piece.clear();
        let (result, piece) = self.stream.read(piece).await;
        let read = result?;
        self.input.extend_from_slice(&piece);
        self.piece = piece;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if self.rate > 0 {
            self.next_read =
                Instant::now() + Duration::from_secs_f64(read as f64 / self.rate as f64);
        }
        Ok(())
    }

    /// Ends the connection after what was said. Replies to earlier messages are part of that: lost
    /// with the connection, they would make the peer send again what the ledger has, and the fault
    /// would be ours. So the peer ends the connection too, since closing it with input unread would
    /// take the replies back (RFC 1122 4.2.2.13).
    pub(crate) async fn hang_up(&mut self) -> io::Result<()> {
        self.flush().await?;
        self.stream.shutdown(std::net::Shutdown::Write)?;
        let drained = async {
            while self.fill().await.is_ok() {
                self.input.clear();
            }
        };
        // A peer that keeps its end open has had its time to read.
        let _ = tokio::time::timeout(HANG_UP, drained).await;
        Ok(())
    }

    pub(crate) async fn line(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some(at) = memchr::memchr(b'\n', &self.input) {
                let line = self.input[..at].trim_ascii_end().to_vec();
                self.input.drain(..=at);
                return Ok(line);
            }
            if self.input.len() > LINE_MAX {
                return Err(io::ErrorKind::InvalidData.into());
            }
            self.fill().await?;
        }
    }
}
