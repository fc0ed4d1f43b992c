//! What patterns match, and their groups.

use super::*;

fn bytes(pattern: &str, input: &str) -> Option<Vec<String>> {
    let pattern = Pattern::new(Kind::Bytes, pattern.as_bytes()).unwrap();
    let groups = Matcher::default().matches_bytes(&pattern, input.as_bytes())?;
    let text = |range: &(usize, usize)| input[range.0..range.1].to_owned();
    Some(groups[1..].iter().flatten().map(text).collect())
}

fn tokens(pattern: &str, input: &str) -> Option<Vec<String>> {
    let pattern = Pattern::new(Kind::Tokens, pattern.as_bytes()).unwrap();
    let mut tokens = Tokens::default();
    tokens.scan(input.as_bytes());
    let groups = Matcher::default().matches_tokens(&pattern, &mut tokens)?;
    let text = |range: &(usize, usize)| {
        let mut text = Vec::new();
        tokens.text(range.0..range.1, &mut text);
        String::from_utf8(text).unwrap()
    };
    Some(groups[1..].iter().flatten().map(text).collect())
}

#[test]
fn bytes_match_as_a_whole() {
    let cases: &[(&str, &str, Option<&[&str]>)] = &[
        ("bcd", "abcdef", None),
        ("(.*)@(.*)", "a@b@c", Some(&["a@b", "c"])),
        ("([^@]*)@(.*)", "a@b@c", Some(&["a", "b@c"])),
        ("(a|ab)(c|bcd)", "abcd", Some(&["a", "bcd"])),
        ("a{2}", "a{2}", Some(&[])),
        ("(a)\\1", "aa", Some(&["a"])),
        ("(a)\\1", "ab", None),
        ("a**", "aaa", Some(&[])),
        ("(a*)*", "aaa", Some(&["aaa"])),
        ("()aa", "aa", Some(&[""])),
        ("a[]]b", "a]b", Some(&[])),
        ("a[a-]b", "a-b", Some(&[])),
        ("x.y", "x\ny", None),
        ("(x)?foo", "foo", Some(&[])),
        ("((f)|(o))+", "foo", Some(&["o", "f", "o"])),
        ("f\\wo", "foo", Some(&[])),
        ("|foo", "foo", Some(&[])),
        ("^foo$", "foo", Some(&[])),
        ("foo", "Foo", None),
        (".*", "", Some(&[])),
        (".+", "", None),
    ];
    for (pattern, input, expected) in cases {
        let expected = expected.map(|groups| groups.iter().map(|&g| g.to_owned()).collect());
        assert_eq!(bytes(pattern, input), expected, "{pattern} {input}");
    }
}

#[test]
fn tokens_match_as_the_original_does() {
    let cases: &[(&str, &str, Option<&[&str]>)] = &[
        (
            "(.*)@(.*)",
            "joe.user@example.org",
            Some(&["joe.user", "example.org"]),
        ),
        ("\\[.*\\]", "[1.2]", None),
        ("\\[.\\]", "[1.2]", Some(&[])),
        ("(\\[.\\])", "[1.2]", Some(&["[1.2]"])),
        ("\\[(.*)\\]", "[1.2]", Some(&["1.2"])),
        ("(\\[(.+)\\])", "[1.2]", Some(&["1.2", "1.2"])),
        ("\\[1\\.2\\]", "[1.2]", None),
        ("\\[.", "[1.2]", Some(&[])),
        (".\\]", "[1.2]", Some(&[])),
        ("[1]", "[1.2]", Some(&[])),
        ("\\[(.*)\\].*", "[1.2]", Some(&["1.2"])),
        ("(\\[)(.*)(\\])", "[1.2]", Some(&["", "[1.2]", ""])),
        ("\\[(.)\\]x", "[1.2]x", Some(&["1.2"])),
        ("\\[(.+)\\].", "[1.2]x", Some(&["1.2"])),
        ("a.b", "a b", Some(&[])),
        ("a b", "a b", Some(&[])),
        ("(.)(.)", "a b", None),
        ("(.)(.)(.)", "a(X)b", Some(&["a", "X", "b"])),
        ("aXb", "a(X)b", Some(&[])),
        ("q s@x", "\"q s\"@x", Some(&[])),
        ("\"q s\"@x", "\"q s\"@x", None),
        ("([^@]*)@x", "\"q s\"@x", Some(&["\"q s\""])),
        ("(a|a\\.b)(.*)", "a.b@c", Some(&["a", ".b@c"])),
        ("(.*)(@c)?", "a.b@c", Some(&["a.b@c"])),
        ("A\\.B@C", "a.b@c", Some(&[])),
        ("a.?b@c", "a.b@c", Some(&[])),
        ("(a|x)+.*", "a.b@c", Some(&["a"])),
        ("([a-b]+)@(.)", "a.b@c", None),
        ("(.+)\\+(.+)", "joe+x", None),
        ("joe.*", "joe+x", None),
        ("[j]", "joe+x", Some(&[])),
        ("(.)(.)(.)", "a\\@b", Some(&["a", "\\@", "b"])),
    ];
    for (pattern, input, expected) in cases {
        let expected = expected.map(|groups| groups.iter().map(|&g| g.to_owned()).collect());
        assert_eq!(tokens(pattern, input), expected, "{pattern} {input}");
    }
}

#[test]
fn hostile_input_takes_no_exponential_time() {
    let input = "a".repeat(20_000);
    assert_eq!(bytes("(a*)*b", &input), None);
    assert_eq!(bytes("(a|a)*(a|a)*c", &input), None);
    assert_eq!(bytes("(a*)*\\1b", &"a".repeat(2_000)), None);
}
