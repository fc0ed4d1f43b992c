//! What look-ups ask name servers, asked from a real server on loopback; and tables that a tool keeps fresh.

use std::fs;
use std::os::unix::ffi::OsStrExt;

use zmailer::base::clock::Now;
use zmailer::control::maps::Live;
use zmailer::router::machine::MapRequest;
use zmailer::router::relation::{
    Cache, Definition, Lookup, MapId, Parsed, Question, Record, Relation, Reply, Step, Value,
};

use crate::harness::daemon::{free_address, scratch_dir};
use crate::harness::dns::Dns;
use crate::harness::outside::Outside;

const ZONE: &str = "\
two IN MX 20 b
two IN MX 10 a
a IN A 127.0.1.1
a IN A 127.0.1.2
b IN AAAA 2001:db8::1
alias IN CNAME two
link IN CNAME alias
nomail IN MX 0 .
backup IN MX 10 a
backup IN MX 20 mx.test.example.
backup IN MX 30 b
ours IN MX 10 mx.test.example.
byaddress IN MX 10 a
theirs IN MX 10 far
theirs IN MX 20 mx.test.example.
far IN A 192.0.2.9
lost IN MX 10 host.elsewhere.
name IN PTR a
text IN TXT \"first part\" \"second\"
";

/// As text: a list in parentheses, `-` when missing, `later TEXT`.
fn said(reply: Reply) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match reply {
        Reply::Text(value, _) => text(&value),
        Reply::List(values, _) => {
            let values: Vec<String> = values.iter().map(|value| text(value)).collect();
            format!("({})", values.join(" "))
        }
        Reply::Missing(_) => "-".to_owned(),
        Reply::Later(reason) => format!("later {}", text(&reason)),
    }
}

fn about(record: Record, name: &str) -> Question {
    let name = name.into();
    Question::Bind { record, name }
}

#[test]
fn name_servers_are_asked() {
    let dns = Dns::start(ZONE);
    let outside = Outside::new(dns.address);
    let rows = [
        (Record::A, "a.test", "(127.0.1.1 127.0.1.2)"),
        (Record::A, "b.test", "-"),
        (Record::A, "nosuch.test", "-"),
        (Record::Aaaa, "b.test", "(2001:db8::1)"),
        (Record::Any, "two.test", "two.test"),
        (Record::Any, "link.test", "two.test"),
        (Record::Any, "text.test", "-"),
        (Record::Any, "nosuch.test", "-"),
        (Record::Cname, "alias.test", "two.test"),
        (Record::Cname, "a.test", "a.test"),
        (Record::Cname, "nosuch.test", "-"),
        (Record::Mx, "two.test", "(a.test b.test)"),
        (Record::MxWks, "alias.test", "(a.test b.test)"),
        // Those that are not better than us would send it back.
        (Record::Mx, "backup.test", "(a.test)"),
        (Record::Mx, "ours.test", "-"),
        (Record::Mx, "nomail.test", "-"),
        (Record::Mx, "a.test", "-"),
        (Record::MxLocal, "ours.test", "ours.test"),
        (Record::MxLocal, "byaddress.test", "byaddress.test"),
        (Record::MxLocal, "theirs.test", "-"),
        (Record::MxLocal, "a.test", "-"),
        (Record::Ptr, "name.test", "a.test"),
        (Record::Ptr, "a.test", "-"),
        (Record::Txt, "text.test", "first part"),
        (Record::Uinfo, "text.test", "first part"),
        (Record::Wks, "any.test", "any.test"),
        // This server refuses what is not below test: it says nothing about these names.
        (Record::Mx, "example.org", "later NS:example.org/mx"),
        (Record::Any, "example.org", "later NS:example.org/any"),
        (Record::MxLocal, "lost.test", "later NS:lost.test/mxlocal"),
        (Record::Ptr, "[8.8.8.8]", "later NS:[8.8.8.8]/ptr"),
        (Record::A, "no name.test", "-"),
        (Record::A, "a..test", "-"),
        (Record::A, "\u{e9}.test", "-"),
    ];
    for (record, name, wanted) in rows {
        let said = said(outside.answer(&about(record, name)));
        assert_eq!(said, wanted, "{record:?} {name}");
    }
    // The zone says for how long, also of what it does not have.
    for (record, name) in [
        (Record::A, "a.test"),
        (Record::A, "nosuch.test"),
        (Record::Mx, "a.test"),
    ] {
        let (Reply::List(_, ttl) | Reply::Missing(ttl)) = outside.answer(&about(record, name))
        else {
            panic!("{name}");
        };
        assert!(
            ttl.is_some_and(|ttl| (1..=60).contains(&ttl)),
            "{name} {ttl:?}"
        );
    }
    for (address, wanted) in [("127.0.0.1", "2"), ("192.0.2.77", "-")] {
        let address = address.into();
        assert_eq!(
            said(outside.answer(&Question::SelfMatch { address })),
            wanted
        );
    }
}

#[test]
fn a_name_server_that_is_gone_defers() {
    let outside = Outside::new(free_address());
    let reply = outside.answer(&about(Record::Mx, "a.test"));
    assert_eq!(said(reply), "later NS:a.test/mx");
}

#[test]
fn a_tool_looks_at_watched_files_before_each_look_up() {
    let dir = scratch_dir();
    let path = dir.path().join("table");
    let live = Live::default();
    let relation = |words: &[&[u8]]| {
        let Ok(Parsed::Define { name, definition }) = Definition::parse(words, |_| None) else {
            panic!("{words:?}");
        };
        let map = MapId(u32::from(words[0] == b"-t"));
        let source = definition.source().unwrap();
        live.obey(&MapRequest::Open { id: map, source }).unwrap();
        let map = Some(map);
        Relation {
            name: name.into(),
            definition: *definition,
            map,
        }
    };
    let file = path.as_os_str().as_bytes();
    let watched = relation(&[b"-mt", b"unordered", b"-f", file, b"watched"]);
    let pinned = relation(&[b"-t", b"unordered", b"-f", file, b"pinned"]);
    let look = |relation: &Relation| {
        let mut lookup = Lookup::begin(relation, &[b"k"]);
        let mut cache = Cache::new(0);
        match lookup.step(relation, None, &live, &mut cache, Now::default()) {
            Step::Found(Value::Text(text)) => String::from_utf8(text.into_owned()).unwrap(),
            Step::Defer { reason, .. } => String::from_utf8(reason).unwrap(),
            other => format!("{other:?}"),
        }
    };
    assert_eq!(look(&watched), "IO:error");
    assert!(live.take_problems()[0].contains("No such file"));
    for round in ["v1", "v2", "v3"] {
        fs::write(&path, format!("k {round}\n")).unwrap();
        assert_eq!(
            (look(&watched).as_str(), look(&pinned).as_str()),
            (round, "v1")
        );
    }
    live.obey(&MapRequest::Reload(MapId(1))).unwrap();
    assert_eq!(look(&pinned), "v3");
    fs::write(&path, "").unwrap();
    let line = b"k appended\n".to_vec();
    live.obey(&MapRequest::Append { id: MapId(1), line })
        .unwrap();
    assert_eq!(
        (look(&watched).as_str(), look(&pinned).as_str()),
        ("appended", "appended")
    );
    assert!(live.take_problems().is_empty());
}
