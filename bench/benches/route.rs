//! Routing: addresses through the shipped scripts, a list of 100,000 members, and the machine by itself.

use std::fmt::Write as _;
use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use zmailer::base::clock::Now;
use zmailer::control::maps::Versions;
use zmailer::control::script::{Configuration, Local, Permission, Session, load};
use zmailer::router::diagnostic::Source;
use zmailer::router::machine::{Evaluation, Limits, Turn};
use zmailer::router::message;
use zmailer::router::relation::NoMaps;
use zmailer::router::value::Value;
use zmailer::router::{Addressee, Mail, Router, Turn as RouterTurn};
use zmailer::shard::scripted::{FrontDoor, Scripted};

const MEMBERS: usize = 100_000;

/// Files of an administrator.
fn directory() -> std::path::PathBuf {
    let directory =
        std::env::temp_dir().join(format!("zmailer-bench-route-{}", std::process::id()));
    fs::create_dir_all(directory.join("lists")).expect("a directory for the benchmark");
    let mut routes = String::new();
    for number in 0..10_000 {
        writeln!(
            routes,
            "site{number}.example.net smtp!hop{number}.example.net"
        )
        .expect("text");
    }
    write(&directory, "routes", &routes);
    write(
        &directory,
        "aliases",
        "first: second\nsecond: joe@site77.example.net\n",
    );
    let mut members = String::new();
    for number in 0..MEMBERS {
        writeln!(
            members,
            "member{number}@site{}.example.net",
            number % 10_000
        )
        .expect("text");
    }
    write(&directory, "lists/everybody", &members);
    directory
}

fn write(directory: &Path, name: &str, text: &str) {
    fs::write(directory.join(name), text).expect("a file for the benchmark");
}

fn session() -> Session {
    let local = Local::new(Permission::NoPrograms, Duration::from_secs(1));
    Session::for_tool(local).expect("a session")
}

fn configuration(directory: &Path) -> Configuration {
    Configuration {
        directory: directory.to_owned(),
        hostname: "mx.example.org".to_owned(),
        default_route: "smtp!relay.example.net".to_owned(),
        limits: Limits::default(),
        ..Configuration::default()
    }
}

/// The shipped scripts.
fn stock(directory: &Path, session: &mut Session) -> Evaluation {
    let (_, evaluation) = load(&configuration(directory), session).expect("the shipped scripts");
    evaluation
}

fn route(evaluation: &mut Evaluation, session: &mut Session, address: &str) -> Option<Value> {
    assert!(evaluation.call(b"router", vec![Value::from(address)]));
    session.run(evaluation).expect("a route within the limits");
    let route = evaluation.take_returned();
    evaluation.take_printed();
    evaluation.reset();
    route
}

/// A message that another host brings, from its envelope to what is recorded of it: sender, recipient, `crossbar`.
fn relayed(c: &mut Criterion) {
    let directory = directory();
    let mut session = session();
    let (loaded, _) = load(&configuration(&directory), &mut session).expect("the shipped scripts");
    let versions = Versions::seen_in(session.maps(), &loaded.maps);
    let settings = message::Settings {
        tells_keywords: false,
        ..message::Settings::default()
    };
    let router = Scripted::new(&loaded, versions, Arc::new(settings), FrontDoor::default());
    let mut router = router.expect("loaded before");
    let recipients = [Addressee {
        address: b"b@sink.example",
        notify: 0,
        orcpt: None,
    }];
    let mail = Mail {
        id: &"1A2B3C4D5E6F",
        sender: b"a@source.example",
        recipients: &recipients,
        ret: None,
        envid: None,
        client: b"192.0.2.1",
        helo: b"source.example",
        protocol: b"ESMTP",
        origin: &message::Origin::Relay,
        now: NOW,
        arrival_ms: 0,
        size_bytes: 4096,
        content: None,
    };
    let mut group = c.benchmark_group("route");
    group.throughput(Throughput::Elements(1));
    group.bench_function("relayed_message", |b| {
        b.iter(|| match router.route(black_box(&mail)) {
            RouterTurn::Done(routed) => routed,
            RouterTurn::Need(..) | RouterTurn::Stopped(_) => panic!("it is not done"),
        });
    });
    group.finish();
    fs::remove_dir_all(&directory).expect("the benchmark's own directory");
}

fn addresses(c: &mut Criterion) {
    let directory = directory();
    let mut session = session();
    let mut evaluation = stock(&directory, &mut session);
    let mut group = c.benchmark_group("route");
    group.throughput(Throughput::Elements(1));
    for (name, address) in [
        ("routes_hit", "joe@site4711.example.net"),
        ("alias_of_alias", "first"),
        ("local_user", "daemon"),
    ] {
        let shown = route(&mut evaluation, &mut session, address);
        println!("{name}: {shown:?}");
        group.bench_function(name, |b| {
            b.iter(|| route(&mut evaluation, &mut session, black_box(address)));
        });
    }
    group.bench_function("fork", |b| b.iter(|| evaluation.fork()));
    group.throughput(Throughput::Elements(MEMBERS as u64));
    group.sample_size(10);
    group.bench_function("list_of_100000", |b| {
        b.iter(|| route(&mut evaluation, &mut session, "everybody"));
    });
    group.finish();
    fs::remove_dir_all(&directory).expect("the benchmark's own directory");
}

/// Scripts that do one thing a thousand times.
const SCRIPTS: &[(&str, &str)] = &[
    (
        "call",
        "f (a, b) { returns \"$b\"; }\nrun () { for i in WORDS; do x=$(f $i y); done; }\n",
    ),
    (
        "ssift",
        "run () { for i in WORDS; do ssift \"joe.$i@mail.example.net\" in\n(.+)@(.+)\\.net x=\"\\1\" ;;\ntfiss\ndone; }\n",
    ),
    (
        "tsift",
        "run () { for i in WORDS; do tsift \"joe.$i@mail.example.net\" in\n(.+)@(.+)\\.net x=\"\\1\" ;;\ntfist\ndone; }\n",
    ),
    (
        "case",
        "run () { for i in WORDS; do case \"$i\" in a*|b*) x=1 ;; *[0-4]) x=2 ;; *) x=3 ;; esac; done; }\n",
    ),
    (
        "lookup",
        "relation -lt incore -d pathalias r\ndb add r .net x\nrun () { for i in WORDS; do x=$(r a.$i.net); done; }\n",
    ),
];

const NOW: Now = Now {
    mono_ns: 0,
    wall_ms: 0,
};

fn finish(evaluation: &mut Evaluation) {
    loop {
        match evaluation.run(&NoMaps, NOW) {
            Turn::Done(_) => return,
            Turn::More => {}
            turn => panic!("{turn:?}"),
        }
    }
}

fn machine(c: &mut Criterion) {
    let words: Vec<String> = (0..1000).map(|number| format!("w{number}")).collect();
    let mut group = c.benchmark_group("machine");
    group.throughput(Throughput::Elements(1000));
    for (name, script) in SCRIPTS {
        let source = Source::new(name, script.replace("WORDS", &words.join(" ")).as_bytes());
        let mut evaluation = Evaluation::new(Limits::default());
        evaluation.load(&source, &[]).expect("a good script");
        finish(&mut evaluation);
        evaluation.keep();
        group.bench_function(*name, |b| {
            b.iter(|| {
                evaluation.call(b"run", Vec::new());
                finish(&mut evaluation);
                evaluation.take_printed();
                evaluation.reset();
            });
        });
    }
    group.finish();
}

criterion_group!(benches, addresses, relayed, machine);
criterion_main!(benches);
