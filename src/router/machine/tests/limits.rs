//! What a script may use: each bound stops it, and the evaluation is as good as before.

use super::{Evaluation, Limit, Limits, NOW, NoMaps, Turn, World, call, configured, finish, load};

fn small() -> Limits {
    let mut limits = Limits::default().with_steps(2_000_000);
    limits.bytes_max = 4 << 20;
    limits.depth_max = 50;
    limits
}

/// The script is stopped by this, and afterwards a call does what it did before.
#[track_caller]
fn stops(script: &str, expected: Limit) {
    let mut evaluation =
        configured("works (a) { local b; b=(x $a); lappend kept y; returns $b; }\nkept=(z)\n");
    evaluation.limits = small();
    let symbols = std::mem::take(&mut evaluation.state.symbols);
    evaluation.state.symbols = symbols.with_room_for(2000);
    load(&mut evaluation, script);
    let mut world = World::default();
    assert_eq!(
        finish(&mut evaluation, &mut world),
        Err(expected),
        "{script}"
    );
    assert_eq!(evaluation.leftover(), "", "{script}");
    evaluation.reset();
    for _ in 0..3 {
        let done = call(&mut evaluation, "works", &["1"]);
        assert_eq!(done, (0, "(x 1)".to_owned(), String::new()), "{script}");
    }
}

const STEPS: Limit = Limit::Steps(2_000_000);
const BYTES: Limit = Limit::Bytes(4 << 20);
const DEPTH: Limit = Limit::Depth(50);

#[test]
fn endless_loops_stop() {
    stops("while true; do :; done\n", STEPS);
    stops("until false; do x=y; done\n", STEPS);
    stops("ssift a in\na continue ;;\ntfiss\n", STEPS);
    stops(
        "f () { while true; do $(f2); done; }\nf2 () { return; }\nf\n",
        STEPS,
    );
    // Each round asks for something.
    stops("while true; do test -f nosuch; done\n", STEPS);
    stops("while true; do echo x > file; done\n", STEPS);
    stops("while true; do cat <<E\nx\nE\ndone\n", STEPS);
}

#[test]
fn work_that_one_operation_does_counts() {
    let list = "l=(a)\nfor i in 1 2 3 4 5 6 7 8 9 0 1 2 3; do lappend l $l; done\n";
    stops(
        &format!("{list}while true; do for i in $(elements $l); do break; done; done\n"),
        STEPS,
    );
    stops(
        &format!("{list}while true; do rest $l > /dev/null; done\n"),
        STEPS,
    );
    let text = "x=aaaaaaaaaaaaaaaa\nfor i in 1 2 3 4 5 6 7 8 9 0 1 2; do x=$x$x; done\n";
    stops(&format!("{text}while true; do y=$x; y=b$x; done\n"), STEPS);
    stops(
        &format!("{text}while true; do case $x in *b) ;; esac; done\n"),
        STEPS,
    );
    stops(
        &format!("{text}while true; do ssift $x in\n(a*)*b :;;\ntfiss\ndone\n"),
        STEPS,
    );
}

#[test]
fn endless_recursion_stops() {
    stops("f () { f; }\nf\n", DEPTH);
    stops("f () { x=$(f); }\nf\n", DEPTH);
    stops("f () { eval f; }\nf\n", DEPTH);
    stops("f () { ( f ); }\nf\n", DEPTH);
    stops("f () { f | cat; }\nf\n", DEPTH);
    stops(
        "f () { for i in a; do ssift a in\na f ;;\ntfiss\ndone; }\nf\n",
        DEPTH,
    );
    stops(
        "rrouter () { echo a | listexpand A b c; }\necho a | listexpand A b c\n",
        DEPTH,
    );
    stops("f () { runas 7 f; }\nf\n", DEPTH);
}

#[test]
fn a_list_that_is_too_large_stops() {
    let host = "h".repeat(100);
    stops(
        &format!(
            "rrouter (a) {{ returns ((smtp {host} $a -)); }}\nA=()\nx='a@x,'\n\
             for i in 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6; do x=$x$x; done\necho \"$x\" | listexpand A b c\n"
        ),
        BYTES,
    );
}

#[test]
fn giants_stop() {
    stops("x=aaaaaaaaaaaaaaaa\nwhile true; do x=$x$x; done\n", BYTES);
    // No command between the assignments.
    stops(
        &format!("x=aaaaaaaaaaaaaaaa\n{}", "x=$x$x$x$x$x$x$x$x\n".repeat(12)),
        BYTES,
    );
    let big = "x=aaaaaaaaaaaaaaaa\nfor i in 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5; do x=$x$x; done\n";
    stops(&format!("{big}y=\"{}\"\n", "$x".repeat(100)), BYTES);
    stops(
        &format!("{big}f () {{ y=$*; }}\nf {}\n", "$x ".repeat(100)),
        BYTES,
    );
    stops(&format!("{big}echo {}\n", "$x ".repeat(100)), BYTES);
    stops(&format!("{big}y=$(while true; do echo $x; done)\n"), BYTES);
    stops(&format!("{big}while true; do echo $x; done | cat\n"), BYTES);
    stops(
        &format!("{big}while true; do echo $x; done > file\n"),
        BYTES,
    );
    stops("l=(a)\nwhile true; do lappend l b; done\n", BYTES);
    stops("l=(a)\nwhile true; do lappend l $l; done\n", BYTES);
    stops("l=(a)\nwhile true; do l=($l); done\n", BYTES);
    stops("l=()\nwhile true; do l=(a $(elements $l)); done\n", STEPS);
    stops(
        "n=0\nwhile true; do n=a$n; db add trusted $n x; done\n",
        BYTES,
    );
    stops(
        &format!("{big}n=0\nwhile true; do n=a$n; db add trusted $n $x; done\n"),
        BYTES,
    );
    stops(
        &format!("{big}ssift $x in\n{}x :;;\ntfiss\n", "a*".repeat(2000)),
        BYTES,
    );
}

#[test]
fn a_list_that_shares_itself_is_small_and_its_notation_ends() {
    let script = format!("l=(a)\n{}grind $l\n", "l=($l $l)\n".repeat(60));
    stops(&script, BYTES);
}

#[test]
fn names_out_of_data_stop_and_are_forgotten() {
    stops("while true; do eval \"$(gensym)=1\"; done\n", Limit::Names);
    stops(
        "while true; do echo x | read $(gensym); done\n",
        Limit::Names,
    );
    stops("while true; do export $(gensym); done\n", Limit::Names);
}

#[test]
fn a_turn_ends_after_its_steps() {
    let mut evaluation = Evaluation::new(small().with_turns_of(1));
    load(&mut evaluation, "x=1\ny=$x\nz=$(echo $y)\nsleep 1\n");
    let mut turns = 0;
    loop {
        turns += 1;
        match evaluation.run(&NoMaps, NOW) {
            Turn::More => {}
            Turn::Need(request) => evaluation.answer(World::default().answer(request)),
            Turn::Done(status) => break assert_eq!(status, 0),
            Turn::Stopped(limit) => panic!("{limit}"),
        }
    }
    assert!(turns > 10, "{turns}");
}

#[test]
fn an_idle_evaluation_is_done() {
    let mut evaluation = Evaluation::new(small());
    assert!(matches!(evaluation.run(&NoMaps, NOW), Turn::Done(0)));
    assert!(!evaluation.call(b"nosuch", Vec::new()));
    assert!(matches!(evaluation.run(&NoMaps, NOW), Turn::Done(0)));
    evaluation.reset();
    assert!(matches!(evaluation.run(&NoMaps, NOW), Turn::Done(0)));
}
