//! What a script sees: cases in which a place of the machine could be left in a wrong state.

use super::{prints, run};

#[test]
fn values_put_aside_come_back_in_order() {
    // The value that `x=1` put aside is the function's own; it comes back before the caller's does.
    prints(
        "x=outer\nh () { local x; x=inner; x=1 return 4; }\nh\necho $x $?\n",
        "outer 4\n",
    );
    // `local` under a command's own variable: the command's ends first.
    prints(
        "x=outer\nf () { x=1 eval 'local x; x=2'; echo $x; }\nf\necho $x\n",
        "2\nouter\n",
    );
    prints(
        "f () { echo $a$b; a=3; }\na=1\na=2 b=3 f\necho $a$b\n",
        "23\n1\n",
    );
}

#[test]
fn an_unset_parameter_ends_the_script_from_anywhere() {
    for script in [
        "set -u\necho \"a$nosuch\"\necho no\n",
        "set -u\necho $nosuch\necho no\n",
        "set -u\nx=\"$nosuch\"\necho no\n",
        "set -u\nf () { case \"$nosuch\" in *) echo no ;; esac; }\nx=$(f)\necho no\n",
        "echo ${nosuch?gone}\necho no\n",
        "x=$(echo \"a${nosuch:?gone}b\" | cat)\necho no\n",
    ] {
        assert_eq!(run(script), (1, String::new()), "{script}");
    }
    prints(
        "( set -u; echo \"a$nosuch\"; echo no )\necho yes $-\n",
        "yes -\n",
    );
}

#[test]
fn a_failure_ends_the_script_also_behind_an_answer() {
    for command in [
        "test -f nosuch",
        "false",
        "homedirectory nosuch",
        "cd a b",
        "read x",
    ] {
        let script = format!("set -e\n{command}\necho no\n");
        assert_eq!(run(&script).1, "", "{command}");
    }
    prints("set -e\ncd /\numask >/dev/null\necho yes\n", "yes\n");
}

#[test]
fn a_redirection_that_fails_leaves_its_own_command_only() {
    // The name of the file comes from a command that redirects too.
    prints(
        "f () { echo here < nosuch; }\ncat < \"$(f)nosuch\"\necho $?\n",
        "1\n",
    );
    prints(
        "for i in a b; do\n{ echo no; } < nosuch > out\necho $i$?\ndone\n",
        "a1\nb1\n",
    );
    prints(
        "if echo no < nosuch; then echo yes; else echo else; fi\n",
        "else\n",
    );
}

#[test]
fn traps_run_at_the_end_and_keep_status_and_value() {
    assert_eq!(run("trap 'echo bye' 0\nexit 3\n"), (3, "bye\n".to_owned()));
    assert_eq!(run("trap 'echo a; false' 0\ntrue\n"), (0, "a\n".to_owned()));
    prints("trap 'echo one' 0\ntrap 'echo two' 0\n", "two\n");
    prints("trap 'echo no' 0\ntrap 0\n", "");
    prints(
        "f () { trap 'echo bye' 0; return (a b); }\nf\necho end\n",
        "(a b)\nend\nbye\n",
    );
    let mut evaluation = super::configured("f () { trap 'echo bye' 0; return (a b); }\n");
    let (status, value, printed) = super::call(&mut evaluation, "f", &[]);
    assert_eq!((status, &*value, &*printed), (0, "(a b)", "bye\n"));
    evaluation.reset();
    load_trap_is_gone(&mut evaluation);
}

fn load_trap_is_gone(evaluation: &mut super::Evaluation) {
    super::load(evaluation, "trap\n");
    let mut world = super::World::default();
    assert_eq!(super::finish(evaluation, &mut world), Ok(0));
    assert_eq!(world.output, b"");
}

#[test]
fn what_a_subshell_changes_is_gone_behind_it() {
    prints(
        "l=(a)\nx=1\nf () { echo f; }\n( x=2; lappend l b; f () { echo g; }; IFS=:; set -u; export x; trap 'echo no' 0\n\
         echo $x $(length $l) )\necho $x $#l $-\nf\ntrap\nexport\n",
        "2 2\n1 1 -\nf\n",
    );
    prints("x=1\n( x=2; exit 3; echo no )\necho $x\n", "1\n");
    prints("f () { ( return 3; echo no ); echo back; }\nf\n", "back\n");
}

#[test]
fn a_list_never_contains_itself() {
    prints("a=(x)\nlappend a $a\ngrind $a\n", "(x x)\n");
    prints(
        "a=(x)\nb=(y $a)\nlappend a ($b)\ngrind $a\n",
        "(x (y (x)))\n",
    );
    prints("a=(x)\nb=$a\nlappend a z\ngrind $b\n", "(x z)\n");
    prints("a=(k v)\nlreplace a k $a\ngrind $a\n", "(k (k v))\n");
}

#[test]
fn rights_are_those_of_the_outermost_account() {
    let script = "f () { runas 9 g; cat a; }\ng () { cat b; }\nrunas joe f\ncat c\n";
    let mut evaluation = super::Evaluation::new(super::Limits::default());
    super::load(&mut evaluation, script);
    let mut world = super::World::default();
    let mut seen = Vec::new();
    loop {
        match evaluation.run(&super::NoMaps, super::NOW) {
            super::Turn::Need(request) => {
                if let super::Request::Read { path, user } = &request {
                    seen.push((String::from_utf8_lossy(path).into_owned(), *user));
                }
                let answer = world.answer(request);
                evaluation.answer(answer);
            }
            super::Turn::More => {}
            _ => break,
        }
    }
    let expected = [("b", Some(7)), ("a", Some(7)), ("c", None)];
    assert_eq!(seen, expected.map(|(path, user)| (path.to_owned(), user)));
}

#[test]
fn members_of_a_list() {
    let router = "rrouter (address, original, attributes, tail, domain) {\n\
        case \"$address\" in\n\
        drop*) return () ;;\n\
        fail*) return 1 ;;\n\
        one*) returns (local - \"$address\" $attributes) ;;\n\
        stop*) exit 5 ;;\n\
        esac\n\
        returns (((smtp \"$domain\" \"$address\" \"$original\" \"$tail\")))\n}\nA=(type recipient)\n";
    for (list, expected) in [
        ("a@x", "(((smtp d a@x orig +t)))\n0\n"),
        (
            "a@x, b@y",
            "(((smtp d a@x orig +t)) ((smtp d b@y orig +t)))\n0\n",
        ),
        (
            "a@x\\n# c\\nb@y",
            "(((smtp d a@x orig +t)) ((smtp d b@y orig +t)))\n0\n",
        ),
        ("drop, a@x", "(((smtp d a@x orig +t)))\n0\n"),
        ("fail, a@x", "(((smtp d a@x orig +t)))\n0\n"),
        (
            "a@x, a@x",
            "(((smtp d a@x orig +t)) ((smtp d a@x orig +t)))\n0\n",
        ),
        ("drop", "1\n"),
        ("", "(((smtp d postmaster orig +t)))\n0\n"),
    ] {
        let script = format!(
            "{router}x=\"{list}\"\nlistexpand -c c -N - A joe orig +t d <<END\n{}\nEND\necho $?\n",
            list.replace("\\n", "\n")
        );
        prints(&script, expected);
    }
    let script = format!("{router}echo 'one@x' | listexpand A joe orig\ngrind ${{$n}} $g0\n");
    prints(
        &script,
        "(((local - one@x g0)))\n(DSN ORCPT=rfc822;one@x type recipient)\n",
    );
    let script = format!("{router}echo 'a@x, stop' | listexpand A joe orig\necho no\n");
    assert_eq!(run(&script), (5, String::new()));
    prints("A=()\necho a@x | listexpand A joe orig\necho $?\n", "1\n");
}

#[test]
fn nil_of_local_is_shared_by_its_holders_only() {
    prints(
        "f () { local a b; c=$a; lappend a x; grind $a $b $c; }\nf\nf\n",
        "(x) nil (x)\n(x) nil (x)\n",
    );
    prints(
        "f () { local a b; g $a; lappend a x; h $a; }\ng (l) { kept=$l; }\nh (l) { grind $l $kept; }\nf\n",
        "(x) (x)\n",
    );
}

#[test]
fn what_a_pipe_returns_is_shown_once() {
    for (script, expected) in [
        ("echo x | f\necho y\n", "a\ny\n"),
        ("x=$(echo x | f)\necho \"<$x>\"\n", "<a>\n"),
        ("x=$(echo x | f; echo b)\necho \"<$x>\"\n", "<a\nb>\n"),
        ("echo x | f | g\necho y\n", "got a\ny\n"),
        ("{ echo x | f; } > file\necho y\ncat file\n", "y\na\n"),
        ("for i in 1 2; do echo x | f; done\n", "a\na\n"),
        (
            "h () { echo x | f; }\nh\nx=$(h)\necho \"<$x>\"\n",
            "a\n<a>\n",
        ),
        (
            "( echo x | f )\nif echo x | f; then echo z; fi\n",
            "a\na\nz\n",
        ),
    ] {
        let functions = "f () { returns a; }\ng () { read l; echo got $l; }\n";
        prints(&format!("{functions}{script}"), expected);
    }
}

/// The variables that `listexpand` sets are not made before they are needed, and nobody can tell.
#[test]
fn the_attributes_of_members_are_variables_like_any_other() {
    let lists = "rrouter (address, origaddr, A, plustail, domain) { returns ((smtp - \"$address\" $A)); }\n\
        A=(privilege 1 DSN old type x)\necho 'a@x, b+c@y, d@z' | listexpand -N NOTIFY=NEVER A joe orig > /dev/null\n";
    let (a, b, d) = (
        "(DSN 'NOTIFY=NEVER ORCPT=rfc822;a@x' privilege 1 type x)",
        "(DSN 'NOTIFY=NEVER ORCPT=rfc822;b+2Bc@y' privilege 1 type x)",
        "(DSN 'NOTIFY=NEVER ORCPT=rfc822;d@z' privilege 1 type x)",
    );
    let shows = |script: &str, expected: &str| prints(&format!("{lists}{script}\n"), expected);
    shows(
        "echo \"$(get g1 DSN) $(get g2 type)\"",
        "NOTIFY=NEVER ORCPT=rfc822;b+2Bc@y x\n",
    );
    shows("grind $g0 $g1 $g2", &format!("{a} {b} {d}\n"));
    shows(
        "eval 'n=$g'1; grind $n; gensym; echo ${g3-unset}",
        &format!("{b}\ng3\nunset\n"),
    );
    shows("n=g2; grind ${$n}; n=g7; echo ${$n}.", &format!("{d}\n.\n"));
    shows(
        "get g0 new > /dev/null; get g0 new > /dev/null; grind $g0 $g1",
        &format!("{} {b}\n", a.replace("x)", "x new nil)")),
    );
    shows(
        "lreplace g1 privilege 5; lappend g2 k v; grind $g0 $g1 $g2",
        &format!(
            "{a} {} {}\n",
            b.replace('1', "5"),
            d.replace("x)", "x k v)")
        ),
    );
    shows(
        "l=$g0; lappend l k v; grind $g0",
        &format!("{}\n", a.replace("x)", "x k v)")),
    );
    shows(
        "( lappend g0 k v; grind $g0 ); grind $g0",
        &format!("{}\n{a}\n", a.replace("x)", "x k v)")),
    );
    shows(
        "unset g0; echo ${g0-unset}; grind $g1",
        &format!("unset\n{b}\n"),
    );
    shows(
        "f () { local g0; g0=1; echo $g0; }; f; grind $g0",
        &format!("1\n{a}\n"),
    );
    shows(
        "echo \"${g-unset} ${g00-unset} ${g4-unset} ${g99999999999999999999-unset}\"",
        "unset unset unset unset\n",
    );
}

#[test]
fn members_with_different_attributes_keep_them() {
    let script = "rrouter (address, origaddr, A, plustail, domain) { gensym > /dev/null; lreplace A0 n \"$address\"; \
        returns ((smtp - \"$address\" $A)); }\nA0=(n 0)\necho 'a, b, c' | listexpand A0 joe orig > /dev/null\n\
        grind $g0 $g2 $g4; echo ${g1-unset} ${g3-unset}\n";
    let expected =
        "(DSN ORCPT=rfc822;a n 0) (DSN ORCPT=rfc822;b n a) (DSN ORCPT=rfc822;c n b)\nunset unset\n";
    prints(script, expected);
    // The name is in use.
    let script = "g1=mine\nrrouter (address, origaddr, A, plustail, domain) { returns ((smtp - \"$address\" $A)); }\n\
        A=(k v)\necho 'a, b, c' | listexpand A joe orig > /dev/null\ngrind $g0 $g1 $g2\n";
    let expected = "(DSN ORCPT=rfc822;a k v) (DSN ORCPT=rfc822;b k v) (DSN ORCPT=rfc822;c k v)\n";
    prints(script, expected);
}

#[test]
fn a_long_list_of_routes_is_like_a_short_one() {
    let router = "rrouter (address, origaddr, A, plustail, domain) { returns ((smtp - \"$address\" $A)); }\nA=()\n\
        for a in 1 2 3 4 5 6 7 8 9 0; do for b in 1 2 3 4 5 6 7 8 9 0; do t=\"$t u$a$b\n,\"; done; done\n\
        l=$(echo \"$t\" | listexpand -N - A joe orig)\n";
    prints(
        &format!("{router}length $l; grind $(first $l) $(last $l); grind $(first $(rest $l))\n"),
        "100\n(smtp - u11 A) ((smtp - u00 A))\n(smtp - u12 A)\n",
    );
    prints(
        &format!(
            "{router}m=$l; lappend m (x); length $l; x=$(first $l); lappend x y; grind $(first $m)\n"
        ),
        "101\n(smtp - u11 A y)\n",
    );
}
