//! The routing language: any text is parsed or refused; no address becomes code.

use std::cell::RefCell;
use std::rc::Rc;

use zmailer::base::clock::Now;
use zmailer::router::builtin;
use zmailer::router::check;
use zmailer::router::diagnostic::Source;
use zmailer::router::loaded::{Loaded, Plan, Script, Setting};
use zmailer::router::machine::{Evaluation, Limits, MapRequest, Turn};
use zmailer::router::message::{self, Asked, Probe, Probed};
use zmailer::router::relation::{self, Held, MapId, Maps, Reply, Unavailable, Version};
use zmailer::router::request::{Account, Answer, Failure, Request, Stat};
use zmailer::router::runner::Runner;
use zmailer::router::syntax;
use zmailer::router::value::Value;

/// Any bytes are a script or give errors, each at a place inside the text; what is parsed can be checked. The same
/// bytes never are an incomplete and a good script.
pub fn script(data: &[u8]) {
    let source = Source::new("fuzz", data);
    let incomplete = syntax::is_incomplete(&source);
    match syntax::parse(&source) {
        Ok(parsed) => {
            assert!(!incomplete);
            let scripts = [check::Script {
                source: Rc::clone(&source),
                parsed,
            }];
            let known = check::Known {
                defined: &|_| false,
                programs: false,
            };
            for warning in check::check(&scripts, known) {
                assert!(warning.at <= data.len());
                let _ = warning.to_string();
            }
        }
        Err(errors) => {
            assert!(!errors.is_empty());
            for error in errors {
                assert!(error.at <= data.len());
                let _ = error.to_string();
            }
        }
    }
    let mut evaluation = Evaluation::new(limits());
    if evaluation.load(&source, &[]).is_ok() {
        let mut world = World::default();
        // It may do anything, but it comes to an end.
        world.run(&mut evaluation);
    }
}

fn limits() -> Limits {
    let mut limits = Limits::default().with_steps(2_000_000);
    limits.bytes_max = 8 << 20;
    limits
}

/// An address that is routed through the shipped scripts: it runs no program and writes no file, the result is
/// made of quads, and asked again it is the same.
pub fn routing(data: &[u8]) {
    STOCK.with(|stock| {
        let mut stock = stock.borrow_mut();
        let (sender, address) = match data.split_first() {
            Some((0..64, rest)) => (Some(rest), &b"joe@example.org"[..]),
            Some((64..128, rest)) => (Some(&b"ann@far.example"[..]), rest),
            Some((_, rest)) => (None, rest),
            None => return,
        };
        let first = stock.ask(sender, address);
        let again = stock.ask(sender, address);
        assert_eq!(first, again);
        if let Ok(probed) = first {
            for way in &probed.ways {
                assert!(!way.channel.is_empty(), "{way:?}");
            }
        }
        let verified = stock.server(data);
        assert_eq!(verified, stock.server(data));
    });
}

thread_local! {
    static STOCK: RefCell<Stock> = RefCell::new(Stock::new());
}

struct Stock {
    evaluation: Evaluation,
    world: World,
}

/// Files of the administrator, as scripts find them.
const FILES: &[(&str, &str)] = &[
    (
        "/cf/aliases",
        "staff: joe, ann@far.example, |prog\nloop: loop2\nloop2: loop\nfile: /tmp/x\nincl: :include:/cf/members\n",
    ),
    ("/cf/members", "joe, ann\nbob@far.example # comment\n"),
    (
        "/cf/routes",
        ".hop.example smtp!relay.example\nbad.example error!nosuchuser\n",
    ),
    ("/cf/fqdnaliases", "full@example.org: joe\n"),
    ("/cf/fqdnroutes", "@shop.example smtp!mx!%1@%4\n"),
    ("/cf/userdb", "joe:mailname Joe.User@example.org\n"),
    ("/cf/localnames", "example.org example.org\n"),
    ("/cf/lists/team", "joe\nann@far.example\n"),
    ("/users/joe/.forward", "\\joe, joe@far.example, \"|prog\"\n"),
];

impl Stock {
    fn new() -> Self {
        let mut world = World::default();
        let variables = [
            ("hostname", "mx.example.org"),
            ("MAILVAR", "/cf"),
            ("srs_domain", "example.org"),
            ("srs_secrets", "secret"),
        ];
        let has_srs = builtin::TABLE
            .iter()
            .any(|builtin| builtin.name == "srs_forward");
        let variables = variables
            .iter()
            .filter(|(name, _)| has_srs || !name.starts_with("srs"));
        let plan = Plan {
            variables: variables
                .map(|(name, text)| ((*name).to_owned(), Setting::Text((*text).to_owned())))
                .collect(),
            scripts: zmailer::router::stock::FILES
                .iter()
                .map(|(name, text)| Script {
                    name: (*name).to_owned(),
                    text: text.as_bytes().to_vec(),
                    arguments: Vec::new(),
                })
                .collect(),
            limits: limits(),
        };
        let maps = world.maps.clone();
        let loaded = Loaded::new(plan, |request, _| world.answer(request), &maps);
        let Ok((_, evaluation)) = loaded else {
            panic!(
                "{}",
                loaded
                    .err()
                    .map_or_else(String::new, |error| error.to_string())
            );
        };
        Self { evaluation, world }
    }

    fn ask(&mut self, sender: Option<&[u8]>, address: &[u8]) -> Result<Probed, String> {
        self.evaluation.reset();
        let mut probe = Probe::<Value>::new(Asked {
            address: address.to_vec(),
            sender: sender.map(<[u8]>::to_vec),
            nobody: 65_534,
        });
        loop {
            let mut runner = Runner {
                evaluation: &mut self.evaluation,
                maps: &self.world.maps,
                now: Now::default(),
            };
            match probe.run(&mut runner) {
                message::Turn::Done(probed) => return Ok(probed),
                message::Turn::Stopped(limit) => return Err(limit),
                message::Turn::Need(request) => {
                    self.world.forbid(&request, address);
                    let answer = self.world.answer(request);
                    self.evaluation.answer(answer);
                }
            }
        }
    }

    /// What `server to ADDRESS` prints.
    fn server(&mut self, address: &[u8]) -> Vec<u8> {
        self.evaluation.reset();
        let words = [&b"to"[..], address].map(Value::from).to_vec();
        assert!(self.evaluation.call(b"server", words));
        self.world.forbids = true;
        self.world.run(&mut self.evaluation);
        self.world.forbids = false;
        self.evaluation.take_printed()
    }
}

/// What surrounds a script: some files and accounts, and nothing that can be changed.
#[derive(Default)]
struct World {
    maps: Memory,
    /// A program or a write is a failure of the test.
    forbids: bool,
}

impl World {
    fn run(&mut self, evaluation: &mut Evaluation) {
        loop {
            match evaluation.run(&self.maps, Now::default()) {
                Turn::Done(_) | Turn::Stopped(_) => return,
                Turn::More => {}
                Turn::Need(request) => {
                    if self.forbids {
                        self.forbid(&request, b"");
                    }
                    let answer = self.answer(request);
                    evaluation.answer(answer);
                }
            }
        }
    }

    fn forbid(&self, request: &Request, address: &[u8]) {
        let harmless = !matches!(
            request,
            Request::Run(_) | Request::Write { .. } | Request::Directory(_) | Request::Umask(_)
        );
        let shown = &address[..address.len().min(200)];
        let wanted: String = format!("{request:?}").chars().take(400).collect();
        assert!(harmless, "{}: {wanted}", shown.escape_ascii());
    }

    fn answer(&mut self, request: Request) -> Answer {
        match request {
            Request::Read { path, .. } => Answer::File(file(&path).map(|text| (text, stat(&path)))),
            Request::Stat { path, .. } => Answer::Stat(known(&path).map(|()| stat(&path))),
            Request::Write { .. } | Request::Directory(_) => Answer::Done(Err(missing())),
            Request::Glob { .. } | Request::Program { .. } => Answer::Paths(Vec::new()),
            Request::Account(name) => Answer::Account(Ok(account(name == b"joe", 1001))),
            Request::AccountOf(number) => Answer::Account(Ok(account(number == 1001, number))),
            Request::Group(_) => Answer::Group(Ok(None)),
            Request::Run(_) => Answer::NotRun("no programs here".to_owned()),
            Request::Umask(_) => Answer::Umask(0o22),
            Request::Output { .. } | Request::Sleep { .. } | Request::Log { .. } => {
                Answer::Done(Ok(()))
            }
            Request::Line => Answer::Line(Vec::new()),
            Request::Ask(_) => Answer::Reply(Reply::Missing(None)),
            Request::Map(MapRequest::Open { id, source }) => {
                self.maps.open(id, &source);
                Answer::Done(Ok(()))
            }
            Request::Map(_) => Answer::Done(Err(missing())),
            Request::Hostname => Answer::Hostname(b"mx.example.org".to_vec()),
            Request::Time => Answer::Time(1_700_000_000),
        }
    }
}

fn missing() -> Failure {
    Failure {
        missing: true,
        temporary: false,
        text: "not there".to_owned(),
    }
}

fn file(path: &[u8]) -> Result<Vec<u8>, Failure> {
    let found = FILES.iter().find(|(name, _)| name.as_bytes() == path);
    found
        .map(|(_, text)| text.as_bytes().to_vec())
        .ok_or_else(missing)
}

/// A file, or a directory of one.
fn known(path: &[u8]) -> Result<(), Failure> {
    let below = |name: &str| name.as_bytes().starts_with(path);
    let found = !path.is_empty() && FILES.iter().any(|(name, _)| below(name));
    if found { Ok(()) } else { Err(missing()) }
}

fn stat(path: &[u8]) -> Stat {
    let mode = if file(path).is_ok() {
        0o100_644
    } else {
        0o40_755
    };
    let user = if path.starts_with(b"/users/joe") {
        1001
    } else {
        0
    };
    Stat {
        mode,
        user,
        size: 10,
        access: 4,
        ..Stat::default()
    }
}

fn account(there: bool, number: u32) -> Option<Account> {
    there.then(|| Account {
        name: b"joe".to_vec(),
        user: number,
        full_name: b"Joe User".to_vec(),
        home: b"/users/joe".to_vec(),
    })
}

/// Maps of the files above.
#[derive(Clone, Default)]
struct Memory(Rc<RefCell<Vec<Option<Version>>>>);

impl Memory {
    fn open(&self, id: MapId, source: &relation::Source) {
        let map = file(&source.path)
            .ok()
            .and_then(|text| relation::build(source, text, Vec::new()).ok());
        let mut maps = self.0.borrow_mut();
        let number = id.0 as usize;
        if maps.len() <= number {
            maps.resize(number + 1, None);
        }
        maps[number] = map.map(|map| Version { map, owner: 0 });
    }
}

impl Maps for Memory {
    fn map(&self, id: MapId) -> Result<Held<'_>, Unavailable> {
        let version = self.0.borrow().get(id.0 as usize).cloned().flatten();
        version.map(Held::Shared).ok_or_else(Unavailable::io)
    }
}
