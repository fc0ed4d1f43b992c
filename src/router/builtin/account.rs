//! Accounts, file privilege, and what scripts set for the router around them.

use super::{Flow, USAGE};
use crate::router::machine::{Arguments, Evaluation};
use crate::router::request::{Account, Answer, Failure, Request, Stat};

fn write_line(machine: &mut Evaluation, line: &[u8]) {
    machine.write(line);
    machine.write(b"\n");
    machine.status = 0;
}

fn usage(machine: &mut Evaluation, text: &str) -> Flow {
    machine.complain(&format!("Usage: {text}"));
    machine.status = USAGE;
    Ok(())
}

pub(super) fn hostname(machine: &mut Evaluation, arguments: Arguments) -> Flow {
    let words = machine.texts(arguments);
    if let Some(name) = words.first() {
        machine.router.hostname = Some(name.clone());
        machine.status = 0;
        return Ok(());
    }
    if let Some(name) = machine.router.hostname.clone() {
        write_line(machine, &name);
        return Ok(());
    }
    machine.need(Request::Hostname, |machine, answer| {
        let Answer::Hostname(name) = answer else {
            unreachable!("{answer:?} is no name of a host")
        };
        write_line(machine, &name);
        Ok(())
    })
}

pub(super) fn is_error_message(machine: &mut Evaluation, _arguments: Arguments) -> Flow {
    machine.status = i32::from(!machine.router.error_message);
    Ok(())
}

pub(super) fn is_sender(machine: &mut Evaluation, _arguments: Arguments) -> Flow {
    machine.status = i32::from(machine.router.of_sender != Some(true));
    Ok(())
}

pub(super) fn is_recipient(machine: &mut Evaluation, _arguments: Arguments) -> Flow {
    machine.status = i32::from(machine.router.of_sender != Some(false));
    Ok(())
}

pub(super) fn is_interactive(machine: &mut Evaluation, _arguments: Arguments) -> Flow {
    machine.status = i32::from(!machine.router.interactive);
    Ok(())
}

/// Asks for an account; `then` goes on with it.
fn account(
    machine: &mut Evaluation,
    name: Vec<u8>,
    then: impl FnOnce(&mut Evaluation, Option<Account>) -> Flow + 'static,
) -> Flow {
    let reason = [b"HOME:", name.as_slice()].concat();
    machine.need(
        Request::Account(name),
        move |machine, answer| match answer {
            Answer::Account(Ok(account)) => then(machine, account),
            Answer::Account(Err(Failure { .. })) => {
                machine.defer(&reason);
                machine.status = 3;
                Ok(())
            }
            answer => unreachable!("{answer:?} is no account"),
        },
    )
}

pub(super) fn login_to_uid(machine: &mut Evaluation, arguments: Arguments) -> Flow {
    let words = machine.texts(arguments);
    let [name] = words.as_slice() else {
        return usage(machine, "login2uid login");
    };
    account(machine, name.clone(), |machine, account| {
        let uid = account.map_or(machine.router.nobody, |account| account.user);
        write_line(machine, uid.to_string().as_bytes());
        Ok(())
    })
}

pub(super) fn uid_to_login(machine: &mut Evaluation, arguments: Arguments) -> Flow {
    let words = machine.texts(arguments);
    let number = match words.as_slice() {
        [word] => std::str::from_utf8(word)
            .ok()
            .and_then(|text| text.parse().ok()),
        _ => None,
    };
    let Some(number) = number else {
        return usage(machine, "uid2login uid");
    };
    machine.need(Request::AccountOf(number), move |machine, answer| {
        let name = match answer {
            Answer::Account(Ok(Some(account))) => account.name,
            _ => format!("uid#{number}").into_bytes(),
        };
        write_line(machine, &name);
        Ok(())
    })
}

pub(super) fn home(machine: &mut Evaluation, arguments: Arguments) -> Flow {
    let words = machine.texts(arguments);
    let [name] = words.as_slice() else {
        return usage(machine, "homedirectory name");
    };
    account(machine, name.to_ascii_lowercase(), |machine, account| {
        match account {
            Some(account) => write_line(machine, &account.home),
            None => machine.status = 2,
        }
        Ok(())
    })
}

pub(super) fn members(machine: &mut Evaluation, arguments: Arguments) -> Flow {
    let words = machine.texts(arguments);
    let [name] = words.as_slice() else {
        return usage(machine, "groupmembers groupname");
    };
    let reason = [b"GROUP:", name.as_slice()].concat();
    machine.need(Request::Group(name.clone()), move |machine, answer| {
        machine.status = 0;
        match answer {
            Answer::Group(Ok(Some(members))) => {
                for member in members {
                    machine.write(&member);
                    machine.write(b"\n");
                }
            }
            Answer::Group(Ok(None)) => machine.status = 1,
            _ => {
                machine.defer(&reason);
                machine.status = 3;
            }
        }
        Ok(())
    })
}

/// Bits that a trusted file may have at most, whatever `-M` says.
const PERMISSION_MAX: u32 = 0o664;

pub(super) fn file_privilege(machine: &mut Evaluation, arguments: Arguments) -> Flow {
    let words = machine.texts(arguments);
    let (mask, rest) = match words.as_slice() {
        [option, mask, rest @ ..] if option == b"-M" => {
            let text = std::str::from_utf8(mask).unwrap_or("x");
            (u32::from_str_radix(text, 8).unwrap_or(u32::MAX), rest)
        }
        rest => (0o644, rest),
    };
    let (file, owner) = match rest {
        [file] => (file.clone(), None),
        [file, owner] => {
            let text = std::str::from_utf8(owner).unwrap_or("");
            (file.clone(), text.parse::<u32>().ok())
        }
        _ => return usage(machine, "filepriv [-M maxperm] pathname [ uid ]"),
    };
    if mask & !PERMISSION_MAX != 0 {
        return usage(
            machine,
            "filepriv [-M maxperm] pathname [ uid ]; maxperm must be 664 or stricter",
        );
    }
    if let Some(owner) = owner {
        let stat = Stat {
            mode: 0o100_400,
            user: owner,
            ..Stat::default()
        };
        return directory_privilege(machine, &file, stat, mask);
    }
    let request = Request::Stat {
        path: file.clone(),
        link: false,
        user: machine.acting_user(),
    };
    machine.need(request, move |machine, answer| match answer {
        Answer::Stat(Ok(stat)) if stat.access & 4 != 0 => {
            directory_privilege(machine, &file, stat, mask)
        }
        _ => {
            let file = String::from_utf8_lossy(&file).into_owned();
            machine.complain(&format!("filepriv: cannot open {file}"));
            machine.status = 2;
            Ok(())
        }
    })
}

fn directory_privilege(machine: &mut Evaluation, file: &[u8], stat: Stat, mask: u32) -> Flow {
    let Some(slash) = file.iter().rposition(|byte| *byte == b'/') else {
        write_line(machine, stat.user.to_string().as_bytes());
        return Ok(());
    };
    let path = file[..slash.max(1)].to_vec();
    let user = machine.acting_user();
    machine.need(
        Request::Stat {
            path,
            link: false,
            user,
        },
        move |machine, answer| {
            match answer {
                Answer::Stat(Ok(directory)) if directory.mode & 0o170_000 == 0o040_000 => {
                    let uid = privilege(stat, directory, mask, machine.router.nobody);
                    write_line(machine, uid.to_string().as_bytes());
                }
                _ => {
                    machine.complain("filepriv: not in a directory");
                    machine.status = 4;
                }
            }
            Ok(())
        },
    )
}

/// The file's owner, or nobody when somebody else could have written it: others may write to it (as far as its
/// directory lets them reach it), its directory is writable for others, or belongs to somebody else than the owner
/// and root.
fn privilege(file: Stat, directory: Stat, mask: u32, nobody: u32) -> u32 {
    let reach = match (directory.mode & 0o010 != 0, directory.mode & 0o001 != 0) {
        (false, false) => 0o7700,
        (true, false) => 0o7770,
        (_, true) => 0o7777,
    };
    let regular = file.mode & 0o170_000 == 0o100_000;
    let tight = file.mode & reach & !mask == 0;
    let writable = directory.mode & 0o022 != 0 && directory.mode & 0o1000 == 0;
    let own = directory.user == 0 || directory.user == file.user;
    if regular && tight && !writable && own {
        file.user
    } else {
        nobody
    }
}

pub(super) fn run_as(machine: &mut Evaluation, arguments: Arguments) -> Flow {
    let mut values = machine.take_arguments(arguments);
    if values.len() < 2 {
        return usage(machine, "runas user function [args...]");
    }
    let user = values.remove(0).bytes().to_vec();
    let digits = user.strip_prefix(b"-").unwrap_or(&user);
    if digits.first().is_some_and(u8::is_ascii_digit) {
        let number = std::str::from_utf8(digits)
            .ok()
            .and_then(|text| text.parse().ok());
        let user = number
            .filter(|_| digits.len() == user.len())
            .unwrap_or(machine.router.nobody);
        return machine.run_with_rights_of(user, values);
    }
    account(machine, user, |machine, account| {
        let user = account.map_or(machine.router.nobody, |account| account.user);
        machine.run_with_rights_of(user, values)
    })
}

pub(super) fn logger(machine: &mut Evaluation, arguments: Arguments) -> Flow {
    let words = machine.texts(arguments);
    let (priority, rest) = match words.as_slice() {
        [option, priority, rest @ ..] if option == b"-p" => {
            (String::from_utf8_lossy(priority).into_owned(), rest)
        }
        rest => ("info".to_owned(), rest),
    };
    if rest.is_empty() || !PRIORITIES.contains(&priority.rsplit('.').next().unwrap_or("")) {
        return usage(machine, "logger [-p priority] text");
    }
    let text = rest.join(&b' ');
    machine.need(Request::Log { priority, text }, |machine, _| {
        machine.status = 0;
        Ok(())
    })
}

/// Priorities of syslog(3).
const PRIORITIES: &[&str] = &[
    "emerg", "panic", "alert", "crit", "err", "error", "warning", "warn", "notice", "info", "debug",
];

/// Topics of the original's `trace`.
const TOPICS: &[&str] = &[
    "all",
    "assign",
    "bind",
    "compare",
    "db",
    "except",
    "final",
    "functions",
    "matched",
    "memory",
    "off",
    "on",
    "regexp",
    "resolv",
    "rewrite",
    "rfc822",
    "router",
    "sequencer",
];

/// `trace` and `untrace`: known topics are taken and change nothing; see `zmailer route --explain`.
pub(super) fn trace(machine: &mut Evaluation, arguments: Arguments) -> Flow {
    let words = machine.texts(arguments);
    let known = |word: &Vec<u8>| {
        TOPICS
            .iter()
            .any(|topic| topic.as_bytes().eq_ignore_ascii_case(word))
    };
    if words.is_empty() || !words.iter().all(known) {
        return usage(machine, "trace topic...");
    }
    machine.status = 0;
    Ok(())
}

pub(super) fn stability(machine: &mut Evaluation, arguments: Arguments) -> Flow {
    match machine.texts(arguments).as_slice() {
        [] => write_line(machine, b"stability on"),
        [word] if word == b"on" || word == b"off" => machine.status = 0,
        _ => return usage(machine, "stability on|off"),
    }
    Ok(())
}

/// Events that `squirrel` knows.
const EVENTS: &[&str] = &["breakin", "badheader", "illheader", "nochannel", "nosender"];

pub(super) fn squirrel(machine: &mut Evaluation, arguments: Arguments) -> Flow {
    let words = machine.texts(arguments);
    let mut known = !words.is_empty();
    for word in &words {
        let (keep, name) = match word.strip_prefix(b"-") {
            Some(name) => (false, name),
            None => (true, word.as_slice()),
        };
        let event = EVENTS
            .iter()
            .find(|event| event.as_bytes().eq_ignore_ascii_case(name));
        match event {
            Some(event) => {
                machine.router.squirrels.retain(|kept| kept != event);
                if keep {
                    machine.router.squirrels.push(event);
                }
            }
            None => known = false,
        }
    }
    machine.status = 0;
    if known {
        Ok(())
    } else {
        usage(machine, "squirrel [-]event...")
    }
}

pub(super) fn error_addresses(machine: &mut Evaluation, arguments: Arguments) -> Flow {
    let words = machine.texts(arguments);
    if words.len() > 1 {
        return usage(machine, "erraddron [file]");
    }
    machine.router.error_addresses = words.first().cloned();
    machine.status = 0;
    Ok(())
}

/// `rfc822`: the message that `process` was called for is wanted.
pub(super) fn take_message(machine: &mut Evaluation, arguments: Arguments) -> Flow {
    if machine.texts(arguments).len() != 1 {
        return usage(machine, "rfc822 message");
    }
    machine.status = i32::from(machine.router.processed.is_none());
    if machine.router.processed.is_some() {
        machine.router.processed = Some(true);
    } else {
        machine.complain("rfc822: there is no message in hand");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn privilege_falls_to_nobody() {
        let file = |mode: u32| Stat {
            mode: 0o100_000 | mode,
            user: 7,
            ..Stat::default()
        };
        let directory = |mode: u32, user| Stat {
            mode: 0o040_000 | mode,
            user,
            ..Stat::default()
        };
        let of = |file, directory| privilege(file, directory, 0o644, 65534);
        assert_eq!(of(file(0o644), directory(0o755, 0)), 7);
        assert_eq!(of(file(0o644), directory(0o755, 7)), 7);
        assert_eq!(of(file(0o644), directory(0o755, 8)), 65534);
        assert_eq!(of(file(0o664), directory(0o755, 0)), 65534);
        assert_eq!(of(file(0o664), directory(0o700, 0)), 7);
        assert_eq!(of(file(0o644), directory(0o775, 0)), 65534);
        assert_eq!(of(file(0o644), directory(0o1777, 0)), 7);
        let special = Stat {
            mode: 0o020_644,
            user: 7,
            ..Stat::default()
        };
        assert_eq!(of(special, directory(0o755, 0)), 65534);
    }
}
