//! Addresses and scripts that mean harm.

use proptest::prelude::*;
use proptest::test_runner::Config;

use crate::targets;

/// What an attacker would try, and what gives random text a meaning.
const PIECES: &[&[u8]] = &[
    b"\"",
    b"'",
    b"\\",
    b"`",
    b"$(",
    b"${",
    b"$x",
    b"$address",
    b"$A",
    b")",
    b"}",
    b"|",
    b"||",
    b";",
    b"&",
    b"&&",
    b"\n",
    b"\r\n",
    b"\0",
    b"\t",
    b" ",
    b"<",
    b">",
    b"@",
    b"@@",
    b"%",
    b"!",
    b":",
    b",",
    b"(",
    b"[",
    b"]",
    b"*",
    b"?",
    b".*",
    b"(.*)",
    b"\\1",
    b"#",
    b"=",
    b"~",
    b"/",
    b"../",
    b"..",
    b".",
    b"-",
    b"+",
    b"--",
    b"|/bin/sh",
    b"$(touch /tmp/owned)",
    b"`touch /tmp/owned`",
    b"; touch /tmp/owned",
    b"\n. /etc/passwd\n",
    b":include:/etc/passwd",
    b":include:",
    b"/etc/passwd",
    b"\\joe",
    b"real-joe",
    b"joe",
    b"team",
    b"team-owner",
    b"staff",
    b"loop",
    b"incl",
    b"example.org",
    b"@example.org",
    b"mx.example.org",
    b"far.example",
    b"hop.example",
    b"@[smtp]:",
    b"@[local]:",
    b"[127.0.0.1]",
    b"[IPv6:::1]",
    b"SRS0=",
    b"SRS1=",
    b"\xff",
    b"\xc3\xa4",
    b"\x80",
    b"fi",
    b"esac",
    b"done",
    b"tfiss",
    b"return",
    b"exit",
    b"eval",
    b"db flush aliases",
    b"relation -t incore x",
];

/// What scripts are made of.
const WORDS: &[&[u8]] = &[
    b"if ",
    b"then ",
    b"else ",
    b"elif ",
    b"fi\n",
    b"for i in ",
    b"while ",
    b"until ",
    b"do ",
    b"done\n",
    b"case $x in ",
    b"esac\n",
    b"a) ",
    b"*) ",
    b";;\n",
    b"ssift \"$x\" in\n",
    b"tsift \"$x\" in\n",
    b"tfiss\n",
    b"tfist\n",
    b"(.*)@(.*)\t",
    b"f (a, b) {\n",
    b"}\n",
    b"{ ",
    b"( ",
    b") ",
    b"$(",
    b"`",
    b"\"",
    b"'",
    b"\\",
    b"${x:-",
    b"<<E\n",
    b"E\n",
    b"> /tmp/owned",
    b"2>&1 ",
    b"| ",
    b"&& ",
    b"|| ",
    b"; ",
    b"\n",
    b"x=(a b)",
    b"x=y",
    b"local x\n",
    b"return ",
    b"break\n",
    b"continue\n",
    b"echo ",
    b"$x ",
    b"$@ ",
    b"\\1",
    b"relation -t incore r\n",
    b"db add r a b\n",
    b"eval ",
    b". ",
    b"#",
    b"f ",
    b"lappend x ",
    b"elements $x",
    b"sh -c x",
];

fn text(pieces: &'static [&'static [u8]], most: usize) -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        8 => prop::sample::select(pieces).prop_map(<[u8]>::to_vec),
        1 => prop::collection::vec(any::<u8>(), 0..8),
    ];
    prop::collection::vec(piece, 0..most).prop_map(|pieces| pieces.concat())
}

fn config(cases: u32) -> Config {
    Config {
        cases,
        // A failure prints its input; no files are written.
        failure_persistence: None,
        ..Config::default()
    }
}

/// Scripts that nearly make sense.
pub fn scripts() -> impl Strategy<Value = Vec<u8>> {
    text(WORDS, 30)
}

proptest! {
    #![proptest_config(config(1500))]

    #[test]
    fn no_address_is_code(kind in any::<u8>(), address in text(PIECES, 12)) {
        let mut data = vec![kind];
        data.extend(address);
        targets::routing(&data);
    }

    #[test]
    fn any_text_is_a_script_or_refused(text in scripts()) {
        targets::script(&text);
    }
}

#[test]
fn long_addresses_end() {
    for (address, count) in [
        ("a", 100_000),
        ("a.", 20_000),
        ("@", 20_000),
        ("a@", 5_000),
        ("%a", 5_000),
        ("a!", 5_000),
        ("\"", 20_000),
        ("\\", 20_000),
        ("(", 20_000),
        ("a+", 5_000),
        (",a", 5_000),
        ("$(", 20_000),
    ] {
        for kind in [0, 100, 200] {
            let mut data = vec![kind];
            data.extend(address.repeat(count).bytes());
            data.extend(b"@example.org");
            targets::routing(&data);
        }
    }
}

#[test]
fn deep_and_long_scripts_are_refused_or_end() {
    for (opening, count) in [
        ("(", 100_000),
        ("{ ", 100_000),
        ("$(", 100_000),
        ("`", 100_000),
        ("\"$(", 50_000),
        ("${x:-", 50_000),
        ("if ", 50_000),
        ("f () ", 50_000),
        ("a | ", 100_000),
        ("a && ", 100_000),
        ("x=(", 50_000),
        ("case x in a) ", 20_000),
        ("<<E ", 20_000),
        ("ssift x in\na ", 20_000),
        ("`x=(a` ", 1_000),
        ("`for i in a` ", 1_000),
    ] {
        targets::script(opening.repeat(count).as_bytes());
    }
}
