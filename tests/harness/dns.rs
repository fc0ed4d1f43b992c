//! An authoritative name server for `test.` on loopback.

use std::net::SocketAddr;
use std::time::Duration;

use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::Name;
use hickory_resolver::proto::serialize::txt::Parser;
use hickory_server::Server;
use hickory_server::store::in_memory::InMemoryZoneHandler;
use hickory_server::zone_handler::{AxfrPolicy, Catalog, ZoneType};

/// A running server; ends with the value.
pub struct Dns {
    pub address: SocketAddr,
    _runtime: tokio::runtime::Runtime,
}

/// Of the zone that every test adds to.
const HEAD: &str =
    "$TTL 60\n@ IN SOA ns.test. root.test. 1 60 60 60 60\n@ IN NS ns.test.\nns IN A 127.0.0.1\n";

impl Dns {
    /// Serves `records` (zone file lines, names below `test.`) on a free port.
    pub fn start(records: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("threads");
        let origin = Name::from_ascii("test.").expect("a name");
        let text = format!("{HEAD}{records}");
        let parsed = Parser::new(text, None, Some(origin.clone())).parse();
        let (_, zone) = parsed.expect("a good zone");
        let handler = InMemoryZoneHandler::<TokioRuntimeProvider>::new(
            origin.clone(),
            zone,
            ZoneType::Primary,
            AxfrPolicy::Deny,
        )
        .expect("a zone with SOA");
        let mut catalog = Catalog::new();
        catalog.upsert(origin.into(), vec![std::sync::Arc::new(handler)]);
        let address = runtime.block_on(async {
            let tcp = tokio::net::TcpListener::bind("127.0.0.1:0")
                .await
                .expect("a port");
            let address = tcp.local_addr().expect("bound");
            let udp = tokio::net::UdpSocket::bind(address)
                .await
                .expect("the same port");
            let mut server = Server::new(catalog);
            server.register_socket(udp);
            server.register_listener(tcp, Duration::from_secs(5), 4096);
            tokio::spawn(async move { server.block_until_done().await });
            address
        });
        Self {
            address,
            _runtime: runtime,
        }
    }
}
