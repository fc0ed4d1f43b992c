//! A plain SMTP client over a blocking socket, independent of the code under test.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};

use super::PATIENCE;

/// One connection.
pub struct Client {
    reader: BufReader<TcpStream>,
    writer: TcpStream,
}

impl Client {
    /// Connects and reads the greeting.
    pub fn connect(address: SocketAddr) -> Self {
        let mut client = Self::connect_silently(address);
        let greeting = client.reply();
        assert!(greeting.starts_with("220"), "greeting: {greeting}");
        client
    }

    /// Connects; the greeting is left unread.
    pub fn connect_silently(address: SocketAddr) -> Self {
        Self::try_connect(address).expect("the daemon listens")
    }

    /// Connects if somebody listens.
    pub fn try_connect(address: SocketAddr) -> std::io::Result<Self> {
        Self::over(TcpStream::connect(address)?)
    }

    fn over(writer: TcpStream) -> std::io::Result<Self> {
        writer.set_read_timeout(Some(PATIENCE))?;
        writer.set_write_timeout(Some(PATIENCE))?;
        writer.set_nodelay(true)?;
        let reader = BufReader::new(writer.try_clone()?);
        Ok(Self { reader, writer })
    }

    /// Connects from `local` and reads the greeting.
    pub fn connect_from(local: std::net::IpAddr, address: SocketAddr) -> Self {
        let domain = socket2::Domain::for_address(address);
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None).expect("a socket");
        socket
            .bind(&SocketAddr::new(local, 0).into())
            .expect("an address of loopback");
        socket.connect(&address.into()).expect("the daemon listens");
        let mut client = Self::over(socket.into()).expect("a connected socket");
        let greeting = client.reply();
        assert!(greeting.starts_with("220"), "greeting: {greeting}");
        client
    }

    /// Waits this long for replies and for room to send.
    pub fn set_patience(&mut self, patience: std::time::Duration) {
        let set = self.writer.set_read_timeout(Some(patience));
        set.and(self.writer.set_write_timeout(Some(patience)))
            .expect("a positive time");
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) {
        self.writer
            .write_all(bytes)
            .expect("the connection takes bytes");
    }

    /// Sends bytes; an error is an answer too.
    pub fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.writer.write_all(bytes)
    }

    /// One reply, lines joined by `\n`; empty at the end of the connection.
    pub fn reply(&mut self) -> String {
        let mut reply = String::new();
        loop {
            let mut line = String::new();
            match self.reader.read_line(&mut line) {
                Ok(0) | Err(_) => return reply,
                Ok(_) => {}
            }
            let line = line.trim_end();
            reply.push_str(line);
            if line.as_bytes().get(3) != Some(&b'-') {
                return reply;
            }
            reply.push('\n');
        }
    }

    /// Sends a command line and reads its reply.
    pub fn command(&mut self, line: &str) -> String {
        self.send(format!("{line}\r\n").as_bytes());
        self.reply()
    }

    /// Sends a command whose reply must begin with `expected`.
    pub fn expect(&mut self, line: &str, expected: &str) -> String {
        let reply = self.command(line);
        assert!(
            reply.starts_with(expected),
            "{line}: expected {expected}, got {reply}"
        );
        reply
    }

    /// EHLO.
    pub fn hello(&mut self) -> String {
        self.expect("EHLO client.example", "250")
    }

    /// One message; gives back the reply to the final dot, or to MAIL when that is refused.
    pub fn message(&mut self, from: &str, to: &[&str], content: &str) -> String {
        let reply = self.command(&format!("MAIL FROM:<{from}>"));
        if !reply.starts_with("250") {
            return reply;
        }
        for recipient in to {
            self.expect(&format!("RCPT TO:<{recipient}>"), "250");
        }
        self.expect("DATA", "354");
        self.send(content.replace("\r\n.", "\r\n..").as_bytes());
        self.command(".")
    }

    /// Sends one message over a connection of its own; it must be accepted. Gives back its id.
    pub fn submit(address: SocketAddr, from: &str, to: &[&str], content: &str) -> String {
        let mut client = Self::connect(address);
        client.hello();
        let reply = client.message(from, to, content);
        assert!(reply.starts_with("250 2.0.0 "), "final reply: {reply}");
        client.expect("QUIT", "221");
        reply
            .split(' ')
            .nth(2)
            .expect("an id stands in the reply")
            .to_owned()
    }
}
