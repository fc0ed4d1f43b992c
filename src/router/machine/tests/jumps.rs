//! `break`, `continue`, `return` and `exit` out of everything leave nothing on any stack.

use proptest::prelude::*;

use super::{Evaluation, Limits, World, finish, load};

/// Constructs around a place: `@` is the place, `#` a number that is not used elsewhere.
const CONSTRUCTS: &[&str] = &[
    "{ local v#; @\n}",
    "( @\n)",
    "if true; then @\nfi",
    "if @\nthen :; fi",
    "if false; then :; else @\nfi",
    "for v# in a b; do @\ndone",
    "for v# in $(echo a; @\n); do :; done",
    "v#=aa; while [ -n \"$v#\" ]; do v#=; @\ndone",
    "while @\nfalse; do :; done",
    "case x in y) ;; x) @\n;; esac",
    "case \"$(@\n)\" in x) ;; esac",
    "ssift ab in\n(a)(b) @\n;;\n.* v#=1 ;;\ntfiss",
    "tsift a!b in\n(.)!(.) @\n;;\ntfist",
    "ssift \"$(@\n)\" in\nx :;;\ntfiss",
    "v#=$(echo a; @\n)",
    "v#=\"x$(@\n)y\"",
    "echo p \"x$(@\n)y\" q",
    "v#=(a (b $(@\n)) c)",
    "echo a | { read v#; @\n}",
    "{ @\n} | cat",
    "echo a | { @\n} | cat",
    "{ @\n} > file",
    "{ echo z; @\n} >> file 2>&1 < /dev/null",
    "echo \"$(@\n)\" > file",
    "cat <<END\nx $(@\n) y\nEND",
    "f# () { local w; @\n}; f# a b",
    "f# (x, y) { @\n}; v#=1 f# a b",
    "f# (x) { for w in $x b; do @\ndone; }; v#=$(f# a)",
    "eval '@\n'",
    "v#=1 eval '@\n'",
    "true && { @\n}",
    "false || { @\n}",
    "echo ${nosuch-$(@\n)}",
    "echo ${v#:=$(@\n)}",
    "runas 7 eval '@\n'",
    "f# () { @\n}; set -- $(f#) b",
];

const JUMPS: &[&str] = &[
    "break",
    "break 2",
    "break 9",
    "continue",
    "continue 2",
    "return",
    "return 3",
    "returns (a b)",
    "returns x",
    "exit",
    "exit 4",
    ":",
    "cat nosuch",
    "echo ${nosuch?gone}",
    "set -u; echo \"$nosuch\"",
    "set -e; false",
    "echo x < nosuch",
    "test -f nosuch && break",
];

fn script(constructs: &[usize], jump: usize) -> String {
    let mut text = JUMPS[jump].to_owned();
    for (number, construct) in constructs.iter().enumerate() {
        let construct = CONSTRUCTS[*construct].replace('#', &number.to_string());
        // Quoted constructs cannot stand in each other.
        let inner = if construct.contains('\'') && text.contains('\'') {
            ":".to_owned()
        } else {
            text
        };
        text = construct.replace('@', &format!("{inner}\n:\n"));
    }
    format!("rounds=\nwhile [ \"$rounds\" != xx ]; do rounds=x$rounds\n{text}\ndone\necho end\n")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]
    #[test]
    fn nothing_stays_on_a_stack(
        constructs in proptest::collection::vec(0..CONSTRUCTS.len(), 1..5),
        jump in 0..JUMPS.len(),
    ) {
        let text = script(&constructs, jump);
        let mut limits = Limits::default().with_steps(20_000);
        limits.depth_max = 60;
        let mut evaluation = Evaluation::new(limits);
        let mut state = String::new();
        load(&mut evaluation, &text);
        evaluation.keep();
        let names = evaluation.state.symbols.len();
        load(&mut evaluation, &text);
        let mut world = World::default();
        // `continue` in a rule may test its label for ever: then the limit ends it.
        let status = finish(&mut evaluation, &mut world);
        state.push_str(&evaluation.leftover());
        prop_assert_eq!(state, "", "{} {:?}", text, status);
        evaluation.reset();
        prop_assert_eq!(evaluation.state.symbols.len(), names);
        load(&mut evaluation, "v=ok\nfor i in a b; do echo $v; done\n");
        let mut after = World::default();
        prop_assert_eq!(finish(&mut evaluation, &mut after), Ok(0));
        prop_assert_eq!(String::from_utf8_lossy(&after.output), "ok\nok\n", "{}", text);
    }
}

#[test]
fn each_construct_with_each_jump() {
    for construct in 0..CONSTRUCTS.len() {
        for jump in 0..JUMPS.len() {
            let text = script(&[construct], jump);
            let mut evaluation = Evaluation::new(Limits::default().with_steps(20_000));
            load(&mut evaluation, &text);
            let status = finish(&mut evaluation, &mut World::default());
            assert_eq!(evaluation.leftover(), "", "{text} {status:?}");
        }
    }
}
