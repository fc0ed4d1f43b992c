//! What a script asked of the outside, in words.

use crate::router::request::{Answer, Failure, Request};

/// None: nobody wants to read about it.
pub(super) fn question(request: &Request) -> Option<String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Some(match request {
        Request::Read { path, user: None } => format!("read {}", text(path)),
        Request::Read {
            path,
            user: Some(user),
        } => format!("read {} as user {user}", text(path)),
        Request::Write { path, .. } => format!("write {}", text(path)),
        Request::Stat { path, .. } => format!("look at {}", text(path)),
        Request::Glob { pattern } => format!("paths like {}", text(pattern)),
        Request::Account(name) => format!("account {}", text(name)),
        Request::AccountOf(number) => format!("account number {number}"),
        Request::Group(name) => format!("group {}", text(name)),
        Request::Run(run) => {
            let words: Vec<String> = run.arguments.iter().map(|word| text(word)).collect();
            format!("run {}", words.join(" "))
        }
        _ => return None,
    })
}

pub(super) fn answer(answer: &Answer) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let failed = |failure: &Failure| {
        if failure.missing {
            "not there".to_owned()
        } else {
            failure.text.clone()
        }
    };
    match answer {
        Answer::File(Ok((bytes, _))) => format!("{} bytes", bytes.len()),
        Answer::Stat(Ok(stat)) => {
            format!(
                "mode {:o}, user {}, group {}",
                stat.mode, stat.user, stat.group
            )
        }
        Answer::Account(Ok(Some(account))) => format!(
            "{}, user {}, home {}",
            text(&account.name),
            account.user,
            text(&account.home)
        ),
        Answer::Account(Ok(None)) | Answer::Group(Ok(None)) => "not there".to_owned(),
        Answer::Group(Ok(Some(members))) => format!("{} members", members.len()),
        Answer::Paths(paths) => format!("{} paths", paths.len()),
        Answer::Ran { status, .. } => format!("status {status}"),
        Answer::NotRun(why) => why.clone(),
        Answer::Done(Ok(())) => "done".to_owned(),
        Answer::File(Err(failure))
        | Answer::Stat(Err(failure))
        | Answer::Account(Err(failure))
        | Answer::Group(Err(failure))
        | Answer::Done(Err(failure)) => failed(failure),
        _ => String::new(),
    }
}
