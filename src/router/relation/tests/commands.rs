//! The built-ins `relation` and `db`, and the tables that they fill.

use super::*;

#[test]
fn statuses_of_relation() {
    let mut world = World::with(&[("f", "")]);
    let rows = [
        ("-t unordered", 1),
        ("x", 1),
        ("-t incore a b", 1),
        ("-d nodriver -t incore y", 1),
        ("-Z -t incore y", 1),
        ("-t incore -s", 1),
        ("-t incore -s many y", 1),
        ("-t bind y", 1),
        ("-t bind,nosuch y", 1),
        ("-lut incore both", 2),
        ("-t nosuchtype x", 3),
        ("-Tt nosuchtype x", 3),
        ("-t yp,mail.aliases x", 3),
        ("-t incore dup", 0),
        ("-t incore dup", 4),
        ("-t incore headers", 4),
        ("-t incore echo", 5),
        ("-t incore f", 6),
        ("-it btree,dat -f x i", 7),
        ("-it incore i", 7),
        ("-Tt gdbm x", 0),
        ("-Tt btree x", 0),
        ("-Tt header x", 0),
        ("-Tt bind x", 0),
        ("-tincore -s5 -e 60 -- bundled", 0),
        ("-lm%:d pathalias -t unordered -f f routes", 0),
        ("-t ordered/sub -f f slash", 0),
        ("-t incore -", 0),
    ];
    for (line, status) in rows {
        assert_eq!(world.relation(line), status, "{line}");
    }
    let missing = Definition::parse(&words("-t sqlite x"), |_| None);
    if !cfg!(feature = "sqlite") {
        assert!(missing.unwrap_err().text.contains("not part of this build"));
    }
}

#[test]
fn compiled_types_know_their_files() {
    for (line, path) in [
        ("-t cdb -f base x", "base.cdb"),
        ("-t btree -f base x", "base.db"),
        ("-t btree -f base.db x", "base.db"),
        ("-t ndbm -f base x", "base.pag"),
        ("-t gdbm -f a.b x", "a.b.gdbm"),
    ] {
        let Ok(Parsed::Define { definition, .. }) = Definition::parse(&words(line), |_| None)
        else {
            panic!("{line}");
        };
        let source = definition.source().unwrap();
        assert_eq!(source.path, path.as_bytes(), "{line}");
        assert!(source.watched, "{line}");
    }
}

#[test]
fn incore_tables() {
    let mut world = World::with(&[]);
    world.relation("-t incore mem");
    assert_eq!(world.db(&["add", "mem", "k1", "v1"]).0, 0);
    assert_eq!(world.db(&["add", "mem", "k2", "v two"]).0, 0);
    assert_eq!(world.db(&["add", "mem", "two words", "val"]).0, 0);
    assert_eq!(
        (world.look("mem", "k1"), world.look("mem", "k2")),
        ("v1".into(), "v two".into())
    );
    assert_eq!(
        (world.look("mem", "k3"), world.look("mem", "K1")),
        ("-".into(), "-".into())
    );
    assert_eq!(
        world.step("mem", &[b"two words"]),
        Step::Found(Value::Text(b"val"[..].into()))
    );
    assert_eq!(world.db(&["remove", "mem", "k1"]).0, 0);
    assert_eq!(world.db(&["remove", "mem", "k1"]).0, 1);
    assert_eq!(world.look("mem", "k1"), "-");
    assert_eq!(world.db(&["count", "mem"]), (0, "2\n".to_owned()));
    world.db(&["add", "mem", "k2", "b"]);
    assert_eq!(world.look("mem", "k2"), "b");
    assert_eq!(world.db(&["count", "mem"]), (0, "2\n".to_owned()));
    world.db(&["add", "mem", "empty", ""]);
    assert_eq!(world.look("mem", "empty"), "");
    assert_eq!(
        world.db(&["print", "mem"]),
        (0, "empty\nk2\tb\ntwo words\tval\n".to_owned())
    );
    assert_eq!(world.db(&["owner", "mem"]), (0, "42\n".to_owned()));
    assert_eq!(world.db(&["flush", "mem"]).0, 0);
    assert_eq!(world.db(&["count", "mem"]), (0, "0\n".to_owned()));
    world.relation("-lt incore low");
    world.db(&["add", "low", "KEY", "V"]);
    assert_eq!(
        (world.look("low", "kEy"), world.db(&["print", "low"]).1),
        ("V".into(), "key\tV\n".into())
    );
}

#[test]
fn an_evaluation_sees_its_changes_and_no_other_does() {
    let mut base = Table::new(Kind::Incore);
    for (key, value) in [("a", "1"), ("b", "2"), ("d", "4")] {
        base.add(key.as_bytes(), value.as_bytes()).unwrap();
    }
    base.settle();
    let mut one = base.private();
    one.add(b"b", b"two").unwrap();
    one.add(b"c", b"3").unwrap();
    one.remove(b"d").unwrap();
    assert!(one.changed_bytes() > 0);
    let mut out = Vec::new();
    one.print(&mut out);
    assert_eq!(out, b"a\t1\nb\ttwo\nc\t3\n");
    assert_eq!((one.count(), one.value(b"d")), (3, None));
    let mut other = base.private();
    assert_eq!(
        (other.value(b"b"), other.value(b"c")),
        (Some(&b"2"[..]), None)
    );
    other.clear();
    assert_eq!((other.count(), other.value(b"a")), (0, None));
    other.add(b"a", b"again").unwrap();
    assert_eq!((other.count(), other.value(b"a")), (1, Some(&b"again"[..])));
    assert_eq!((base.count(), base.changed_bytes()), (3, 0));
    one.settle();
    assert_eq!(
        (one.count(), one.changed_bytes(), one.value(b"d")),
        (3, 0, None)
    );
}

#[test]
fn header_names() {
    let mut world = World::with(&[]);
    assert_eq!(world.look("headers", "to"), "AddressList:Recipient:");
    assert_eq!(world.look("headers", "Message-ID"), "MessageID::");
    assert_eq!(world.look("headers", "x-none"), "-");
    assert_eq!(
        world.look("headers", "resent-from"),
        "AMailboxList:Sender:Resent"
    );
    assert_eq!(world.look("headers", "return-path"), "-::");
    assert_eq!(
        world
            .db(&["add", "headers", "x-mine", "AddressList:Recipient:-"])
            .0,
        0
    );
    assert_eq!(world.look("headers", "X-Mine"), "AddressList:Recipient:");
    assert_eq!(
        world.db(&["add", "headers", "X-Kill", "-:kill:resent"]).0,
        0
    );
    let rows = [
        ("to", "-:-:-"),
        ("x-bad", "AddressList"),
        ("x-bad", ""),
        ("x-bad", "Nothing:Sender:-"),
        ("x-bad", "AddressList:Nobody:-"),
        ("x-bad", "AddressList:Sender:Sent"),
        ("x-bad", "AddressList:Sender:-:-"),
    ];
    for (key, value) in rows {
        assert_eq!(
            world.db(&["add", "headers", key, value]).0,
            1,
            "{key} {value}"
        );
    }
    assert_eq!(world.db(&["remove", "headers", "to"]).0, 1);
    assert_eq!(world.db(&["remove", "headers", "Errors-To"]).0, 0);
    let (status, text) = world.db(&["print", "headers"]);
    assert_eq!(status, 0);
    assert!(
        text.contains("to              \tAddressList:Recipient:- (permanent)\n"),
        "{text}"
    );
    assert!(
        text.contains("x-kill          \t-:Kill:Resent (optional)\n"),
        "{text}"
    );
    assert_eq!(world.db(&["count", "headers"]).1, "32\n");
    let headers = world.relations.iter().find_map(|(relation, table, _)| {
        (*relation.name == *b"headers").then_some(table.as_ref().unwrap())
    });
    let meaning = headers.unwrap().meaning(b"X-Envelope-To").unwrap();
    assert_eq!((meaning.role, meaning.resent), (Role::Kill, false));
}

#[test]
fn commands_on_files() {
    let mut world = World::with(&[("u", "k1 v1\n"), ("o", "aaa 1\nbbb 2\n")]);
    world.relation("-t unordered -f u look");
    world.relation("-t ordered -f o ord");
    assert_eq!(
        (world.look("look", "k1"), world.look("look", "k2")),
        ("v1".into(), "-".into())
    );
    assert_eq!(world.db(&["add", "look", "k2", "v2"]), (0, String::new()));
    assert_eq!(world.look("look", "k2"), "v2");
    assert_eq!(world.files[&b"u"[..]], b"k1 v1\nk2\tv2\n");
    // What comes from mail must not forge a second entry.
    assert_eq!(world.db(&["add", "look", "k3", "v\nroot /bin/sh"]).0, 1);
    assert_eq!(world.db(&["count", "ord"]), (0, "2\n".to_owned()));
    assert_eq!(
        world.db(&["print", "ord"]),
        (0, "aaa 1\nbbb 2\n".to_owned())
    );
    assert_eq!(world.db(&["owner", "ord"]), (0, "8\n".to_owned()));
    // A changed file is not seen before a flush.
    world.files.insert(b"o".to_vec(), b"aaa 9\n".to_vec());
    assert_eq!(world.look("ord", "aaa"), "1");
    assert_eq!(world.db(&["flush", "ord"]).0, 0);
    assert_eq!(world.look("ord", "aaa"), "9");
    let rows: [(&[&str], u8); 9] = [
        (&[], 1),
        (&["add", "nosuch", "k", "v"], 2),
        (&["add", "ord", "k", "v"], 1),
        (&["remove", "ord", "k"], 1),
        (&["bogus", "ord"], 1),
        (&["add", "ord", "k"], 1),
        (&["count"], 1),
        (&["toc", "ord"], 1),
        (&["c", "ord"], 0),
    ];
    for (words, status) in rows {
        assert_eq!(world.db(words).0, status, "{words:?}");
    }
}

#[test]
fn the_list_of_databases() {
    let mut world = World::with(&[
        ("data/rel.un", ""),
        ("data/rel.ord", ""),
        ("data/routes", ""),
    ]);
    world.relation("-t incore reld");
    world.relation("-lmt unordered -f data/rel.un -s 5 -e 60 rela");
    world.relation("-bt ordered -f data/rel.ord relb");
    world.relation("-t unordered -f data/routes -d pathalias relc");
    world.relation("-t bind,mx rele");
    let (status, text) = world.db(&["toc"]);
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("rel"))
        .collect();
    assert_eq!(status, 0);
    let expected = [
        "rela             unordered        0/5      60 lm   data/rel.un",
        "relb             ordered          0/0       0 b    data/rel.ord",
        "relc             unordered        0/10      0 {pa.} data/routes",
        "reld             incore           0/0       0 -    ",
        "rele             bind,mx          0/0       0 -    ",
    ];
    assert_eq!(lines, expected);
}
