//! The language itself under message processing.

use super::*;
use crate::base::clock::Now;
use crate::router::diagnostic::Source;
use crate::router::machine::{Evaluation, Limits};
use crate::router::relation::NoMaps;
use crate::router::runner::Runner;

const SCRIPT: &str = r#"
hostname here
router (address, A) {
	local new
	tsift "$address" in
	nobody@here	returns (((error nosuchuser "$address" $A))) ;;
	team@here
		new=$(gensym)
		eval $new='(privilege 7 type recipient ERR team-owner@here)'
		returns (((smtp a.example ann@a.example $new)) ((smtp b.example bob@b.example $new))) ;;
	(.+)@here	returns (((local "$address" "\1" $A))) ;;
	(.+)@(.+)	returns (((smtp "\2" "$address" $A))) ;;
	(.+)		returns (((local "$address" "\1" $A))) ;;
	tfist
}
crossbar (from, to) {
	case "$(channel $from)" in
	local)	returns (qualify $from $to) ;;
	esac
	returns (null $from $to)
}
qualify (address, field) {
	tsift "$address" in
	[^@]+
		if sender; then
			returns "$address+me@here"
		fi
		returns "$address@here" ;;
	tfist
	returns "$address"
}
"#;

fn run(facts: Facts, content: &str) -> Routed {
    let mut evaluation = Evaluation::new(Limits::default());
    let source = Source::new("test.cf", SCRIPT.as_bytes());
    assert!(evaluation.load(&source, &[]).is_ok());
    let mut runner = Runner {
        evaluation: &mut evaluation,
        maps: &NoMaps,
        now: Now::default(),
    };
    let loaded = Script::run(&mut runner);
    assert!(
        matches!(&loaded, Turn::Done(reply) if reply.status == 0),
        "{loaded:?}"
    );
    let mut routing = Routing::new(facts, Rc::new(Basis::new(settings())));
    match routing.run(&mut runner, Some(content.as_bytes())) {
        Progress::Done(routed) => routed,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_script_routes_and_rewrites() {
    let mut facts = facts(&["team@here", "nobody@here", "carol@far"]);
    facts.sender = b"joe@here".to_vec();
    facts.origin = joe(false);
    let content = format!("To: bob, carol@far\r\nFrom: joe\r\nMessage-Id: <1@x>\r\n{DATE}{BODY}");
    let result = run(facts, &content);
    assert_eq!(result.problems.len(), 1);
    assert_eq!(result.problems[0].status, "5.1.1");
    let [team, others] = result.groups.as_slice() else {
        panic!("{result:?}");
    };
    assert_eq!(team.errors_to.as_deref(), Some(&b"team-owner@here"[..]));
    let quads: Vec<(Vec<u8>, u32)> = team
        .recipients
        .iter()
        .map(|to| (to.user.into_vec(), to.privilege))
        .collect();
    assert_eq!(
        quads,
        [
            (b"ann@a.example".to_vec(), 7),
            (b"bob@b.example".to_vec(), 7)
        ]
    );
    assert_eq!(others.recipients.get(0).unwrap().privilege, 2001);
    let expected = format!(
        "To: bob@here, carol@far\r\nFrom: joe+me@here\r\nMessage-Id: <1@x>\r\n{DATE}{BODY}"
    );
    assert_eq!(delivered(others, &content), expected);
    assert_eq!(delivered(team, &content), expected);
}

/// What stands in an address is never run or expanded.
#[test]
fn addresses_are_data() {
    for evil in [
        "$(echo x)@far",
        "`echo x`@far",
        "\"a b;c|d\"@far",
        "*@far",
        "\\$HOME@far",
        "a&b@far",
        "'x'@far",
        "${x-y}@far",
    ] {
        let result = run(facts(&[evil]), "");
        let user = result.groups[0].recipients.get(0).unwrap().user;
        assert_eq!(String::from_utf8_lossy(&user), evil);
    }
}
