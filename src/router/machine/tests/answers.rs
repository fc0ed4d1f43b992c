//! What was answered from outside is shared by the messages of a shard.

use super::{Evaluation, Turn, configured};
use crate::base::clock::Now;
use crate::router::relation::{NoMaps, Question, Record, Reply};
use crate::router::request::{Answer, Request};

const SCRIPT: &str = "relation -Nt bind,a -s 100 -e 60 names\n\
    relation -t bind,txt -s 100 -e 60 users\n\
    look (name, key) { returns \"$($name $key)\" }\n\
    mine (key) {\nrelation -Nt bind,a -s 10 own\nreturns \"$(own $key)$(own $key)\"\n}\n\
    forget () { db flush names; db flush users; }\n";

fn second(seconds: u64) -> Now {
    Now {
        mono_ns: seconds * 1_000_000_000,
        wall_ms: seconds * 1000,
    }
}

/// What a function returns, and how often somebody outside was asked.
fn call(evaluation: &mut Evaluation, function: &str, words: &[&str], now: Now) -> (String, usize) {
    let words = words.iter().map(|word| (*word).into()).collect();
    assert!(evaluation.call(function.as_bytes(), words));
    let mut asked = 0;
    loop {
        match evaluation.run(&NoMaps, now) {
            Turn::Done(_) => break,
            Turn::More => {}
            Turn::Need(Request::Ask(question)) => {
                asked += 1;
                evaluation.answer(Answer::Reply(reply(&question)));
            }
            // `db flush` says that such a database has nothing of its own.
            Turn::Need(Request::Output { .. }) => evaluation.answer(Answer::Done(Ok(()))),
            other => panic!("{other:?}"),
        }
    }
    let value = evaluation.take_returned();
    let value = value.and_then(|value| value.text().map(|text| text.to_vec()));
    let value = String::from_utf8(value.unwrap_or_default()).unwrap();
    (value, asked)
}

fn reply(question: &Question) -> Reply {
    match question {
        Question::Bind {
            record: Record::Txt,
            name,
        } if name.starts_with(b"no") => Reply::Missing(None),
        Question::Bind { name, .. } if name.starts_with(b"short") => {
            Reply::Text(b"1".to_vec(), Some(5))
        }
        Question::Bind { name, .. } if name.starts_with(b"no") => Reply::Missing(Some(20)),
        Question::Bind { name, .. } if name.starts_with(b"later") => Reply::Later(b"NS:x".to_vec()),
        _ => Reply::Text(b"value".to_vec(), None),
    }
}

#[test]
fn a_second_message_does_not_ask_again() {
    let base = configured(SCRIPT);
    let rows = [
        // Relation, key, value, asked at once, by a second message, 10 s, 30 s and 70 s later.
        ("names", "short", "1", [1, 0, 1, 1, 1]),
        ("names", "long", "value", [1, 0, 0, 0, 1]),
        ("names", "none", "", [1, 0, 0, 1, 1]),
        ("names", "later", "", [1, 1, 1, 1, 1]),
        ("users", "joe", "value", [1, 0, 0, 0, 1]),
        ("users", "nobody", "", [1, 1, 1, 1, 1]),
    ];
    for (name, key, value, asked) in rows {
        // The first two are under way together.
        let mut messages = [base.fork(), base.fork()];
        for (at, seconds) in [0, 0, 10, 30, 70].into_iter().enumerate() {
            let mut later = base.fork();
            let message = messages.get_mut(at).unwrap_or(&mut later);
            let said = call(message, "look", &[name, key], second(1000 + seconds));
            assert_eq!(said, (value.to_owned(), asked[at]), "{name} {key} {at}");
            message.reset();
        }
    }
}

#[test]
fn answers_are_forgotten_when_somebody_says_so() {
    let base = configured(SCRIPT);
    let look = |key: &str| call(&mut base.fork(), "look", &["names", key], second(1));
    assert_eq!((look("a").1, look("a").1), (1, 0));
    base.forget_answers();
    assert_eq!((look("a").1, look("a").1), (1, 0));
    call(&mut base.fork(), "forget", &[], second(1));
    assert_eq!((look("a").1, look("a").1), (1, 0));
    // Another configuration begins without answers.
    let other = configured(SCRIPT);
    let said = call(&mut other.fork(), "look", &["names", "a"], second(1));
    assert_eq!(said.1, 1);
}

/// A relation of the same number in another message may be a different one.
#[test]
fn what_a_message_defines_it_remembers_for_itself() {
    let base = configured(SCRIPT);
    let mut message = base.fork();
    let value = "valuevalue".to_owned();
    for _ in 0..2 {
        assert_eq!(
            call(&mut message, "mine", &["k"], second(1)),
            (value.clone(), 1)
        );
        message.reset();
    }
    assert_eq!(
        call(&mut base.fork(), "mine", &["k"], second(1)),
        (value, 1)
    );
}
