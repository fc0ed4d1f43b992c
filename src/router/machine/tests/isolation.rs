//! What a call changes ends with it, and never shows in a fork.

use super::{Evaluation, World, call, configured, finish, load};

const CONFIGURATION: &str = "text=t\nlist=(a b)\nnested=(k (v w))\ndb add trusted joe yes\nhello () { returns hello; }\n\
    relation -t incore own\ndb add own k v\nIFS=:\n";

/// What a call can see of the configuration.
const LOOK: &str = "look () {\nlocal n\nn=$(get nested k)\n\
    for i in $(ifssplit a:b-c); do n=$n.$i; done\n\
    returns (\"$text\" $list $nested \"$(hello)\" \"$(own k)\" \"$(own new)\" \"$(trusted joe)\" \"${fresh-unset}\" \"$n\" \
    \"$-\" \"$(gensym)\" \"$(hostname)\" \"$(export)\" \"$(type later)\")\n}\n";

const CHANGES: &[&str] = &[
    "text=changed",
    "unset text",
    "text=() fresh=1",
    "lappend list c",
    "lreplace list 0 z",
    "lreplace nested k z",
    "l=$list; lappend l c",
    "l=$(rest $nested); m=$(first $l); lappend m x",
    "get list nosuch >/dev/null",
    "hello () { returns other; }",
    "later () { :; }",
    "unset hello",
    "db add own k other; db add own new x",
    "db remove own k",
    "db flush own",
    "db flush trusted",
    "relation -t incore later; db add later a b",
    "IFS=-",
    "for list in x y; do :; done; list=",
    "set -uxa; fresh=1",
    "export text",
    "gensym >/dev/null; gensym >/dev/null",
    "hostname other.example",
    "trap 'echo no' 0",
    "eval 'a1=1; a2=2; later2 () { a3=3; }; later2'",
    "text=1 eval 'exit 7'",
    "local text; text=2; local list; lappend list q; return 3",
    "squirrel breakin; erraddron file",
];

fn evaluation_that(change: &str) -> Evaluation {
    configured(&format!(
        "{CONFIGURATION}{LOOK}change () {{\n{change}\n}}\n"
    ))
}

#[test]
fn the_next_call_sees_the_configuration() {
    for change in CHANGES {
        let mut evaluation = evaluation_that(change);
        let expected = call(&mut evaluation, "look", &[]);
        assert!(
            expected
                .1
                .starts_with("(t (a b) (k (v w)) hello v '' yes unset"),
            "{}",
            expected.1
        );
        for _ in 0..2 {
            evaluation.reset();
            call(&mut evaluation, "change", &[]);
            evaluation.reset();
            assert_eq!(call(&mut evaluation, "look", &[]), expected, "{change}");
        }
    }
}

#[test]
fn a_fork_sees_the_configuration() {
    for change in CHANGES {
        let mut evaluation = evaluation_that(change);
        let expected = call(&mut evaluation.fork(), "look", &[]);
        call(&mut evaluation, "change", &[]);
        let mut fork = evaluation.fork();
        assert_eq!(call(&mut fork, "look", &[]), expected, "{change}");
        call(&mut fork, "change", &[]);
        evaluation.reset();
        assert_eq!(call(&mut evaluation, "look", &[]), expected, "{change}");
        fork.reset();
        assert_eq!(call(&mut fork, "look", &[]), expected, "{change}");
    }
}

#[test]
fn a_fork_of_a_call_that_waits_sees_the_configuration() {
    let script = "change (text) {\nlocal list; list=q\nfresh=1\nfresh=2 wait2\n}\nwait2 () { cat nosuch; returns done; }\n";
    let mut evaluation = configured(&format!("{CONFIGURATION}{LOOK}{script}"));
    let expected = call(&mut evaluation.fork(), "look", &[]);
    assert!(evaluation.call(b"change", vec!["mine".into()]));
    let super::Turn::Need(request) = evaluation.run(&super::NoMaps, super::NOW) else {
        panic!("the call waits for a file");
    };
    assert_eq!(call(&mut evaluation.fork(), "look", &[]), expected);
    evaluation.answer(World::default().answer(request));
    assert_eq!(finish(&mut evaluation, &mut World::default()), Ok(0));
}

#[test]
fn names_of_a_call_do_not_stay() {
    let mut evaluation = configured("f (a) { eval \"$a=1\"; returns \"$a\"; }\n");
    let before = evaluation.state.symbols.len();
    for number in 0..50 {
        let name = format!("n{number}");
        assert_eq!(call(&mut evaluation, "f", &[&name]).1, name);
        evaluation.reset();
        assert_eq!(evaluation.state.symbols.len(), before);
    }
}

#[test]
fn output_and_files_of_a_call_that_was_stopped_are_gone() {
    let mut evaluation = configured("f () { { echo a; exit 3; } > file; }\ng () { returns g; }\n");
    let mut limits = super::Limits::default();
    limits.depth_max = 20;
    evaluation.limits = limits;
    load(&mut evaluation, "h () { { echo a; h; } > file; }\nh\n");
    let mut world = World::default();
    assert!(finish(&mut evaluation, &mut world).is_err());
    evaluation.reset();
    assert!(evaluation.call(b"g", Vec::new()));
    let mut after = World::default();
    assert_eq!(finish(&mut evaluation, &mut after), Ok(0));
    assert_eq!(
        after.files.len(),
        0,
        "no file of the call before is written"
    );
}

#[test]
fn texts_of_eval_that_are_kept_stay_right() {
    // The text of `eval` is the same for each call; what its names stand for is not.
    let script = "made=no\nf (name, old) { local new; new=$(gensym); eval \"$new=\\$$old $name=$new\"; \
        eval \"list=(\\$$new \\$$name $made)\"; returns $list; }\ng () { made=yes; own=o; f x own; }\n";
    let mut evaluation = configured(script);
    for (name, arguments, expected) in [
        ("f", &["a", "made"][..], "(no g0 no)"),
        ("f", &["b", "made"], "(no g0 no)"),
        ("f", &["a", "b"], "(g0 no)"),
        ("g", &[], "(o g0 yes)"),
        ("f", &["a", "made"], "(no g0 no)"),
    ] {
        assert_eq!(call(&mut evaluation, name, arguments).1, expected, "{name}");
        evaluation.reset();
    }
}
