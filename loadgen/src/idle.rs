//! The idle crowd: connections that say EHLO and then nothing. A relay may close one only after its
//! own limit of silence; one that closes earlier is counted.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// What the relay may take for one reply.
const REPLY: Duration = Duration::from_secs(10);

/// Bytes of one reply.
const REPLY_BYTES_MAX: usize = 64 << 10;

/// Connections that are to stay open.
#[derive(Debug, Default)]
pub(crate) struct Crowd {
    members: Vec<Member>,
    dropped: u64,
    limit: Duration,
}

#[derive(Debug)]
struct Member {
    stream: TcpStream,
    silent_since: Instant,
}

impl Crowd {
    /// Opens `count` connections. The relay may close one after `limit` of silence.
    pub(crate) fn gather(to: SocketAddr, count: usize, limit: Duration) -> Self {
        let mut crowd = Self {
            limit,
            ..Self::default()
        };
        for left in (1..=count).rev() {
            match Member::open(to) {
                Ok(member) => crowd.members.push(member),
                // A relay that takes no more, or does not answer, is not asked thousands of times.
                Err(_) => {
                    crowd.dropped = left as u64;
                    break;
                }
            }
        }
        crowd
    }

    /// Lets go of those that the relay has closed.
    pub(crate) fn look(&mut self) {
        let limit = self.limit;
        let before = self.members.len();
        let mut allowed = 0;
        self.members.retain(|member| {
            let open = member.is_open();
            allowed += usize::from(!open && member.silent_since.elapsed() >= limit);
            open
        });
        self.dropped += (before - self.members.len() - allowed) as u64;
    }

    /// Sends everybody home; who is not let go with a good reply was not served any more. Gives back
    /// how many were lost before their time.
    pub(crate) fn disperse(mut self) -> u64 {
        self.look();
        let asked: Vec<bool> = self
            .members
            .iter_mut()
            .map(|member| member.ask_to_leave().is_ok())
            .collect();
        let deadline = Instant::now() + REPLY;
        for (member, asked) in self.members.iter_mut().zip(asked) {
            let allowed = member.silent_since.elapsed() >= self.limit;
            let left = asked && member.may_leave(deadline).is_ok();
            self.dropped += u64::from(!left && !allowed);
        }
        self.dropped
    }
}

impl Member {
    fn open(to: SocketAddr) -> io::Result<Self> {
        let mut stream = TcpStream::connect_timeout(&to, REPLY)?;
        stream.set_read_timeout(Some(REPLY))?;
        stream.set_write_timeout(Some(REPLY))?;
        good_reply(&mut stream)?;
        stream.write_all(b"EHLO idle.example\r\n")?;
        good_reply(&mut stream)?;
        Ok(Self {
            stream,
            silent_since: Instant::now(),
        })
    }

    /// A relay that says something now says that it closes.
    fn is_open(&self) -> bool {
        let peeked = self
            .stream
            .set_nonblocking(true)
            .and_then(|()| self.stream.peek(&mut [0]));
        matches!(peeked, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    fn ask_to_leave(&mut self) -> io::Result<()> {
        self.stream.set_nonblocking(false)?;
        self.stream.write_all(b"QUIT\r\n")
    }

    /// All members share the time, or a relay that hangs would be waited for by each in turn.
    fn may_leave(&mut self, deadline: Instant) -> io::Result<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        // Zero would mean forever.
        self.stream
            .set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        good_reply(&mut self.stream)
    }
}

/// Reads one reply, which has to be 2xx.
fn good_reply(stream: &mut TcpStream) -> io::Result<()> {
    let mut reply = Vec::new();
    while !is_whole(&reply) {
        let mut piece = [0; 1024];
        let read = stream.read(&mut piece)?;
        if read == 0 || reply.len() > REPLY_BYTES_MAX {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        reply.extend_from_slice(&piece[..read]);
    }
    if reply.starts_with(b"2") {
        Ok(())
    } else {
        Err(io::ErrorKind::ConnectionRefused.into())
    }
}

/// Whether a reply has its last line, the one without a hyphen (RFC 5321 4.2.1).
fn is_whole(reply: &[u8]) -> bool {
    let last = reply
        .strip_suffix(b"\n")
        .and_then(|lines| lines.rsplit(|byte| *byte == b'\n').next());
    last.is_some_and(|line| line.get(3) != Some(&b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread;

    #[test]
    fn a_reply_is_whole_at_its_last_line() {
        for (reply, whole) in [
            (&b""[..], false),
            (b"250 ok", false),
            (b"250 ok\r\n", true),
            (b"250-a\r\n", false),
            (b"250-a\r\n250 b\r\n", true),
        ] {
            assert_eq!(is_whole(reply), whole, "{reply:?}");
        }
    }

    /// Answers greeting and EHLO, then closes the first `dropped` of `count` connections.
    fn relay(count: usize, dropped: usize) -> (SocketAddr, thread::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let thread = thread::spawn(move || {
            let mut kept = Vec::new();
            for number in 0..count {
                let (mut stream, _) = listener.accept().unwrap();
                stream.write_all(b"220 hello\r\n").unwrap();
                let mut piece = [0; 100];
                assert!(stream.read(&mut piece).unwrap() > 0);
                stream.write_all(b"250-x\r\n250 y\r\n").unwrap();
                if number >= dropped {
                    kept.push(stream);
                }
            }
            for mut stream in kept {
                let mut piece = [0; 100];
                let read = stream.read(&mut piece).unwrap();
                assert_eq!(&piece[..read], b"QUIT\r\n");
                stream.write_all(b"221 bye\r\n").unwrap();
            }
        });
        (address, thread)
    }

    #[test]
    fn connections_that_the_relay_closes_are_counted_unless_it_may() {
        for (limit, dropped) in [(Duration::from_secs(600), 2), (Duration::ZERO, 0)] {
            let (address, thread) = relay(5, 2);
            let crowd = Crowd::gather(address, 5, limit);
            assert_eq!(crowd.members.len(), 5);
            assert_eq!(crowd.disperse(), dropped);
            thread.join().unwrap();
        }
    }

    #[test]
    fn who_is_not_let_in_is_lost_as_well() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let crowd = Crowd::gather(address, 3, Duration::from_secs(600));
        assert_eq!(crowd.disperse(), 3);
    }
}
