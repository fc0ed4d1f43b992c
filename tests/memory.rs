//! What a large mailing list takes while it is routed: a binary of its own, since every allocation is counted.
//!
//! The list goes the whole way that it takes in a shard: the file, the shipped scripts, the result, the round of the
//! spool. The peak is what is alive at a time beyond what was before, all copies that are there for a moment
//! included, divided by the members.
//!
//! `ZMAILER_LIST_MEMBERS=100000` measures another size; `--nocapture` shows the figures.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use spool::op::{Completion, Op, Request as DiskRequest};
use spool::{Envelope, Log, MessageKey, Recovery};
use zmailer::base::clock::Now;
use zmailer::control::maps::Versions;
use zmailer::control::script::{Configuration, Local, Permission, Session, load};
use zmailer::router::message;
use zmailer::router::{Addressee, Answer, Mail, Need, Routed, Router, Turn};
use zmailer::shard::round_of;
use zmailer::shard::scripted::{FrontDoor, Scripted};
use zmailer::sys::counting::Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What a member of a list may take (issue 5).
const BYTES_MAX: usize = 200;

/// So many members have the same domain, which has a route: each next hop takes about 130 bytes more.
const MEMBERS_OF_SITE: usize = 10;

fn members_count() -> usize {
    let asked = std::env::var("ZMAILER_LIST_MEMBERS").ok();
    asked.map_or(20_000, |text| text.parse().expect("a number of members"))
}

/// Files of an administrator.
fn files(directory: &Path, members: usize) {
    fs::create_dir_all(directory.join("lists")).expect("a directory");
    let mut routes = String::new();
    let sites = members.div_ceil(MEMBERS_OF_SITE);
    for number in 0..sites {
        writeln!(
            routes,
            "site{number}.example.net smtp!hop{number}.example.net"
        )
        .expect("text");
    }
    let list = |count: usize| {
        let line = |number| format!("member{number}@site{}.example.net\n", number % sites);
        (0..count).map(line).collect::<String>()
    };
    for (name, text) in [
        ("routes", routes),
        ("aliases", String::new()),
        ("lists/few", list(10)),
        ("lists/many", list(members)),
    ] {
        fs::write(directory.join(name), text).expect("a file");
    }
}

struct Site {
    session: Session,
    router: Scripted,
    log: Log,
}

impl Site {
    fn new(directory: &Path) -> Self {
        let local = Local::new(Permission::NoPrograms, Duration::from_secs(1));
        let mut session = Session::for_tool(local).expect("a session");
        let configuration = Configuration {
            directory: directory.to_owned(),
            hostname: "mx.example.org".to_owned(),
            default_route: "smtp!relay.example.net".to_owned(),
            local_domains: vec!["mx.example.org".to_owned()],
            has_users: true,
            ..Configuration::default()
        };
        let (loaded, _) = load(&configuration, &mut session).expect("the shipped scripts");
        let versions = Versions::seen_in(session.maps(), &loaded.maps);
        let settings = Arc::new(message::Settings::default());
        let router = Scripted::new(&loaded, versions, settings, FrontDoor::default());
        Self {
            session,
            router: router.expect("loaded before"),
            log: log(),
        }
    }

    fn route(&mut self, list: &str) -> (Envelope, Routed) {
        let address = format!("{list}@mx.example.org");
        let recipients = [Addressee {
            address: address.as_bytes(),
            notify: 0,
            orcpt: None,
        }];
        let mail = Mail {
            id: &"id",
            sender: b"ann@far.example",
            recipients: &recipients,
            envid: None,
            client: b"192.0.2.1",
            helo: b"far.example",
            protocol: b"ESMTP",
            ret: None,
            origin: &message::Origin::Relay,
            now: Now::default(),
            arrival_ms: 0,
            size_bytes: 100,
            content: Some(b"From: ann@far.example\r\n\r\nx\r\n"),
        };
        let envelope = Envelope {
            sender: mail.sender.to_vec(),
            recipients: vec![spool::Recipient {
                address: address.clone().into_bytes(),
                ..spool::Recipient::default()
            }],
            ..Envelope::default()
        };
        let mut turn = self.router.route(&mail);
        loop {
            turn = match turn {
                Turn::Done(routed) => return (envelope, routed),
                Turn::Stopped(why) => panic!("{list} was stopped: {why}"),
                Turn::Need(_, Need::Content) => panic!("the content is there"),
                Turn::Need(routing, Need::Outside(request)) => {
                    let answer = self.session.answer(request);
                    routing.resume(Answer::Outside(Ok(answer)))
                }
            };
        }
    }

    /// Routes and stages it; the peaks on the way, in bytes above what was alive before.
    fn stage(&mut self, list: &str, members: usize) -> [(&'static str, usize); 3] {
        let id = self.log.reserve_id();
        let accepted = self.log.accept(1, id, &Envelope::default(), b"content");
        let key: MessageKey = accepted.expect("there is room").key;
        turn(&mut self.log);
        let before = Counting::live();
        let above = || Counting::peak().saturating_sub(before);
        Counting::restart();
        let (envelope, routed) = self.route(list);
        let first = routed.recipients.iter().next();
        assert_eq!(routed.recipients.len(), members, "{first:?}");
        let routing = above();
        Counting::restart();
        let (replaced, round) = round_of(&envelope, routed, 1);
        assert_eq!(round.recipients.len(), members);
        let sorting = above();
        Counting::restart();
        let staged = self.log.route(2, key, &replaced, &round);
        staged.expect("there is room");
        [
            ("routing", routing),
            ("making a round", sorting),
            ("staging it", above()),
        ]
    }
}

/// Answers what a perfect disk would, at once; reads give zeroes.
fn answer(request: DiskRequest) -> Completion {
    let (result, buf) = match request.op {
        Op::Write { buf, .. } | Op::Read { buf, .. } => (buf.len() as u64, Some(buf)),
        _ => (0, None),
    };
    Completion {
        token: request.token,
        result: Ok(result),
        buf,
        files: Vec::new(),
    }
}

fn turn(log: &mut Log) {
    for now in 0..10 {
        while let Some(request) = log.poll_op(now) {
            log.complete(now, answer(request));
        }
        while log.poll_event().is_some() {}
    }
}

fn log() -> Log {
    let mut recovery = Recovery::new(spool::Settings {
        segments_max: 64,
        segment_bytes: 64 << 20,
        ..spool::Settings::default()
    });
    while let Some(request) = recovery.poll_op() {
        recovery.complete(answer(request));
    }
    let (mut log, _) = recovery.finish().expect("an empty directory is a start");
    turn(&mut log);
    log
}

#[test]
fn a_member_of_a_list_takes_little() {
    let members = members_count();
    let directory = tempfile::tempdir().expect("a directory");
    files(directory.path(), members);
    let mut site = Site::new(directory.path());
    site.stage("few", 10);
    for (what, bytes) in site.stage("many", members) {
        let each = bytes / members;
        println!("{what}: {each} bytes a member ({bytes} of {members})");
        assert!(each <= BYTES_MAX, "{what}: {each} bytes a member");
    }
}
