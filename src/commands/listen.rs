//! The listening sockets: a test without SO_REUSEPORT first, so that a port in use is an error and
//! not a share of somebody else's connections, then one socket a shard.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::thread::sleep;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that the kernel keeps until they are accepted.
const BACKLOG: i32 = 4096;

/// How long a port that is in use is waited for.
const LEFT_BEHIND: Duration = Duration::from_secs(2);

/// Binds every address once for each shard: the answer holds one list of listeners a shard, in the
/// order of `addresses`.
///
/// # Errors
/// Names the address that cannot be bound.
pub(super) fn bind(
    addresses: &[SocketAddr],
    shards: usize,
) -> Result<Vec<Vec<TcpListener>>, String> {
    let mut all: Vec<Vec<TcpListener>> = (0..shards).map(|_| Vec::new()).collect();
    for address in addresses {
        let bind_error = |error: io::Error| format!("cannot listen on {address}: {error}");
        // Port 0 means any free port: all shards must get the same one.
        let probe = probe(*address).map_err(bind_error)?;
        let address = probe
            .local_addr()
            .map_err(bind_error)?
            .as_socket()
            .unwrap_or(*address);
        drop(probe);
        for listeners in &mut all {
            let socket = socket(address, true).map_err(bind_error)?;
            socket.listen(BACKLOG).map_err(bind_error)?;
            listeners.push(socket.into());
        }
    }
    Ok(all)
}

/// The kernel closes the sockets of a killed process that used io_uring a moment after the process is
/// gone. The caller holds the postoffice's lock, so one of its own is waited for.
fn probe(address: SocketAddr) -> io::Result<Socket> {
    let until = Instant::now() + LEFT_BEHIND;
    loop {
        match socket(address, false) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < until => {
                sleep(Duration::from_millis(10));
            }
            result => return result,
        }
    }
}

fn socket(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        // "[::]" is IPv6 only, so that policies see each client in its own family.
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_in_use_is_refused_by_name() {
        let first = bind(&["127.0.0.1:0".parse().unwrap()], 2).unwrap();
        let address = first[0][0].local_addr().unwrap();
        assert_eq!(
            first[1][0].local_addr().unwrap(),
            address,
            "shards share the port"
        );
        let error = bind(&[address], 2).unwrap_err();
        assert!(error.contains(&address.to_string()), "{error}");
    }
}
