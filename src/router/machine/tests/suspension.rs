//! Every request: answered at once, or when others have run in between, the result is the same.

use super::{Evaluation, Limits, NOW, NoMaps, Turn, World, configured, load};

/// Scripts that ask for each kind of thing, in places where much is open.
const ASKING: &[&str] = &[
    "cat a b nosuch",
    "x=\"p$(cat a)q\"; echo \"$x\"",
    "for i in 1 2; do echo $i; cat a; done > out; cat out",
    "echo x > a; echo y >> a; cat a",
    "if test -f a -a -s b; then echo yes; fi; test a -nt b || echo older",
    "echo $(glob 'a*')",
    "for i in $(glob '*'); do echo $i; done",
    "homedirectory joe; homedirectory nosuch || echo $?",
    "x=$(login2uid joe) uid2login 7; echo $x; uid2login 8",
    "for i in $(groupmembers staff); do echo \"<$i>\"; done",
    "sort one two | tr a b; echo a | sort; x=$(sort c); echo \"$x\"",
    "type sort cat echo f",
    "cd /tmp; umask; umask 022; sleep 1; logger text; rfc822date; hostname",
    "read x y || echo none",
    "filepriv /a/b 7; filepriv nosuch || echo $?",
    "runas joe eval 'cat a; cat b'",
    "relation -t unordered -f a r; x=$(r key) || echo $? $defer; db flush r",
    "relation -t bind,mx m; x=$(m example.org) || echo $?",
    ". s; . nosuch || echo $?",
    "while read x; do echo \"<$x>\"; cat b; done < a",
    "ssift \"$(cat a)\" in\n(.*) echo \"\\1$(cat b)\\1\" ;;\ntfiss",
    "rrouter (x) { cat a; returns ((l - \"$x\" -)); }; A=(); y=$(echo 'p, q' | listexpand A b c); grind $y",
    "f () { trap 'cat b' 0; cat a; returns (x y); }; y=$(f); grind $y",
    "cat <<E\n$(cat a) $(cat b)\nE",
    "echo ${nosuch-$(cat a)} \"${a:-$(cat b)}\"",
    "local l; l=(a $(cat a) (b $(cat b))); grind $l",
    "set -e; cat a; test -f nosuch; echo no",
    "f () { cat a; }; v=2 f; v=2 eval 'cat a; echo $v'",
    "( cat a; exit 3 ); echo x | ( cat b; read y; echo $y )",
];

fn world() -> World {
    let mut world = World::default();
    for (name, text) in [
        ("a", "1 2\n3\n"),
        ("b", "b"),
        ("s", "echo from s\nreturn 2\n"),
        ("/a", ""),
        ("/a/b", ""),
    ] {
        world.files.insert(name.into(), text.into());
    }
    world
}

/// Runs several scripts by turns; each request is answered only when all others have had so many turns.
fn by_turns(evaluations: &mut [(Evaluation, World)], turn_steps: u64) -> Vec<Result<i32, String>> {
    let mut results: Vec<Option<Result<i32, String>>> = evaluations.iter().map(|_| None).collect();
    let mut waiting: Vec<_> = evaluations.iter().map(|_| None).collect();
    while results.iter().any(Option::is_none) {
        for (number, (evaluation, world)) in evaluations.iter_mut().enumerate() {
            if results[number].is_some() {
                continue;
            }
            if let Some(request) = waiting[number].take() {
                let answer = world.answer(request);
                evaluation.answer(answer);
            }
            evaluation.limits.turn_steps = turn_steps;
            match evaluation.run(&NoMaps, NOW) {
                Turn::Need(request) => waiting[number] = Some(request),
                Turn::More => {}
                Turn::Done(status) => results[number] = Some(Ok(status)),
                Turn::Stopped(limit) => results[number] = Some(Err(limit.to_string())),
            }
        }
    }
    results.into_iter().flatten().collect()
}

fn started(base: &Evaluation, script: &str) -> (Evaluation, World) {
    let mut evaluation = base.fork();
    load(&mut evaluation, &format!("{script}\n"));
    (evaluation, world())
}

#[test]
fn others_may_run_before_an_answer() {
    let base = configured("a=\nv=0\nf () { cat a b; }\n");
    let mut expected = Vec::new();
    for script in ASKING {
        let mut alone = [started(&base, script)];
        let status = by_turns(&mut alone, u64::MAX / 2).remove(0);
        let [(evaluation, world)] = alone;
        assert_eq!(evaluation.leftover(), "", "{script}");
        assert!(world.requests > 0, "{script} asks for nothing");
        expected.push((status, world.output, world.errors, world.files));
    }
    for turn_steps in [1, 2, 3, 7, 50] {
        let mut together: Vec<_> = ASKING.iter().map(|script| started(&base, script)).collect();
        let results = by_turns(&mut together, turn_steps);
        for (number, (evaluation, world)) in together.into_iter().enumerate() {
            let seen = (
                results[number].clone(),
                world.output,
                world.errors,
                world.files,
            );
            assert_eq!(evaluation.leftover(), "", "{}", ASKING[number]);
            assert_eq!(seen, expected[number], "{} {turn_steps}", ASKING[number]);
        }
    }
}

#[test]
fn an_answer_that_nobody_waits_for_is_ignored() {
    let mut evaluation = Evaluation::new(Limits::default());
    evaluation.answer(super::Answer::Line(Vec::new()));
    load(&mut evaluation, "echo a\n");
    let mut world = World::default();
    assert_eq!(super::finish(&mut evaluation, &mut world), Ok(0));
    assert_eq!(world.output, b"a\n");
}
