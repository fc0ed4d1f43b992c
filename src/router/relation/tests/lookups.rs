//! Look-ups: tables, drivers, options, questions.

use super::*;

const UNORDERED: &str = "alpha 1\nbeta two\ngamma\t3\n# comment\nspaced   first second third\nkeyonly\n\
                         delta\t \tfour\nalpha dup\n";
const ROUTES: &str = "host.example.org uucp!\n.example.org smtp!relay.example.org\n.edu smtp!edu-gw\n\
                      example.org local!\nfallback smtp!fb.%0\n. error!nohost\n";

#[test]
fn text_tables() {
    let unordered = [("f", UNORDERED)];
    let rows = [
        ("alpha", "1"),
        ("ALPHA", "1"),
        ("Beta", "two"),
        ("gamma", "3"),
        ("delta", "four"),
        ("spaced", "first"),
        ("keyonly", "-"),
        ("#", "comment"),
        ("nosuch", "-"),
        ("", "-"),
    ];
    check(&unordered, "-t unordered -f f look", &rows);
    // Sorted or not makes no difference.
    check(&unordered, "-t ordered -f f look", &rows);
    let keys = [("f", "alpha\nbeta \ngamma x\nlast one")];
    let rows = [
        ("alpha", "-"),
        ("beta", ""),
        ("gamma", "x"),
        ("last", "one"),
    ];
    check(&keys, "-t unordered -f f look", &rows);
    let rows = [("alpha", "-"), ("beta", "beta"), ("gamma", "gamma")];
    check(&keys, "-bt unordered -f f look", &rows);
    let quoted = [(
        "f",
        "\"a b\" quoted\nplain@x p\r\n<br@x> bracket\nb\\ c escaped\n\u{e9}t\u{e9} \u{e0}\n",
    )];
    let mut world = World::with(&quoted);
    world.relation("-t unordered -f f look");
    for (key, value) in [
        ("\"a b\"", "quoted"),
        ("b\\ c", "escaped"),
        ("plain@x", "p"),
    ] {
        let found = world.step("look", &[key.as_bytes()]);
        assert_eq!(
            found,
            Step::Found(Value::Text(value.as_bytes().into())),
            "{key}"
        );
    }
    assert_eq!(world.look("look", "\u{e9}t\u{e9}"), "\u{e0}");
    assert_eq!(world.step("look", &[b"\"a"]), Step::Missing);
}

#[test]
fn a_long_key_is_found_up_to_the_limit_and_missing_above() {
    let key = "k".repeat(KEY_BYTES_MAX);
    let text = format!("{key} v\n{key}k w\n");
    let mut world = World::with(&[("f", &text)]);
    world.relation("-t unordered -f f look");
    assert_eq!(world.look("look", &key), "v");
    assert_eq!(world.look("look", &key.to_uppercase()), "v");
    assert_eq!(world.look("look", &format!("{key}k")), "-");
}

#[test]
fn options_fold_keys_and_give_them_back() {
    let files = [("f", UNORDERED)];
    check(
        &files,
        "-lbt unordered -f f look",
        &[("ALPHA", "alpha"), ("nosuch", "-")],
    );
    check(&files, "-ubt unordered -f f look", &[("alpha", "ALPHA")]);
    check(&files, "-bt unordered -f f look", &[("Alpha", "Alpha")]);
    check(
        &files,
        "-nt unordered -f f look",
        &[("nosuch", "nosuch"), ("alpha", "1")],
    );
    check(&[("f", "e \n")], "-nt unordered -f f look", &[("e", "e")]);
    check(&[("f", "e \n")], "-pt unordered -f f look", &[("e", "")]);
}

#[test]
fn indirect_values_are_places_in_the_second_file() {
    let files = [
        (
            "idx",
            "one\t4\ntwo\t23\nthree\t36\nword\tx\nbeyond\t999\nend\t42\n",
        ),
        (
            "dat",
            "one:\tann@x,\n\tbob@y\ntwo:\tcarol\nthree:\n\tdave\n",
        ),
    ];
    let rows = [
        ("one", " ann@x, bob@y"),
        ("two", " carol"),
        ("three", " dave"),
        ("word", "-"),
        ("beyond", "-"),
        ("end", "-"),
    ];
    check(&files, "-it unordered,dat -f idx look", &rows);
}

#[test]
fn drivers() {
    let files = [("f", ROUTES)];
    let rows = [
        ("host.example.org", "uucp!"),
        ("example.org", "local!"),
        ("sub.host.example.org", "smtp!relay.example.org"),
        ("a.edu", "smtp!edu-gw"),
        ("edu", "smtp!edu-gw"),
        ("a..edu", "smtp!edu-gw"),
        ("foo.bar", "error!nohost"),
        ("foo.bar -: nosuch -: fallback", "smtp!fb.%0"),
        ("foo.bar -: nosuch", "-"),
        (".example.org", "smtp!relay.example.org"),
        ("trailing.", "error!nohost"),
    ];
    check(&files, "-t unordered -f f -d pathalias look", &rows);
    let rows = [
        ("host.example.org", "uucp!"),
        ("example.org", "local!"),
        ("sub.host.example.org", "smtp!relay.example.org"),
        ("a.edu", "smtp!edu-gw"),
        ("edu", "error!nohost"),
        ("foo.bar", "error!nohost"),
    ];
    check(&files, "-t unordered -f f -d longestmatch look", &rows);
    let rows = [
        ("x.example.org", "local!"),
        ("example.org", "-"),
        ("a.b.example.org", "local!"),
        ("foo.bar", "-"),
        ("example.org.", "-"),
    ];
    check(&files, "-t unordered -f f -d pathalias.nodot look", &rows);
    let at = "joe@example.org exact\nexample.org domain\n.example.org sub\n@LOCAL@ locals\njoe@ joelocal\n. root\n";
    let rows = [
        ("joe@example.org", "exact"),
        ("ann@example.org", "domain"),
        ("x@sub.example.org", "sub"),
        ("joe@", "joelocal"),
        ("bob@", "locals"),
        ("other.net", "root"),
        ("\"a@b\"@example.org", "domain"),
    ];
    check(
        &[("f", at)],
        "-t unordered -f f -d pathalias.at look",
        &rows,
    );
    check(
        &[("f", "@local@ low\n")],
        "-lt unordered -f f -d pathalias.at look",
        &[("bob@", "low")],
    );
    // Without a driver there are no defaults.
    check(
        &files,
        "-t unordered -f f look",
        &[("foo.bar -: fallback", "-")],
    );
}

#[test]
fn longest_match_of_addresses() {
    let nets = "10.1.0.0/16 lan\n10.0.0.0/8 ten\n192.168.1.64/26 quarter\n0.0.0.0/0 world\n\
                2001:db8::/32 six\n::/0 sixworld\n";
    let rows = [
        ("10.1.2.3", "lan"),
        ("[10.2.0.1]", "ten"),
        ("192.168.1.65", "quarter"),
        ("192.168.1.1", "world"),
        ("2001:db8::1", "six"),
        ("[IPv6:2001:db9::1]", "sixworld"),
    ];
    check(
        &[("f", nets)],
        "-t unordered -f f -d longestmatch look",
        &rows,
    );
}

#[test]
fn percent_signs() {
    let pct = "simple plainvalue\nargs 1=%1,2=%2,3=%3,4=%4\nkey k=%0,%1%%x\n.example.org dom:%0:%1:%2\n\
               . def:%0\n";
    let files = [("f", pct)];
    let rows = [
        ("simple", "plainvalue"),
        ("args", "1=%1,2=%2,3=%3,4=%4"),
        ("args a b", "1=a,2=b,3=,4="),
        ("args -- -: b", "1=-:,2=b,3=,4="),
        ("KEY u", "k=KEY,u%%x"),
        ("mail.dept.example.org user", "dom:.mail.dept:user:"),
        ("example.org", "dom:::"),
        ("other.net", "def:other.net"),
    ];
    check(&files, "-%t unordered -f f -d pathalias look", &rows);
    check(&files, "-t unordered -f f look", &[("key u", "k=%0,%1%%x")]);
    check(
        &files,
        "-%:t unordered -f f -d pathalias look",
        &[("x -: key z", "k=x,z%%x")],
    );
    check(
        &files,
        "-%t unordered -f f -d longestmatch look",
        &[("mail.dept.example.org u", "dom:mail.dept:u:")],
    );
    let nodot = [("f", "example.org %0\n")];
    check(
        &nodot,
        "-%t unordered -f f -d pathalias.nodot look",
        &[("a.b.example.org", "a.b.")],
    );
    let at = [("f", "example.org %1%%%0\n@LOCAL@ l:%0\n.org o:%0\n")];
    let rows = [
        ("u@example.org u", "u%%example.org"),
        ("u@", "l:u@"),
        ("u@a.b.org", "o:.a.b"),
    ];
    check(&at, "-%t unordered -f f -d pathalias.at look", &rows);
    // What is put in is not looked at again.
    check(
        &[("f", "k %1\n")],
        "-%t unordered -f f look",
        &[("k %1%2", "%1%2")],
    );
}

/// What strangers write becomes neither a word nor an option of a command, nor anything that a shell understands.
#[test]
fn what_is_put_into_a_command_is_plain() {
    let commands = "p |/bin/x~%1\nq \"|/bin/x~-f~%1\"\nr joe,|/bin/x\ns %1\n";
    let files = [("f", commands)];
    let rows = [
        ("p joe+tag@a.example", "|/bin/x~joe+tag@a.example"),
        ("p $(id);`x`|y>z'\"\\&", "|/bin/x~__id___x__y_z____"),
        ("p -rf", "|/bin/x~_rf"),
        ("q a;b", "\"|/bin/x~-f~a_b\""),
        ("r $x", "joe,|/bin/x"),
        ("s $x", "$x"),
    ];
    check(&files, "-%t unordered -f f look", &rows);
}

#[test]
fn a_file_that_is_not_there_defers() {
    let mut world = World::with(&[]);
    world.relation("-t unordered -f nosuch look");
    world.relation("-nt unordered -f nosuch anyway");
    assert_eq!(world.look("look", "x"), "defer IO:error");
    let anyway = world.step("anyway", &[b"x"]);
    assert_eq!(
        anyway,
        Step::Defer {
            reason: b"IO:error".to_vec(),
            value: Some(b"x".to_vec())
        }
    );
    assert_eq!(world.db(&["count", "look"]).0, 1);
}

#[test]
fn questions_walk_the_driver_and_answers_are_remembered() {
    let mut world = World::with(&[]);
    world.relation("-t bind,mx mx");
    world.relation("-lt bind,mxlocal -d pathalias thishost");
    world.relation("-Nt bind,a -s 4 -e 60 cached");
    let list = Reply::List(vec![b"mx1".to_vec(), b"mx2".to_vec()], Some(5));
    world.outside.insert(b"example.org".to_vec(), list);
    world
        .outside
        .insert(b".org".to_vec(), Reply::Text(b"up".to_vec(), None));
    world
        .outside
        .insert(b"bad".to_vec(), Reply::Later(b"NS:bad/a".to_vec()));
    assert_eq!(world.look("mx", "example.org"), "(mx1 mx2)");
    assert_eq!(world.look("thishost", "A.ORG"), "up");
    let asked: Vec<&Question> = world.asked[1..].iter().collect();
    let name = |name: &str| Question::Bind {
        record: Record::MxLocal,
        name: name.into(),
    };
    assert_eq!(asked, [&name("a.org"), &name(".a.org"), &name(".org")]);
    world.asked.clear();
    for _ in 0..2 {
        assert_eq!(world.look("cached", "example.org"), "(mx1 mx2)");
        assert_eq!(world.look("cached", "nosuch"), "-");
        assert_eq!(world.look("cached", "bad"), "defer NS:bad/a");
    }
    // What failed is asked again, the others are not.
    assert_eq!(world.asked.len(), 4);
    world.now.mono_ns = 6_000_000_000;
    world.look("cached", "example.org");
    world.look("cached", "nosuch");
    assert_eq!(
        world.asked.len(),
        5,
        "the source's time counts before that of -e"
    );
    world.now.mono_ns = 61_000_000_000;
    world.look("cached", "nosuch");
    assert_eq!(world.asked.len(), 6);
    assert_eq!(world.db(&["flush", "cached"]).0, 1);
    world.look("cached", "nosuch");
    assert_eq!(world.asked.len(), 7);
}

#[test]
fn a_cache_keeps_its_bound_and_what_is_used() {
    let mut world = World::with(&[]);
    for (name, entries) in [("one", 1), ("three", 3), ("eight", 8)] {
        world.relation(&format!("-nt bind,a -s {entries} {name}"));
        world.asked.clear();
        let cached = |world: &World| {
            let mut all = world.relations.iter();
            all.find(|(relation, ..)| *relation.name == *name.as_bytes())
                .unwrap()
                .2
                .len()
        };
        world
            .outside
            .insert(b"hot".to_vec(), Reply::Text(b"x".to_vec(), None));
        for at in 0..100 {
            let key = format!("k{at}");
            world
                .outside
                .insert(key.clone().into(), Reply::Text(b"x".to_vec(), None));
            world.look(name, &key);
            world.look(name, "hot");
            assert!(cached(&world) <= entries, "{name} holds {}", cached(&world));
        }
        let hot = |question: &&Question| matches!(question, Question::Bind { name, .. } if name == b"hot");
        let asked = world.asked.iter().filter(hot).count();
        assert!(
            entries == 1 || asked == 1,
            "{name}: the one in use was asked {asked} times"
        );
    }
}

#[test]
fn self_match_and_engines() {
    let mut world = World::with(&[]);
    world.relation("-t selfmatch self");
    world
        .outside
        .insert(b"127.0.0.1".to_vec(), Reply::Text(b"2".to_vec(), None));
    assert_eq!(
        (world.look("self", "127.0.0.1"), world.look("self", "junk")),
        ("2".into(), "-".into())
    );
}

#[test]
fn hosts_files() {
    let hosts = "127.0.0.1\tlocalhost lo # us\n\n# none\n192.0.2.1 a.example a\n192.0.2.2 b.example a\nalone\n";
    let rows = [
        ("LO", "localhost"),
        ("a", "a.example"),
        ("b.example", "b.example"),
        ("192.0.2.1", "192.0.2.1"),
        ("alone", "-"),
        ("us", "-"),
    ];
    check(&[("h", hosts)], "-t hostsfile -f h look", &rows);
    let mut world = World::with(&[("/etc/hosts", hosts)]);
    world.relation("-lt hostsfile -n -s 50 look");
    assert_eq!(
        (world.look("look", "A"), world.look("look", "X")),
        ("a.example".into(), "x".into())
    );
    assert_eq!(
        world.db(&["print", "look"]).1.lines().next(),
        Some("127.0.0.1\tlocalhost lo")
    );
}
