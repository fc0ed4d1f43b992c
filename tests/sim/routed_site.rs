//! A shard with a router that fans out, drops, refuses, holds, asks and gives up; a next hop; and a control thread
//! that the test plays.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use crossbeam_queue::ArrayQueue;
use spool::sim::{Persistence, SimDisk};
use spool::{Log, Recovered, Recovery};

use zmailer::control::pickup;
use zmailer::control::postman::{Kept, Undeliverable};
use zmailer::control::queue::{Act, Inquiry, Page};
use zmailer::control::route::{RouteAnswer, RouteQuestion};
use zmailer::io::sim::{ClientId, SimDriver, SimNet};
use zmailer::mail::edit::Edit;
use zmailer::observe::mail_log::MailLog;
use zmailer::policy::Policy;
use zmailer::protocol::{client, server};
use zmailer::router::{
    Answer, Check, Fate, Group, Mail, Need, Quad, Recipient, Routed, Router, Routing, Turn,
};
use zmailer::scheduler::filter::Filter;
use zmailer::scheduler::{self, Rule, Scheduler};
use zmailer::shard::{Outside, Parts, Reload, Settings, Shard, Shared, neighbours};

pub const HOP: &str = "198.51.100.9:25";
pub const OTHER_HOP: &str = "198.51.100.8:25";

/// What stands in front of the content for members of a list.
pub const LIST_LINE: &[u8] = b"List-Id: <list.example>\r\n";

pub const MEMBERS: usize = 40;

/// What the tests tell their router, and see of it.
#[derive(Default)]
pub struct Told {
    /// `hold@` is delivered.
    pub decided: bool,
    /// Addresses of messages that were routed, in their order.
    pub routed: Vec<String>,
    pub verifies: bool,
    pub other_hop: bool,
}

pub type Tell = Rc<RefCell<Told>>;

/// By the local part: `list`, `mix`, `drop`, `none`, `error`, `hold`, `ask`, `read`, `stop`; all others go to the hop.
pub struct TestRouter(Tell);

impl TestRouter {
    pub fn results(&self, of: u32, address: &[u8], notify: u8) -> Vec<Recipient> {
        let text = String::from_utf8_lossy(address).into_owned();
        self.0.borrow_mut().routed.push(text.clone());
        let hop = if self.0.borrow().other_hop {
            OTHER_HOP
        } else {
            HOP
        };
        let deliver = |group: u32, user: String| Recipient {
            of,
            group,
            fate: Fate::Deliver(Quad {
                channel: "smtp".into(),
                host: hop.into(),
                user: user.into_bytes(),
                privilege: None,
                notify,
                orcpt: None,
            }),
        };
        let other = |fate: Fate| Recipient { of, group: 0, fate };
        let refused = || Fate::Fail {
            status: "5.1.1".into(),
            text: "no such user".to_owned(),
        };
        let held = || Fate::Hold {
            reason: "NS:member.example/mx".to_owned(),
        };
        let (local, _) = text.split_once('@').unwrap_or((&text, ""));
        match local {
            "list" => (0..MEMBERS)
                .map(|number| deliver(1, format!("m{number}@member.example")))
                .collect(),
            "mix" => vec![
                deliver(1, "good@member.example".to_owned()),
                other(refused()),
                Recipient {
                    group: 1,
                    ..other(held())
                },
            ],
            "mix2" => vec![deliver(0, "good2@member.example".to_owned())],
            "drop" => vec![other(Fate::Discard)],
            "none" => Vec::new(),
            "error" => vec![other(refused())],
            "hold" if !self.0.borrow().decided => vec![other(held())],
            _ => vec![deliver(0, text)],
        }
    }

    pub fn done(&self, mail: &Mail<'_>) -> Routed {
        let all = (0u32..).zip(mail.recipients);
        let recipients =
            all.flat_map(|(of, addressee)| self.results(of, addressee.address, addressee.notify));
        Routed {
            recipients: recipients.collect(),
            groups: vec![
                Group::default(),
                Group {
                    sender: Some(b"owner@list.example".to_vec()),
                    edits: vec![Edit {
                        at: 0,
                        remove: 0,
                        insert: LIST_LINE.to_vec(),
                    }],
                    ..Group::default()
                },
            ],
            ..Routed::default()
        }
    }
}

/// What another configuration has in the place of a [`TestRouter`]: all mail goes to `new@member.example`.
struct Renaming;

impl Router for Renaming {
    fn route(&mut self, mail: &Mail<'_>) -> Turn {
        let recipient = |of| Recipient {
            of,
            group: 0,
            fate: Fate::Deliver(Quad {
                channel: "smtp".into(),
                host: HOP.into(),
                user: b"new@member.example".to_vec(),
                privilege: None,
                notify: 0,
                orcpt: None,
            }),
        };
        Turn::Done(Routed {
            groups: vec![Group::default()],
            recipients: (0..mail.recipients.len() as u32).map(recipient).collect(),
            ..Routed::default()
        })
    }
}

/// Waits for an answer, then does what the router would have done.
pub struct Waiting(Routed, Vec<u8>);

impl Routing for Waiting {
    fn resume(self: Box<Self>, answer: Answer) -> Turn {
        match answer {
            Answer::Outside(Ok(answer)) => {
                let expected = [&b"re:"[..], &self.1].concat();
                assert_eq!(answer, zmailer::router::request::Answer::Line(expected));
            }
            Answer::Outside(Err(_)) => {
                let held = self.0.recipients.iter().map(|recipient| Recipient {
                    of: recipient.of,
                    group: 0,
                    fate: Fate::Hold {
                        reason: "no answer".to_owned(),
                    },
                });
                return Turn::Done(Routed {
                    recipients: held.collect(),
                    groups: vec![Group::default()],
                    ..Routed::default()
                });
            }
            Answer::Content(content) => {
                let content = content.expect("it can be read");
                assert!(content.starts_with(b"Received: "));
                let end = content.windows(4).any(|four| four == b"\r\n\r\n");
                assert!(end, "the whole header is there");
            }
        }
        Turn::Done(self.0)
    }
}

impl Router for TestRouter {
    fn route(&mut self, mail: &Mail<'_>) -> Turn {
        let first = mail
            .recipients
            .first()
            .map_or(&b""[..], |first| first.address);
        if first.starts_with(b"stop") {
            return Turn::Stopped("more than 1000000 steps".to_owned());
        }
        let routed = self.done(mail);
        if first.starts_with(b"ask") {
            let waiting = Box::new(Waiting(routed, first.to_vec()));
            Turn::Need(
                waiting,
                Need::Outside(zmailer::router::request::Request::Account(first.to_vec())),
            )
        } else if first.starts_with(b"read") {
            let waiting = Box::new(Waiting(routed, Vec::new()));
            Turn::Need(waiting, Need::Content)
        } else {
            Turn::Done(routed)
        }
    }

    fn verifies(&self) -> bool {
        self.0.borrow().verifies
    }

    fn verify(&mut self, check: Check, mail: &Mail<'_>) -> Turn {
        if check == Check::Sender && mail.recipients[0].address != b"error@x.example" {
            return Turn::Done(Routed::default());
        }
        self.route(mail)
    }
}

/// A message that a next hop has taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    pub sender: String,
    pub recipients: Vec<String>,
    pub content: Vec<u8>,
}

/// Input that is no line yet, content under way, and its envelope.
type Connection = (ClientId, Vec<u8>, Option<Vec<u8>>, Taken);

/// A next hop.
pub struct Hop {
    pub address: SocketAddr,
    pub connections: Vec<Connection>,
    pub taken: Vec<Taken>,
    /// Refuses these for now, or for good.
    pub defers: BTreeSet<String>,
    pub refuses: BTreeSet<String>,
}

impl Hop {
    pub fn new(net: &SimNet, address: &str) -> Self {
        let address = address.parse().unwrap();
        net.listen(address);
        Self {
            address,
            connections: Vec::new(),
            taken: Vec::new(),
            defers: BTreeSet::new(),
            refuses: BTreeSet::new(),
        }
    }

    pub fn turn(&mut self, net: &SimNet) {
        while let Some(id) = net.accept(self.address) {
            net.client_send(id, b"220 hop.example\r\n");
            self.connections.push((id, Vec::new(), None, blank()));
        }
        let mut connections = std::mem::take(&mut self.connections);
        connections.retain_mut(|(id, input, content, taken)| {
            if net.client_ended(*id).is_some() {
                net.client_close(*id);
                return false;
            }
            input.extend(net.client_received(*id));
            while let Some(end) = input.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = input.drain(..=end).collect();
                if let Some(reply) = self.line(&line, content, taken) {
                    net.client_send(*id, reply);
                }
            }
            true
        });
        self.connections = connections;
    }

    pub fn line(
        &mut self,
        line: &[u8],
        content: &mut Option<Vec<u8>>,
        taken: &mut Taken,
    ) -> Option<&'static [u8]> {
        if let Some(bytes) = content {
            if line != b".\r\n" {
                bytes.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
                return None;
            }
            taken.content = content.take()?;
            self.taken.push(std::mem::replace(taken, blank()));
            return Some(b"250 2.0.0 taken\r\n");
        }
        let text = String::from_utf8_lossy(line).into_owned();
        let path = text.split(['<', '>']).nth(1).unwrap_or("").to_owned();
        Some(match text.get(..4) {
            Some("EHLO") => b"250-hop.example\r\n250 PIPELINING\r\n",
            Some("MAIL") => {
                *taken = blank();
                taken.sender = path;
                b"250 2.1.0 fine\r\n"
            }
            Some("RCPT") if self.defers.contains(&path) => b"451 4.2.0 later\r\n",
            Some("RCPT") if self.refuses.contains(&path) => b"550 5.1.1 nobody\r\n",
            Some("RCPT") => {
                taken.recipients.push(path);
                b"250 2.1.5 fine\r\n"
            }
            Some("DATA") => {
                *content = Some(Vec::new());
                b"354 go on\r\n"
            }
            Some("QUIT") => b"221 2.0.0 bye\r\n",
            _ => b"250 2.0.0 fine\r\n",
        })
    }
}

pub fn blank() -> Taken {
    Taken {
        sender: String::new(),
        recipients: Vec::new(),
        content: Vec::new(),
    }
}

/// One shard, a next hop, and the control thread played by the test.
pub struct Site {
    pub net: SimNet,
    pub shard: Option<Shard<SimDriver>>,
    pub shared: Arc<Shared>,
    pub tell: Tell,
    pub hop: Hop,
    pub questions: Arc<ArrayQueue<RouteQuestion>>,
    pub answers: Arc<ArrayQueue<RouteAnswer>>,
    pub keep: Arc<ArrayQueue<Undeliverable>>,
    pub kept: Arc<ArrayQueue<Kept>>,
    pub inquiries: Arc<ArrayQueue<Inquiry>>,
    pub pages: Arc<ArrayQueue<Page>>,
    pub reloads: Arc<ArrayQueue<Box<Reload>>>,
    /// Questions are answered at once.
    pub answering: bool,
    pub epoch: u64,
    pub clients: u8,
}

impl Site {
    pub fn new() -> Self {
        let net = SimNet::new(5);
        let hop = Hop::new(&net, HOP);
        let mut site = Self {
            hop,
            net,
            shard: None,
            shared: Arc::new(Shared::new(1)),
            tell: Tell::default(),
            questions: Arc::new(ArrayQueue::new(64)),
            answers: Arc::new(ArrayQueue::new(64)),
            keep: Arc::new(ArrayQueue::new(64)),
            kept: Arc::new(ArrayQueue::new(64)),
            inquiries: Arc::new(ArrayQueue::new(64)),
            pages: Arc::new(ArrayQueue::new(64)),
            reloads: Arc::new(ArrayQueue::new(4)),
            answering: true,
            epoch: 1,
            clients: 0,
        };
        site.start(SimDisk::new(9));
        site
    }

    pub fn start(&mut self, mut disk: SimDisk) {
        self.epoch += 1;
        let (log, recovered) = recover(&mut disk, self.epoch);
        while self.questions.pop().is_some() {}
        let driver = self.net.driver(0, disk);
        let ends = neighbours(1).pop().unwrap();
        let parts = self.parts(ends);
        self.shard = Some(Shard::new(driver, parts, log, recovered));
    }

    /// The power fails, and the relay starts on what is on the disk.
    pub fn crash(&mut self) {
        let disk = (self.net).with_disk(0, |disk| std::mem::replace(disk, SimDisk::new(0)));
        self.shard = None;
        self.start(disk.power_cut(&mut Persistence::drop_all()));
    }

    pub fn parts(&self, ends: zmailer::shard::Neighbours) -> Parts {
        let (questions, keep) = (Arc::clone(&self.questions), Arc::clone(&self.keep));
        let pages = Arc::clone(&self.pages);
        let rule = Rule {
            retry_ms: vec![60_000],
            expiry_ms: 3_600_000,
            ..Rule::default()
        };
        let scheduler = Scheduler::new(scheduler::Settings {
            rules: vec![rule],
            shard: 0,
            shards: 1,
            seed: 3,
        });
        Parts {
            settings: Settings {
                shard: 0,
                hostname: "relay.example".to_owned(),
                services: vec![Arc::new(server::Settings {
                    idle_ns: u64::MAX / 4,
                    total_ns: u64::MAX / 4,
                    ..server::Settings::default()
                })],
                client: Arc::new(client::Settings::default()),
                lmtp: Arc::new(client::Settings::default()),
                mailbox_socket: "/none".into(),
                memory_bytes: 1 << 20,
                sessions_max: 100,
                connections_max: 100,
                transaction_recipients_max: 7,
                routings_max: 2,
            },
            shared: Arc::clone(&self.shared),
            outside: Outside {
                ask: Box::new(Err),
                keep: Box::new(move |message| keep.push(message)),
                answers: Arc::new(ArrayQueue::new(8)),
                kept: Arc::clone(&self.kept),
                pickup: pickup::Ends::new(),
                imported: Arc::new(pickup::Answers::new()),
                ask_user: Box::new(Err),
                users: Arc::new(ArrayQueue::new(8)),
                ask_route: Box::new(move |question| questions.push(question)),
                routes: Arc::clone(&self.answers),
                maps: Arc::new(ArrayQueue::new(8)),
                reloads: Arc::clone(&self.reloads),
                inquiries: Arc::clone(&self.inquiries),
                page: Box::new(move |page| assert!(pages.push(page).is_ok())),
            },
            scheduler,
            router: Box::new(TestRouter(Rc::clone(&self.tell))),
            generation: 1,
            policies: vec![Policy::new(vec!["192.0.2.0/24".parse().unwrap()], &[])],
            mail_log: MailLog::new(String::new(), 1 << 20),
            neighbours: ends,
        }
    }

    pub fn turn(&mut self) {
        self.shard.as_mut().unwrap().turn();
        self.hop.turn(&self.net);
        if self.answering {
            self.answer_one();
        }
    }

    pub fn answer_one(&self) -> bool {
        let Some(question) = self.questions.pop() else {
            return false;
        };
        let answer = RouteAnswer {
            token: question.token,
            reply: Ok(zmailer::router::request::Answer::Line(
                [&b"re:"[..], asked_for(&question.request)].concat(),
            )),
        };
        assert!(self.answers.push(answer).is_ok());
        true
    }

    pub fn run(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        for _ in 0..20_000 {
            self.turn();
            if done(self) {
                return;
            }
        }
        let log = self.net.log(0);
        let taken = self.hop.taken.len();
        panic!("{what} does not come about; {taken} taken\n{log}");
    }

    /// Lets time pass.
    pub fn wait(&mut self, minutes: u64) {
        for _ in 0..minutes * 4 {
            self.net.advance(15_000_000_000);
            for _ in 0..50 {
                self.turn();
            }
        }
    }

    /// Another configuration comes, with a router that sends all mail to one address.
    pub fn reload(&mut self) {
        let Parts {
            settings, policies, ..
        } = self.parts(neighbours(1).pop().unwrap());
        let reload = Reload {
            router: Box::new(|| Box::new(Renaming)),
            generation: 2,
            policies,
            services: settings.services,
            client: settings.client,
            lmtp: settings.lmtp,
            rules: vec![Rule::default()],
            transaction_recipients_max: 7,
            routings_max: 2,
        };
        assert!(self.reloads.push(Box::new(reload)).is_ok());
    }

    pub fn queued(&self) -> u64 {
        self.shared.all_metrics()[0].read().queue_recipients
    }

    pub fn drained(&self) -> bool {
        self.queued() == 0 && self.shared.all_metrics()[0].read().queue_messages == 0
    }

    pub fn connect(&mut self) -> ClientId {
        self.clients += 1;
        let peer = SocketAddr::new([192, 0, 2, self.clients].into(), 1000);
        let id = self.net.connect_client(0, 0, peer);
        self.expect(id, "220");
        self.say(id, "EHLO c.example\r\n", "250");
        id
    }

    /// The next reply.
    pub fn reply(&mut self, id: ClientId) -> String {
        let mut text = String::new();
        let net = self.net.clone();
        self.run("a reply", |_| {
            text.push_str(&String::from_utf8_lossy(&net.client_received(id)));
            let last = text.lines().last().unwrap_or("");
            text.ends_with("\r\n") && last.as_bytes().get(3) == Some(&b' ')
        });
        text
    }

    pub fn expect(&mut self, id: ClientId, code: &str) {
        let reply = self.reply(id);
        assert!(reply.starts_with(code), "{reply} instead of {code}");
    }

    pub fn say(&mut self, id: ClientId, line: &str, code: &str) {
        self.net.client_send(id, line.as_bytes());
        self.expect(id, code);
    }

    /// Sends a message, which is acknowledged.
    pub fn send(&mut self, recipients: &[&str], body: &str) {
        let id = self.connect();
        self.say(id, "MAIL FROM:<a@source.example>\r\n", "250");
        for recipient in recipients {
            self.say(id, &format!("RCPT TO:<{recipient}@x.example>\r\n"), "250");
        }
        self.say(id, "DATA\r\n", "354");
        self.say(id, &format!("Subject: s\r\n\r\n{body}\r\n.\r\n"), "250");
        self.net.client_close(id);
    }

    /// How often each recipient got mail.
    pub fn deliveries(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for taken in &self.hop.taken {
            for recipient in &taken.recipients {
                *counts.entry(recipient.clone()).or_default() += 1;
            }
        }
        counts
    }

    pub fn inquire(&mut self, filter: &str, act: Option<Act>) -> Page {
        self.ask(filter, act, false)
    }

    /// What would be done.
    pub fn try_out(&mut self, filter: &str, act: Act) -> Page {
        self.ask(filter, Some(act), true)
    }

    fn ask(&mut self, filter: &str, act: Option<Act>, dry: bool) -> Page {
        let inquiry = Inquiry {
            dry,
            token: 1,
            filter: Arc::new(Filter::parse(filter).unwrap()),
            act,
            list: true,
            after: 0,
            upto: u64::MAX,
        };
        assert!(self.inquiries.push(inquiry).is_ok());
        let pages = Arc::clone(&self.pages);
        let mut page = None;
        self.run("an answer", |_| {
            page = pages.pop();
            page.is_some()
        });
        page.unwrap()
    }
}

pub fn recover(disk: &mut SimDisk, epoch: u64) -> (Log, Recovered) {
    let mut recovery = Recovery::from_checkpoint(spool::Settings {
        segment_bytes: 1 << 20,
        checkpoint_bytes: 32 << 10,
        round_piece_bytes: 400,
        epoch,
        secret: !epoch,
        ..spool::Settings::default()
    });
    while let Some(request) = recovery.poll_op() {
        disk.submit(request);
        while let Some(done) = disk.complete_one() {
            recovery.complete(done);
        }
    }
    recovery.finish().expect("the disk is good")
}

/// The name in a question of the test router.
fn asked_for(request: &zmailer::router::request::Request) -> &[u8] {
    match request {
        zmailer::router::request::Request::Account(name) => name,
        request => unreachable!("{request:?} is no question of the test router"),
    }
}
